/* test_files.c - the same weights from a Hugging Face folder and from a GGUF are the same model:
 * logits of a prompt and of decoding are equal bit for bit, in both profiles. (Not Gemma 2: its
 * folder is F16, and the converter rounds the norms of such a model to F16.) Quantising while
 * loading gives what files quantised before hold. */
#include "models.h"

enum { N_PROMPT = 90, N_DECODE = 6 };

static const char *const families[] = {
    "gemma1", "gemma3", "gemma3-mm", "gemma3n", "gemma4-dense", "gemma4-e2b", "gemma4-moe"};

struct wish {
    const char *profile, *quantize;
    int n_threads;
    const char *head; /* NULL: as in the file */
};

static int open_file(struct runtime **rt, const char *model, struct wish w, struct err *err)
{
    struct runtime_opts o;
    char path[1024];

    snprintf(path, sizeof(path), "%s/%s", SOURCE_ROOT, model);
    runtime_opts_default(&o);
    o.model_path = path;
    o.profile = w.profile;
    o.quantize = w.quantize;
    o.n_threads = w.n_threads;
    o.head = w.head ? w.head : o.head;
    o.max_chunk = TEST_CHUNK;
    o.ids_only = true;
    return runtime_open(rt, &o, err);
}

struct answer {
    float *logits; /* (N_DECODE + 1, vocab): after a prompt and after each greedy step */
    int vocab;
    size_t weight_bytes;
};

static void ask(struct answer *a, const char *model, struct wish w)
{
    struct runtime *rt;
    int32_t ids[N_PROMPT];
    struct plain_kv kv;
    struct err err;
    size_t n;

    if (open_file(&rt, model, w, &err) < 0)
        fail_msg("%s: %s", model, err.msg);
    n = (size_t)rt->hp.vocab;
    *a = (struct answer){.logits = xcalloc((N_DECODE + 1) * n, sizeof(float)),
        .vocab = rt->hp.vocab,
        .weight_bytes = rt->weight_bytes};
    fill_ids(ids, N_PROMPT, 7, rt->hp.vocab);
    assert_int_equal(plain_kv_create(&kv, rt, 1, N_PROMPT + N_DECODE, &err), 0);
    plain_feed(rt, &kv, 0, 0, ids, N_PROMPT, TEST_CHUNK, a->logits);
    for (int i = 0; i < N_DECODE; i++) {
        int past = N_PROMPT + i;
        int32_t next = rt->kernels.argmax(a->logits + (size_t)i * n, rt->hp.vocab);

        plain_decode(rt, &kv, &past, &next, 1, a->logits + (size_t)(i + 1) * n);
    }
    for (size_t i = 0; i < (N_DECODE + 1) * n; i++)
        assert_true(a->logits[i] - a->logits[i] == 0); /* finite */
    plain_kv_free(&kv);
    runtime_close(rt);
}

/* Frees both. */
static void assert_same(struct answer *a, struct answer *b, const char *what, const char *profile)
{
    assert_int_equal(a->vocab, b->vocab);
    if (memcmp(a->logits, b->logits, (N_DECODE + 1) * sizeof(float) * (size_t)a->vocab) != 0)
        fail_msg("%s: logits differ in the %s profile", what, profile);
    free(a->logits);
    free(b->logits);
}

static const char *const profiles[] = {"reference", "precise", "default"};
enum { N_PROFILES = sizeof(profiles) / sizeof(profiles[0]) };

static void folders_equal_their_gguf(void **state)
{
    for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++)
        for (int p = 0; p < N_PROFILES; p++) {
            struct answer a, b;
            char folder[128], file[160];

            snprintf(folder, sizeof(folder), "tests/golden/families/%s", families[f]);
            snprintf(file, sizeof(file), "%s/model-bf16.gguf", folder);
            ask(&a, folder, (struct wish){profiles[p], "none", 2});
            ask(&b, file, (struct wish){profiles[p], "none", 2});
            assert_same(&a, &b, families[f], profiles[p]);
        }
}

static void embed(float *vector, int n, const char *model)
{
    struct runtime *rt;
    int32_t ids[N_PROMPT];
    struct plain_kv kv;
    struct err err;

    if (open_file(&rt, model, (struct wish){"reference", "none", 2}, &err) < 0)
        fail_msg("%s: %s", model, err.msg);
    assert_int_equal(graph_out_width(rt->prefill), n);
    fill_ids(ids, N_PROMPT, 7, rt->hp.vocab);
    assert_int_equal(plain_kv_create(&kv, rt, 1, N_PROMPT, &err), 0);
    plain_feed(rt, &kv, 0, 0, ids, N_PROMPT, N_PROMPT, vector);
    plain_kv_free(&kv);
    runtime_close(rt);
}

/* The folder is F32, its values are those of the BF16 file. */
static void an_embedder_equals_its_gguf(void **state)
{
    enum { WIDTH = 64 };
    float a[WIDTH], b[WIDTH], length = 0;

    embed(a, WIDTH, "tests/golden/families/embeddinggemma");
    embed(b, WIDTH, "tests/golden/families/embeddinggemma/model-bf16.gguf");
    for (int i = 0; i < WIDTH; i++)
        length += a[i] * a[i];
    assert_true(length > 0.999f && length < 1.001f);
    assert_memory_equal(a, b, sizeof(a));
}

/* llama.cpp quantised these files from the same bf16 weights; its q4_0 has a q8_0 embedding, too.
 */
static void quantising_while_loading_equals_quantised_files(void **state)
{
    static const char *const types[] = {"q8_0", "q4_0"};
    static const char *const sources[] = {
        "tests/golden/families/gemma3", "tests/golden/families/gemma3/model-bf16.gguf"};

    for (int t = 0; t < 2; t++)
        for (int s = 0; s < 2; s++)
            for (int p = 0; p < N_PROFILES; p++) {
                struct answer a, b;
                char file[160];

                snprintf(
                    file, sizeof(file), "tests/golden/families/gemma3/model-%s.gguf", types[t]);
                ask(&a, sources[s], (struct wish){profiles[p], types[t], 1 + s});
                ask(&b, file, (struct wish){profiles[p], "none", 2});
                assert_int_equal(a.weight_bytes, b.weight_bytes);
                assert_same(&a, &b, types[t], profiles[p]);
            }
}

static void threads_do_not_matter_to_quantising(void **state)
{
    for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++) {
        struct answer a, b;
        char folder[128];

        snprintf(folder, sizeof(folder), "tests/golden/families/%s", families[f]);
        ask(&a, folder, (struct wish){"reference", "q8_0", 1});
        ask(&b, folder, (struct wish){"reference", "q8_0", 3});
        assert_same(&a, &b, families[f], "reference");
    }
}

enum { K = 64 };

/* One matrix of a file, quantised by the store, against the quantiser itself, row by row. */
static void check_rows(struct weight_store *store, const struct source *src, struct ir_weight want)
{
    const struct tensor *t = source_tensor(src, want.name);
    const struct dtype_info *from = dtype_find(t->type), *q4 = dtype_find(DTYPE_Q4_0);
    const struct wmat *stack, *w;
    struct wmat matrix;
    struct err err;
    int n = want.n_slices ? want.n_slices : 1;

    assert_int_equal(want.k, K);
    if (want.n_slices)
        assert_int_equal(weight_store_stack(store, &want, &stack, &err), 0);
    else
        assert_int_equal(weight_store_matrix(store, &want, &matrix, &err), 0);
    for (int i = 0; i < n * want.rows; i++) {
        float plain[K], expected[K], got[K];
        uint8_t blocks[K / 32 * 18];

        from->to_float(t->data + (size_t)i * (t->bytes / (size_t)(n * want.rows)), plain, K);
        dtype_quantize_q4_0(plain, blocks, K);
        q4->to_float(blocks, expected, K);
        w = want.n_slices ? &stack[i / want.rows] : &matrix;
        assert_int_equal(w->type->type, want.use == USE_COEFFICIENTS ? DTYPE_F32 : DTYPE_Q4_0);
        wmat_read_row(w, i % want.rows, got);
        assert_memory_equal(got, want.use == USE_COEFFICIENTS ? plain : expected, sizeof(got));
    }
}

static void stacks_are_quantised_slice_by_slice(void **state)
{
    static const struct {
        const char *folder;
        struct ir_weight weight;
    } cases[] = {
        {"gemma4-moe", {"blk.1.ffn_gate_up_exps.weight", 12, K, 0, 16}},
        {"gemma4-moe", {"blk.1.ffn_gate_inp.weight", 8, K, .use = USE_COEFFICIENTS}},
        {"gemma4-moe", {"blk.1.ffn_gate.weight", 40, K}}, /* not a whole number of panels */
        {"gemma3n", {"altup_unembd_proj.weight", 64, K, 0, 3, .shared = true}},
        {"gemma3n", {"per_layer_model_proj.weight", 96, K}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct weight_store *store;
        struct source *src;
        struct err err;
        char path[1024];

        snprintf(path, sizeof(path), "%s/tests/golden/families/%s", SOURCE_ROOT, cases[i].folder);
        assert_int_equal(source_open(&src, path, &err), 0);
        store = weight_store_create(src, NULL);
        weight_store_quantize(store, DTYPE_Q4_0);
        weight_store_begin(store);
        check_rows(store, src, cases[i].weight);
        weight_store_destroy(store);
        source_close(src);
    }
}

/* The head alone becomes what the quantiser makes of its rows; with Q8_0 it lies in planes. */
static void the_head_alone_is_packed_smaller(void **state)
{
    static const struct {
        const char *name;
        enum dtype type;
        void (*quantize)(const float *x, void *dst, size_t n);
    } heads[] = {
        {"q8_0", DTYPE_Q8_0, dtype_quantize_q8_0}, {"q4_0", DTYPE_Q4_0, dtype_quantize_q4_0}};

    static const char bf16[] = "tests/golden/families/gemma3/model-bf16.gguf";

    for (int i = 0; i < 2; i++) {
        struct ir_weight want = {"token_embd.weight", 512, K, .use = USE_TABLE, .shared = true};
        struct ir_weight other = {"blk.0.ffn_gate.weight", 0, K};
        const struct tensor *t;
        struct wmat matrix;
        struct runtime *rt;
        struct err err;

        assert_int_equal(
            open_file(&rt, bf16, (struct wish){"default", "none", 1, heads[i].name}, &err), 0);
        assert_int_equal(weight_store_n_quantized(rt->weights), 1);
        weight_store_begin(rt->weights);
        assert_int_equal(weight_store_matrix(rt->weights, &want, &matrix, &err), 0);
        assert_int_equal(matrix.type->type, heads[i].type);
        assert_int_equal(matrix.fine != NULL, i == 0);
        t = source_tensor(rt->src, want.name);
        for (int r = 0; r < want.rows; r++) {
            float plain[K], expected[K], got[K];
            uint8_t blocks[K / 32 * 34];

            dtype_find(t->type)->to_float(t->data + (size_t)r * K * 2, plain, K);
            heads[i].quantize(plain, blocks, K);
            dtype_find(heads[i].type)->to_float(blocks, expected, K);
            wmat_read_row(&matrix, r, got);
            assert_memory_equal(got, expected, sizeof(got));
        }
        t = source_tensor(rt->src, other.name);
        other.rows = (int)t->ne[1];
        assert_int_equal(weight_store_matrix(rt->weights, &other, &matrix, &err), 0);
        assert_int_equal(matrix.type->type, DTYPE_BF16);
        runtime_close(rt);
    }
}

static void heads_that_cannot_be_packed_are_refused(void **state)
{
    static const struct {
        const char *model, *head, *word;
    } cases[] = {
        {"gemma3/model-q8_0.gguf", "q4_0", "already"},
        {"gemma3/model-bf16.gguf", "q6_k", "blocks"},
        {"gemma3/model-bf16.gguf", "q5_k", "not file"},
        {"embeddinggemma/model-bf16.gguf", "q8_0", "none"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct runtime *rt;
        struct err err;
        char path[128];

        snprintf(path, sizeof(path), "tests/golden/families/%s", cases[i].model);
        assert_int_equal(
            open_file(&rt, path, (struct wish){"default", "none", 1, cases[i].head}, &err),
            GD_EINVAL);
        assert_string_equal(err.param, "head");
        assert_non_null(strstr(err.msg, cases[i].word));
    }
}

static void what_cannot_be_quantised_is_refused(void **state)
{
    static const char file[] = "tests/golden/families/gemma3/model-q8_0.gguf";
    struct runtime *rt;
    struct err err;

    assert_int_equal(open_file(&rt, file, (struct wish){"default", "q4_0", 1}, &err), GD_EINVAL);
    assert_string_equal(err.param, "quantize");
    assert_int_equal(open_file(&rt, file, (struct wish){"default", "q5_k", 1}, &err), GD_EINVAL);
    assert_string_equal(err.param, "quantize");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_equal_their_gguf),
        cmocka_unit_test(an_embedder_equals_its_gguf),
        cmocka_unit_test(quantising_while_loading_equals_quantised_files),
        cmocka_unit_test(threads_do_not_matter_to_quantising),
        cmocka_unit_test(stacks_are_quantised_slice_by_slice),
        cmocka_unit_test(the_head_alone_is_packed_smaller),
        cmocka_unit_test(heads_that_cannot_be_packed_are_refused),
        cmocka_unit_test(what_cannot_be_quantised_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
