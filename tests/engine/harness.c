#include "harness.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/mem.h"
#include "engine/private.h"
#include "fake.h"

enum { WAIT_S = 60 }; /* for one event: a real model under the thread sanitizer needs 20 */

static void on_wake(void *ud)
{
    struct harness *h = ud;

    pthread_mutex_lock(&h->lock);
    h->n_wakes++;
    pthread_cond_broadcast(&h->woken);
    pthread_mutex_unlock(&h->lock);
}

void harness_opts(struct engine_opts *o)
{
    engine_opts_default(o);
    o->model_path = "fake";
    o->ctx_tokens = 2048;
    o->max_sequences = 4;
    o->kv_bytes = 1 << 20;
}

void harness_open(struct harness *h, const struct engine_opts *opts)
{
    struct engine_opts o;
    struct err err;

    harness_opts(&o);
    if (opts)
        o = *opts;
    *h = (struct harness){0};
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->woken, NULL);
    o.wake = on_wake;
    o.wake_ud = h;
    if (engine_open(&h->e, &o, &err) < 0)
        fail_msg("engine_open: %s", err.msg);
}

void harness_close(struct harness *h)
{
    engine_close(h->e);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->woken);
}

struct job *harness_submit(struct harness *h, const struct job_params *p)
{
    struct job *j;
    struct err err;

    if (job_submit(&j, h->e, p, h, &err) < 0)
        fail_msg("job_submit: %s", err.msg);
    assert_ptr_equal(job_ud(j), h);
    return j;
}

void harness_next(struct harness *h, struct job *j, struct job_event *ev)
{
    struct timespec until;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    for (;;) {
        unsigned seen;
        bool ready, got;

        pthread_mutex_lock(&h->lock);
        seen = h->n_wakes;
        pthread_mutex_unlock(&h->lock);
        ready = job_ready(j);
        got = job_next(j, ev);
        assert_true(got || !ready);
        if (got)
            return;
        pthread_mutex_lock(&h->lock);
        while (h->n_wakes == seen && r == 0)
            r = pthread_cond_timedwait(&h->woken, &h->lock, &until);
        pthread_mutex_unlock(&h->lock);
        if (r)
            fail_msg("no event came for %d s", WAIT_S);
    }
}

static void add_tokens(struct answer *a, const struct job_event *ev)
{
    for (size_t i = 0; i < ev->n_tokens; i++) {
        const struct event_token *t = &ev->tokens[i];
        size_t n = (size_t)a->n + 1;

        a->ids = xrealloc(a->ids, n * sizeof(*a->ids));
        a->logprobs = xrealloc(a->logprobs, n * sizeof(*a->logprobs));
        a->n_tops = xrealloc(a->n_tops, n * sizeof(*a->n_tops));
        a->tops = xrealloc(a->tops, (size_t)(a->n_all_tops + t->n_top) * sizeof(*a->tops));
        if (t->n_top)
            memcpy(a->tops + a->n_all_tops, t->top, (size_t)t->n_top * sizeof(*a->tops));
        a->n_all_tops += t->n_top;
        a->ids[a->n] = t->id;
        a->logprobs[a->n] = t->logprob;
        a->n_tops[a->n++] = t->n_top;
    }
}

struct result harness_collect(struct harness *h, struct job *j, int n)
{
    struct result r = {.n = n, .answers = xcalloc((size_t)n, sizeof(*r.answers))};
    int ended = 0;

    while (ended < n) {
        struct job_event ev;
        struct answer *a;

        harness_next(h, j, &ev);
        assert_in_range(ev.choice, 0, n - 1);
        a = &r.answers[ev.choice];
        assert_int_equal(a->finish, FINISH_NONE);
        if (ev.kind == EVENT_STARTED) {
            assert_false(r.started);
            r.started = true;
        } else if (ev.kind == EVENT_PROMPT) {
            assert_int_equal(r.prompt.n + a->n, 0);
            add_tokens(&r.prompt, &ev);
        } else if (ev.kind == EVENT_TEXT) {
            assert_true(r.started);
            buf_append(&a->text, ev.text, ev.text_len);
            add_tokens(a, &ev);
        } else {
            a->finish = ev.finish;
            a->stop_id = ev.stop_id;
            a->usage = ev.usage;
            a->err = ev.err;
            snprintf(
                a->stop_string, sizeof(a->stop_string), "%s", ev.stop_string ? ev.stop_string : "");
            assert_int_equal(a->usage.completion_tokens, a->n);
            assert_int_equal(a->usage.prompt_tokens, job_prompt_tokens(j));
            ended++;
        }
    }
    assert_false(job_ready(j));
    job_release(j);
    for (int i = 0; i < n; i++)
        buf_reserve(&r.answers[i].text, 0);
    return r;
}

struct result harness_run(struct harness *h, const struct job_params *p)
{
    return harness_collect(h, harness_submit(h, p), p->n);
}

static void answer_free(struct answer *a)
{
    buf_free(&a->text);
    free(a->ids);
    free(a->logprobs);
    free(a->tops);
    free(a->n_tops);
}

void result_free(struct result *r)
{
    for (int i = 0; i < r->n; i++)
        answer_free(&r->answers[i]);
    answer_free(&r->prompt);
    free(r->answers);
}

struct job_params harness_greedy(int32_t *ids, int n, int max_tokens)
{
    struct job_params p;

    job_params_default(&p);
    p.prompt.kind = PROMPT_TOKENS;
    p.prompt.ids = ids;
    p.prompt.n = (size_t)n;
    p.sampling.temperature = 0;
    p.max_tokens = max_tokens;
    p.ignore_eos = true;
    return p;
}

void harness_prompt(int32_t *ids, int n, unsigned seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = FAKE_BYTE + 32 + (int32_t)((seed >> 16) % 90);
    }
}

void harness_wait_idle(struct harness *h)
{
    struct timespec ms = {0, 1000000};

    for (int i = 0; i < 20000; i++) {
        struct engine_stats s;

        engine_stats(h->e, &s);
        if (s.running == 0 && s.waiting == 0)
            return;
        nanosleep(&ms, NULL);
    }
    fail_msg("the engine does not come to rest");
}
