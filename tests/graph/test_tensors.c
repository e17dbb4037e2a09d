/* test_tensors.c - the flow contract through its public header: sizes, outputs, K and V as tensors,
 * masks, rope rows. */
#include <cjson/cJSON.h>
#include <math.h>

#include "models.h"

static const char *const model = "tests/golden/families/gemma3/model-bf16.gguf";
enum { MAX_LAYERS = 8, N_IDS = 12, N_GREEDY = 24 };

struct fixture {
    struct runtime *rt; /* reference profile */
    int32_t ids[64];
};

static int set_up(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));

    x->rt = open_model(model, "reference", "auto", 2, "auto");
    fill_ids(x->ids, 64, 7, x->rt->hp.vocab);
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

static struct graph *build(struct fixture *x, const struct flow_options *o)
{
    struct flow_profile p;
    struct graph *g = NULL;
    struct flow *f;
    struct err err;

    flow_profile_reference(&p);
    if (flow_create(&f, &x->rt->hp, o, &err) < 0 ||
        flow_build(&g, f, &p, x->rt->weights, &x->rt->kernels, x->rt->pool, &err) < 0)
        fail_msg("%s", err.msg);
    flow_destroy(f);
    return g;
}

static void exec(struct graph *g, const struct graph_io *io)
{
    struct err err;

    if (graph_exec(g, io, &err) < 0)
        fail_msg("%s", err.msg);
}

static void refused(struct graph *g, const struct graph_io *io, const char *param)
{
    struct err err = {0};

    assert_int_equal(graph_exec(g, io, &err), GD_EINVAL);
    assert_string_equal(err.param, param);
}

/* ---- K and V of all layers ---- */

struct tensors {
    float *k[MAX_LAYERS], *v[MAX_LAYERS];
};

static size_t positions_floats(const struct runtime *rt, int layer)
{
    return (size_t)rt->hp.layers[layer].n_kv_heads * (size_t)rt->hp.layers[layer].head_dim;
}

static void tensors_init(struct tensors *t, const struct runtime *rt, int n)
{
    for (int i = 0; i < rt->hp.n_layers; i++) {
        t->k[i] = xcalloc(positions_floats(rt, i) * (size_t)n, sizeof(float));
        t->v[i] = xcalloc(positions_floats(rt, i) * (size_t)n, sizeof(float));
    }
}

static void tensors_free(struct tensors *t)
{
    for (int i = 0; i < MAX_LAYERS; i++) {
        free(t->k[i]);
        free(t->v[i]);
    }
}

/* (1, heads, n, dim) and (1, heads, 1, dim) -> (1, heads, n + 1, dim) */
static void grow(float **past, const float *now, const struct hparams_layer *l, int n)
{
    size_t dim = (size_t)l->head_dim;
    float *out = xcalloc((size_t)l->n_kv_heads * dim * (size_t)(n + 1), sizeof(*out));

    for (size_t h = 0; h < (size_t)l->n_kv_heads; h++) {
        memcpy(out + h * (size_t)(n + 1) * dim, *past + h * (size_t)n * dim,
            (size_t)n * dim * sizeof(*out));
        memcpy(out + (h * (size_t)(n + 1) + (size_t)n) * dim, now + h * dim, dim * sizeof(*out));
    }
    free(*past);
    *past = out;
}

static int32_t likeliest(const struct runtime *rt, const float *logits)
{
    return rt->kernels.argmax(logits, rt->hp.vocab);
}

/* ---- tests ---- */

static void fixed_and_dynamic_give_the_same_rows(void **state)
{
    struct fixture *x = *state;
    size_t vocab = (size_t)x->rt->hp.vocab;
    float *a = xcalloc(N_IDS * vocab, sizeof(*a)), *b = xcalloc(N_IDS * vocab, sizeof(*b));
    struct flow_options o;
    struct graph *fixed, *dynamic, *last;

    flow_prefill_options(&o, 1, N_IDS);
    o.output = FLOW_LOGITS;
    fixed = build(x, &o);
    o.dynamic_seq = true;
    o.seq = 64;
    dynamic = build(x, &o);
    o.output = FLOW_LAST_LOGITS;
    last = build(x, &o);
    exec(fixed, &(struct graph_io){.input_ids = x->ids, .output = a});
    exec(dynamic, &(struct graph_io){.input_ids = x->ids, .seq = N_IDS, .output = b});
    assert_memory_equal(a, b, N_IDS * vocab * sizeof(*a));
    for (int i = 0; i < N_IDS; i += 5) { /* the index is an input */
        exec(last,
            &(struct graph_io){.input_ids = x->ids, .seq = N_IDS, .last_index = i, .output = b});
        assert_memory_equal(a + (size_t)i * vocab, b, vocab * sizeof(*a));
    }
    refused(fixed, &(struct graph_io){.input_ids = x->ids, .seq = 3, .output = a}, "seq");
    refused(dynamic, &(struct graph_io){.input_ids = x->ids, .seq = 65, .output = a}, "seq");
    refused(last, &(struct graph_io){.input_ids = x->ids, .seq = 3, .last_index = 3, .output = a},
        "last_index");
    refused(last, &(struct graph_io){.seq = 3, .output = a}, "input_ids");
    x->ids[1] += x->rt->hp.vocab;
    refused(last, &(struct graph_io){.input_ids = x->ids, .seq = 3, .output = a}, "input_ids");
    x->ids[1] -= x->rt->hp.vocab;
    graph_destroy(fixed);
    graph_destroy(dynamic);
    graph_destroy(last);
    free(a);
    free(b);
}

static void a_batched_prefill_is_its_sequences(void **state)
{
    struct fixture *x = *state;
    size_t vocab = (size_t)x->rt->hp.vocab;
    float *all = xcalloc(3 * vocab, sizeof(*all)), *one = xcalloc(vocab, sizeof(*one));
    struct flow_options o;
    struct graph *batch, *alone;

    flow_prefill_options(&o, 3, N_IDS);
    batch = build(x, &o);
    flow_prefill_options(&o, 1, N_IDS);
    alone = build(x, &o);
    exec(batch, &(struct graph_io){.input_ids = x->ids, .output = all});
    for (size_t s = 0; s < 3; s++) {
        exec(alone, &(struct graph_io){.input_ids = x->ids + s * N_IDS, .output = one});
        assert_memory_equal(all + s * vocab, one, vocab * sizeof(*one));
    }
    graph_destroy(batch);
    graph_destroy(alone);
    free(all);
    free(one);
}

static void hidden_states_times_the_head_are_logits(void **state)
{
    struct fixture *x = *state;
    size_t width = (size_t)x->rt->hp.width;
    float *hidden = xcalloc(N_IDS * width, sizeof(*hidden)),
          *logits = xcalloc((size_t)x->rt->hp.vocab, sizeof(*logits));
    float row[64];
    struct flow_options o;
    struct graph *g;
    struct ir_weight w = ir_weight(x->rt->hp.vocab, x->rt->hp.width, "token_embd.weight");
    struct wmat table;
    struct err err;

    flow_prefill_options(&o, 1, N_IDS);
    o.output = FLOW_HIDDEN;
    g = build(x, &o);
    exec(g, &(struct graph_io){.input_ids = x->ids, .output = hidden});
    graph_destroy(g);
    o.output = FLOW_LAST_LOGITS;
    g = build(x, &o);
    exec(g, &(struct graph_io){.input_ids = x->ids, .output = logits});
    graph_destroy(g);
    w.shared = true;
    weight_store_begin(x->rt->weights);
    assert_int_equal(weight_store_matrix(x->rt->weights, &w, &table, &err), 0);
    for (int t = 0; t < x->rt->hp.vocab; t += 37) {
        double sum = 0;

        wmat_read_row(&table, t, row);
        for (size_t i = 0; i < width; i++)
            sum += (double)row[i] * (double)hidden[(N_IDS - 1) * width + i];
        assert_true(fabs(sum - (double)logits[t]) < 1e-4);
    }
    free(hidden);
    free(logits);
}

/* The golden prompt "short" and its continuation, through past_k and past_v alone. */
static void tensors_alone_reproduce_the_golden_continuation(void **state)
{
    struct fixture *x = *state;
    struct runtime *rt = x->rt;
    char path[512], *text;
    long size;
    FILE *f;
    cJSON *json, *item;
    int32_t ids[64], next;
    int n = 0, i = 0;
    float *logits = xcalloc((size_t)rt->hp.vocab, sizeof(*logits));
    struct tensors past = {0}, now = {0};
    struct flow_options o;
    struct graph *prefill, *decode;

    snprintf(path, sizeof(path), "%s/tests/golden/families/gemma3/golden.json", SOURCE_ROOT);
    f = fopen(path, "r");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    text = xcalloc((size_t)size + 1, 1);
    assert_int_equal(fread(text, 1, (size_t)size, f), (size_t)size);
    fclose(f);
    json = cJSON_Parse(text);
    item = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "cases"), 1);
    for (cJSON *id = cJSON_GetObjectItem(item, "prompt_ids")->child; id; id = id->next)
        ids[n++] = id->valueint;

    flow_prefill_options(&o, 1, n);
    o.export_kv = true;
    prefill = build(x, &o);
    flow_decode_options(&o, 1, 0);
    o.dynamic_past = true;
    decode = build(x, &o);
    tensors_init(&past, rt, n);
    tensors_init(&now, rt, 1);
    exec(prefill,
        &(struct graph_io){.input_ids = ids, .output = logits, .new_k = past.k, .new_v = past.v});
    for (cJSON *id = cJSON_GetObjectItem(item, "greedy_ids")->child; id; id = id->next, i++) {
        next = likeliest(rt, logits);
        assert_int_equal(next, id->valueint);
        exec(decode, &(struct graph_io){.input_ids = &next,
                         .past = n + i,
                         .past_k = (const float *const *)past.k,
                         .past_v = (const float *const *)past.v,
                         .output = logits,
                         .new_k = now.k,
                         .new_v = now.v});
        for (int l = 0; l < rt->hp.n_layers; l++) {
            grow(&past.k[l], now.k[l], &rt->hp.layers[l], n + i);
            grow(&past.v[l], now.v[l], &rt->hp.layers[l], n + i);
        }
    }
    assert_int_equal(i, N_GREEDY);
    tensors_free(&past);
    tensors_free(&now);
    graph_destroy(prefill);
    graph_destroy(decode);
    cJSON_Delete(json);
    free(text);
    free(logits);
}

/* Copies (1, heads, n, dim) into sequence s of (batch, heads, room, dim), right-aligned. */
static void put(float *dst, const float *src, const struct hparams_layer *l, int s, int n, int room)
{
    size_t dim = (size_t)l->head_dim;

    for (size_t h = 0; h < (size_t)l->n_kv_heads; h++)
        memcpy(dst + (((size_t)s * (size_t)l->n_kv_heads + h) * (size_t)room + (size_t)(room - n)) *
                         dim,
            src + h * (size_t)n * dim, (size_t)n * dim * sizeof(*dst));
}

enum { RAGGED = 3, ROOM = 11 };

struct ragged {
    int n[RAGGED];
    struct tensors alone[RAGGED], all;
    float mask[RAGGED * (ROOM + 1)];
    int32_t next[RAGGED];
    int positions[RAGGED];
};

/* Prefills sequences of different lengths and pads them on the left into one batch. */
static void ragged_init(struct fixture *x, struct ragged *r)
{
    float *logits = xcalloc((size_t)x->rt->hp.vocab, sizeof(*logits));

    tensors_init(&r->all, x->rt, RAGGED * ROOM);
    for (int s = 0; s < RAGGED; s++) {
        struct flow_options o;
        struct graph *g;

        r->n[s] = ROOM - 4 * s;
        flow_prefill_options(&o, 1, r->n[s]);
        o.export_kv = true;
        g = build(x, &o);
        tensors_init(&r->alone[s], x->rt, r->n[s]);
        exec(g, &(struct graph_io){.input_ids = x->ids + 13 * s,
                    .output = logits,
                    .new_k = r->alone[s].k,
                    .new_v = r->alone[s].v});
        graph_destroy(g);
        r->next[s] = likeliest(x->rt, logits);
        r->positions[s] = r->n[s];
        for (int i = 0; i <= ROOM; i++)
            r->mask[s * (ROOM + 1) + i] = i < ROOM - r->n[s] ? -INFINITY : 0;
        for (int l = 0; l < x->rt->hp.n_layers; l++) {
            put(r->all.k[l], r->alone[s].k[l], &x->rt->hp.layers[l], s, r->n[s], ROOM);
            put(r->all.v[l], r->alone[s].v[l], &x->rt->hp.layers[l], s, r->n[s], ROOM);
        }
    }
    free(logits);
}

static void a_masked_ragged_batch_equals_each_alone(void **state)
{
    struct fixture *x = *state;
    size_t vocab = (size_t)x->rt->hp.vocab;
    float *all = xcalloc(RAGGED * vocab, sizeof(*all)), *one = xcalloc(vocab, sizeof(*one));
    struct ragged r = {0};
    struct flow_options o;
    struct graph *batch, *alone;
    struct graph_io io;

    ragged_init(x, &r);
    flow_decode_options(&o, RAGGED, ROOM);
    o.custom_mask = true;
    batch = build(x, &o);
    flow_decode_options(&o, 1, 0);
    o.dynamic_past = true;
    alone = build(x, &o);
    io = (struct graph_io){.input_ids = r.next,
        .past_k = (const float *const *)r.all.k,
        .past_v = (const float *const *)r.all.v,
        .positions = r.positions,
        .custom_mask = r.mask,
        .output = all};
    exec(batch, &io);
    for (int s = 0; s < RAGGED; s++) {
        exec(alone, &(struct graph_io){.input_ids = &r.next[s],
                        .past = r.n[s],
                        .past_k = (const float *const *)r.alone[s].k,
                        .past_v = (const float *const *)r.alone[s].v,
                        .output = one});
        assert_memory_equal(all + (size_t)s * vocab, one, vocab * sizeof(*one));
    }
    r.mask[ROOM] = -INFINITY;
    refused(batch, &io, "custom_mask");
    io.custom_mask = NULL;
    refused(batch, &io, "custom_mask");
    for (int s = 0; s < RAGGED; s++)
        tensors_free(&r.alone[s]);
    tensors_free(&r.all);
    graph_destroy(batch);
    graph_destroy(alone);
    free(all);
    free(one);
}

static void rope_rows_may_be_inputs(void **state)
{
    struct fixture *x = *state;
    const struct hparams *hp = &x->rt->hp;
    size_t vocab = (size_t)hp->vocab;
    float *a = xcalloc(vocab, sizeof(*a)), *b = xcalloc(vocab, sizeof(*b)), cos[2][64], sin[2][64];
    const float *c[2] = {cos[0], cos[1]}, *s[2] = {sin[0], sin[1]};
    struct ragged r = {0};
    struct flow_options o;
    struct graph *g;
    struct graph_io io;

    ragged_init(x, &r);
    flow_decode_options(&o, 1, ROOM);
    g = build(x, &o);
    io = (struct graph_io){.input_ids = r.next,
        .past_k = (const float *const *)r.alone[0].k,
        .past_v = (const float *const *)r.alone[0].v,
        .output = a};
    exec(g, &io);
    for (int t = 0; t < hp->n_rope; t++) {
        for (int i = 0; i < hp->rope[t].n_dims / 2; i++) {
            float inv =
                (float)(1.0 / pow((double)hp->rope[t].freq_base, 2.0 * i / hp->rope[t].n_dims));

            sincosf((float)ROOM * inv * hp->rope[t].freq_scale, &sin[t][i], &cos[t][i]);
        }
    }
    io.rope_cos = c;
    io.rope_sin = s;
    io.output = b;
    exec(g, &io);
    assert_memory_equal(a, b, vocab * sizeof(*a));
    cos[0][0] = -cos[0][0]; /* and they are used */
    exec(g, &io);
    assert_memory_not_equal(a, b, vocab * sizeof(*a));
    io.rope_sin = NULL;
    refused(g, &io, "rope_cos");
    io.rope_cos = NULL;
    io.past = ROOM - 1;
    refused(g, &io, "past");
    io.past = 0;
    io.past_k = NULL;
    refused(g, &io, "past_k");
    for (int i = 0; i < RAGGED; i++)
        tensors_free(&r.alone[i]);
    tensors_free(&r.all);
    graph_destroy(g);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_and_dynamic_give_the_same_rows),
        cmocka_unit_test(a_batched_prefill_is_its_sequences),
        cmocka_unit_test(hidden_states_times_the_head_are_logits),
        cmocka_unit_test(tensors_alone_reproduce_the_golden_continuation),
        cmocka_unit_test(a_masked_ragged_batch_equals_each_alone),
        cmocka_unit_test(rope_rows_may_be_inputs),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
