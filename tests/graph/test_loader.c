/* test_loader.c - models whose weights the caller brings: the same rows as from a file, and every
 * tensor that is missing, surplus, there twice or out of shape reported by its name. */
#include <inttypes.h>
#include <unistd.h>

#include "contract.h"

enum { N_IDS = 12, MAX_TENSORS = 512, TYPE_F32 = 0, TYPE_Q8_0 = 8, TYPE_BF16 = 30 };

static const char dense[] = "gemma3/model-bf16.gguf";

/* Tensors of a model, the bytes copied to odd addresses of memory of our own. */
struct list {
    struct flow_tensor at[MAX_TENSORS];
    char name[MAX_TENSORS][64];
    uint8_t *memory[MAX_TENSORS];
    size_t n;
};

static struct list *copy_tensors(const char *below)
{
    struct flow_model *m = open_family(below, 1);
    struct list *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    while (flow_model_tensor(m, l->n, &l->at[l->n])) {
        struct flow_tensor *t = &l->at[l->n];

        snprintf(l->name[l->n], sizeof(l->name[0]), "%s", t->name);
        l->memory[l->n] = malloc(t->bytes + 1);
        assert_non_null(l->memory[l->n]);
        memcpy(l->memory[l->n] + 1, t->data, t->bytes);
        t->name = l->name[l->n];
        t->data = l->memory[l->n] + 1;
        assert_true(++l->n < MAX_TENSORS);
    }
    flow_model_close(m);
    return l;
}

static void list_free(struct list *l)
{
    for (size_t i = 0; i < MAX_TENSORS; i++)
        free(l->memory[i]);
    free(l);
}

static struct flow_tensor *find(struct list *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->at[i].name, name) == 0)
            return &l->at[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

/* Logits of every token of a prefill. */
static float *logits_of(struct flow_model *m, bool exact)
{
    float *out = new_floats(N_IDS * VOCAB);
    struct flow_options o;
    struct flow_profile p;
    struct graph *g;
    int32_t ids[N_IDS];

    fill_ids(ids, N_IDS, 9);
    flow_prefill_options(&o, 1, N_IDS);
    o.output = FLOW_LOGITS;
    if (exact)
        flow_profile_reference(&p);
    else
        flow_profile_default(&p);
    g = build(m, &o, &p);
    exec(g, &(struct graph_io){.input_ids = ids, .output = out});
    graph_destroy(g);
    return out;
}

/* From an array and names that are gone when it returns. */
static struct flow_model *open_list(const char *shape, const struct list *l)
{
    struct flow_tensor *at = malloc(sizeof(l->at));
    char(*names)[64] = malloc(sizeof(l->name));
    struct flow_model *m;
    struct err err;

    assert_true(at && names);
    memcpy(at, l->at, sizeof(l->at));
    memcpy(names, l->name, sizeof(l->name));
    for (size_t i = 0; i < l->n; i++)
        at[i].name = names[i];
    if (flow_model_open_tensors(&m, family_path(shape), at, l->n, 2, &err) < 0)
        fail_msg("%s: %s", shape, err.msg);
    memset(at, 0xff, sizeof(l->at));
    memset(names, 'x', sizeof(l->name));
    free(at);
    free(names);
    return m;
}

static void assert_same_rows(const char *shape, const char *weights)
{
    struct list *l = copy_tensors(weights);
    struct flow_model *file = open_family(weights, 2), *own = open_list(shape, l);

    for (int exact = 0; exact < 2; exact++) {
        float *want = logits_of(file, exact), *got = logits_of(own, exact);

        if (!same_bits(want, got, N_IDS * VOCAB))
            fail_msg("%s with the tensors of %s: other logits", shape, weights);
        free(want);
        free(got);
    }
    flow_model_close(own);
    flow_model_close(file);
    list_free(l);
}

/* Quantised types, per-layer tables that stay where they are, AltUp stacks, experts, divisors. */
static void own_tensors_give_the_rows_of_the_file(void **state)
{
    static const char *const families[] = {"gemma1/model-bf16.gguf", "gemma2/model-f16.gguf", dense,
        "gemma3/model-q4_0.gguf", "mixed/model-mixed.gguf", "gemma3n/model-bf16.gguf",
        "gemma4-dense/model-bf16.gguf", "gemma4-e2b/model-bf16.gguf", "gemma4-moe/model-bf16.gguf"};

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        assert_same_rows(families[i], families[i]);
}

/* The shape may come from config.json, from which also the divisors of Gemma 4 do. */
static void the_shape_may_come_from_a_folder(void **state)
{
    static const char *const families[] = {
        "gemma1", "gemma3", "gemma3n", "gemma4-e2b", "gemma4-moe"};

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        char file[64];

        snprintf(file, sizeof(file), "%s/model-bf16.gguf", families[i]);
        assert_same_rows(families[i], file);
        assert_same_rows(families[i], families[i]);
        assert_same_rows(file, families[i]);
    }
}

/* Only config.json and the tokenizer of a folder are there. */
static void a_folder_needs_no_weights(void **state)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    struct list *l = copy_tensors("gemma4-e2b/model-bf16.gguf");
    struct flow_model *m, *file = open_family("gemma4-e2b", 2);
    char folder[] = "/tmp/gemmad-shape-XXXXXX", from[2048], to[128];
    float *want = logits_of(file, true), *got;
    struct err err;

    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 3; i++) {
        snprintf(from, sizeof(from), "%s/%s", family_path("gemma4-e2b"), files[i]);
        snprintf(to, sizeof(to), "%s/%s", folder, files[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    assert_int_equal(flow_model_open(&m, folder, 2, &err), GD_ENOENT);
    if (flow_model_open_tensors(&m, folder, l->at, l->n, 2, &err) < 0)
        fail_msg("%s", err.msg);
    got = logits_of(m, true);
    assert_memory_equal(want, got, N_IDS * VOCAB * sizeof(*want));
    flow_model_close(m);
    flow_model_close(file);
    for (int i = 0; i < 3; i++) {
        snprintf(to, sizeof(to), "%s/%s", folder, files[i]);
        unlink(to);
    }
    rmdir(folder);
    free(want);
    free(got);
    list_free(l);
}

/* A layer whose branches end in zeros passes the residual stream on as it is. */
static void tensors_may_be_made_up(void **state)
{
    struct list *l = copy_tensors(dense);
    struct flow_model *m;
    float before[64 * N_IDS], logits[VOCAB];
    const float *tap;
    int32_t ids[N_IDS];
    struct flow_options o;
    struct graph *g;
    int rows, width;

    memset(l->memory[find(l, "blk.4.attn_output.weight") - l->at], 0,
        find(l, "blk.4.attn_output.weight")->bytes + 1);
    memset(l->memory[find(l, "blk.4.ffn_down.weight") - l->at], 0,
        find(l, "blk.4.ffn_down.weight")->bytes + 1);
    m = open_list(dense, l);
    fill_ids(ids, N_IDS, 9);
    flow_prefill_options(&o, 1, N_IDS);
    o.taps = true;
    g = build(m, &o, NULL);
    exec(g, &(struct graph_io){.input_ids = ids, .output = logits});
    tap = graph_tap(g, "layer 3", &rows, &width);
    assert_true(tap && rows == N_IDS && width == 64);
    memcpy(before, tap, sizeof(before));
    tap = graph_tap(g, "layer 4", &rows, &width);
    assert_memory_equal(before, tap, sizeof(before));
    tap = graph_tap(g, "layer 5", &rows, &width);
    assert_memory_not_equal(before, tap, sizeof(before));
    graph_destroy(g);
    flow_model_close(m);
    list_free(l);
}

/* ---- what does not fit ---- */

/* Opening or building fails and names the tensor. */
static void fails(const char *shape, const struct list *l, const char *name, const char *why)
{
    struct flow_model *m = NULL;
    struct graph *g;
    struct flow_options o;
    struct flow_profile p;
    struct err err = {0};
    int r = flow_model_open_tensors(&m, family_path(shape), l->at, l->n, 1, &err);

    flow_prefill_options(&o, 1, 8);
    flow_profile_default(&p);
    if (r == 0)
        r = try_build(&g, m, &o, &p, &err);
    if (r != GD_EFORMAT && r != GD_ENOTSUP)
        fail_msg("%s: %d %s", name, r, err.msg);
    if (strcmp(err.param, name) != 0 || !strstr(err.msg, name) || !strstr(err.msg, why))
        fail_msg("%s: \"%s\" (%s)", name, err.msg, err.param);
    if (m)
        flow_model_close(m);
}

/* Every single tensor of three families. (A Gemma 4 without a V on its only global layer with keys
 * of its own is a model whose values are the keys.) */
static void a_missing_tensor_is_named(void **state)
{
    static const char *const families[] = {
        dense, "gemma4-e2b/model-bf16.gguf", "gemma4-moe/model-bf16.gguf"};

    for (size_t f = 0; f < sizeof(families) / sizeof(families[0]); f++) {
        struct list *l = copy_tensors(families[f]);

        for (size_t i = 0; i < l->n; i++) {
            struct flow_tensor gone = l->at[i], last = l->at[l->n - 1];

            l->at[i] = last;
            l->n--;
            if (f != 1 || strcmp(gone.name, "blk.2.attn_v.weight") != 0)
                fails(families[f], l, gone.name, "");
            l->n++;
            l->at[i] = gone;
            l->at[l->n - 1] = last;
        }
        list_free(l);
    }
}

static void a_tensor_that_nobody_takes_is_named(void **state)
{
    struct list *l = copy_tensors(dense);

    l->at[l->n] = *find(l, "blk.2.attn_norm.weight");
    l->at[l->n++].name = "blk.2.attn_extra.weight";
    fails(dense, l, "blk.2.attn_extra.weight", "is not part of this model");
    fails("gemma3", l, "blk.2.attn_extra.weight", "is not part of this model");
    l->at[l->n - 1].name = "blk.7.attn_norm.weight"; /* of a layer too many */
    fails(dense, l, "blk.7.attn_norm.weight", "is not part of this model");
    l->at[l->n - 1] = *find(l, "token_embd.weight");
    l->at[l->n - 1].name = "output.weight"; /* config.json says that the head is tied */
    fails("gemma3", l, "output.weight", "is not part of this model");
    list_free(l);
}

static void a_tensor_that_is_there_twice_is_named(void **state)
{
    struct list *l = copy_tensors(dense);

    l->at[l->n] = *find(l, "blk.2.attn_norm.weight");
    l->n++;
    fails(dense, l, "blk.2.attn_norm.weight", "twice");
    fails("gemma3", l, "blk.2.attn_norm.weight", "twice");
    list_free(l);
}

static int take_again(void *ud, struct flow *f, int h)
{
    return flow_sum(f, h, flow_rmsnorm(f, h, ud));
}

static void a_weight_that_is_taken_twice_is_named(void **state)
{
    struct list *l = copy_tensors(dense);
    struct flow_model *m = open_list(dense, l);
    struct flow_hooks hooks = {.ud = "blk.2.attn_norm.weight", .after_layers = take_again};
    struct flow_options o;
    struct flow_profile p;
    struct graph *g;
    struct err err;

    flow_prefill_options(&o, 1, 8);
    o.hooks = &hooks;
    flow_profile_default(&p);
    assert_int_equal(try_build(&g, m, &o, &p, &err), GD_EINVAL);
    assert_string_equal(err.param, "blk.2.attn_norm.weight");
    o.hooks = NULL; /* and the failed build has spoilt nothing */
    assert_int_equal(try_build(&g, m, &o, &p, &err), 0);
    graph_destroy(g);
    flow_model_close(m);
    list_free(l);
}

static void a_tensor_of_another_shape_is_named(void **state)
{
    static const char *const names[] = {"blk.3.attn_q.weight", "blk.0.ffn_down.weight",
        "blk.6.attn_k_norm.weight", "output_norm.weight"};
    struct list *l = copy_tensors(dense);

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct flow_tensor *t = find(l, names[i]), was = *t;
        int d = was.n_dims - 1;

        t->dims[d]--; /* a row less, and as many bytes as that makes */
        t->bytes = was.bytes / (size_t)was.dims[d] * (size_t)t->dims[d];
        fails(dense, l, names[i], "has the shape");
        *t = was;
    }
    list_free(l);
}

static void hostile_values_are_refused(void **state)
{
    static const char name[] = "blk.3.ffn_up.weight";
    static const struct {
        struct flow_tensor t; /* what is not 0 stands for the good one's */
        const char *why;
    } bad[] = {
        {{.type = 1000}, "type number 1000"},
        {{.type = -1}, "type number"},
        {{.type = 4}, "type number"}, /* was Q4_2 */
        {{.type = 9}, "Q8_1"},        /* known, but none of weights */
        {{.type = TYPE_Q8_0}, "bytes of data"},
        {{.type = TYPE_Q8_0, .dims = {33, 1}}, "blocks of 32"},
        {{.n_dims = -1}, "dimensions"},
        {{.n_dims = 5}, "dimensions"},
        {{.n_dims = INT32_MAX}, "dimensions"},
        {{.dims = {-64, 1}}, "dimension of -64"},
        {{.dims = {64, INT64_MIN}}, "dimension of"},
        {{.dims = {INT64_MAX, INT64_MAX}}, "too large"},
        {{.dims = {INT64_C(1) << 32, INT64_C(1) << 31}}, "too large"},
        {{.n_dims = 4, .dims = {1 << 20, 1 << 20, 1 << 20, 1 << 20}}, "too large"},
        {{.bytes = 1}, "bytes of data"},
        {{.bytes = SIZE_MAX}, "bytes of data"},
    };
    struct list *l = copy_tensors(dense);
    struct flow_tensor *t = find(l, name), was = *t;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        *t = was;
        t->type = bad[i].t.type ? bad[i].t.type : was.type;
        t->n_dims = bad[i].t.n_dims ? bad[i].t.n_dims : was.n_dims;
        if (bad[i].t.dims[0])
            memcpy(t->dims, bad[i].t.dims, sizeof(t->dims));
        t->bytes = bad[i].t.bytes ? bad[i].t.bytes : was.bytes;
        fails(dense, l, name, bad[i].why);
    }
    *t = was;
    t->dims[0] = 0;
    fails(dense, l, name, "dimension of 0");
    *t = was;
    t->data = NULL;
    fails(dense, l, name, "0 bytes of data");
    *t = was;
    t->dims[2] = t->dims[3] = -7; /* beyond n_dims: not looked at */
    flow_model_close(open_list(dense, l));
    list_free(l);
}

static void names_must_be_names(void **state)
{
    static const char *const bad[] = {NULL, "", "a\nb", "caf\xc3\xa9",
        "0123456789012345678901234567890123456789012345678901234567890123"};
    struct list *l = copy_tensors(dense);

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        l->at[5].name = bad[i];
        fails(dense, l, "name", "1 to 63 printable ASCII");
    }
    list_free(l);
}

static void no_tensors_and_no_file_are_errors(void **state)
{
    struct list empty = {.n = 0};
    struct flow_model *m;
    struct err err;

    fails(dense, &empty, "token_embd.weight", "");
    fails("gemma3", &empty, "token_embd.weight", "");
    assert_int_equal(
        flow_model_open_tensors(&m, "/nowhere/model.gguf", NULL, 0, 1, &err), GD_ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_tensors_give_the_rows_of_the_file),
        cmocka_unit_test(the_shape_may_come_from_a_folder),
        cmocka_unit_test(a_folder_needs_no_weights),
        cmocka_unit_test(tensors_may_be_made_up),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_tensor_that_nobody_takes_is_named),
        cmocka_unit_test(a_tensor_that_is_there_twice_is_named),
        cmocka_unit_test(a_weight_that_is_taken_twice_is_named),
        cmocka_unit_test(a_tensor_of_another_shape_is_named),
        cmocka_unit_test(hostile_values_are_refused),
        cmocka_unit_test(names_must_be_names),
        cmocka_unit_test(no_tensors_and_no_file_are_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
