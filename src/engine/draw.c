/* draw.c - from logits to posted tokens. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"
#include "engine/scheduler_private.h"
#include "engine/stats.h"

static void find_end_tokens(struct sched *s)
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

int sched_open_drawing(struct sched *s)
{
    const struct runtime *rt = s->rt;
    size_t n_lists = (size_t)s->o.max_sequences;
    size_t n_rows = n_lists > PROMPT_ROWS ? n_lists : PROMPT_ROWS;

    s->logits_bytes = n_rows * (size_t)rt->hp.vocab * sizeof(float);
    s->logits = mem_aligned(s->logits_bytes);
    if (!s->logits)
        return GD_ENOMEM;
    s->n_samplers = pool_threads(rt->pool);
    s->samplers = xcalloc((size_t)s->n_samplers, sizeof(struct sampler *));
    for (int i = 0; i < s->n_samplers; i++)
        s->samplers[i] = sampler_create(&rt->kernels, rt->hp.vocab);
    s->lists = xcalloc(n_lists, sizeof(*s->lists));
    s->best = xcalloc(n_lists * SHORTLIST_MAX, sizeof(*s->best));
    for (size_t i = 0; i < n_lists; i++)
        s->lists[i].best = s->best + i * SHORTLIST_MAX;
    find_end_tokens(s);
    return 0;
}

void sched_close_drawing(struct sched *s)
{
    for (int i = 0; i < s->n_samplers; i++)
        sampler_destroy(s->samplers[i]);
    mem_aligned_free(s->logits, s->logits_bytes);
    free(s->samplers);
    free(s->lists);
    free(s->best);
    free(s->end_tokens);
}

void sched_count_head(struct sched *s)
{
    int64_t read[2] = {0}, whole[2] = {0};

    graph_head_bytes(s->rt->prefill, &read[0], &whole[0]);
    if (s->rt->decode)
        graph_head_bytes(s->rt->decode, &read[1], &whole[1]);
    s->stats.head_bytes_read = (uint64_t)(read[0] + read[1]);
    s->stats.head_bytes_whole = (uint64_t)(whole[0] + whole[1]);
}

static struct sampler_input input_of(const struct sched *s, const struct choice *c)
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
    return in;
}

void sched_ask(struct sched *s, const struct choice *c, int row, struct graph_seq *seq)
{
    struct sampler_input in = input_of(s, c);
    struct shortlist *list = &s->lists[row];

    seq->n_logits = 1;
    seq->logits = s->logits + (size_t)row * (size_t)s->rt->hp.vocab;
    if (c->job->params.logprobs >= 0) /* they want the sum of the row */
        return;
    if (!sampler_shortlist(&in, s->rt->hp.vocab, list))
        return;
    if (!c->forked && list->draw.scale > 0) { /* each choice of the job draws for itself */
        list->draw.scale = 0;
        list->choose = NULL;
        if (list->k == 1 || list->row_else)
            return;
    }
    seq->best = list;
}

void sched_sample_seq(
    struct sched *s, struct choice *c, struct sampler *sampler, const struct graph_seq *seq)
{
    const struct job_params *p = &c->job->params;
    struct sampler_input in = input_of(s, c);

    c->pick = (struct pick){0};
    if (seq->best && seq->best->n) {
        c->pick.id = sampler_pick_from(sampler, seq->best, &in);
        return;
    }
    c->pick.id = sampler_pick(sampler, seq->logits, &in);
    if (c->pick.id >= 0 && p->logprobs >= 0)
        c->pick.n_top = sampler_logprobs(
            sampler, seq->logits, c->pick.id, p->logprobs, &c->pick.logprob, c->pick.top);
}

static void sample_share(void *arg, int thread, int n_threads)
{
    struct sched *s = arg;
    int first, last;

    pool_share(s->n_rows, thread, n_threads, &first, &last);
    for (int i = first; i < last; i++)
        if (s->seqs[i].n_logits)
            sched_sample_seq(s, s->rows[i], s->samplers[thread], &s->seqs[i]);
}

void sched_sample(struct sched *s)
{
    if (s->n_rows == 1)
        sample_share(s, 0, 1);
    else
        pool_run(s->rt->pool, sample_share, s);
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
