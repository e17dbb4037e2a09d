/* test_scheduler.c - who computes when, on the fake model: its gate stops the engine thread in the
 * middle of a run, its log tells what every run computed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "engine/pace.h"
#include "engine/private.h"
#include "fake.h"
#include "harness.h"

static struct harness h;
static struct engine_opts opts;

static int set_up(void **state)
{
    fake_begin(&h, &opts);
    opts.prefix_cache = false; /* every prompt of these tests is to be computed */
    return 0;
}

static int tear_down(void **state)
{
    fake_close(&h);
    return 0;
}

static void running_answers_decode_together(void **state)
{
    int32_t ids[4][50];
    struct job *jobs[4];
    int most = 0;

    harness_open(&h, &opts);
    fake_close_gate();
    for (int i = 0; i < 4; i++) {
        struct job_params p = harness_greedy(ids[i], 50, 30);

        harness_prompt(ids[i], 50, (unsigned)i);
        jobs[i] = harness_submit(&h, &p);
    }
    fake_open_gate();
    for (int i = 0; i < 4; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        fake_assert_answer(&r.answers[0], ids[i], 50, 30);
        result_free(&r);
    }
    harness_wait_idle(&h);
    for (int i = 0; i < fake.n_runs; i++)
        most = fake.runs[i].decode && fake.runs[i].n_seqs > most ? fake.runs[i].n_seqs : most;
    assert_int_equal(most, 4);
}

static void a_decode_step_allocates_nothing(void **state)
{
    int32_t ids[4][10];
    struct job *jobs[4];
    int first = 0;

    opts.prefix_cache = true;
    harness_open(&h, &opts);
    fake_close_gate();
    for (int i = 0; i < 4; i++) {
        struct job_params p = harness_greedy(ids[i], 10, 700);

        harness_prompt(ids[i], 10, (unsigned)i);
        p.logprobs = 5;
        jobs[i] = harness_submit(&h, &p);
    }
    fake_open_gate();
    for (int i = 0; i < 4; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        result_free(&r);
    }
    harness_wait_idle(&h);
    while (fake.runs[first].n_seqs < 4)
        first++;
    /* A slow reader lets what waits for him double now and then; an allocation of every step would
     * be a hundred. */
    assert_in_range(fake.runs[first + 600].n_allocs - fake.runs[first + 500].n_allocs, 0, 50);
}

/* ---- cancel ---- */

static void a_released_waiting_job_leaves_the_queue(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 5);
    struct job *a, *b, *c;
    struct engine_stats s;
    struct result r;

    harness_prompt(ids, 10, 1);
    opts.max_sequences = 1;
    harness_open(&h, &opts);
    fake_close_gate();
    a = harness_submit(&h, &p);
    fake_wait_blocked();
    b = harness_submit(&h, &p);
    c = harness_submit(&h, &p);
    engine_stats(h.e, &s);
    assert_int_equal(s.waiting, 2);
    assert_int_equal(s.waiting_tokens, 20);
    job_release(b);
    engine_stats(h.e, &s);
    assert_int_equal(s.waiting, 1);
    assert_int_equal(s.waiting_tokens, 10);
    assert_int_equal(s.jobs_canceled, 1);
    fake_open_gate();
    r = harness_collect(&h, a, 1);
    result_free(&r);
    r = harness_collect(&h, c, 1);
    fake_assert_answer(&r.answers[0], ids, 10, 5);
    result_free(&r);
}

static void a_released_prompt_stops_within_a_step(void **state)
{
    static int32_t ids[2000];
    struct job_params p = harness_greedy(ids, 2000, 5);
    struct job *j;
    int n_runs;

    harness_prompt(ids, 2000, 1);
    p.n = 3;
    harness_open(&h, &opts);
    fake_close_gate();
    j = harness_submit(&h, &p);
    fake_wait_blocked();
    n_runs = fake.n_runs;
    job_release(j);
    fake_open_gate();
    harness_wait_idle(&h);
    assert_int_equal(fake.n_runs, n_runs + 1);
}

static void a_released_answer_stops_within_a_step(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 500);
    struct job *a, *b;
    struct result r;
    int n_runs;

    harness_prompt(ids, 10, 1);
    harness_open(&h, &opts);
    fake_close_gate();
    a = harness_submit(&h, &p);
    fake_wait_blocked();
    p.max_tokens = 20;
    p.n = 2;
    b = harness_submit(&h, &p);
    fake_pass(6);
    fake_wait_blocked();
    n_runs = fake.n_runs;
    job_release(a);
    fake_open_gate();
    r = harness_collect(&h, b, 2);
    for (int i = 0; i < 2; i++)
        fake_assert_answer(&r.answers[i], ids, 10, 20);
    result_free(&r);
    harness_wait_idle(&h);
    assert_int_equal(fake.runs[n_runs].n_seqs, 3);
    assert_int_equal(fake.runs[n_runs + 1].n_seqs, 2);
}

static void time_runs_out_in_every_phase(void **state)
{
    static int32_t ids[2000];
    struct job_params p = harness_greedy(ids, 2000, 48);
    struct timespec pause = {0, 350000000};
    struct job *prefilling, *waiting;
    struct result r;

    harness_prompt(ids, 2000, 1);
    opts.max_sequences = 1;
    p.timeout_ms = 300; /* long enough to get to the gate on a busy machine */
    harness_open(&h, &opts);
    fake_close_gate();
    prefilling = harness_submit(&h, &p);
    fake_wait_blocked();
    p.n = 2;
    waiting = harness_submit(&h, &p);
    nanosleep(&pause, NULL);
    fake_open_gate();
    r = harness_collect(&h, prefilling, 1);
    assert_int_equal(r.answers[0].finish, FINISH_TIMEOUT);
    result_free(&r);
    r = harness_collect(&h, waiting, 2);
    assert_int_equal(r.answers[0].finish, FINISH_TIMEOUT);
    assert_int_equal(r.answers[1].finish, FINISH_TIMEOUT);
    assert_false(r.started);
    result_free(&r);
    harness_wait_idle(&h);
    assert_int_equal(fake.n_runs, 1);

    p = harness_greedy(ids, 10, 1000);
    p.timeout_ms = 40;
    fake.us_per_run = 1000;
    fake.end_every = 0;
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].finish, FINISH_TIMEOUT);
    assert_in_range(r.answers[0].n, 1, 45);
    assert_int_equal(r.answers[0].text.len, r.answers[0].n);
    result_free(&r);
}

static void cancel_all_ends_everything(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 500);
    struct job *jobs[4];
    struct result r;

    harness_prompt(ids, 10, 1);
    opts.max_sequences = 2;
    harness_open(&h, &opts);
    fake_close_gate();
    for (int i = 0; i < 4; i++)
        jobs[i] = harness_submit(&h, &p);
    fake_pass(3);
    fake_wait_blocked();
    engine_cancel_all(h.e);
    fake_open_gate();
    for (int i = 0; i < 4; i++) {
        r = harness_collect(&h, jobs[i], 1);
        assert_int_equal(r.answers[0].finish, FINISH_CANCELED);
        assert_int_equal(r.started, i < 2);
        result_free(&r);
    }
    /* The engine lives on. */
    p.max_tokens = 5;
    r = harness_run(&h, &p);
    fake_assert_answer(&r.answers[0], ids, 10, 5);
    result_free(&r);
    engine_cancel_all(h.e);
}

static void a_stopped_engine_finishes_what_runs(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 50);
    struct job *a, *b;
    struct err err;
    struct result r;

    harness_prompt(ids, 10, 1);
    harness_open(&h, &opts);
    fake_close_gate();
    a = harness_submit(&h, &p);
    engine_stop(h.e);
    assert_int_equal(job_submit(&b, h.e, &p, NULL, &err), GD_ESTOPPING);
    fake_open_gate();
    r = harness_collect(&h, a, 1);
    fake_assert_answer(&r.answers[0], ids, 10, 50);
    result_free(&r);
}

static void closing_ends_jobs_that_are_still_held(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 500);
    struct job *jobs[6];
    int canceled = 0;

    harness_prompt(ids, 10, 1);
    opts.max_sequences = 2;
    harness_open(&h, &opts);
    fake_close_gate();
    for (int i = 0; i < 6; i++) {
        p.n = 1 + i % 2;
        fake.us_per_run = 1000;
        jobs[i] = harness_submit(&h, &p);
    }
    fake_wait_blocked();
    fake_open_gate();
    harness_close(&h);
    h.e = NULL;
    for (int i = 0; i < 6; i++) {
        struct job_event ev;

        while (job_next(jobs[i], &ev))
            canceled += ev.kind == EVENT_FINISH && ev.finish == FINISH_CANCELED;
        job_release(jobs[i]);
    }
    assert_int_equal(canceled, 9);
}

/* ---- the queue ---- */

static void a_full_queue_is_busy(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 5);
    struct job *jobs[3], *more = NULL;
    struct engine_stats s;
    struct err err;

    harness_prompt(ids, 10, 1);
    opts.max_sequences = 1;
    opts.queue_max = 2;
    harness_open(&h, &opts);
    fake_close_gate();
    jobs[0] = harness_submit(&h, &p);
    fake_wait_blocked();
    engine_stats(h.e, &s);
    assert_float_equal(s.retry_after_s, 0, 0);
    jobs[1] = harness_submit(&h, &p);
    jobs[2] = harness_submit(&h, &p);
    assert_int_equal(job_submit(&more, h.e, &p, NULL, &err), GD_EBUSY);
    assert_null(more);
    assert_non_null(strstr(err.msg, "2 requests"));
    engine_stats(h.e, &s);
    assert_int_equal(s.jobs_refused, 1);
    assert_true(s.retry_after_s >= 1);
    fake_open_gate();
    for (int i = 0; i < 3; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        fake_assert_answer(&r.answers[0], ids, 10, 5);
        result_free(&r);
    }
    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    assert_float_equal(s.retry_after_s, 0, 0);
}

static void waiting_tokens_are_bounded_too(void **state)
{
    static int32_t ids[1000];
    struct job_params p = harness_greedy(ids, 10, 5), big = harness_greedy(ids, 1000, 5);
    struct job *jobs[3], *more;
    struct err err;

    harness_prompt(ids, 1000, 1);
    opts.max_sequences = 1;
    opts.queue_tokens_max = 100;
    harness_open(&h, &opts);
    fake_close_gate();
    jobs[0] = harness_submit(&h, &p);
    fake_wait_blocked();
    jobs[1] = harness_submit(&h, &big); /* alone, any prompt may wait */
    assert_int_equal(job_submit(&more, h.e, &p, NULL, &err), GD_EBUSY);
    assert_non_null(strstr(err.msg, "1000 prompt tokens"));
    job_release(jobs[1]);
    jobs[1] = harness_submit(&h, &p);
    jobs[2] = harness_submit(&h, &p);
    assert_int_equal(job_submit(&more, h.e, &big, NULL, &err), GD_EBUSY);
    fake_open_gate();
    for (int i = 0; i < 3; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        result_free(&r);
    }
}

static void a_quick_burst_on_an_idle_engine_is_not_refused(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 5);
    struct job *jobs[5];

    harness_prompt(ids, 10, 1);
    opts.max_sequences = 4;
    opts.queue_max = 1;
    harness_open(&h, &opts);
    for (int i = 0; i < 5; i++)
        jobs[i] = harness_submit(&h, &p); /* four places and one in the queue */
    for (int i = 0; i < 5; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        result_free(&r);
    }
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(running_answers_decode_together),
        CASE(a_decode_step_allocates_nothing),
        CASE(a_released_waiting_job_leaves_the_queue),
        CASE(a_released_prompt_stops_within_a_step),
        CASE(a_released_answer_stops_within_a_step),
        CASE(time_runs_out_in_every_phase),
        CASE(cancel_all_ends_everything),
        CASE(a_stopped_engine_finishes_what_runs),
        CASE(closing_ends_jobs_that_are_still_held),
        CASE(a_full_queue_is_busy),
        CASE(waiting_tokens_are_bounded_too),
        CASE(a_quick_burst_on_an_idle_engine_is_not_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
