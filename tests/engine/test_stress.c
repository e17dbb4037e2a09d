/* test_stress.c - many callers at once who come, cancel, read late and go, on few pages. What is
 * read to the end must be what the model says. Meant for ThreadSanitizer too. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "engine/private.h"
#include "fake.h"
#include "harness.h"

enum { CALLERS = 5, JOBS = 40, PROMPT_MAX = 200, ANSWER_MAX = 300 };

struct caller {
    struct harness *h;
    unsigned seed;
    int n_complete, n_released, n_busy;
    bool wrong;
};

static unsigned next(struct caller *c)
{
    c->seed = c->seed * 1664525u + 1013904223u;
    return c->seed >> 16;
}

static void pause_us(long us)
{
    struct timespec t = {0, us * 1000};

    nanosleep(&t, NULL);
}

/* Reads up to `events` events, all when negative. True when every choice has ended. */
static bool read_some(struct caller *c, struct job *j, int n, int events, struct buf ids[])
{
    int ended = 0;

    while (ended < n && events != 0) {
        struct job_event ev;

        if (!job_next(j, &ev)) {
            pause_us(100);
            continue;
        }
        for (size_t i = 0; i < ev.n_tokens; i++)
            buf_append(&ids[ev.choice], &ev.tokens[i].id, sizeof(int32_t));
        if (ev.kind == EVENT_FINISH) {
            c->wrong = c->wrong || ev.finish != FINISH_LENGTH;
            ended++;
        }
        events -= events > 0;
    }
    return ended == n;
}

static void one_job(struct caller *c)
{
    int32_t ids[PROMPT_MAX + ANSWER_MAX];
    int n_prompt = 1 + (int)(next(c) % PROMPT_MAX), max = 1 + (int)(next(c) % ANSWER_MAX);
    struct job_params p;
    struct buf got[3] = {{0}};
    struct err err;
    struct job *j;

    harness_prompt(ids, n_prompt, next(c) % 12); /* many begin the same */
    p = harness_greedy(ids, n_prompt, max);
    p.n = 1 + (int)(next(c) % 3);
    if (job_submit(&j, c->h->e, &p, NULL, &err) < 0) {
        c->wrong = c->wrong || err.code != GD_EBUSY;
        c->n_busy++;
        pause_us(1000);
        return;
    }
    if (next(c) % 3 == 0) {
        read_some(c, j, p.n, (int)(next(c) % 20), got);
        c->n_released++;
    } else if (read_some(c, j, p.n, -1, got)) {
        fake_answer(ids, n_prompt, max, true);
        for (int i = 0; i < p.n; i++)
            c->wrong = c->wrong || !got[i].data || got[i].len != (size_t)max * sizeof(*ids) ||
                       memcmp(got[i].data, ids + n_prompt, got[i].len) != 0;
        c->n_complete++;
    }
    job_release(j);
    for (int i = 0; i < p.n; i++)
        buf_free(&got[i]);
}

static void *call(void *arg)
{
    struct caller *c = arg;

    for (int i = 0; i < JOBS; i++) {
        struct engine_stats s;

        one_job(c);
        engine_stats(c->h->e, &s);
        c->wrong = c->wrong || s.kv_used < 0 || s.kv_used > 1 || s.running < 0;
    }
    return NULL;
}

static void many_callers_get_what_they_asked_for(void **state)
{
    static struct harness h;
    struct engine_opts o;
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    struct engine_stats s;
    uint64_t finished = 0;
    int complete = 0, released = 0;

    fake_reset();
    harness_opts(&o);
    o.ctx_tokens = 640;
    o.max_sequences = 8;
    o.queue_max = 3;
    o.kv_bytes = 2 * 13 * FAKE_PAGE_BYTES;
    fake.window = 640;
    harness_open(&h, &o);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.h = &h, .seed = (unsigned)i * 7919 + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_false(callers[i].wrong);
        complete += callers[i].n_complete;
        released += callers[i].n_released;
    }
    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    for (int i = 0; i <= FINISH_ERROR; i++)
        finished += s.jobs_finished[i];
    assert_true(complete > 20 && released > 10 && s.preemptions > 0);
    assert_in_range(finished + s.jobs_canceled, complete + released, complete + released);
    assert_int_equal(s.running + s.waiting, 0);
    assert_int_equal(s.waiting_tokens, 0);
    for (int g = 0; g < KV_GROUPS; g++)
        assert_int_equal(kv_free_pages(h.e->kv, g), kv_total_pages(h.e->kv, g));
    harness_close(&h);
    assert_int_equal(fake.n_bad, 0);
    print_message("# %d complete, %d released, %llu preemptions, %llu refused\n", complete,
        released, (unsigned long long)s.preemptions, (unsigned long long)s.jobs_refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_callers_get_what_they_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
