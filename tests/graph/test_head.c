/* test_head.c - what stands for a row of logits, its best found by leaving rows out of the head or
 * the token drawn from it, against the row itself: the same ids and the same bits, whatever the
 * instruction set, the threads, the neighbours and the length of the list. */
#include <math.h>

#include "engine/sampler.h"
#include "models.h"

enum { N_SEQS = 4, N_STEPS = 40, N_START = 5, N_SETTINGS = 7 };

/* Two with a trained head, of which most can be left out; a soft-cap; a tiny vocabulary, a ragged
 * one. */
static const struct {
    const char *path, *quantize;
} models[] = {
    {"data/gemmad-demo-q8_0.gguf", "none"},
    {"tests/golden/families/gemma3/model-q8_0.gguf", "none"},
    {"tests/golden/families/gemma2/model-f16.gguf", "q8_0"},
    {"tests/golden/families/gemma4-e2b/model-bf16.gguf", "q8_0"},
};

static const struct sampling settings[N_SETTINGS] = {
    {.temperature = 1, .top_p = 1, .typical_p = 1, .repeat_penalty = 1},
    {.temperature = 1, .top_k = 64, .top_p = 0.95f, .typical_p = 1, .repeat_penalty = 1},
    {.temperature = 0.7f, .top_k = 5, .top_p = 1, .typical_p = 1, .repeat_penalty = 1},
    {.temperature = 0.7f, .top_p = 0.8f, .typical_p = 1, .repeat_penalty = 1},
    {.temperature = 1.3f, .top_p = 1, .min_p = 0.1f, .typical_p = 1, .repeat_penalty = 1},
    {.temperature = 2,
        .top_k = 40,
        .top_p = 0.5f,
        .min_p = 0.01f,
        .typical_p = 1,
        .repeat_penalty = 1},
    {.temperature = 0.7f, .top_p = 1, .typical_p = 1, .repeat_penalty = 1},
};

static struct runtime *open_head(
    const char *path, const char *quantize, const char *isa, int n_threads, bool screen)
{
    struct runtime_opts o;
    struct runtime *rt;
    struct err err;

    runtime_opts_default(&o);
    o.model_path = path;
    o.isa = isa;
    o.n_threads = n_threads;
    o.quantize = quantize;
    o.screen_head = screen;
    o.max_sequences = N_SEQS;
    o.max_chunk = TEST_CHUNK;
    o.ids_only = true;
    if (runtime_open(&rt, &o, &err) < 0)
        fail_msg("%s: %s", path, err.msg);
    return rt;
}

/* The k best of a row by their definition. */
static void assert_best(const struct shortlist *list, const float *row, int vocab)
{
    assert_int_equal(list->n, list->k < vocab ? list->k : vocab);
    for (int i = 0; i < list->n; i++) {
        const struct logit *a = &list->best[i], *b = i > 0 ? &list->best[i - 1] : NULL;

        assert_in_range(a->id, 0, vocab - 1);
        assert_memory_equal(&a->value, &row[a->id], sizeof(float));
        assert_true(!b || b->value > a->value || (b->value == a->value && b->id < a->id));
    }
    for (int id = 0, n = 0; id < vocab; id++) { /* nothing better is missing */
        const struct logit *last = &list->best[list->n - 1];

        n += row[id] > last->value || (row[id] == last->value && id <= last->id);
        assert_true(n <= list->n);
    }
}

/* Greedy texts of n sequences; every step by rows of `plain` and by lists of k from `rt`. */
static void compare(struct runtime *plain, struct runtime *rt, int n, int k, uint32_t seed)
{
    int vocab = rt->hp.vocab, past[N_SEQS];
    int32_t ids[N_START], next[N_SEQS];
    float *want = xcalloc((size_t)n * (size_t)vocab, sizeof(*want));
    float *got = xcalloc((size_t)n * (size_t)vocab, sizeof(*got));
    struct logit best[N_SEQS][SHORTLIST_MAX];
    struct shortlist lists[N_SEQS];
    struct plain_kv kv, kv_plain;
    struct err err;

    assert_int_equal(plain_kv_create(&kv, rt, n, N_START + N_STEPS, &err), 0);
    assert_int_equal(plain_kv_create(&kv_plain, plain, n, N_START + N_STEPS, &err), 0);
    for (int s = 0; s < n; s++) {
        fill_ids(ids, N_START, seed + (uint32_t)s, vocab);
        plain_feed(plain, &kv_plain, s, 0, ids, N_START - 1, N_START, NULL);
        plain_feed(rt, &kv, s, 0, ids, N_START - 1, N_START, NULL);
        past[s] = N_START - 1;
        next[s] = ids[N_START - 1];
    }
    for (int step = 0; step < N_STEPS; step++) {
        for (int s = 0; s < n; s++)
            lists[s] = (struct shortlist){.k = k + s % 2, .best = best[s]};
        plain_decode(plain, &kv_plain, past, next, n, want);
        plain_decode_best(rt, &kv, past, next, n, got, lists);
        for (int s = 0; s < n; s++) {
            assert_best(&lists[s], want + (size_t)s * (size_t)vocab, vocab);
            next[s] = best[s][0].id;
            past[s]++;
        }
    }
    plain_kv_free(&kv);
    plain_kv_free(&kv_plain);
    free(want);
    free(got);
}

/* Even sequences draw as their settings say, odd ones want lists, and one of them, if asked for,
 * the row itself: what one sequence wants changes nothing for its neighbours. */
static void mix(struct runtime *plain, struct runtime *rt, int n, int row_of, uint32_t seed)
{
    const size_t vocab = (size_t)rt->hp.vocab;
    struct sampler *sampler = sampler_create(&rt->kernels, rt->hp.vocab);
    float *want = xcalloc((size_t)n * vocab, sizeof(*want));
    float *got = xcalloc((size_t)n * vocab, sizeof(*got));
    struct logit best[N_SEQS][SHORTLIST_MAX];
    struct shortlist lists[N_SEQS];
    struct sampling sampling = settings[seed % N_SETTINGS];
    struct sampler_input in[N_SEQS];
    struct graph_seq seqs[N_SEQS];
    const uint32_t page[N_SEQS] = {0, 1, 2, 3};
    int32_t next[N_SEQS];
    struct plain_kv kv, kv_plain;
    int past[N_SEQS] = {0};
    struct err err;

    assert_int_equal(plain_kv_create(&kv, rt, n, KV_PAGE, &err), 0);
    assert_int_equal(plain_kv_create(&kv_plain, plain, n, KV_PAGE, &err), 0);
    fill_ids(next, n, seed, rt->hp.vocab);
    for (int step = 0; step < 12; step++) {
        for (int s = 0; s < n; s++) {
            in[s] = (struct sampler_input){
                .params = &sampling, .seed = seed, .choice = s, .n_tokens = step};
            lists[s] = (struct shortlist){.k = 1 + s, .best = best[s]};
            if (s % 2 == 0)
                assert_true(sampler_shortlist(&in[s], rt->hp.vocab, &lists[s]));
            seqs[s] = (struct graph_seq){.past = step,
                .n_tokens = 1,
                .tokens = &next[s],
                .pages = {&page[s], &page[s]},
                .n_logits = 1,
                .logits = got + (size_t)s * vocab,
                .best = s == row_of ? NULL : &lists[s]};
        }
        plain_decode(plain, &kv_plain, past, next, n, want);
        graph_run(rt->decode, &kv.memory, seqs, n);
        for (int s = 0; s < n; s++) {
            float *row = want + (size_t)s * vocab;

            if (s == row_of)
                assert_memory_equal(seqs[s].logits, row, vocab * sizeof(*row));
            else if (s % 2)
                assert_best(&lists[s], row, rt->hp.vocab);
            else if (lists[s].n)
                assert_int_equal(sampler_pick_from(sampler, &lists[s], &in[s]),
                    sampler_pick(sampler, row, &in[s]));
            else
                assert_memory_equal(seqs[s].logits, row, vocab * sizeof(*row));
            next[s] = s % 2 ? (step * 7 + s) % rt->hp.vocab : sampler_pick(sampler, row, &in[s]);
            past[s]++;
        }
    }
    plain_kv_free(&kv);
    plain_kv_free(&kv_plain);
    sampler_destroy(sampler);
    free(want);
    free(got);
}

static void check(const char *path, const char *quantize, const char *isa, int n_threads)
{
    struct runtime *plain = open_head(path, quantize, isa, 1, false);
    struct runtime *rt = open_head(path, quantize, isa, n_threads, true);
    int64_t read, whole;

    compare(plain, rt, 1, 1, 1);
    compare(plain, rt, 1, 2, 2);
    compare(plain, rt, 1, 8, 3);
    compare(plain, rt, 4, 1, 4);
    graph_head_bytes(rt->decode, &read, &whole);
    printf("# %s, %s, %d threads: %.0f %% of the head read\n", path, isa, n_threads,
        100 * (double)read / (double)whole);
    if (rt->hp.vocab > 2000) /* trained */
        assert_true(read < whole);
    compare(plain, rt, 4, 3, 4); /* too much for the screen, as are the longer lists */
    compare(plain, rt, 2, 17, 5);
    compare(plain, rt, 1, SHORTLIST_MAX - 1, 6);
    for (int n = 1; n <= N_SEQS; n++)
        for (int row_of = -1; row_of < n; row_of++)
            for (uint32_t i = 0; i < N_SETTINGS; i++)
                mix(plain, rt, n, row_of, 7 * (uint32_t)n + i);
    graph_head_bytes(plain->decode, &read, &whole);
    assert_int_equal(read, whole);
    runtime_close(rt);
    runtime_close(plain);
}

static void lists_are_the_best_of_the_row(void **state)
{
    for (size_t m = 0; m < sizeof(models) / sizeof(*models); m++) {
        char path[1024];

        snprintf(path, sizeof(path), "%s/%s", SOURCE_ROOT, models[m].path);
        for (int isa = 0; isa < ISA_COUNT; isa++)
            if (kernels_has((enum isa)isa))
                check(path, models[m].quantize, isa_name((enum isa)isa), 1 + isa % 3);
        check(path, models[m].quantize, "auto", 3);
    }
}

/* Thousands of states of a real model, when there is one. */
static void a_real_head_gives_the_same(void **state)
{
    const char *path = getenv("GEMMAD_TEST_REAL_GGUF");
    struct runtime *plain, *rt;
    int64_t read, whole;

    if (!path || !path[0]) {
        printf("# SKIP: GEMMAD_TEST_REAL_GGUF names no model: no real head was screened\n");
        skip();
    }
    plain = open_head(path, "none", "auto", 2, false);
    rt = open_head(path, "none", "auto", 2, true);
    for (uint32_t i = 0; i < 12; i++) {
        compare(plain, rt, 1, 1, 10 * i);
        compare(plain, rt, 4, 1, 100 * i);
        compare(plain, rt, 1, 8, 1000 * i);
    }
    graph_head_bytes(rt->decode, &read, &whole);
    printf("# %.0f %% of the head read\n", 100 * (double)read / (double)whole);
    assert_true(read < whole / 10 * 9);
    for (uint32_t i = 0; i < 12 * N_SETTINGS; i++) {
        mix(plain, rt, 1, -1, i);
        mix(plain, rt, 3, -1, 100 + i);
    }
    runtime_close(rt);
    runtime_close(plain);
}

/* A row without any number is left to the row: neither a list nor a draw can stand for it. The
 * neighbour gets his. */
static void numbers_that_are_none_need_the_row(void **state)
{
    char path[1024];
    struct runtime *rt;
    struct plain_kv kv;
    struct err err;
    struct logit best[2][4];
    int past[2] = {0};
    int32_t ids[2] = {2, 3};
    float *rows;

    snprintf(path, sizeof(path), "%s/%s", SOURCE_ROOT, models[0].path);
    rt = open_head(path, "none", "auto", 2, true);
    rows = xcalloc(2 * (size_t)rt->hp.vocab, sizeof(*rows));
    assert_int_equal(plain_kv_create(&kv, rt, 2, KV_PAGE, &err), 0);
    plain_decode(rt, &kv, past, ids, 2, rows);
    /* K and V of the first sequence become NaN, bf16 or f32 */
    for (int g = 0; g < KV_GROUPS; g++)
        memset(kv.memory.base[g], 0xff, kv.bytes[g] / 2);
    past[0] = past[1] = 1;
    for (int draws = 0; draws < 2; draws++) {
        struct shortlist lists[2];

        for (int s = 0; s < 2; s++)
            lists[s] = (struct shortlist){.k = 1, .draw.scale = (float)draws, .best = best[s]};
        memset(rows, 0, 2 * (size_t)rt->hp.vocab * sizeof(*rows));
        plain_decode_best(rt, &kv, past, ids, 2, rows, lists);
        assert_int_equal(lists[0].n, 0);
        assert_int_equal(lists[1].n, 1);
        for (int i = 0; i < rt->hp.vocab; i++)
            assert_true(isnan(rows[i]));
        assert_true(isfinite(rows[rt->hp.vocab]));
    }
    plain_kv_free(&kv);
    free(rows);
    runtime_close(rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_the_best_of_the_row),
        cmocka_unit_test(a_real_head_gives_the_same),
        cmocka_unit_test(numbers_that_are_none_need_the_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
