/* test_flow.c - what a build refuses, what it prints, and that a dense layer is five steps. */
#include "base/buf.h"
#include "models.h"

struct fixture {
    struct runtime *rt;
};

static const char *const model = "tests/golden/families/gemma3/model-q8_0.gguf";

static int set_up(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));

    x->rt = open_model(model, "default", "auto", 1, "auto");
    *state = x;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *x = *state;

    runtime_close(x->rt);
    free(x);
    return 0;
}

static int build(
    struct runtime *rt, const struct hparams *hp, const struct flow_options *fo, struct err *err)
{
    struct flow_profile p;
    struct graph *g;
    struct flow *f;
    int r = flow_create(&f, hp, fo, err);

    if (r < 0)
        return r;
    flow_profile_default(&p);
    r = flow_build(&g, f, &p, rt->weights, &rt->kernels, rt->pool, err);
    flow_destroy(f);
    if (r == 0)
        graph_destroy(g);
    return r;
}

static void options_that_cannot_be_are_named(void **state)
{
    struct fixture *x = *state;
    struct flow_options fo;
    struct err err;

    flow_prefill_options(&fo, 1, 128);
    fo.batch = 2;
    fo.dynamic_seq = true;
    assert_int_equal(build(x->rt, &x->rt->hp, &fo, &err), GD_EINVAL);
    assert_string_equal(err.param, "batch");
    flow_prefill_options(&fo, 1, 128);
    fo.seq = 0;
    assert_int_equal(build(x->rt, &x->rt->hp, &fo, &err), GD_EINVAL);
    assert_string_equal(err.param, "seq");
    flow_decode_options(&fo, 0, 0);
    assert_int_equal(build(x->rt, &x->rt->hp, &fo, &err), GD_EINVAL);
    assert_string_equal(err.param, "batch");
    flow_decode_options(&fo, 2, 0);
    fo.seq = 3;
    assert_int_equal(build(x->rt, &x->rt->hp, &fo, &err), GD_EINVAL);
    assert_string_equal(err.param, "seq");
    flow_prefill_options(&fo, 1, 128);
    fo.effective_num_layers = x->rt->hp.n_layers + 1;
    assert_int_equal(build(x->rt, &x->rt->hp, &fo, &err), GD_EINVAL);
    assert_string_equal(err.param, "effective_num_layers");
}

static void a_missing_weight_is_named(void **state)
{
    struct fixture *x = *state;
    struct hparams hp = x->rt->hp;
    struct flow_options fo;
    struct err err;

    hp.layers[hp.n_layers] = hp.layers[0];
    hp.n_layers++; /* one layer more than the file has */
    flow_prefill_options(&fo, 1, 128);
    assert_int_equal(build(x->rt, &hp, &fo, &err), GD_EFORMAT);
    assert_string_equal(err.param, "blk.7.attn_norm.weight");
}

static void a_surplus_weight_is_named(void **state)
{
    struct fixture *x = *state;
    struct hparams hp = x->rt->hp;
    struct flow_options fo;
    struct err err;

    hp.qk_norm = false; /* as Gemma 2: the head norms are left over */
    flow_prefill_options(&fo, 1, 128);
    assert_int_equal(build(x->rt, &hp, &fo, &err), GD_EFORMAT);
    assert_non_null(strstr(err.param, "attn_"));
    assert_non_null(strstr(err.msg, "is not part of this model"));
}

static void a_weight_of_another_shape_is_named(void **state)
{
    struct fixture *x = *state;
    struct hparams hp = x->rt->hp;
    struct flow_options fo;
    struct err err;

    hp.layers[2].ffn++;
    flow_prefill_options(&fo, 1, 128);
    assert_int_equal(build(x->rt, &hp, &fo, &err), GD_EFORMAT);
    assert_string_equal(err.param, "blk.2.ffn_gate.weight");
}

static void a_weight_used_twice_is_named(void **state)
{
    struct fixture *x = *state;
    struct ir_weight w = {.name = "blk.0.attn_norm.weight", .rows = 1, .k = x->rt->hp.width};
    const float *v;
    struct err err;

    weight_store_begin(x->rt->weights);
    assert_int_equal(weight_store_vector(x->rt->weights, &w, &v, &err), 0);
    assert_int_equal(weight_store_vector(x->rt->weights, &w, &v, &err), GD_EINVAL);
    assert_string_equal(err.param, w.name);
}

static int count(const char *text, const char *what)
{
    int n = 0;

    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

static void a_dense_layer_is_five_steps(void **state)
{
    struct fixture *x = *state;
    struct buf out = {0};

    graph_print(x->rt->decode, false, &out);
    /* a header, the embedding, five per layer, the head */
    assert_int_equal(count(out.data, "\n"), 1 + 1 + 5 * x->rt->hp.n_layers + 1);
    assert_int_equal(count(out.data, "norm+residual norm"), 2 * x->rt->hp.n_layers);
    assert_int_equal(count(out.data, "qk-norm rope"), x->rt->hp.n_layers);
    assert_int_equal(count(out.data, "] geglu"), x->rt->hp.n_layers);
    buf_free(&out);
}

static void dot_names_every_step(void **state)
{
    struct fixture *x = *state;
    struct buf out = {0};

    graph_print(x->rt->prefill, true, &out);
    assert_non_null(strstr(out.data, "digraph"));
    assert_int_equal(count(out.data, "subgraph"), x->rt->hp.n_layers);
    assert_int_equal(count(out.data, "{"), count(out.data, "}"));
    buf_free(&out);
}

static void effective_layers_stops_early(void **state)
{
    struct fixture *x = *state;
    struct flow_options fo;
    struct err err;

    flow_prefill_options(&fo, 1, 128);
    fo.effective_num_layers = 2;
    assert_int_equal(build(x->rt, &x->rt->hp, &fo, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_that_cannot_be_are_named),
        cmocka_unit_test(a_missing_weight_is_named),
        cmocka_unit_test(a_surplus_weight_is_named),
        cmocka_unit_test(a_weight_of_another_shape_is_named),
        cmocka_unit_test(a_weight_used_twice_is_named),
        cmocka_unit_test(a_dense_layer_is_five_steps),
        cmocka_unit_test(dot_names_every_step),
        cmocka_unit_test(effective_layers_stops_early),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
