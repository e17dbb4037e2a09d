/* test_pages.c - choices that share pages, pages that run out, windows that move on. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/private.h"
#include "fake.h"
#include "harness.h"

static struct harness h;
static struct engine_opts opts;

static int set_up(void **state)
{
    fake_begin(&h, &opts);
    return 0;
}

static int tear_down(void **state)
{
    fake_close(&h);
    return 0;
}

static uint32_t in_use(int group)
{
    return kv_total_pages(h.e->kv, group) - kv_free_pages(h.e->kv, group);
}

static void choices_share_the_prompts_pages(void **state)
{
    static int32_t ids[1000];
    struct job_params p = harness_greedy(ids, 1000, 10);
    struct job *j;
    struct result r;
    int prompt_tokens = 0;

    harness_prompt(ids, 1000, 1);
    p.n = 4;
    harness_open(&h, &opts);
    fake_close_gate();
    j = harness_submit(&h, &p);
    do { /* until the first decode run, for which every choice has copied the last page */
        fake_wait_blocked();
        fake_pass(1);
        fake_wait_blocked();
        prompt_tokens = 0;
        for (int i = 0; i < fake.n_runs; i++)
            prompt_tokens += fake.runs[i].decode ? 0 : fake.runs[i].n_tokens;
    } while (prompt_tokens < 1000);
    /* 1000 positions: 15 full pages for all, a partial one for each. */
    assert_int_equal(in_use(KV_GLOBAL), 15 + 4);
    /* The window of position 1000 begins in page 14. */
    assert_int_equal(in_use(KV_SLIDING), 1 + 4);
    fake_open_gate();
    r = harness_collect(&h, j, 4);
    for (int i = 0; i < 4; i++) {
        fake_assert_answer(&r.answers[i], ids, 1000, 10);
        assert_int_equal(r.answers[i].usage.prompt_tokens, 1000);
    }
    result_free(&r);
    harness_wait_idle(&h);
    assert_int_equal(prompt_tokens, 1000); /* computed once */
}

static void choices_part_where_their_tokens_differ(void **state)
{
    static int32_t ids[500];
    struct job_params p = harness_greedy(ids, 130, 100);
    struct result all, one;

    harness_prompt(ids, 130, 1);
    harness_open(&h, &opts);
    p.sampling.temperature = 1.5f;
    p.sampling.has_seed = true;
    p.n = 3;
    all = harness_run(&h, &p);
    /* Each choice's first tokens are a prompt whose greedy answer the model knows: every token it
     * saw was its own. */
    for (int i = 0; i < 3; i++) {
        struct job_params q = harness_greedy(ids, 230, 1);

        memcpy(ids + 130, all.answers[i].ids, 100 * sizeof(*ids));
        one = harness_run(&h, &q);
        fake_assert_answer(&one.answers[0], ids, 230, 1);
        result_free(&one);
    }
    assert_string_not_equal(all.answers[0].text.data, all.answers[1].text.data);
    result_free(&all);
}

static void more_choices_than_places_wait_their_turn(void **state)
{
    int32_t ids[100];
    struct job_params p = harness_greedy(ids, 100, 20);
    struct result r;

    harness_prompt(ids, 100, 1);
    opts.max_sequences = 2;
    harness_open(&h, &opts);
    p.n = 7;
    r = harness_run(&h, &p);
    for (int i = 0; i < 7; i++)
        fake_assert_answer(&r.answers[i], ids, 100, 20);
    result_free(&r);
    harness_wait_idle(&h);
    for (int i = 0; i < fake.n_runs; i++)
        assert_true(fake.runs[i].n_seqs <= 2);
}

static void windows_give_pages_back_while_running(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 1500);
    struct job *j;
    struct result r;

    harness_prompt(ids, 10, 1);
    harness_open(&h, &opts);
    fake_close_gate();
    j = harness_submit(&h, &p);
    for (int i = 0; i < 1400; i++) {
        fake_wait_blocked();
        assert_true(in_use(KV_SLIDING) <= 3); /* 100 positions touch three pages at most */
        fake_pass(1);
    }
    fake_wait_blocked();
    assert_int_equal(in_use(KV_GLOBAL), (10 + 1399 + 63) / 64);
    fake_open_gate();
    r = harness_collect(&h, j, 1);
    fake_assert_answer(&r.answers[0], ids, 10, 1500);
    result_free(&r);
}

/* ---- pages run out ---- */

static void preempted_answers_are_what_they_would_have_been(void **state)
{
    enum { JOBS = 6, ANSWER = 500 };
    static int32_t ids[JOBS][400];
    struct job *jobs[JOBS];
    struct engine_stats s;

    /* Pages for one sequence of 1024 and a little: six such answers do not fit. */
    opts.ctx_tokens = 1024;
    opts.max_sequences = JOBS;
    opts.kv_bytes = 2 * (16 + 15) * FAKE_PAGE_BYTES;
    fake.window = 1024; /* both groups grow */
    harness_open(&h, &opts);
    fake_close_gate();
    for (int i = 0; i < JOBS; i++) {
        struct job_params p = harness_greedy(ids[i], 30 + 20 * i, ANSWER);

        harness_prompt(ids[i], 30 + 20 * i, (unsigned)i + 1);
        if (i % 2) {
            p.sampling.temperature = 1;
            p.sampling.has_seed = true;
            p.sampling.seed = (uint64_t)i;
            p.sampling.repeat_penalty = 1.2f;
        }
        jobs[i] = harness_submit(&h, &p);
    }
    fake_open_gate();
    for (int i = 0; i < JOBS; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        if (i % 2) { /* the same alone */
            struct job_params p = harness_greedy(ids[i], 30 + 20 * i, ANSWER);
            struct result alone;

            p.sampling.temperature = 1;
            p.sampling.has_seed = true;
            p.sampling.seed = (uint64_t)i;
            p.sampling.repeat_penalty = 1.2f;
            alone = harness_run(&h, &p);
            assert_memory_equal(r.answers[0].ids, alone.answers[0].ids, ANSWER * sizeof(*ids[0]));
            assert_string_equal(r.answers[0].text.data, alone.answers[0].text.data);
            result_free(&alone);
        } else {
            fake_assert_answer(&r.answers[0], ids[i], 30 + 20 * i, ANSWER);
        }
        result_free(&r);
    }
    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    assert_true(s.preemptions > 0);
    assert_int_equal(s.jobs_finished[FINISH_LENGTH], JOBS + JOBS / 2);
}

static void answers_stay_with_the_decode_graph_when_its_bits_differ(void **state)
{
    fake.graphs_differ = true;
    preempted_answers_are_what_they_would_have_been(state);
    for (int i = 0; i < fake.n_runs; i++)
        if (!fake.runs[i].decode) /* the longest prompt has 130 tokens */
            assert_in_range(fake.runs[i].past + fake.runs[i].n_tokens, 1, 130);
}

static void preempted_choices_of_one_prompt_go_on_alone(void **state)
{
    static int32_t ids[700];
    struct job_params p = harness_greedy(ids, 600, 400);
    struct engine_stats s;
    struct result r;

    harness_prompt(ids, 600, 1);
    opts.ctx_tokens = 1024;
    opts.kv_bytes = (16 + 11 + 6) * FAKE_PAGE_BYTES;
    opts.prefix_cache = false; /* it would find that all four say the same */
    p.n = 4;
    harness_open(&h, &opts);
    r = harness_run(&h, &p);
    for (int i = 0; i < 4; i++)
        fake_assert_answer(&r.answers[i], ids, 600, 400);
    result_free(&r);
    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    assert_true(s.preemptions > 0);
}

static void a_prompt_is_preempted_and_scored_again(void **state)
{
    static int32_t ids[2][900];
    struct job_params stream = harness_greedy(ids[0], 300, 700);
    struct job_params scored = harness_greedy(ids[1], 600, 100);
    struct job *a, *b;
    struct result r, alone;

    harness_prompt(ids[0], 300, 1);
    harness_prompt(ids[1], 600, 2);
    opts.ctx_tokens = 1024;
    opts.prefill_chunk = 2; /* the answer outgrows the pages while the prompt comes in */
    opts.kv_bytes = (16 + 11 + 3) * FAKE_PAGE_BYTES;
    scored.prompt_logprobs = true;
    scored.logprobs = 2;
    harness_open(&h, &opts);
    a = harness_submit(&h, &stream);
    b = harness_submit(&h, &scored);
    r = harness_collect(&h, a, 1);
    fake_assert_answer(&r.answers[0], ids[0], 300, 700);
    result_free(&r);
    r = harness_collect(&h, b, 1);
    alone = harness_run(&h, &scored);
    fake_assert_answer(&r.answers[0], ids[1], 600, 100);
    assert_int_equal(r.prompt.n, 600);
    assert_memory_equal(r.prompt.logprobs, alone.prompt.logprobs, 600 * sizeof(float));
    assert_int_equal(r.prompt.n_all_tops, 599 * 2);
    result_free(&r);
    result_free(&alone);
}

/* ---- opening ---- */

static void settings_that_cannot_work_are_refused(void **state)
{
    struct engine *e = NULL;
    struct err err;

    opts.kv_bytes = 4096;
    assert_int_equal(engine_open(&e, &opts, &err), GD_ENOMEM);
    assert_string_equal(err.param, "ctx_tokens");
    assert_non_null(strstr(err.msg, "2048"));
    harness_opts(&opts);
    opts.max_sequences = 0;
    assert_int_equal(engine_open(&e, &opts, &err), GD_EINVAL);
    assert_string_equal(err.param, "max_sequences");
    harness_opts(&opts);
    opts.ctx_tokens = 5000;
    assert_int_equal(engine_open(&e, &opts, &err), GD_EINVAL);
    assert_non_null(strstr(err.msg, "4096"));
    harness_opts(&opts);
    opts.chat_format = "odd";
    assert_int_equal(engine_open(&e, &opts, &err), GD_ENOTSUP);
    harness_opts(&opts);
    fake.open_error = GD_EFORMAT;
    assert_int_equal(engine_open(&e, &opts, &err), GD_EFORMAT);
    assert_string_equal(err.param, "blk.0.attn_q.weight");
    assert_null(e);
}

static void memory_decides_where_settings_do_not(void **state)
{
    const struct engine_info *info;

    opts.ctx_tokens = 0;
    opts.kv_bytes = 0;
    harness_open(&h, &opts);
    info = engine_info(h.e);
    assert_int_equal(info->ctx_tokens, 4096);
    assert_true(info->kv_bytes >= 4 * 64 * FAKE_PAGE_BYTES);
    assert_int_equal(info->max_sequences, 4);
    assert_string_equal(info->chat_format, "gemma3");
    harness_close(&h);

    opts.kv_bytes = 40 * FAKE_PAGE_BYTES;
    harness_open(&h, &opts);
    assert_in_range(engine_info(h.e)->ctx_tokens, 1500, 40 * 64);
    assert_true((size_t)engine_info(h.e)->kv_bytes <= opts.kv_bytes);
}

static void a_model_without_windows_works(void **state)
{
    int32_t ids[200];
    struct job_params p = harness_greedy(ids, 200, 100);
    struct result r;

    harness_prompt(ids, 200, 1);
    fake.no_sliding = true;
    p.n = 2;
    harness_open(&h, &opts);
    r = harness_run(&h, &p);
    fake_assert_answer(&r.answers[1], ids, 200, 100);
    result_free(&r);
}

static void numbers_are_counted(void **state)
{
    int32_t ids[100];
    struct job_params p = harness_greedy(ids, 100, 20);
    struct engine_stats s;
    struct result r;

    harness_prompt(ids, 100, 1);
    harness_open(&h, &opts);
    fake.us_per_run = 2000;
    p.n = 2;
    r = harness_run(&h, &p);
    result_free(&r);
    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    assert_int_equal(s.running, 0);
    assert_int_equal(s.prompt_tokens, 100);
    assert_int_equal(s.completion_tokens, 40);
    assert_int_equal(s.jobs_finished[FINISH_LENGTH], 1);
    assert_int_equal(s.ttft.n, 1);
    assert_int_equal(s.inter_token.n, 38);
    assert_int_equal(s.end_to_end.n, 1);
    assert_int_equal(s.queue_time.n, 1);
    assert_true(s.inter_token.sum >= 38 * 0.002);
    assert_true(s.inter_token.counts[0] == 0); /* none within a millisecond */
    assert_true(s.end_to_end.sum >= 0.04 && s.ttft.sum >= 0.002 && s.ttft.sum < s.end_to_end.sum);
    assert_true(s.steps >= 20);
    assert_float_equal(s.kv_used, 0, 0);
    assert_int_equal(s.last_step_ms_ago, 0);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(choices_share_the_prompts_pages),
        CASE(choices_part_where_their_tokens_differ),
        CASE(more_choices_than_places_wait_their_turn),
        CASE(windows_give_pages_back_while_running),
        CASE(preempted_answers_are_what_they_would_have_been),
        CASE(answers_stay_with_the_decode_graph_when_its_bits_differ),
        CASE(preempted_choices_of_one_prompt_go_on_alone),
        CASE(a_prompt_is_preempted_and_scored_again),
        CASE(settings_that_cannot_work_are_refused),
        CASE(memory_decides_where_settings_do_not),
        CASE(a_model_without_windows_works),
        CASE(numbers_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
