/* draw.c - from logits to posted tokens. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "engine/scheduler_private.h"
#include "engine/stats.h"

void sched_find_end_tokens(struct sched *s)
{
    int n = tokenizer_n_tokens(s->rt->tok);

    n = n < s->rt->hp.vocab ? n : s->rt->hp.vocab;
    for (int32_t id = 0; id < n; id++) {
        if (!tokenizer_is_eog(s->rt->tok, id))
            continue;
        s->end_tokens = xrealloc(s->end_tokens, (s->n_end_tokens + 1) * sizeof(*s->end_tokens));
        s->end_tokens[s->n_end_tokens++] = id;
    }
}

void sched_sample_row(struct sched *s, struct choice *c, struct sampler *sampler, float *row)
{
    const struct job_params *p = &c->job->params;
    struct sampler_input in = {
        .params = &p->sampling,
        .seed = c->job->seed,
        .choice = c->index,
        .tokens = c->tokens,
        .n_tokens = c->n_tokens,
        .n_prompt = c->job->n_prompt,
    };

    if (choice_answered(c) < p->min_tokens) {
        in.banned[0].ids = s->end_tokens;
        in.banned[0].n = p->ignore_eos ? 0 : s->n_end_tokens;
        in.banned[1].ids = p->stop_ids;
        in.banned[1].n = p->n_stop_ids;
    }
    c->pick = (struct pick){.id = sampler_pick(sampler, row, &in)};
    if (c->pick.id >= 0 && p->logprobs >= 0)
        c->pick.n_top =
            sampler_logprobs(sampler, row, c->pick.id, p->logprobs, &c->pick.logprob, c->pick.top);
}

struct sampling_run {
    struct sched *s;
    int n;
};

static void sample_share(void *arg, int thread, int n_threads)
{
    struct sampling_run *run = arg;
    int first, last;

    pool_share(run->n, thread, n_threads, &first, &last);
    for (int i = first; i < last; i++)
        sched_sample_row(run->s, run->s->rows[i], run->s->samplers[thread], run->s->seqs[i].logits);
}

void sched_sample(struct sched *s, int n)
{
    struct sampling_run run = {s, n};

    if (n == 1)
        sample_share(&run, 0, 1);
    else
        pool_run(s->rt->pool, sample_share, &run);
}

static void measure(struct sched *s, struct choice *c)
{
    int64_t now = clock_ns();

    if (c->last_token_ns)
        histogram_add(&s->stats.inter_token, (double)(now - c->last_token_ns) / 1e9);
    else if (c->index == 0)
        histogram_add(&s->stats.ttft, (double)(now - c->job->submit_ns) / 1e9);
    c->last_token_ns = now;
    s->stats.completion_tokens++;
}

void sched_accept(struct sched *s, struct choice *c)
{
    struct finish finish;

    if (c->pick.id < 0) {
        finish = (struct finish){.reason = FINISH_ERROR, .stop = -1, .stop_id = -1};
        err_fill(&finish.err, GD_EINTERNAL,
            "no token can be drawn: the model gave no finite logit, or all tokens are banned");
        sched_end(s, c, &finish);
        return;
    }
    measure(s, c);
    s->news = true;
    if (choice_accept(c, s->rt->tok, &finish))
        sched_end(s, c, &finish);
}

void sched_score_prompt(struct sched *s, struct choice *c, int n)
{
    int first = c->past - n, wanted = c->job->params.logprobs;
    struct token_alternative top[LOGPROBS_MAX];
    struct event_token token = {.top = top};

    if (first == 0) { /* nothing comes before the first token: no probability */
        token.id = c->tokens[0];
        piece_add_token(&c->prompt_news, &token);
    }
    for (int i = 0; i < n && first + i + 1 < c->job->n_prompt; i++) {
        const float *row = s->logits + (size_t)i * (size_t)s->rt->hp.vocab;

        token.id = c->tokens[first + i + 1];
        token.n_top = sampler_logprobs(s->samplers[0], row, token.id, wanted, &token.logprob, top);
        piece_add_token(&c->prompt_news, &token);
    }
}

void sched_post_prompt(struct sched *s, struct choice *c)
{
    job_post_prompt(c->job, &c->prompt_news);
    s->news = true;
}
