/* test_invariance.c - the promise of the whole design: logits of a sequence are the same bits
 * however its prompt was cut, with how many threads, alone or beside strangers, prefilled or
 * decoded, fused or not, on every instruction set. */
#include "models.h"

enum { N_PROMPT = 150, N_DECODE = 8, N_SEQS = 8 };

/* Last logits of a prompt fed in pieces of `chunk`, then of N_DECODE greedy steps. */
static void run_alone(struct runtime *rt, const int32_t *ids, int n, int chunk, float *out)
{
    size_t vocab = (size_t)rt->hp.vocab;
    struct plain_kv kv;
    struct err err;

    assert_int_equal(plain_kv_create(&kv, rt, 1, n + N_DECODE, &err), 0);
    plain_feed(rt, &kv, 0, 0, ids, n, chunk, out);
    for (int i = 0; i < N_DECODE; i++) {
        int past = n + i;
        int32_t next = rt->kernels.argmax(out + (size_t)i * vocab, rt->hp.vocab);

        plain_decode(rt, &kv, &past, &next, 1, out + (size_t)(i + 1) * vocab);
    }
    plain_kv_free(&kv);
}

static float *rows(const struct runtime *rt, int n)
{
    return xcalloc((size_t)n * (size_t)rt->hp.vocab, sizeof(float));
}

static void assert_same(
    const float *a, const float *b, const struct runtime *rt, int n, const char *what)
{
    size_t bytes = (size_t)n * (size_t)rt->hp.vocab * sizeof(float);

    if (memcmp(a, b, bytes) != 0)
        fail_msg("%s: logits differ: %s", source_path(rt->src), what);
    for (int i = 0; i < n * rt->hp.vocab; i++)
        assert_true(a[i] - a[i] == 0); /* finite */
}

static void check_chunks(struct runtime *rt, const char *what)
{
    static const int chunks[] = {1, 7, 64, 512};
    int32_t ids[N_PROMPT];
    float *want = rows(rt, N_DECODE + 1), *got = rows(rt, N_DECODE + 1);

    fill_ids(ids, N_PROMPT, 1, rt->hp.vocab);
    run_alone(rt, ids, N_PROMPT, 100, want);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        run_alone(rt, ids, N_PROMPT, chunks[i], got);
        assert_same(want, got, rt, N_DECODE + 1, what);
    }
    free(want);
    free(got);
}

static const char *const profiles[] = {"reference", "precise", "default"};
enum { N_PROFILES = sizeof(profiles) / sizeof(profiles[0]) };

static void for_each_isa(void (*check)(const char *model, const char *profile, const char *isa))
{
    for (int m = 0; m < N_TEST_MODELS; m++)
        for (int p = 0; p < N_PROFILES; p++)
            for (int isa = 0; isa < ISA_COUNT; isa++)
                if (kernels_has((enum isa)isa))
                    check(test_models[m], profiles[p], isa_name((enum isa)isa));
}

static void chunks(const char *model, const char *profile, const char *isa)
{
    struct runtime *rt = open_model(model, profile, isa, 2, "auto");

    check_chunks(rt, "prompt pieces");
    runtime_close(rt);
}

static void prompt_pieces_do_not_matter(void **state)
{
    for_each_isa(chunks);
}

static void with_blas_prompt_pieces_do_not_matter(void **state)
{
    for (int m = 0; m < 2 * N_TEST_MODELS; m++) {
        struct runtime *rt =
            open_model(test_models[m / 2], m % 2 ? "precise" : "default", "auto", 2, "blas");

        check_chunks(rt, "prompt pieces with blas");
        runtime_close(rt);
    }
}

static void threads(const char *model, const char *profile, const char *isa)
{
    int32_t ids[N_PROMPT];
    float *want = NULL, *got;

    for (int n = 1; n <= 3; n++) {
        struct runtime *rt = open_model(model, profile, isa, n, "auto");

        fill_ids(ids, N_PROMPT, 2, rt->hp.vocab);
        got = rows(rt, N_DECODE + 1);
        run_alone(rt, ids, N_PROMPT, 64, got);
        if (want) {
            assert_same(want, got, rt, N_DECODE + 1, "threads");
            free(got);
        } else {
            want = got;
        }
        runtime_close(rt);
    }
    free(want);
}

static void threads_do_not_matter(void **state)
{
    for_each_isa(threads);
}

/* Keys of a long past are shared out among threads, beside a short one too. */
static void long_past(const char *model, const char *isa)
{
    enum { N_LONG = 1100 };
    int32_t ids[N_LONG];
    float *want = NULL;

    for (int n = 1; n <= 8; n += n == 1 ? 1 : 3) {
        struct runtime *rt = open_model(model, "default", isa, n, "auto");
        const size_t vocab = (size_t)rt->hp.vocab;
        float *got = rows(rt, 2 * N_DECODE), *logits = rows(rt, 2);
        int past[2] = {N_LONG, 20};
        int32_t next[2] = {3, 4};
        struct plain_kv kv;
        struct err err;

        fill_ids(ids, N_LONG, 4, rt->hp.vocab);
        assert_int_equal(plain_kv_create(&kv, rt, 2, N_LONG + N_DECODE, &err), 0);
        for (int s = 0; s < 2; s++)
            plain_feed(rt, &kv, s, 0, ids, past[s], TEST_CHUNK, NULL);
        for (int i = 0; i < N_DECODE; i++) {
            const int n_seqs = 1 + i % 2;

            plain_decode(rt, &kv, past, next, n_seqs, logits);
            memcpy(got + (size_t)(2 * i) * vocab, logits, (size_t)n_seqs * vocab * sizeof(float));
            for (int s = 0; s < n_seqs; s++)
                next[s] = (next[s] * 7 + ++past[s]) % rt->hp.vocab;
        }
        if (want)
            assert_same(want, got, rt, 2 * N_DECODE, "threads with a long past");
        free(want);
        want = got;
        free(logits);
        plain_kv_free(&kv);
        runtime_close(rt);
    }
    free(want);
}

static void threads_do_not_matter_with_a_long_past(void **state)
{
    for (int m = 0; m < N_TEST_MODELS; m++) {
        long_past(test_models[m], "c");
        long_past(test_models[m], "auto");
    }
}

/* Eight sequences of different lengths decoded together; each against itself alone. */
static void strangers(const char *model, const char *profile, const char *isa)
{
    struct runtime *rt = open_model(model, profile, isa, 2, "auto");
    size_t vocab = (size_t)rt->hp.vocab;
    int32_t ids[N_SEQS][N_PROMPT], next[N_SEQS];
    float *logits = rows(rt, N_SEQS), *all = rows(rt, N_SEQS * (N_DECODE + 1)),
          *alone = rows(rt, N_DECODE + 1);
    int past[N_SEQS];
    struct plain_kv kv;
    struct err err;

    assert_int_equal(plain_kv_create(&kv, rt, N_SEQS, N_PROMPT + N_DECODE, &err), 0);
    for (int s = 0; s < N_SEQS; s++) {
        past[s] = N_PROMPT - 19 * s;
        fill_ids(ids[s], past[s], (uint32_t)s + 10, rt->hp.vocab);
        plain_feed(rt, &kv, s, 0, ids[s], past[s], 512, logits + (size_t)s * vocab);
    }
    for (int i = 0; i <= N_DECODE; i++) {
        for (int s = 0; s < N_SEQS; s++) {
            const float *row = logits + (size_t)s * vocab;

            memcpy(all + (size_t)(s * (N_DECODE + 1) + i) * vocab, row, vocab * sizeof(*row));
            next[s] = rt->kernels.argmax(row, rt->hp.vocab);
        }
        if (i == N_DECODE)
            break;
        plain_decode(rt, &kv, past, next, N_SEQS, logits);
        for (int s = 0; s < N_SEQS; s++)
            past[s]++;
    }
    for (int s = 0; s < N_SEQS; s++) {
        run_alone(rt, ids[s], N_PROMPT - 19 * s, 512, alone);
        assert_same(alone, all + (size_t)(s * (N_DECODE + 1)) * vocab, rt, N_DECODE + 1,
            "strangers in the batch");
    }
    plain_kv_free(&kv);
    free(logits);
    free(all);
    free(alone);
    runtime_close(rt);
}

static void strangers_do_not_matter(void **state)
{
    for_each_isa(strangers);
}

/* The same tokens through the decode graph, one by one: what a prefix cache and a preempted
 * sequence rely on. */
static void decoded(const char *model, const char *profile, const char *isa)
{
    struct runtime *rt = open_model(model, profile, isa, 2, "native");
    int32_t ids[N_PROMPT];
    float *want = rows(rt, 1), *got = rows(rt, 1);
    struct plain_kv kv;
    struct err err;

    fill_ids(ids, N_PROMPT, 3, rt->hp.vocab);
    assert_int_equal(plain_kv_create(&kv, rt, 1, N_PROMPT, &err), 0);
    plain_feed(rt, &kv, 0, 0, ids, N_PROMPT, 512, want);
    for (int past = 0; past < N_PROMPT; past++)
        plain_decode(rt, &kv, &past, &ids[past], 1, got);
    assert_same(want, got, rt, 1, "decoded instead of prefilled");
    plain_kv_free(&kv);
    free(want);
    free(got);
    runtime_close(rt);
}

static void decoding_equals_prefilling(void **state)
{
    for_each_isa(decoded);
}

static void fusion_changes_no_bit_in(const char *profile)
{
    for (int m = 0; m < N_TEST_MODELS; m++) {
        struct runtime *rt = open_model(test_models[m], profile, "auto", 2, "auto");
        int32_t ids[N_PROMPT];
        float *want = rows(rt, 1), *got = rows(rt, 1);
        struct flow_options fo;
        struct flow_profile p;
        struct graph *direct, *fused = rt->prefill;
        struct flow *f;
        struct plain_kv kv;
        struct err err;

        fill_ids(ids, N_PROMPT, 4, rt->hp.vocab);
        flow_prefill_options(&fo, 1, 128);
        fo.seq = TEST_CHUNK;
        fo.dynamic_seq = true;
        assert_true(flow_profile_named(&p, profile));
        p.policy = FUSION_DIRECT;
        p.kv = rt->kv.type == KV_F32 ? FLOW_KV_F32 : FLOW_KV_BF16;
        assert_int_equal(flow_create(&f, &rt->hp, &fo, &err), 0);
        assert_int_equal(flow_build(&direct, f, &p, rt->weights, &rt->kernels, rt->pool, &err), 0);
        flow_destroy(f);

        assert_int_equal(plain_kv_create(&kv, rt, 1, N_PROMPT, &err), 0);
        plain_feed(rt, &kv, 0, 0, ids, N_PROMPT, 512, want);
        rt->prefill = direct;
        plain_feed(rt, &kv, 0, 0, ids, N_PROMPT, 512, got);
        rt->prefill = fused;
        assert_same(want, got, rt, 1, "fused and direct");
        graph_destroy(direct);
        plain_kv_free(&kv);
        free(want);
        free(got);
        runtime_close(rt);
    }
}

static void fusion_changes_no_bit(void **state)
{
    fusion_changes_no_bit_in("default");
    fusion_changes_no_bit_in("precise");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompt_pieces_do_not_matter),
        cmocka_unit_test(with_blas_prompt_pieces_do_not_matter),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(threads_do_not_matter_with_a_long_past),
        cmocka_unit_test(strangers_do_not_matter),
        cmocka_unit_test(decoding_equals_prefilling),
        cmocka_unit_test(fusion_changes_no_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
