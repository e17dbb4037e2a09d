/* test_real.c - the engine over the demo model: what the fake cannot show, that a sequence's result
 * does not depend on its neighbours, its chunks, or on being computed twice. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <cjson/cJSON.h>

#include "base/buf.h"
#include "harness.h"

enum { REQUESTS = 8, ANSWER = 24 };

static const char *const texts[REQUESTS] = {
    "Once upon a time there was a little",
    "Tell me a story about a dog and a ball. The dog",
    "3 + 4 =",
    "The sun",
    "A poem about the sea:\n\n",
    "He said: \"I am",
    "Lily and Tom went to the park. They saw a big tree and wanted to climb it. Lily said",
    "x",
};

static struct harness h;
static const char *matmul_prefill = "native";

static void demo_opts(struct engine_opts *o)
{
    engine_opts_default(o);
    o->model_path = DEMO_MODEL;
    o->n_threads = 2;
    o->matmul_prefill = matmul_prefill;
}

static void open_demo(const char *profile, int max_sequences)
{
    struct engine_opts o;

    demo_opts(&o);
    o.profile = profile;
    o.ctx_tokens = 512;
    o.max_sequences = max_sequences;
    harness_open(&h, &o);
}

static struct job_params request(int i)
{
    struct job_params p;

    job_params_default(&p);
    p.prompt.text = texts[i];
    p.prompt.text_len = strlen(texts[i]);
    p.max_tokens = ANSWER;
    p.ignore_eos = true;
    p.logprobs = i % 3 ? 3 : -1; /* others' wishes decide what a run gives for them all */
    p.sampling.temperature = i % 2 ? 0.8f : 0;
    p.sampling.top_k = i % 4 == 1 ? 40 : 0;
    p.sampling.has_seed = true;
    p.sampling.seed = (uint64_t)i;
    return p;
}

/* Token for token, and every log-probability to the bit. */
static void assert_same(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_true(a->n > 0);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof(*a->ids));
    assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n * sizeof(*a->logprobs));
    assert_int_equal(a->n_all_tops, b->n_all_tops);
    if (a->n_all_tops)
        assert_memory_equal(a->tops, b->tops, (size_t)a->n_all_tops * sizeof(*a->tops));
    assert_string_equal(a->text.data, b->text.data);
}

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct buf b = {0};
    char part[4096];
    size_t n;

    assert_non_null(f);
    while ((n = fread(part, 1, sizeof(part), f)) > 0)
        buf_append(&b, part, n);
    fclose(f);
    return buf_take(&b);
}

static size_t ids_of(const cJSON *array, int32_t *out, size_t max)
{
    const cJSON *item;
    size_t n = 0;

    cJSON_ArrayForEach(item, array)
    {
        assert_true(n < max);
        out[n++] = item->valueint;
    }
    return n;
}

static void greedy_answers_are_the_golden_ones(void **state)
{
    char *text = read_all(DEMO_GOLDEN);
    cJSON *golden = cJSON_Parse(text);
    const cJSON *prompt;
    int n_prompts = 0;

    assert_non_null(golden);
    open_demo("reference", 4);
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(golden, "prompts"))
    {
        int32_t ids[512], want[512];
        size_t n = ids_of(cJSON_GetObjectItem(prompt, "prompt_ids"), ids, 512);
        const cJSON *answer = cJSON_GetObjectItem(prompt, "q8_0");
        size_t n_want = ids_of(cJSON_GetObjectItem(answer, "ids"), want, 512);
        struct job_params p = harness_greedy(ids, (int)n, 64);
        struct result r;

        p.ignore_eos = false;
        r = harness_run(&h, &p);
        assert_int_equal(r.answers[0].n, n_want);
        assert_memory_equal(r.answers[0].ids, want, n_want * sizeof(*want));
        assert_string_equal(
            r.answers[0].text.data, cJSON_GetObjectItem(answer, "text")->valuestring);
        result_free(&r);
        n_prompts++;
    }
    assert_true(n_prompts > 0);
    harness_close(&h);
    cJSON_Delete(golden);
    free(text);
}

static void strangers_do_not_change_an_answer_in(const char *profile)
{
    struct job *jobs[REQUESTS];
    struct result together[REQUESTS];

    open_demo(profile, REQUESTS);
    for (int i = 0; i < REQUESTS; i++) {
        struct job_params p = request(i);

        jobs[i] = harness_submit(&h, &p);
    }
    for (int i = 0; i < REQUESTS; i++)
        together[i] = harness_collect(&h, jobs[i], 1);
    for (int i = 0; i < REQUESTS; i++) {
        struct job_params p = request(i);
        struct result alone = harness_run(&h, &p);

        assert_same(&alone.answers[0], &together[i].answers[0]);
        result_free(&alone);
        result_free(&together[i]);
    }
    harness_close(&h);
}

static void strangers_do_not_change_an_answer(void **state)
{
    strangers_do_not_change_an_answer_in("default");
}

static void nor_in_the_reference_profile(void **state)
{
    strangers_do_not_change_an_answer_in("reference");
}

static void nor_in_the_precise_profile(void **state)
{
    strangers_do_not_change_an_answer_in("precise");
}

static void choices_are_what_they_would_be_alone(void **state)
{
    struct job_params p = request(1);
    struct result few, many;

    open_demo("default", 4);
    p.n = 2;
    few = harness_run(&h, &p);
    p.n = 5;
    many = harness_run(&h, &p);
    for (int i = 0; i < 2; i++)
        assert_same(&few.answers[i], &many.answers[i]);
    assert_string_not_equal(many.answers[0].text.data, many.answers[1].text.data);
    result_free(&few);
    result_free(&many);
    harness_close(&h);
}

/* They need the row, which is not there when a token is drawn in the head. */
static void log_probabilities_change_no_answer(void **state)
{
    struct job_params p = request(3);

    open_demo("default", 4);
    assert_int_equal(p.logprobs, -1);
    for (p.n = 1; p.n <= 3; p.n++) {
        struct result with, without;

        p.logprobs = -1;
        without = harness_run(&h, &p);
        p.logprobs = 0;
        with = harness_run(&h, &p);
        for (int i = 0; i < p.n; i++) {
            assert_int_equal(with.answers[i].n, without.answers[i].n);
            assert_memory_equal(with.answers[i].ids, without.answers[i].ids,
                (size_t)with.answers[i].n * sizeof(*with.answers[i].ids));
        }
        result_free(&with);
        result_free(&without);
    }
    harness_close(&h);
}

/* A long prompt in pieces of `chunk` beside a running answer. */
static struct result in_chunks(int chunk, const int32_t *ids, size_t n)
{
    struct job_params stream = request(0), p = request(3);
    struct engine_opts o;
    struct job_event ev;
    struct job *j;
    struct result r;

    demo_opts(&o);
    o.ctx_tokens = 1024;
    o.prefill_chunk = chunk;
    harness_open(&h, &o);
    stream.max_tokens = 900;
    j = harness_submit(&h, &stream);
    do
        harness_next(&h, j, &ev);
    while (ev.kind != EVENT_TEXT);
    p.prompt.kind = PROMPT_TOKENS;
    p.prompt.ids = ids;
    p.prompt.n = n;
    p.prompt_logprobs = chunk == 64; /* scoring a prompt changes its pieces, not its numbers */
    r = harness_run(&h, &p);
    job_release(j);
    harness_close(&h);
    return r;
}

static void chunks_do_not_change_an_answer(void **state)
{
    static const int chunks[] = {512, 64, 7, 1};
    struct result first, r;
    int32_t ids[300];

    for (int i = 0; i < 300; i++)
        ids[i] = 300 + i * 37 % 2000;
    first = in_chunks(chunks[0], ids, 300);
    for (int i = 1; i < 4; i++) {
        r = in_chunks(chunks[i], ids, 300);
        assert_same(&first.answers[0], &r.answers[0]);
        result_free(&r);
    }
    result_free(&first);
}

static void being_computed_again_does_not_change_an_answer(void **state)
{
    enum { JOBS = 4, LONG = 300 };
    struct engine_opts o;
    struct engine_stats s;
    struct job *jobs[JOBS];
    struct result r[JOBS];

    demo_opts(&o);
    o.ctx_tokens = 384;
    o.max_sequences = JOBS;
    harness_open(&h, &o);
    o.kv_bytes = (size_t)engine_info(h.e)->kv_bytes / 2; /* two of the four */
    harness_close(&h);
    harness_open(&h, &o);
    for (int i = 0; i < JOBS; i++) {
        struct job_params p = request(i);

        p.max_tokens = LONG;
        jobs[i] = harness_submit(&h, &p);
    }
    for (int i = 0; i < JOBS; i++)
        r[i] = harness_collect(&h, jobs[i], 1);
    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    assert_true(s.preemptions > 0);
    for (int i = 0; i < JOBS; i++) {
        struct job_params p = request(i);
        struct result alone;

        p.max_tokens = LONG;
        alone = harness_run(&h, &p);
        assert_same(&alone.answers[0], &r[i].answers[0]);
        result_free(&alone);
        result_free(&r[i]);
    }
    harness_close(&h);
}

static void what_was_known_does_not_change_an_answer(void **state)
{
    static int32_t ids[400];
    /* What the other graph made of an answer is not what this one would. */
    const int n_known = strcmp(matmul_prefill, "blas") == 0 ? 200 : 299;
    struct result r[2];

    for (int cached = 0; cached < 2; cached++) {
        struct job_params p = request(2);
        struct engine_opts o;

        demo_opts(&o);
        o.ctx_tokens = 512;
        o.prefix_cache = cached;
        harness_open(&h, &o);
        p.prompt.kind = PROMPT_TOKENS;
        p.prompt.ids = ids;
        p.max_tokens = 100;
        for (int i = 0; i < 400; i++)
            ids[i] = 300 + i * 37 % 2000;
        for (p.prompt.n = 200;; p.prompt.n = 400) { /* the second turn holds the first answer */
            r[cached] = harness_run(&h, &p);
            assert_int_equal(r[cached].answers[0].usage.cached_tokens,
                cached && p.prompt.n == 400 ? n_known / 64 * 64 : 0);
            if (p.prompt.n == 400)
                break;
            memcpy(ids + 200, r[cached].answers[0].ids, 100 * sizeof(*ids));
            result_free(&r[cached]);
        }
        harness_close(&h);
    }
    assert_same(&r[0].answers[0], &r[1].answers[0]);
    result_free(&r[0]);
    result_free(&r[1]);
}

/* Its products have other bits than those of the answers. */
static void nor_with_prompts_by_blas(void **state)
{
    matmul_prefill = "blas";
    strangers_do_not_change_an_answer_in("default");
    chunks_do_not_change_an_answer(state);
    being_computed_again_does_not_change_an_answer(state);
    what_was_known_does_not_change_an_answer(state);
    matmul_prefill = "native";
}

static void a_chat_is_answered(void **state)
{
    const struct chat_message messages[] = {{.role = ROLE_USER, .content = "Hi", .content_len = 2}};
    struct job_params p;
    struct result r;

    open_demo("default", 4);
    job_params_default(&p);
    p.prompt.kind = PROMPT_CHAT;
    p.prompt.messages = messages;
    p.prompt.n = 1;
    p.sampling.temperature = 0;
    p.max_tokens = 64;
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].finish, FINISH_STOP);
    assert_non_null(strstr(r.answers[0].text.data, "gemmad"));
    result_free(&r);
    harness_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_answers_are_the_golden_ones),
        cmocka_unit_test(strangers_do_not_change_an_answer),
        cmocka_unit_test(nor_in_the_reference_profile),
        cmocka_unit_test(nor_in_the_precise_profile),
        cmocka_unit_test(choices_are_what_they_would_be_alone),
        cmocka_unit_test(log_probabilities_change_no_answer),
        cmocka_unit_test(chunks_do_not_change_an_answer),
        cmocka_unit_test(being_computed_again_does_not_change_an_answer),
        cmocka_unit_test(what_was_known_does_not_change_an_answer),
        cmocka_unit_test(nor_with_prompts_by_blas),
        cmocka_unit_test(a_chat_is_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
