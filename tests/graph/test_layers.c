/* test_layers.c - what a flow's layers can be told through the public header: windows, scales,
 * soft-caps, where to stop, and layers that a program builds from parts. */
#include <math.h>

#include "contract.h"

enum { N_IDS = 40, WIDTH = 64 };

static const char dense[] = "gemma3/model-bf16.gguf";

struct answer {
    float logits[N_IDS * VOCAB];
};

/* Logits of all tokens in the reference profile; o: mode, sizes and output are set here. */
static void ask(struct answer *a, struct flow_model *m, struct flow_options o)
{
    int32_t ids[N_IDS];
    struct graph *g;

    fill_ids(ids, N_IDS, 11);
    o.mode = FLOW_PREFILL;
    o.batch = 1;
    o.seq = N_IDS;
    o.output = FLOW_LOGITS;
    g = build(m, &o, NULL);
    exec(g, &(struct graph_io){.input_ids = ids, .output = a->logits});
    graph_destroy(g);
}

/* The first row that differs, -1: none. */
static int first_difference(const struct answer *a, const struct answer *b)
{
    for (int t = 0; t < N_IDS; t++)
        if (!same_bits(a->logits + t * VOCAB, b->logits + t * VOCAB, VOCAB))
            return t;
    return -1;
}

/* Sets a layer of `change` to its values; the others stay. */
struct changed {
    int layer;
    struct flow_layer_info to; /* window, scale, softcap */
    int seen;
};

static int changed_layer(void *ud, struct flow *f, const struct flow_layer_info *layer, int h)
{
    struct changed *c = ud;
    struct flow_layer_info info = *layer;

    c->seen++;
    if (layer->index == c->layer) {
        info.window = c->to.window;
        info.scale = c->to.scale;
        info.softcap = c->to.softcap;
    }
    return flow_default_layer(f, &info, h);
}

static void the_models_own_windows_listed_change_nothing(void **state)
{
    static const char *const families[] = {"gemma1/model-bf16.gguf", "gemma2/model-f16.gguf", dense,
        "gemma3n/model-bf16.gguf", "gemma4-e2b/model-bf16.gguf"};
    static struct answer want, got;

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        struct flow_model *m = open_family(families[i], 2);
        struct flow_model_size size;
        int windows[MAX_LAYERS];

        flow_model_size(m, &size);
        for (int l = 0; l < size.n_layers; l++) {
            struct flow_layer_info info;

            flow_model_layer(m, l, &info);
            windows[l] = info.window;
        }
        ask(&want, m, (struct flow_options){0});
        ask(&got, m, (struct flow_options){.windows = windows});
        assert_int_equal(first_difference(&want, &got), -1);
        flow_model_close(m);
    }
}

/* Causal everywhere, alternating, strided and listed windows, each by what it hides: with a window
 * of w in one layer, row w is the first that cannot see the first key. */
static void windows_may_be_listed(void **state)
{
    struct flow_model *m = open_family(dense, 2);
    static const int causal[7], wide[7] = {N_IDS, N_IDS, N_IDS, N_IDS, N_IDS, N_IDS, N_IDS},
                                alternating[7] = {9, 0, 9, 0, 9, 0, 9},
                                listed[7] = {0, 0, 21, 0, 0, 0, 0};
    static struct answer all, own, got;

    ask(&all, m, (struct flow_options){.windows = causal});
    ask(&own, m, (struct flow_options){0});
    assert_int_equal(first_difference(&all, &own), 16); /* the file's window */
    ask(&got, m, (struct flow_options){.windows = wide});
    assert_int_equal(first_difference(&all, &got), -1);
    ask(&got, m, (struct flow_options){.windows = alternating});
    assert_int_equal(first_difference(&all, &got), 9);
    ask(&got, m, (struct flow_options){.windows = listed});
    assert_int_equal(first_difference(&all, &got), 21);
    flow_model_close(m);
}

/* The last token's logits, decoded after a prefill of the same flow. */
static void a_decode_graph_has_the_same_windows(void **state)
{
    static const int windows[7] = {0, 5, 16, 33, 0, 16, 7};
    struct flow_model *m = open_family(dense, 2);
    static struct answer want;
    float got[VOCAB];
    int32_t ids[N_IDS];
    struct tensors kv;
    struct flow_options o;
    struct graph *g;

    ask(&want, m, (struct flow_options){.windows = windows});
    fill_ids(ids, N_IDS, 11);
    tensors_init(&kv, m, N_IDS - 1);
    flow_prefill_options(&o, 1, N_IDS - 1);
    o.export_kv = true;
    o.windows = windows;
    g = build(m, &o, NULL);
    exec(g, &(struct graph_io){.input_ids = ids, .output = got, .new_k = kv.k, .new_v = kv.v});
    graph_destroy(g);
    flow_decode_options(&o, 1, N_IDS - 1);
    o.windows = windows;
    g = build(m, &o, NULL);
    exec(g, &(struct graph_io){.input_ids = ids + N_IDS - 1,
                .past_k = (const float *const *)kv.k,
                .past_v = (const float *const *)kv.v,
                .output = got});
    assert_memory_equal(want.logits + (N_IDS - 1) * VOCAB, got, sizeof(got));
    graph_destroy(g);
    tensors_free(&kv);
    flow_model_close(m);
}

static void a_hook_may_change_scale_softcap_and_window(void **state)
{
    static const char *const families[] = {"gemma2/model-f16.gguf", "gemma3n/model-bf16.gguf"};
    static struct answer want, got;

    for (int i = 0; i < 2; i++) {
        struct flow_model *m = open_family(families[i], 2);
        struct flow_layer_info own;
        struct changed c = {.layer = 1};
        struct flow_hooks hooks = {.ud = &c, .layer = changed_layer};
        struct flow_options o = {.hooks = &hooks};

        flow_model_layer(m, 1, &own);
        assert_true(own.softcap == (i == 0 ? 50.0f : 0.0f));
        ask(&want, m, (struct flow_options){0});
        c.to = own;
        ask(&got, m, o);
        assert_int_equal(first_difference(&want, &got), -1);
        assert_int_equal(c.seen, 6);
        c.to.window = 3;
        ask(&got, m, o);
        assert_int_equal(first_difference(&want, &got), 3);
        c.to = own;
        c.to.scale *= 2; /* a softmax over one key is 1 whatever the scale */
        ask(&got, m, o);
        assert_int_equal(first_difference(&want, &got), 1);
        c.to = own;
        c.to.softcap = 0.125f;
        ask(&got, m, o);
        assert_int_equal(first_difference(&want, &got), 1);
        flow_model_close(m);
    }
}

/* Scores of 0 weigh every visible key the same: attention is then the mean of V. */
static void a_scale_of_zero_averages_the_values(void **state)
{
    struct flow_model *m = open_family("gemma1/model-bf16.gguf", 1);
    struct changed c = {.layer = 0}; /* scale 0, no window */
    struct flow_hooks hooks = {.ud = &c, .layer = changed_layer};
    static struct answer zero, tiny;

    ask(&zero, m, (struct flow_options){.hooks = &hooks});
    c.to.scale = 1;
    c.to.softcap = 1e-30f; /* caps all scores to almost nothing */
    ask(&tiny, m, (struct flow_options){.hooks = &hooks});
    for (int i = 0; i < N_IDS * VOCAB; i++)
        assert_true(fabsf(zero.logits[i] - tiny.logits[i]) < 1e-4f);
    flow_model_close(m);
}

static void what_cannot_be_is_refused(void **state)
{
    static const int negative[7] = {0, 0, 0, -1}, huge[7] = {1 << 30};
    static const struct flow_layer_info bad[] = {{.window = -1}, {.window = 1 << 30},
        {.scale = NAN}, {.scale = INFINITY}, {.softcap = -1}, {.softcap = NAN}};
    struct flow_model *m = open_family(dense, 1);
    struct flow_profile p;
    struct flow_options o;
    struct changed c = {.layer = 2};
    struct flow_hooks hooks = {.ud = &c, .layer = changed_layer};
    struct graph *g;
    struct err err;

    flow_profile_reference(&p);
    flow_prefill_options(&o, 1, 8);
    o.windows = negative;
    assert_int_equal(try_build(&g, m, &o, &p, &err), GD_EINVAL);
    assert_string_equal(err.param, "windows");
    assert_non_null(strstr(err.msg, "windows[3] is -1"));
    o.windows = huge;
    assert_int_equal(try_build(&g, m, &o, &p, &err), GD_EINVAL);
    assert_string_equal(err.param, "windows");
    o.windows = NULL;
    o.hooks = &hooks;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        c.to = bad[i];
        assert_int_equal(try_build(&g, m, &o, &p, &err), GD_EINVAL);
        assert_string_equal(err.param, "hooks");
        assert_non_null(strstr(err.msg, "layer 2"));
    }
    flow_model_close(m);
}

/* ---- stopping early, and layers of one's own ---- */

/* The named stage of a prefill, (N_IDS, WIDTH). */
static void tap(float *out, struct flow_model *m, struct flow_options o, const char *stage)
{
    float logits[VOCAB];
    const float *rows;
    int32_t ids[N_IDS];
    struct graph *g;
    int n, width;

    fill_ids(ids, N_IDS, 11);
    o.batch = 1;
    o.seq = N_IDS;
    o.taps = true;
    g = build(m, &o, NULL);
    exec(g, &(struct graph_io){.input_ids = ids, .output = logits});
    rows = graph_tap(g, stage, &n, &width);
    assert_true(rows && n == N_IDS && width == WIDTH);
    memcpy(out, rows, N_IDS * WIDTH * sizeof(*out));
    assert_null(graph_tap(g, "layer 99", &n, &width));
    graph_destroy(g);
}

static void effective_layers_end_where_they_say(void **state)
{
    struct flow_model *m = open_family(dense, 2);
    static float want[N_IDS * WIDTH], got[N_IDS * WIDTH];
    static struct answer all, few;

    ask(&all, m, (struct flow_options){0});
    for (int n = 1; n <= 7; n += 3) {
        char stage[32];

        snprintf(stage, sizeof(stage), "layer %d", n - 1);
        tap(want, m, (struct flow_options){0}, stage);
        tap(got, m, (struct flow_options){.effective_num_layers = n}, "norm input");
        assert_memory_equal(want, got, sizeof(want));
        ask(&few, m, (struct flow_options){.effective_num_layers = n});
        assert_int_equal(first_difference(&all, &few), n == 7 ? -1 : 0);
    }
    flow_model_close(m);
}

/* Two in, two out: their sum and their difference. */
static void sum_and_difference(void *ud, const float *const *in, float *const *out)
{
    for (int i = 0; i < WIDTH; i++) {
        out[0][i] = in[0][i] + in[1][i];
        out[1][i] = in[0][i] - in[1][i];
    }
}

static void halve(void *ud, const float *const *in, float *const *out)
{
    for (int i = 0; i < WIDTH; i++)
        out[0][i] = in[0][i] / 2;
}

/* h as ((h + x) + (h - x)) / 2, x being another value: its rounding is all that is lost. */
static int roundabout(void *ud, struct flow *f, int h)
{
    struct flow_stage two = {.name = "sum and difference",
        .n_in = 2,
        .n_out = 2,
        .in_width = {WIDTH, WIDTH},
        .out_width = {WIDTH, WIDTH},
        .run = sum_and_difference};
    struct flow_stage half = {.name = "half",
        .n_in = 1,
        .n_out = 1,
        .in_width = {WIDTH},
        .out_width = {WIDTH},
        .run = halve};
    int out[FLOW_STAGE_ARGS], sum;

    flow_custom(f, &two, (const int[]){h, flow_rmsnorm(f, h, NULL)}, out);
    assert_int_equal(flow_width(f, out[1]), WIDTH);
    sum = flow_sum(f, out[0], out[1]);
    flow_custom(f, &half, &sum, out);
    return out[0];
}

static void stages_may_have_many_inputs_and_outputs(void **state)
{
    struct flow_model *m = open_family(dense, 3);
    struct flow_hooks hooks = {.before_layers = roundabout};
    static struct answer want, got;

    ask(&want, m, (struct flow_options){0});
    ask(&got, m, (struct flow_options){.hooks = &hooks});
    for (int i = 0; i < N_IDS * VOCAB; i++)
        assert_true(fabsf(want.logits[i] - got.logits[i]) < 1e-3f);
    flow_model_close(m);
}

/* gelu(gate) * up with the tanh form, in place of the built-in one. */
static void geglu(void *ud, const float *const *in, float *const *out)
{
    const int *width = ud;

    for (int i = 0; i < *width; i++) {
        double x = in[0][i];

        out[0][i] = (float)(0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))) *
                    in[1][i];
    }
}

struct parts {
    int ffn; /* width of gate and up */
    bool attention;
};

/* Layer 3 without its attention, its feed-forward written down from parts. */
static int own_layer(void *ud, struct flow *f, const struct flow_layer_info *layer, int h)
{
    struct parts *p = ud;
    struct flow_stage stage = {.name = "own geglu",
        .n_in = 2,
        .n_out = 1,
        .in_width = {p->ffn, p->ffn},
        .out_width = {p->ffn},
        .run = geglu,
        .ud = &p->ffn};
    int in[2], out[FLOW_STAGE_ARGS], x;

    if (layer->index != 3)
        return flow_default_layer(f, layer, h);
    x = flow_rmsnorm(f, h, "blk.3.ffn_norm.weight");
    in[0] = flow_matmul(f, x, "blk.3.ffn_gate.weight", p->ffn);
    in[1] = flow_matmul(f, x, "blk.3.ffn_up.weight", p->ffn);
    flow_custom(f, &stage, in, out);
    x = flow_matmul(f, out[0], "blk.3.ffn_down.weight", WIDTH);
    return flow_sum(f, h, flow_rmsnorm(f, x, "blk.3.post_ffw_norm.weight"));
}

/* A model whose layer 3 has an o projection of zeros has no attention there either; the other
 * tensors are borrowed from file. */
static struct flow_model *without_attention(struct flow_model *file, int *ffn, float **zeros)
{
    struct flow_model *m;
    struct flow_tensor t[256];
    struct err err;
    size_t n = 0;

    for (; n < 256 && flow_model_tensor(file, n, &t[n]); n++) {
        if (strcmp(t[n].name, "blk.3.ffn_gate.weight") == 0)
            *ffn = (int)t[n].dims[1];
        if (strcmp(t[n].name, "blk.3.attn_output.weight") == 0)
            t[n].data = *zeros = new_floats(t[n].bytes);
    }
    if (flow_model_open_tensors(&m, family_path(dense), t, n, 2, &err) < 0)
        fail_msg("%s", err.msg);
    return m;
}

static void a_layer_may_be_built_from_parts(void **state)
{
    struct parts p = {0};
    float *zeros = NULL;
    struct flow_model *file = open_family(dense, 1), *m = without_attention(file, &p.ffn, &zeros);
    struct flow_hooks hooks = {.ud = &p, .layer = own_layer};
    static struct answer want, got;

    assert_true(p.ffn > 0 && zeros);
    ask(&want, m, (struct flow_options){0});
    ask(&got, m, (struct flow_options){.hooks = &hooks});
    for (int i = 0; i < N_IDS * VOCAB; i++)
        if (!(fabsf(want.logits[i] - got.logits[i]) < 1e-4f))
            fail_msg("%d: %g, want %g", i, (double)got.logits[i], (double)want.logits[i]);
    flow_model_close(m);
    flow_model_close(file);
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_models_own_windows_listed_change_nothing),
        cmocka_unit_test(windows_may_be_listed),
        cmocka_unit_test(a_decode_graph_has_the_same_windows),
        cmocka_unit_test(a_hook_may_change_scale_softcap_and_window),
        cmocka_unit_test(a_scale_of_zero_averages_the_values),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(effective_layers_end_where_they_say),
        cmocka_unit_test(stages_may_have_many_inputs_and_outputs),
        cmocka_unit_test(a_layer_may_be_built_from_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
