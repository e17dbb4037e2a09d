/* submit.c - how a job comes to the engine and how it is let go. Any thread. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/private.h"
#include "engine/prompt.h"

void job_params_default(struct job_params *p)
{
    *p = (struct job_params){
        .prompt.add_generation_prompt = true,
        .n = 1,
        .max_tokens = -1,
        .logprobs = -1,
        .skip_special = true,
    };
    sampling_default(&p->sampling);
}

static int check_kind(const struct engine *e, const struct job_params *p, struct err *err)
{
    if (p->embed && !e->info.embed_width)
        return err_set_at(
            err, GD_ENOTSUP, "model", "the model generates text and makes no embeddings");
    if (!p->embed && e->info.embed_width)
        return err_set_at(
            err, GD_ENOTSUP, "model", "the model makes embeddings and generates no text");
    if (p->embed && p->prompt.kind == PROMPT_CHAT)
        return err_set_at(err, GD_EINVAL, "prompt", "prompt: an embedding is of text or tokens");
    if (p->embed && p->n != 1)
        return err_set_at(err, GD_EINVAL, "n", "n: an embedding job has 1, got %d", p->n);
    return 0;
}

/* Everything that cannot fit is refused here, before the answer has begun. */
static int check_context(
    const struct engine *e, const struct job_params *p, size_t n_prompt, struct err *err)
{
    size_t ctx = (size_t)e->info.ctx_tokens;

    if (!p->embed && p->max_tokens == -1 && n_prompt >= ctx)
        return err_set_at(err, GD_ECONTEXT, "prompt",
            "the prompt has %zu tokens: with an answer it is longer than the context of %zu",
            n_prompt, ctx);
    if (n_prompt > ctx)
        return err_set_at(err, GD_ECONTEXT, "prompt",
            "the prompt has %zu tokens: more than the context of %zu", n_prompt, ctx);
    if (!p->embed && p->max_tokens > 0 && (size_t)p->max_tokens > ctx - n_prompt)
        return err_set_at(err, GD_ECONTEXT, "max_tokens",
            "the prompt has %zu tokens and max_tokens is %d: together more than the context of %zu",
            n_prompt, p->max_tokens, ctx);
    return 0;
}

static uint64_t pick_seed(const struct sampling *s)
{
    uint64_t seed;

    if (s->has_seed)
        return s->seed;
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint64_t)clock_ns();
    return seed;
}

static void *copy_of(const void *src, size_t n, size_t size)
{
    void *copy = xcalloc(n, size);

    if (n)
        memcpy(copy, src, n * size);
    return copy;
}

/* How the answer will be read: as its prompt was written. */
static void copy_format(struct job *j, const struct engine *e, const struct prompt *p)
{
    if (p->kind != PROMPT_CHAT || !(e->info.has_tools || e->info.has_thinking))
        return;
    j->format = e->chat;
    j->marks = &e->marks;
    j->tools = xcalloc(p->n_tools, sizeof(*j->tools));
    for (; j->n_tools < p->n_tools; j->n_tools++)
        j->tools[j->n_tools] = xstrdup(p->tools[j->n_tools].name);
}

/* Takes ids->ids. */
static struct job *make_job(
    struct engine *e, const struct job_params *p, struct token_list *ids, void *ud)
{
    struct job *j = xcalloc(1, sizeof(*j));

    j->engine = e;
    j->ud = ud;
    j->params = *p;
    j->params.prompt = (struct prompt){0};
    j->params.stop = NULL;
    copy_format(j, e, &p->prompt);
    j->stops = stop_set_create(p->stop, p->n_stop);
    j->params.stop_ids = copy_of(p->stop_ids, p->n_stop_ids, sizeof(*p->stop_ids));
    j->params.sampling.bias =
        copy_of(p->sampling.bias, p->sampling.n_bias, sizeof(*p->sampling.bias));
    j->prompt = ids->ids;
    j->n_prompt = (int)ids->n;
    *ids = (struct token_list){0};
    j->max_tokens = p->max_tokens >= 0 ? p->max_tokens : e->info.ctx_tokens - j->n_prompt;
    if (p->embed) {
        j->max_tokens = 0;
        j->vector = xcalloc((size_t)e->info.embed_width, sizeof(*j->vector));
    }
    j->seed = pick_seed(&p->sampling);
    j->submit_ns = clock_ns();
    j->deadline_ns = p->timeout_ms ? j->submit_ns + p->timeout_ms * 1000000 : 0;
    j->news = xcalloc((size_t)p->n, sizeof(*j->news));
    pthread_mutex_init(&j->lock, NULL);
    atomic_init(&j->refs, 2);
    return j;
}

int job_submit(
    struct job **out, struct engine *e, const struct job_params *p, void *ud, struct err *err)
{
    struct token_list ids = {0};
    struct job *j;
    int r = queue_check(&e->queue, p->follows, err);

    if (r == 0)
        r = check_kind(e, p, err);
    if (r == 0)
        r = params_check(e, p, err);
    if (r == 0)
        r = prompt_ids(e, &p->prompt, &ids, err);
    if (r == 0)
        r = check_context(e, p, ids.n, err);
    if (r < 0) {
        token_list_free(&ids);
        return r;
    }
    j = make_job(e, p, &ids, ud);
    r = queue_push(&e->queue, j, err);
    if (r < 0) {
        atomic_store(&j->refs, 1);
        job_unref(j);
        return r;
    }
    *out = j;
    return 0;
}

void job_release(struct job *j)
{
    struct queue *q;
    bool was_waiting;

    if (!j)
        return;
    atomic_store(&j->released, true);
    if (!atomic_load(&j->ended)) {
        /* The engine still has it, so the engine is there. */
        q = &j->engine->queue;
        pthread_mutex_lock(&q->lock);
        was_waiting = j->waiting;
        if (was_waiting)
            queue_remove(q, j);
        q->canceled += was_waiting; /* one that runs is counted when the engine drops it */
        pthread_mutex_unlock(&q->lock);
        if (was_waiting)
            job_unref(j);
    }
    job_unref(j);
}
