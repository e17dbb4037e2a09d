/* test_experts.c - a layer whose feed-forward is a plain mixture, without the norms and scales that
 * Gemma 4 has: it must equal the dense layer that its experts amount to. Files are made here: no
 * published model has this form. */
#include "../model/test_gguf_build.h"
#include <math.h>

#include "models.h"

enum {
    WIDTH = 64,
    LAYERS = 2,
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 16,
    FFN = 48,
    VOCAB = 96,
    N_IDS = 9,
    MAX_TENSORS = 64
};

struct file {
    struct test_tensor tensors[MAX_TENSORS];
    char names[MAX_TENSORS][64];
    float *data[MAX_TENSORS];
    int n;
};

/* Numbers that depend on the name alone, so that two files agree on what they share. */
static float *numbers(const char *name, size_t n, float size)
{
    float *x = xcalloc(n, sizeof(*x));
    uint32_t seed = 1;

    for (const char *c = name; *c; c++)
        seed = seed * 31 + (unsigned char)*c;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = ((float)(seed >> 8) / (1 << 23) - 1) * size;
    }
    return x;
}

static void add(struct file *f, const char *name, float *data, int k, int rows, int n)
{
    struct test_tensor *t = &f->tensors[f->n];

    snprintf(f->names[f->n], sizeof(f->names[0]), "%s", name);
    *t = (struct test_tensor){.name = f->names[f->n],
        .n_dims = n      ? 3
                  : rows ? 2
                         : 1,
        .ne = {k, rows ? rows : 1, n ? n : 1, 1}};
    f->data[f->n++] = data;
}

static void add_matrix(struct file *f, const char *name, int k, int rows)
{
    add(f, name, numbers(name, (size_t)k * (size_t)(rows ? rows : 1), rows ? 0.3f : 1.0f), k, rows,
        0);
}

static const char *in_layer(int layer, const char *name)
{
    static char full[64];

    snprintf(full, sizeof(full), "blk.%d.%s.weight", layer, name);
    return full;
}

/* n experts that all are the dense matrix `name`, those from `used` on a hundred times as large. */
static void add_experts(
    struct file *f, int layer, const char *name, int k, int rows, int n, int used)
{
    size_t one = (size_t)k * (size_t)rows;
    float *dense = numbers(in_layer(layer, name), one, 0.3f),
          *all = xcalloc(one * (size_t)n, sizeof(*all));
    char exps[32];

    for (int e = 0; e < n; e++)
        for (size_t i = 0; i < one; i++)
            all[(size_t)e * one + i] = dense[i] * (e < used ? 1 : 100);
    free(dense);
    snprintf(exps, sizeof(exps), "%s_exps", name);
    add(f, in_layer(layer, exps), all, k, rows, n);
}

static void describe(struct file *f, int n_experts, int used)
{
    add_matrix(f, "token_embd.weight", WIDTH, VOCAB);
    add_matrix(f, "output_norm.weight", WIDTH, 0);
    for (int l = 0; l < LAYERS; l++) {
        static const char *const norms[] = {
            "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"};

        for (int i = 0; i < 4; i++)
            add_matrix(f, in_layer(l, norms[i]), WIDTH, 0);
        add_matrix(f, in_layer(l, "attn_q_norm"), DIM, 0);
        add_matrix(f, in_layer(l, "attn_k_norm"), DIM, 0);
        add_matrix(f, in_layer(l, "attn_q"), WIDTH, HEADS * DIM);
        add_matrix(f, in_layer(l, "attn_k"), WIDTH, KV_HEADS * DIM);
        add_matrix(f, in_layer(l, "attn_v"), WIDTH, KV_HEADS * DIM);
        add_matrix(f, in_layer(l, "attn_output"), HEADS * DIM, WIDTH);
        if (!n_experts) {
            add_matrix(f, in_layer(l, "ffn_gate"), WIDTH, FFN);
            add_matrix(f, in_layer(l, "ffn_up"), WIDTH, FFN);
            add_matrix(f, in_layer(l, "ffn_down"), FFN, WIDTH);
            continue;
        }
        /* A router of zeros: every expert is as likely, so the first ones are taken, each with the
         * same weight. */
        add(f, in_layer(l, "ffn_gate_inp"),
            xcalloc((size_t)WIDTH * (size_t)n_experts, sizeof(float)), WIDTH, n_experts, 0);
        add_experts(f, l, "ffn_gate", WIDTH, FFN, n_experts, used);
        add_experts(f, l, "ffn_up", WIDTH, FFN, n_experts, used);
        add_experts(f, l, "ffn_down", FFN, WIDTH, n_experts, used);
    }
}

static void write_file(struct file *f, int n_experts, int used, struct buf *out)
{
    const struct test_key keys[] = {{"general.architecture", GGUF_STRING, .str = "gemma3"},
        {"gemma3.block_count", GGUF_U32, LAYERS}, {"gemma3.embedding_length", GGUF_U32, WIDTH},
        {"gemma3.context_length", GGUF_U32, 128}, {"gemma3.feed_forward_length", GGUF_U32, FFN},
        {"gemma3.attention.head_count", GGUF_U32, HEADS},
        {"gemma3.attention.head_count_kv", GGUF_U32, KV_HEADS},
        {"gemma3.attention.key_length", GGUF_U32, DIM},
        {"gemma3.attention.value_length", GGUF_U32, DIM},
        {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-6},
        {"gemma3.expert_count", GGUF_U32, n_experts}, {"gemma3.expert_used_count", GGUF_U32, used},
        {"gemma3.expert_feed_forward_length", GGUF_U32, FFN}};
    size_t n_keys = sizeof(keys) / sizeof(keys[0]) - (n_experts ? 0 : 3);
    uint64_t at = 0;

    put_header(out, 3, (uint64_t)f->n, n_keys);
    for (size_t i = 0; i < n_keys; i++)
        put_key(out, &keys[i]);
    for (int i = 0; i < f->n; i++) {
        const int64_t *ne = f->tensors[i].ne;

        f->tensors[i].offset = at;
        put_tensor(out, &f->tensors[i]);
        at += ((uint64_t)(ne[0] * ne[1] * ne[2]) * sizeof(float) + 31) / 32 * 32;
    }
    for (int i = 0; i < f->n; i++) {
        const int64_t *ne = f->tensors[i].ne;

        put_padding(out, 32);
        put_bytes(out, f->data[i], (size_t)(ne[0] * ne[1] * ne[2]) * sizeof(float));
        free(f->data[i]);
    }
    put_padding(out, 32);
}

/* Logits of all rows; prefill in one run, so that rows meet at the experts. */
static void run(int n_experts, int used, const char *profile, float *logits)
{
    struct file *f = xcalloc(1, sizeof(*f));
    struct source *src;
    struct hparams hp;
    struct weight_store *weights;
    struct kernels k;
    struct pool *pool;
    struct flow_options o;
    struct flow_profile p;
    struct flow *flow = NULL;
    struct graph *g = NULL;
    struct buf bytes = {0};
    int32_t ids[N_IDS];
    struct err err;

    describe(f, n_experts, used);
    write_file(f, n_experts, used, &bytes);
    if (open_bytes(&src, bytes.data, bytes.len, &err) < 0 || hparams_read(&hp, src, &err) < 0)
        fail_msg("%s", err.msg);
    kernels_init(&k, kernels_best());
    assert_int_equal(pool_create(&pool, 2, &err), 0);
    weights = weight_store_create(src, pool);
    flow_prefill_options(&o, 1, N_IDS);
    o.output = FLOW_LOGITS;
    assert_true(flow_profile_named(&p, profile));
    if (flow_create(&flow, &hp, &o, &err) < 0 ||
        flow_build(&g, flow, &p, weights, &k, pool, &err) < 0)
        fail_msg("%s", err.msg);
    fill_ids(ids, N_IDS, 3, VOCAB);
    if (graph_exec(g, &(struct graph_io){.input_ids = ids, .output = logits}, &err) < 0)
        fail_msg("%s", err.msg);
    graph_destroy(g);
    flow_destroy(flow);
    weight_store_destroy(weights);
    pool_destroy(pool);
    source_close(src);
    buf_free(&bytes);
    free(f);
}

static const char *const profiles[] = {"reference", "precise", "default"};

static void one_expert_is_the_dense_layer(void **state)
{
    float dense[N_IDS * VOCAB], mixture[N_IDS * VOCAB];

    for (int i = 0; i < 3; i++) {
        run(0, 0, profiles[i], dense);
        run(1, 1, profiles[i], mixture);
        assert_memory_equal(dense, mixture, sizeof(dense));
    }
}

/* Two of five: the tie goes to the first two, their weights are halves, and the others are not read
 * into the sum. */
static void equal_experts_are_the_dense_layer(void **state)
{
    float dense[N_IDS * VOCAB], mixture[N_IDS * VOCAB];

    run(0, 0, "reference", dense);
    run(5, 2, "reference", mixture);
    for (int i = 0; i < N_IDS * VOCAB; i++)
        if (!(fabsf(dense[i] - mixture[i]) <= 1e-4f))
            fail_msg("%d: %g, want %g", i, (double)mixture[i], (double)dense[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_expert_is_the_dense_layer),
        cmocka_unit_test(equal_experts_are_the_dense_layer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
