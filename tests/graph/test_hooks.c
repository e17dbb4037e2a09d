/* test_hooks.c - stages of one's own and compile profiles: every switch does something that can be
 * seen. */
#include "base/buf.h"
#include "models.h"

#include <unistd.h>

static const char *const dense = "tests/golden/families/gemma3/model-q8_0.gguf";
static const char *const altup = "tests/golden/families/gemma3n/model-bf16.gguf";
enum { N_IDS = 9 };

static int compile(struct runtime *rt, const struct flow_options *o, const struct flow_profile *p,
    struct graph **g, struct err *err)
{
    struct flow *f;
    int r = flow_create(&f, &rt->hp, o, err);

    if (r < 0)
        return r;
    r = flow_build(g, f, p, rt->weights, &rt->kernels, rt->pool, err);
    flow_destroy(f);
    return r;
}

/* Logits of the last of a few tokens, of a graph with these hooks. */
static float *logits_of(struct runtime *rt, const struct flow_hooks *hooks)
{
    float *out = xcalloc((size_t)rt->hp.vocab, sizeof(*out));
    int32_t ids[N_IDS];
    struct flow_options o;
    struct flow_profile p;
    struct graph *g;
    struct err err;

    fill_ids(ids, N_IDS, 5, rt->hp.vocab);
    flow_prefill_options(&o, 1, N_IDS);
    o.hooks = hooks;
    flow_profile_default(&p);
    if (compile(rt, &o, &p, &g, &err) < 0 ||
        graph_exec(g, &(struct graph_io){.input_ids = ids, .output = out}, &err) < 0)
        fail_msg("%s", err.msg);
    graph_destroy(g);
    return out;
}

/* ---- hooks ---- */

static void scale_row(void *ud, const float *const *in, float *const *out)
{
    const float *factor = ud;

    for (int i = 0; i < 64; i++)
        out[0][i] = in[0][i] * *factor;
}

static int scaled(void *ud, struct flow *f, int h)
{
    struct flow_stage stage = {.name = "scaled",
        .n_in = 1,
        .n_out = 1,
        .in_width = {64},
        .out_width = {64},
        .run = scale_row,
        .ud = ud};
    int out[FLOW_STAGE_ARGS];

    flow_custom(f, &stage, &h, out);
    return out[0];
}

static int scaled_layer(void *ud, struct flow *f, const struct flow_layer_info *layer, int h)
{
    return scaled(ud, f, flow_default_layer(f, layer, h));
}

static int plain_layer(void *ud, struct flow *f, const struct flow_layer_info *layer, int h)
{
    return flow_default_layer(f, layer, h);
}

/* Layers 2 and 3 change places: each still writes and reads its own K and V. */
static int swapped_layer(void *ud, struct flow *f, const struct flow_layer_info *layer, int h)
{
    struct flow_layer_info other = *layer;

    if (layer->index == 2 || layer->index == 3)
        other.index = 5 - layer->index;
    return flow_default_layer(f, &other, h);
}

struct seen {
    int n;
    struct flow_layer_info info[8];
};

static int noted_layer(void *ud, struct flow *f, const struct flow_layer_info *layer, int h)
{
    struct seen *s = ud;

    s->info[s->n++] = *layer;
    return flow_default_layer(f, layer, h);
}

static void assert_same(
    struct runtime *rt, const struct flow_hooks *a, const struct flow_hooks *b, bool same)
{
    float *x = logits_of(rt, a), *y = logits_of(rt, b);

    assert_int_equal(memcmp(x, y, (size_t)rt->hp.vocab * sizeof(*x)) == 0, same);
    free(x);
    free(y);
}

static void extra_stages_run_where_they_are_put(void **state)
{
    struct runtime *rt = open_model(dense, "default", "auto", 2, "auto");
    float one = 1, two = 2;

    assert_same(rt, NULL, &(struct flow_hooks){.ud = &one, .before_layers = scaled}, true);
    assert_same(rt, NULL, &(struct flow_hooks){.ud = &one, .after_layers = scaled}, true);
    assert_same(rt, NULL, &(struct flow_hooks){.ud = &one, .patch = scaled}, true);
    assert_same(rt, NULL, &(struct flow_hooks){.ud = &one, .layer = scaled_layer}, true);
    assert_same(rt, NULL, &(struct flow_hooks){.layer = plain_layer}, true);
    assert_same(rt, NULL, &(struct flow_hooks){.ud = &two, .before_layers = scaled}, false);
    assert_same(rt, NULL, &(struct flow_hooks){.ud = &two, .patch = scaled}, false);
    assert_same(rt, NULL, &(struct flow_hooks){.ud = &two, .layer = scaled_layer}, false);
    assert_same(rt, NULL, &(struct flow_hooks){.layer = swapped_layer}, false);
    runtime_close(rt);
    rt = open_model(altup, "default", "auto", 2, "auto");
    assert_same(rt, NULL, &(struct flow_hooks){.layer = plain_layer}, true);
    runtime_close(rt);
}

static void a_layer_is_described(void **state)
{
    struct runtime *rt = open_model(dense, "default", "auto", 1, "auto");
    struct seen seen = {0};

    free(logits_of(rt, &(struct flow_hooks){.ud = &seen, .layer = noted_layer}));
    assert_int_equal(seen.n, 7);
    for (int i = 0; i < seen.n; i++) {
        assert_int_equal(seen.info[i].index, i);
        assert_int_equal(seen.info[i].mode, FLOW_PREFILL);
        assert_int_equal(seen.info[i].style, FLOW_LAYER_DENSE);
        assert_int_equal(seen.info[i].window, (i + 1) % 6 ? 16 : 0);
        assert_int_equal(seen.info[i].rope_table, (i + 1) % 6 ? 1 : 0);
        assert_int_equal(seen.info[i].n_heads, 4);
        assert_int_equal(seen.info[i].n_kv_heads, 2);
        assert_int_equal(seen.info[i].head_dim, 32);
        assert_int_equal(seen.info[i].kv_sink, i);
        assert_true(seen.info[i].softcap == 0 && seen.info[i].scale > 0);
    }
    runtime_close(rt);
    rt = open_model(altup, "default", "auto", 1, "auto");
    seen.n = 0;
    free(logits_of(rt, &(struct flow_hooks){.ud = &seen, .layer = noted_layer}));
    assert_int_equal(seen.info[4].style, FLOW_LAYER_ALTUP);
    assert_int_equal(seen.info[5].kv_sink, 2);
    runtime_close(rt);
}

static int nothing(void *ud, struct flow *f, int h)
{
    return -1;
}

static int wrong_width(void *ud, struct flow *f, int h)
{
    return flow_matmul(f, h, "blk.0.attn_q.weight", 128);
}

static int wrong_stage(void *ud, struct flow *f, int h)
{
    struct flow_stage stage = {.name = "wrong",
        .n_in = 1,
        .n_out = 1,
        .in_width = {63},
        .out_width = {64},
        .run = scale_row};
    int out[FLOW_STAGE_ARGS];

    flow_custom(f, &stage, &h, out);
    return out[0];
}

static int taken_weight(void *ud, struct flow *f, int h)
{
    return flow_sum(f, h, flow_rmsnorm(f, h, "blk.0.attn_norm.weight"));
}

static void mistakes_of_hooks_are_reported(void **state)
{
    static int (*const hooks[])(void *ud, struct flow *f, int h) = {
        nothing, wrong_width, wrong_stage};
    struct runtime *rt = open_model(dense, "default", "auto", 1, "auto");
    struct flow_options o;
    struct flow_profile p;
    struct graph *g;
    struct err err;

    flow_profile_default(&p);
    for (int i = 0; i < 3; i++) {
        flow_prefill_options(&o, 1, 8);
        o.hooks = &(struct flow_hooks){.before_layers = hooks[i]};
        assert_int_equal(compile(rt, &o, &p, &g, &err), GD_EINVAL);
        assert_string_equal(err.param, "hooks");
    }
    flow_prefill_options(&o, 1, 8);
    o.hooks = &(struct flow_hooks){.before_layers = taken_weight};
    assert_int_equal(compile(rt, &o, &p, &g, &err), GD_EINVAL); /* used twice */
    assert_string_equal(err.param, "blk.0.attn_norm.weight");
    runtime_close(rt);
}

/* ---- profiles ---- */

static int n_lines(const struct graph *g, const char *what)
{
    struct buf out = {0};
    int n = 0;

    graph_print(g, false, &out);
    for (const char *at = out.data; (at = strstr(at, what)); at++)
        n++;
    buf_free(&out);
    return n;
}

/* Counts a string in the print of a graph compiled with p. */
static int seen_in(struct runtime *rt, const struct flow_profile *p, const char *what)
{
    struct flow_options o;
    struct graph *g;
    struct err err;
    int n;

    flow_prefill_options(&o, 1, 8);
    if (compile(rt, &o, p, &g, &err) < 0)
        fail_msg("%s", err.msg);
    n = n_lines(g, what);
    graph_destroy(g);
    return n;
}

static void every_switch_shows(void **state)
{
    struct runtime *rt = open_model(dense, "default", "auto", 1, "auto");
    struct flow_profile p, d;
    int steps;

    flow_profile_default(&d);
    steps = seen_in(rt, &d, "\n");
    p = d;
    p.policy = FUSION_DIRECT;
    assert_true(seen_in(rt, &p, "\n") > 2 * steps);
    p = d;
    p.skip = FUSE_ATTENTION;
    assert_int_equal(seen_in(rt, &p, "= rope("), 14);
    p = d;
    p.target = FUSE_ATTENTION | FUSE_SIBLINGS;
    assert_int_equal(seen_in(rt, &p, "= rope("), 0);
    assert_int_equal(seen_in(rt, &p, "= geglu("), 7);
    p = d;
    p.skip = FUSE_SIBLINGS | FUSE_EPILOGUE | FUSE_PROLOGUE;
    assert_int_equal(seen_in(rt, &p, "= rmsnorm("), 4 * 7 + 1);
    p = d;
    p.skip = FUSE_RESIDUAL;
    assert_int_equal(seen_in(rt, &p, "= add("), 14);
    p = d;
    p.constant_folding = false;
    p.skip = FUSE_EPILOGUE;
    assert_int_equal(seen_in(rt, &p, "= softcap("), 1);
    p = d;
    p.verbose = true;
    assert_int_equal(seen_in(rt, &p, "passes: "), 1);
    assert_int_equal(seen_in(rt, &d, "passes: "), 0);
    p = d;
    p.precision = FLOW_REFERENCE;
    assert_true(seen_in(rt, &p, "Q8_0*f32/") > 0);
    p.precision = FLOW_PRECISE;
    assert_true(seen_in(rt, &p, "Q8_0*q16/") > 0);
    p = d;
    p.matmul = BACKEND_BLAS;
    assert_true(seen_in(rt, &p, "/blas") > 0 && seen_in(rt, &p, "/native") == 0);
    p.override[DTYPE_Q8_0] = BACKEND_NATIVE;
    assert_true(seen_in(rt, &p, "/native") > 0);
    runtime_close(rt);
}

/* A hook that computes something nobody reads. */
static int waste(void *ud, struct flow *f, int h)
{
    flow_rmsnorm(f, h, NULL);
    return h;
}

static void dead_code_goes_unless_told_otherwise(void **state)
{
    struct runtime *rt = open_model(dense, "default", "auto", 1, "auto");
    struct flow_options o;
    struct flow_profile p;
    struct graph *g;
    struct err err;

    for (int keep = 0; keep < 2; keep++) {
        flow_prefill_options(&o, 1, 8);
        o.hooks = &(struct flow_hooks){.before_layers = waste};
        flow_profile_default(&p);
        p.dead_code = !keep;
        assert_int_equal(compile(rt, &o, &p, &g, &err), 0);
        assert_int_equal(n_lines(g, "= rmsnorm("), keep);
        graph_destroy(g);
    }
    runtime_close(rt);
}

static void assert_clean_fails_where_something_stays_alone(void **state)
{
    struct flow_options o;
    struct flow_profile p;
    struct graph *g;
    struct err err;
    struct runtime *rt = open_model(dense, "default", "auto", 1, "auto");

    flow_prefill_options(&o, 1, 8);
    flow_profile_default(&p);
    p.assert_clean = true;
    assert_int_equal(compile(rt, &o, &p, &g, &err), 0);
    graph_destroy(g);
    runtime_close(rt);
    rt = open_model(altup, "default", "auto", 1, "auto");
    assert_int_equal(compile(rt, &o, &p, &g, &err), GD_EINVAL);
    assert_string_equal(err.param, "fusion.assert_clean");
    runtime_close(rt);
}

static const char *write_profile(const char *text)
{
    static char path[] = "/tmp/gemmad-profile-XXXXXX";
    static int fd = -1;

    if (fd < 0)
        fd = mkstemp(path);
    assert_true(fd >= 0 && ftruncate(fd, 0) == 0 &&
                pwrite(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
    return path;
}

static void profiles_are_read_as_they_are_printed(void **state)
{
    struct flow_profile p, q;
    struct buf a = {0}, b = {0};
    struct err err;

    flow_profile_default(&p);
    p.skip = FUSE_RESIDUAL | FUSE_ATTENTION;
    p.assert_clean = p.verbose = true;
    p.precision = FLOW_PRECISE;
    p.dead_code = false;
    p.matmul = BACKEND_BLAS;
    p.override[DTYPE_Q4_0] = BACKEND_NATIVE;
    flow_profile_print(&p, FLOW_DECODE, &a);
    flow_profile_reference(&q);
    assert_int_equal(flow_profile_load(&q, write_profile(a.data), FLOW_DECODE, &err), 0);
    flow_profile_print(&q, FLOW_DECODE, &b);
    assert_string_equal(a.data, b.data);
    flow_profile_reference(&q); /* the other mode's section does not concern it */
    p = q;
    assert_int_equal(flow_profile_load(&q, write_profile(a.data), FLOW_PREFILL, &err), 0);
    assert_memory_equal(&p, &q, sizeof(p));
    assert_int_equal(
        flow_profile_load(&q, "/nowhere/gemmad.profile", FLOW_PREFILL, &err), GD_ENOENT);
    buf_free(&a);
    buf_free(&b);
}

static void bad_lines_are_named_by_number(void **state)
{
    static const char *const bad[] = {"[prefill]\nfusion.policy = maybe\n",
        "[prefill]\nfusion = direct\n", "[prefill]\nnothing\n", "# first\nmatmul = blas\n",
        "[prefill]\nmatmul.Q9 = blas\n", "[prefill]\nfusion.skip = attention, moon\n",
        "[decode]\nprecision = exact\n", "[prefill]\nmatmul.Q8_0 = fast\n",
        "[prefill]\npasses.dead_code = yes\n", "[prefill]\nkv = f16\n",
        "[prefill]\nfusion.target =\n", "\n[middle]\n"};
    struct flow_profile p;
    struct err err;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        flow_profile_default(&p);
        if (flow_profile_load(&p, write_profile(bad[i]), FLOW_PREFILL, &err) != GD_EINVAL ||
            !strstr(err.msg, ":2:"))
            fail_msg("%s: %s", bad[i], err.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extra_stages_run_where_they_are_put),
        cmocka_unit_test(a_layer_is_described),
        cmocka_unit_test(mistakes_of_hooks_are_reported),
        cmocka_unit_test(every_switch_shows),
        cmocka_unit_test(dead_code_goes_unless_told_otherwise),
        cmocka_unit_test(assert_clean_fails_where_something_stays_alone),
        cmocka_unit_test(profiles_are_read_as_they_are_printed),
        cmocka_unit_test(bad_lines_are_named_by_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
