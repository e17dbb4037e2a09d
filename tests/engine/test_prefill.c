/* test_prefill.c - what a step computes of prompts, on the fake model, whose log tells what every
 * run computed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
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

/* An answer of max tokens to n ids runs and has made its first ones; the gate is closed, the log
 * empty. */
static struct job *begin_stream(int32_t *ids, int n, int max, int chunk)
{
    struct job_params stream = harness_greedy(ids, n, max);
    struct job *j;

    opts.prefill_chunk = chunk;
    harness_open(&h, &opts);
    fake_close_gate();
    j = harness_submit(&h, &stream);
    fake_wait_blocked();
    fake_pass(2);
    fake_wait_blocked();
    fake.n_runs = 0;
    return j;
}

static void chunks_of_any_size_give_the_same(void **state)
{
    static const int chunks[] = {1, 7, 64, 512};
    int32_t ids[600];

    harness_prompt(ids, 600, 3);
    for (int c = 0; c < 4; c++) {
        struct job_params p = harness_greedy(ids, 600, 20);
        struct job *j, *prompt;
        struct result r;
        int largest = 0;

        /* Another answer runs all the while, so that the chunk of the setting counts. */
        fake_reset();
        j = begin_stream(ids, 3, 1500, chunks[c]);
        prompt = harness_submit(&h, &p); /* before the other answer can end */
        fake_open_gate();
        r = harness_collect(&h, prompt, 1);
        fake_assert_answer(&r.answers[0], ids, 600, 20);
        result_free(&r);
        job_release(j);
        harness_wait_idle(&h);
        for (int i = 0; i < fake.n_runs; i++) {
            if (fake.runs[i].n_riding > largest)
                largest = fake.runs[i].n_riding;
        }
        assert_int_equal(largest, chunks[c]);
        harness_close(&h);
        h.e = NULL;
    }
}

static void answers_flow_while_a_long_prompt_comes_in(void **state)
{
    static int32_t ids[1000];
    struct job_params long_prompt = harness_greedy(ids, 1000, 1);
    struct job *a, *b;
    struct result r;
    int chunks = 0, alone = 0;

    harness_prompt(ids, 1000, 1);
    a = begin_stream(ids, 10, 200, 50);
    b = harness_submit(&h, &long_prompt);
    fake_open_gate();
    r = harness_collect(&h, b, 1);
    fake_assert_answer(&r.answers[0], ids, 1000, 1);
    result_free(&r);
    r = harness_collect(&h, a, 1);
    result_free(&r);
    harness_wait_idle(&h);
    for (int i = 0; i < fake.n_runs; i++) {
        chunks += fake.runs[i].n_riding > 0 || !fake.runs[i].decode;
        alone += !fake.runs[i].decode;
    }
    assert_int_equal(chunks, 20);
    assert_in_range(alone, 1, 20 / PACE_RIDES); /* now and then, to see what answers cost */
}

/* The younger of two equal prompts waits for the other one's pages, in one run as in many. */
static void equal_prompts_ride_once(void **state)
{
    static int32_t ids[300];
    struct job_params p = harness_greedy(ids, 300, 1);
    struct job *stream, *jobs[2];
    int n_riding = 0;

    opts.prefix_cache = true;
    harness_prompt(ids, 300, 1);
    stream = begin_stream(ids + 50, 10, 400, 200);
    for (int i = 0; i < 2; i++)
        jobs[i] = harness_submit(&h, &p);
    fake_open_gate();
    for (int i = 0; i < 2; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        fake_assert_answer(&r.answers[0], ids, 300, 1);
        result_free(&r);
    }
    job_release(stream);
    harness_wait_idle(&h);
    for (int i = 0; i < fake.n_runs; i++)
        n_riding += fake.runs[i].n_riding;
    assert_in_range(n_riding, 299, 299 + 299 - 4 * KV_PAGE);
}

/* A chunk of the settings may be more than a run takes. */
static void no_run_gets_more_than_it_takes(void **state)
{
    static int32_t ids[3][1200];
    struct job *stream, *jobs[3];

    stream = begin_stream(ids[0], 10, 400, 65536);
    for (int i = 0; i < 3; i++) {
        struct job_params p = harness_greedy(ids[i], 1200, 1);

        harness_prompt(ids[i], 1200, (unsigned)i + 1);
        jobs[i] = harness_submit(&h, &p);
    }
    fake_open_gate();
    for (int i = 0; i < 3; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        fake_assert_answer(&r.answers[0], ids[i], 1200, 1);
        result_free(&r);
    }
    job_release(stream);
    harness_wait_idle(&h);
    for (int i = 0; i < fake.n_runs; i++)
        assert_in_range(fake.runs[i].n_riding, 0, 2048);
}

/* Every token's log-probability takes a row of the head: such a prompt is computed by itself. */
static void a_scored_prompt_does_not_ride(void **state)
{
    static int32_t ids[200];
    struct job_params p = harness_greedy(ids, 200, 5);
    struct job *stream;
    struct result r;
    int n_alone = 0;

    harness_prompt(ids, 200, 1);
    p.prompt_logprobs = true;
    p.logprobs = 0;
    stream = begin_stream(ids, 10, 400, 50);
    fake_open_gate();
    r = harness_run(&h, &p);
    fake_assert_answer(&r.answers[0], ids, 200, 5);
    assert_int_equal(r.prompt.n, 200);
    result_free(&r);
    job_release(stream);
    harness_wait_idle(&h);
    for (int i = 0; i < fake.n_runs; i++) {
        assert_int_equal(fake.runs[i].n_riding, 0);
        n_alone += !fake.runs[i].decode;
    }
    assert_in_range(n_alone, 200 / 50, 200);
}

/* The head of a small model is most of it: beside answers their run reads it for the new one, too.
 */
static void the_last_token_of_a_prompt_goes_with_the_answers(void **state)
{
    int32_t ids[120];
    struct job_params p = harness_greedy(ids, 100, 5), again = harness_greedy(ids, 100, 5);
    struct job *stream, *j;
    struct result r;
    int at = 0;

    opts.prefix_cache = true;
    harness_prompt(ids, 100, 1);
    stream = begin_stream(ids, 10, 400, 128);
    j = harness_submit(&h, &p);
    fake_open_gate();
    r = harness_collect(&h, j, 1);
    fake_assert_answer(&r.answers[0], ids, 100, 5);
    assert_int_equal(r.answers[0].usage.prompt_tokens, 100);
    result_free(&r);
    r = harness_run(&h, &again); /* its page is known by now */
    fake_assert_answer(&r.answers[0], ids, 100, 5);
    assert_int_equal(r.answers[0].usage.cached_tokens, KV_PAGE);
    result_free(&r);
    job_release(stream);
    harness_wait_idle(&h);
    while (fake.runs[at].n_riding == 0)
        at++;
    assert_int_equal(fake.runs[at].n_riding, 99);
    assert_true(fake.runs[at + 1].decode);
    assert_int_equal(fake.runs[at + 1].n_seqs, 2);
}

static void small_budgets_are_not_cut(void **state)
{
    static int32_t ids[700];
    const int budget = 2 * PACE_SMALLEST;
    struct job_params p[3] = {harness_greedy(ids, 600, 1), harness_greedy(ids + 1, 100, 1),
        harness_greedy(ids + 2, 150, 1)};
    struct job *stream, *jobs[3];
    int n_pieces = 0;

    fake.graphs_differ = true; /* so nothing rides */
    harness_prompt(ids, 700, 1);
    stream = begin_stream(ids, 10, 400, budget);
    for (int i = 0; i < 3; i++)
        jobs[i] = harness_submit(&h, &p[i]);
    fake_open_gate();
    for (int i = 0; i < 3; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        fake_assert_answer(&r.answers[0], ids + i, (int)p[i].prompt.n, 1);
        result_free(&r);
    }
    job_release(stream);
    harness_wait_idle(&h);
    for (int i = 1; i < fake.n_runs; i++) {
        n_pieces += !fake.runs[i].decode;
        if (!fake.runs[i].decode && !fake.runs[i - 1].decode) /* after the end of a prompt */
            assert_in_range(
                fake.runs[i].n_tokens, PACE_SMALLEST, budget - fake.runs[i - 1].n_tokens);
    }
    assert_in_range(n_pieces, 850 / budget, 850 / budget + 8);
}

static void short_prompts_do_not_wait_for_long_ones(void **state)
{
    static int32_t ids[2000];
    struct job_params long_prompt = harness_greedy(ids, 2000, 1),
                      small = harness_greedy(ids, 20, 1);
    struct job *slow, *quick;
    struct result r;

    harness_prompt(ids, 2000, 1);
    harness_open(&h, &opts);
    fake_close_gate();
    slow = harness_submit(&h, &long_prompt);
    fake_wait_blocked();
    quick = harness_submit(&h, &small);
    fake_pass(2); /* the long one's first piece, and the whole short prompt */
    fake_wait_blocked();
    r = harness_collect(&h, quick, 1);
    fake_assert_answer(&r.answers[0], ids, 20, 1);
    result_free(&r);
    assert_int_equal(fake.runs[1].n_tokens, 20);
    fake_open_gate();
    r = harness_collect(&h, slow, 1);
    fake_assert_answer(&r.answers[0], ids, 2000, 1);
    result_free(&r);
}

static void long_and_short_prompts_share_the_time(void **state)
{
    static int32_t ids[2000];
    struct job_params long_prompt = harness_greedy(ids, 2000, 1);
    struct job_params small = harness_greedy(ids + 1, 300, 1);
    struct job *slow, *quick[3];
    struct result r;
    int of_long = 0, of_small = 0;

    harness_prompt(ids, 2000, 1);
    ids[0] = FAKE_BYTE; /* tells the long one in the log */
    harness_open(&h, &opts);
    fake_close_gate();
    slow = harness_submit(&h, &long_prompt);
    fake_wait_blocked();
    for (int i = 0; i < 3; i++)
        quick[i] = harness_submit(&h, &small);
    fake_pass(1);
    fake_wait_blocked();
    fake.n_runs = 0;
    fake_open_gate();
    for (int i = 0; i < 3; i++) {
        r = harness_collect(&h, quick[i], 1);
        fake_assert_answer(&r.answers[0], ids + 1, 300, 1);
        result_free(&r);
    }
    r = harness_collect(&h, slow, 1);
    fake_assert_answer(&r.answers[0], ids, 2000, 1);
    result_free(&r);
    harness_wait_idle(&h);
    for (int i = 0; i < fake.n_runs && of_small < 900; i++) {
        if (fake.runs[i].first_id == ids[0])
            of_long += fake.runs[i].n_tokens;
        else
            of_small += fake.runs[i].n_tokens;
        /* Neither gets ahead of the other by more than a step. */
        assert_in_range(of_long - of_small + 600, 0, 1200);
    }
    assert_int_equal(of_small, 900);
}

static void what_rides_costs_what_it_adds(void **state)
{
    struct pace p = {.max_chunk = 512, .target_ms = 20};

    pace_decoded(&p, 0, 10);
    assert_float_equal(p.decode_ms, 10, 1e-9);
    for (int i = 0; i < 30; i++) /* 4 tokens a ms */
        pace_decoded(&p, 40, 20);
    assert_float_equal(p.decode_ms, 10, 1e-9);
    assert_int_equal(pace_budget(&p, p.decode_ms), 40);
    for (int i = 0; i < 30; i++) /* faster than without: it was slow when it was measured */
        pace_decoded(&p, 40, 8);
    assert_in_range(pace_budget(&p, p.decode_ms), 41, 512);
    for (int i = 0; i < 30; i++)
        pace_decoded(&p, 0, 18);
    assert_float_equal(p.decode_ms, 18, 0.1);
}

static void the_budget_keeps_the_target(void **state)
{
    struct pace p = {.max_chunk = 512, .target_ms = 50};

    assert_int_equal(pace_budget(&p, 0), 128);
    assert_int_equal(pace_budget(&p, 10), PACE_SMALLEST);
    for (int i = 0; i < 30; i++) /* 4 tokens a ms */
        pace_measured(&p, 100, 25);
    assert_int_equal(pace_budget(&p, 10), 160); /* 40 ms are left */
    assert_int_equal(pace_budget(&p, 49), 96);  /* half of the decode run's time at least */
    assert_int_equal(pace_budget(&p, 0), 512);
    for (int i = 0; i < 30; i++) /* a big model: 0.1 tokens a ms */
        pace_measured(&p, 32, 320);
    assert_int_equal(pace_budget(&p, 300), PACE_SMALLEST);
    assert_int_equal(pace_budget(&p, 0), 40); /* no longer than a cancel may take */
    p.fixed = 7;
    assert_int_equal(pace_budget(&p, 10), 7);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(chunks_of_any_size_give_the_same),
        CASE(answers_flow_while_a_long_prompt_comes_in),
        CASE(equal_prompts_ride_once),
        CASE(no_run_gets_more_than_it_takes),
        CASE(a_scored_prompt_does_not_ride),
        CASE(the_last_token_of_a_prompt_goes_with_the_answers),
        CASE(small_budgets_are_not_cut),
        CASE(short_prompts_do_not_wait_for_long_ones),
        CASE(long_and_short_prompts_share_the_time),
        CASE(the_budget_keeps_the_target),
        CASE(what_rides_costs_what_it_adds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
