/* test_golden.c - every golden family through gemmad/flow.h alone: logits, hidden states, K and V,
 * and vectors of embedders, from GGUF files and folders, within the bound of the golden file. */
#include <cjson/cJSON.h>
#include <math.h>

#include "contract.h"

static const char *const families[] = {"gemma1", "gemma2", "gemma2-27b", "gemma3", "gemma3-mm",
    "gemma3n", "gemma4-dense", "gemma4-e2b", "gemma4-moe", "mixed", "embeddinggemma",
    "embeddinggemma2"};
enum { N_FAMILIES = sizeof(families) / sizeof(families[0]), MAX_IDS = 1024 };

struct golden {
    const char *family;
    cJSON *json;
    float *data;
    double bound;
    struct flow_model *m;
    int n_compared; /* rows */
};

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    bytes = calloc(*n + 1, 1);
    assert_true(bytes && fread(bytes, 1, *n, f) == *n);
    fclose(f);
    return bytes;
}

static void golden_read(struct golden *g, const char *family)
{
    char below[128], *text;
    size_t n;

    *g = (struct golden){.family = family};
    snprintf(below, sizeof(below), "%s/golden.json", family);
    text = read_file(family_path(below), &n);
    g->json = cJSON_Parse(text);
    free(text);
    assert_non_null(g->json);
    snprintf(
        below, sizeof(below), "%s/%s", family, cJSON_GetObjectItem(g->json, "data")->valuestring);
    g->data = (float *)(void *)read_file(family_path(below), &n);
    g->bound = cJSON_GetObjectItem(g->json, "bound")->valuedouble;
    assert_true(g->bound <= 2e-4);
}

static int integer(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(object, key);

    return item ? item->valueint : -1;
}

static int integers(const cJSON *object, const char *key, int32_t *out)
{
    const cJSON *item;
    int n = 0;

    cJSON_ArrayForEach(item, cJSON_GetObjectItem(object, key))
    {
        assert_true(n < MAX_IDS);
        out[n++] = item->valueint;
    }
    assert_true(n > 0);
    return n;
}

/* n numbers against the golden ones at an offset; the largest difference may be `bound` of their
 * range. */
static void compare(struct golden *g, const float *got, int offset, int n, const char *what)
{
    const float *want = g->data + offset;
    double low = INFINITY, high = -INFINITY, worst = 0;

    assert_true(offset >= 0);
    for (int i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);

        worst = d > worst || d != d ? d : worst;
        low = want[i] < low ? (double)want[i] : low;
        high = want[i] > high ? (double)want[i] : high;
    }
    if (!(worst <= g->bound * (high - low)))
        fail_msg("%s: %s: off by %g of a range of %g", g->family, what, worst, high - low);
    g->n_compared++;
}

/* ---- what is compared ---- */

static void check_case(struct golden *g, const cJSON *item)
{
    int32_t ids[MAX_IDS], positions[MAX_IDS];
    int n = integers(item, "prompt_ids", ids), rows = integers(item, "positions", positions);
    float *logits = new_floats((size_t)n * VOCAB);
    struct flow_options o;
    struct graph *graph;

    flow_prefill_options(&o, 1, n);
    o.output = FLOW_LOGITS;
    graph = build(g->m, &o, NULL);
    exec(graph, &(struct graph_io){.input_ids = ids, .output = logits});
    for (int r = 0; r < rows; r++)
        compare(g, logits + (size_t)positions[r] * VOCAB, integer(item, "offset") + r * VOCAB,
            VOCAB, "logits");
    graph_destroy(graph);
    free(logits);
}

/* The ids of the case or text of this name. */
static int prompt_of(const struct golden *g, const char *name, int32_t *ids)
{
    static const char *const lists[] = {"cases", "embeddings"};
    const cJSON *item;

    for (int i = 0; i < 2; i++)
        cJSON_ArrayForEach(item, cJSON_GetObjectItem(g->json, lists[i]))
        {
            if (strcmp(cJSON_GetObjectItem(item, "name")->valuestring, name) == 0)
                return integers(item, "prompt_ids", ids);
        }
    fail_msg("%s: no prompt %s", g->family, name);
    return 0;
}

/* Each stage is [stream][position][width]; further streams of a layer are taps "layer 3.1" ... */
static void check_stage(
    struct golden *g, const struct graph *graph, const cJSON *stage, const int32_t *pos, int n)
{
    const char *name = cJSON_GetObjectItem(stage, "stage")->valuestring;

    for (int s = 0; s < integer(stage, "streams"); s++) {
        char tap[64];
        const float *got;
        int rows, width;

        snprintf(tap, sizeof(tap), s ? "%s.%d" : "%s", name, s);
        got = graph_tap(graph, tap, &rows, &width);
        assert_non_null(got);
        for (int p = 0; p < n; p++) {
            assert_true(pos[p] < rows);
            compare(g, got + (size_t)pos[p] * (size_t)width,
                integer(stage, "offset") + (s * n + p) * width, width, tap);
        }
    }
}

static void check_hidden(struct golden *g, const cJSON *hidden)
{
    int32_t ids[MAX_IDS], positions[MAX_IDS];
    int n = prompt_of(g, cJSON_GetObjectItem(hidden, "prompt")->valuestring, ids);
    int rows = integers(hidden, "positions", positions);
    float *out = new_floats((size_t)n * VOCAB);
    struct flow_options o;
    struct graph *graph;
    const cJSON *stage;

    flow_prefill_options(&o, 1, n);
    o.output =
        FLOW_HIDDEN; /* of all rows, so that also what stands behind the last layer has them */
    o.taps = true;
    graph = build(g->m, &o, NULL);
    exec(graph, &(struct graph_io){.input_ids = ids, .output = out});
    cJSON_ArrayForEach(stage, cJSON_GetObjectItem(hidden, "stages"))
    {
        int width = graph_out_width(graph);

        if (strcmp(cJSON_GetObjectItem(stage, "stage")->valuestring, "norm output") != 0)
            check_stage(g, graph, stage, positions, rows);
        else
            for (int r = 0; r < rows; r++)
                compare(g, out + (size_t)positions[r] * (size_t)width,
                    integer(stage, "offset") + r * width, width, "hidden states");
    }
    graph_destroy(graph);
    free(out);
}

static void check_kv(struct golden *g, const cJSON *kv)
{
    int32_t ids[MAX_IDS];
    int n = integers(kv, "prompt_ids", ids);
    float logits[VOCAB];
    struct tensors t;
    struct flow_options o;
    struct graph *graph;
    const cJSON *layer;

    tensors_init(&t, g->m, n);
    flow_prefill_options(&o, 1, n);
    o.export_kv = true;
    graph = build(g->m, &o, NULL);
    exec(graph, &(struct graph_io){.input_ids = ids, .output = logits, .new_k = t.k, .new_v = t.v});
    cJSON_ArrayForEach(layer, cJSON_GetObjectItem(kv, "layers"))
    {
        int i = integer(layer, "layer"), dim = integer(layer, "head_dim");

        for (int r = 0; r < integer(layer, "kv_heads") * n; r++) {
            compare(g, t.k[i] + r * dim, integer(layer, "k_offset") + r * dim, dim, "K");
            compare(g, t.v[i] + r * dim, integer(layer, "v_offset") + r * dim, dim, "V");
        }
    }
    graph_destroy(graph);
    tensors_free(&t);
}

static void check_embedding(struct golden *g, const cJSON *item)
{
    int32_t ids[MAX_IDS];
    int n = integers(item, "prompt_ids", ids), width = integer(item, "embedding_width");
    float *out = new_floats((size_t)width);
    struct flow_options o;
    struct graph *graph;

    flow_prefill_options(&o, 1, n);
    graph = build(g->m, &o, NULL);
    assert_int_equal(graph_out_width(graph), width);
    exec(graph, &(struct graph_io){.input_ids = ids, .output = out});
    compare(g, out, integer(item, "embedding_offset"), width, "embedding");
    graph_destroy(graph);
    free(out);
}

/* ---- tests ---- */

/* A folder's file of weights stands for the folder. */
static struct flow_model *open_weights(const char *family, const char *weights)
{
    char below[256];

    if (strstr(weights, ".safetensors"))
        snprintf(below, sizeof(below), "%s", family);
    else
        snprintf(below, sizeof(below), "%s/%s", family, weights);
    return open_family(below, 2);
}

static void check_weights(struct golden *g)
{
    const cJSON *item, *hidden = cJSON_GetObjectItem(g->json, "hidden_states"),
                       *kv = cJSON_GetObjectItem(g->json, "kv");

    g->n_compared = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(g->json, "cases")) check_case(g, item);
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(g->json, "embeddings")) check_embedding(g, item);
    if (hidden)
        check_hidden(g, hidden);
    if (kv)
        check_kv(g, kv);
    assert_true(g->n_compared >= 3);
}

static void the_numbers_are_the_golden_ones(void **state)
{
    for (int f = 0; f < N_FAMILIES; f++) {
        struct golden g;
        const cJSON *weights;
        int n = 0;

        golden_read(&g, families[f]);
        cJSON_ArrayForEach(weights, cJSON_GetObjectItem(g.json, "weights"))
        {
            g.m = open_weights(families[f], weights->valuestring);
            check_weights(&g);
            flow_model_close(g.m);
            n++;
        }
        assert_true(n > 0);
        cJSON_Delete(g.json);
        free(g.data);
    }
}

/* The first file that a family's golden numbers name. */
static struct flow_model *open_any(const char *family)
{
    struct flow_model *m;
    struct golden g;

    golden_read(&g, family);
    m = open_weights(
        family, cJSON_GetArrayItem(cJSON_GetObjectItem(g.json, "weights"), 0)->valuestring);
    cJSON_Delete(g.json);
    free(g.data);
    return m;
}

/* Decoding appends to the K and V that a prefill gave, in every family that decodes: the rows are
 * those of a prefill of the whole text. */
static void decoding_continues_a_prefill(void **state)
{
    enum { N = 30, WHOLE = N + 1 };

    for (int f = 0; f < N_FAMILIES - 2; f++) {
        struct flow_model *m = open_any(families[f]);
        struct tensors past;
        struct flow_options o;
        struct graph *graph;
        int32_t ids[WHOLE];
        float want[VOCAB], got[VOCAB];

        fill_ids(ids, WHOLE, 21);
        tensors_init(&past, m, N);
        flow_prefill_options(&o, 1, WHOLE);
        graph = build(m, &o, NULL);
        exec(graph, &(struct graph_io){.input_ids = ids, .output = want});
        graph_destroy(graph);
        flow_prefill_options(&o, 1, N);
        o.export_kv = true;
        graph = build(m, &o, NULL);
        exec(graph,
            &(struct graph_io){.input_ids = ids, .output = got, .new_k = past.k, .new_v = past.v});
        graph_destroy(graph);
        for (int dynamic = 0; dynamic < 2; dynamic++) {
            flow_decode_options(&o, 1, dynamic ? 0 : N);
            o.dynamic_past = dynamic;
            graph = build(m, &o, NULL);
            memset(got, 0, sizeof(got));
            exec(graph, &(struct graph_io){.input_ids = ids + N,
                            .past = N,
                            .past_k = (const float *const *)past.k,
                            .past_v = (const float *const *)past.v,
                            .output = got});
            if (!same_bits(want, got, VOCAB))
                fail_msg("%s: decoding differs", families[f]);
            graph_destroy(graph);
        }
        tensors_free(&past);
        flow_model_close(m);
    }
}

/* Three texts prefilled and decoded together, fixed and dynamic, in every family that decodes. */
static void a_batch_is_each_alone(void **state)
{
    enum { N = 20, BATCH = 3 };

    for (int f = 0; f < N_FAMILIES - 2; f++) {
        struct flow_model *m = open_any(families[f]);
        struct tensors kv[BATCH + 1];     /* of each alone, and of all */
        float logits[2][2][BATCH][VOCAB]; /* prefilled, decoded: together, alone */
        int32_t ids[BATCH * N], next[BATCH];
        struct flow_options o;

        fill_ids(ids, BATCH * N, 5);
        fill_ids(next, BATCH, 6);
        for (int s = 0; s <= BATCH; s++) {
            bool all = s == BATCH;
            struct graph_io io = {.input_ids = ids + (all ? 0 : s) * N};
            struct graph *g;

            tensors_init(&kv[s], m, all ? BATCH * N : N);
            flow_prefill_options(&o, all ? BATCH : 1, N);
            o.export_kv = true;
            g = build(m, &o, NULL);
            io.output = all ? logits[0][0][0] : logits[0][1][s];
            io.new_k = kv[s].k;
            io.new_v = kv[s].v;
            exec(g, &io);
            graph_destroy(g);
            flow_decode_options(&o, all ? BATCH : 1, all ? N : 0);
            o.dynamic_past = !all;
            g = build(m, &o, NULL);
            io = (struct graph_io){.input_ids = all ? next : &next[s],
                .past = N,
                .past_k = (const float *const *)kv[s].k,
                .past_v = (const float *const *)kv[s].v,
                .output = all ? logits[1][0][0] : logits[1][1][s]};
            exec(g, &io);
            graph_destroy(g);
        }
        for (int what = 0; what < 2; what++)
            if (!same_bits(logits[what][0][0], logits[what][1][0], BATCH * VOCAB))
                fail_msg(
                    "%s: a batch differs when %s", families[f], what ? "decoded" : "prefilled");
        for (int s = 0; s <= BATCH; s++)
            tensors_free(&kv[s]);
        flow_model_close(m);
    }
}

/* What embedders and drafters are not. */
static void other_models_say_what_they_cannot(void **state)
{
    struct flow_model *embedder = open_family("embeddinggemma/model-bf16.gguf", 1),
                      *target = open_family("gemma4-e2b/model-bf16.gguf", 1),
                      *drafter = open_family("gemma4-assistant/model-bf16.gguf", 1);
    struct flow_profile p;
    struct flow_options o;
    float out[VOCAB];
    struct graph *g;
    int32_t id = 5;
    struct err err;

    flow_profile_reference(&p);
    flow_prefill_options(&o, 1, 4);
    o.output = FLOW_LOGITS;
    assert_int_equal(try_build(&g, embedder, &o, &p, &err), GD_EINVAL);
    assert_string_equal(err.param, "output");
    flow_decode_options(&o, 1, 4);
    assert_int_equal(try_build(&g, embedder, &o, &p, &err), GD_EINVAL);
    assert_string_equal(err.param, "mode");
    assert_int_equal(try_build(&g, drafter, &o, &p, &err), GD_ENOTSUP);
    assert_string_equal(err.param, "target");
    flow_decode_options(&o, 1, 0);
    o.target = flow_model_hparams(target);
    assert_int_equal(try_build(&g, drafter, &o, &p, &err), 0);
    assert_int_equal(
        graph_exec(g, &(struct graph_io){.input_ids = &id, .output = out}, &err), GD_ENOTSUP);
    assert_string_equal(err.param, "target");
    graph_destroy(g);
    flow_model_close(drafter);
    flow_model_close(target);
    flow_model_close(embedder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_numbers_are_the_golden_ones),
        cmocka_unit_test(decoding_continues_a_prefill),
        cmocka_unit_test(a_batch_is_each_alone),
        cmocka_unit_test(other_models_say_what_they_cannot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
