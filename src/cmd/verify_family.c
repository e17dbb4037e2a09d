/* verify_family.c - one golden file of a small model: logits, greedy ids, hidden states, K and V.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cmd/golden.h"
#include "gemmad/flow.h"

struct check {
    struct verify_result *r;
    const struct golden *g;
    struct runtime *rt;
    const char *weights;
    const struct verify_opts *o;
};

static int read_floats(struct golden *g, struct err *err)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(g->json, "data");
    char path[4096];
    FILE *f;
    long bytes;

    if (!cJSON_IsString(name))
        return err_set(err, GD_EFORMAT, "%s: \"data\" names no file", g->file);
    snprintf(path, sizeof(path), "%s/%s", g->dir, name->valuestring);
    f = fopen(path, "re");
    if (!f)
        return err_set(err, GD_ENOENT, "%.200s: cannot be opened", path);
    fseek(f, 0, SEEK_END);
    bytes = ftell(f);
    rewind(f);
    g->n_floats = bytes / 4;
    g->data = xcalloc((size_t)g->n_floats + 1, sizeof(float));
    if (fread(g->data, 4, (size_t)g->n_floats, f) != (size_t)g->n_floats)
        g->n_floats = 0;
    fclose(f);
    return 0;
}

const float *golden_floats(const struct golden *g, double offset, long n)
{
    if (offset < 0 || n < 0 || offset + (double)n > (double)g->n_floats)
        return NULL;
    return g->data + (long)offset;
}

double golden_row_error(const float *got, const float *want, int n)
{
    double lo = INFINITY, hi = -INFINITY, worst = 0;

    for (int i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);

        if (!isfinite(d))
            return INFINITY;
        worst = d > worst ? d : worst;
        lo = want[i] < lo ? (double)want[i] : lo;
        hi = want[i] > hi ? (double)want[i] : hi;
    }
    return hi > lo ? worst / (hi - lo) : worst;
}

/* The model's own greedy continuation; returns how many of want come first unchanged. */
static int greedy(
    const struct check *c, struct plain_kv *kv, float *logits, int past, const int32_t *want, int n)
{
    int32_t id = golden_argmax(logits, c->rt->hp.vocab);

    for (int i = 0; i < n; i++) {
        if (id != want[i])
            return i;
        plain_decode(c->rt, kv, &past, &id, 1, logits);
        past++;
        id = golden_argmax(logits, c->rt->hp.vocab);
    }
    return n;
}

static void check_case(const struct check *c, const cJSON *item)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
    int n_ids, n_pos, n_greedy, vocab = c->rt->hp.vocab, done = 0, same;
    int32_t *ids = golden_ints(cJSON_GetObjectItemCaseSensitive(item, "prompt_ids"), &n_ids);
    int32_t *pos = golden_ints(cJSON_GetObjectItemCaseSensitive(item, "positions"), &n_pos);
    int32_t *want = golden_ints(cJSON_GetObjectItemCaseSensitive(item, "greedy_ids"), &n_greedy);
    const float *rows = golden_floats(c->g, golden_number(item, "offset", -1), (long)n_pos * vocab);
    const char *what = cJSON_IsString(name) ? name->valuestring : "?";
    float *logits = xcalloc((size_t)vocab, sizeof(*logits));
    struct plain_kv kv = {0};
    double worst = 0;
    struct err err;

    if (n_ids < 1 || n_pos < 1 || n_greedy < 0 || !rows || pos[n_pos - 1] != n_ids - 1) {
        verify_report(c->r, false, "%s %s: case %s is malformed", c->g->file, c->weights, what);
        goto out;
    }
    if (plain_kv_create(&kv, c->rt, 1, n_ids + n_greedy + 1, &err) < 0) {
        verify_report(c->r, false, "%s: %s", c->weights, err.msg);
        goto out;
    }
    for (int i = 0; i < n_pos; i++) { /* pieces end at the stored positions */
        double e;

        plain_feed(c->rt, &kv, 0, done, ids + done, pos[i] + 1 - done, c->o->ro.max_chunk, logits);
        done = pos[i] + 1;
        e = golden_row_error(logits, rows + (long)i * vocab, vocab);
        worst = e > worst ? e : worst;
    }
    same = greedy(c, &kv, logits, n_ids, want, n_greedy);
    verify_report(c->r, worst <= c->g->bound && (same == n_greedy || !c->g->exact),
        "%s %s case %s: largest difference %.2g of the range (bound %.2g), %d of %d greedy ids",
        c->g->dir, c->weights, what, worst, c->g->bound, same, n_greedy);
out:
    plain_kv_free(&kv);
    free(logits);
    free(ids);
    free(pos);
    free(want);
}

/* ---- hidden states ---- */

static const int32_t *case_prompt(const struct golden *g, const char *name, int *n, int32_t **owned)
{
    const cJSON *item, *list = cJSON_GetObjectItemCaseSensitive(g->json, "cases");

    if (!cJSON_GetArraySize(list))
        list = cJSON_GetObjectItemCaseSensitive(g->json, "embeddings");
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(item, "name");

        if (cJSON_IsString(v) && strcmp(v->valuestring, name) == 0)
            return *owned = golden_ints(cJSON_GetObjectItemCaseSensitive(item, "prompt_ids"), n);
    }
    return NULL;
}

/* All rows of the prompt in one run, with every row's final hidden state. */
static void run_prompt(struct runtime *rt, struct plain_kv *kv, const int32_t *ids, int n)
{
    float *logits = xcalloc((size_t)n * (size_t)rt->hp.vocab, sizeof(*logits));
    struct graph_seq q = {.n_tokens = n,
        .tokens = ids,
        .pages = {kv->table, kv->table},
        .n_logits = n,
        .logits = logits};

    graph_run(rt->prefill, &kv->memory, &q, 1);
    free(logits);
}

/* Stage "layer 3" of four streams lies under "layer 3", "layer 3.1", ... */
static double stream_error(const struct check *c, const char *stage, int stream, const float *want,
    const int32_t *pos, int n_pos, int width)
{
    char name[64];
    const float *got;
    double worst = 0;
    int rows, w;

    snprintf(name, sizeof(name), stream ? "%s.%d" : "%s", stage, stream);
    got = graph_tap(c->rt->prefill, name, &rows, &w);
    if (!got || w != width)
        return INFINITY;
    for (int i = 0; i < n_pos; i++) {
        double e = pos[i] < rows ? golden_row_error(got + (long)pos[i] * w, want + (long)i * w, w)
                                 : INFINITY;

        worst = e > worst ? e : worst;
    }
    return worst;
}

static double stage_error(
    const struct check *c, const cJSON *stage, const int32_t *pos, int n_pos, int width)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(stage, "stage");
    int streams = (int)golden_number(stage, "streams", 1);
    const float *want =
        golden_floats(c->g, golden_number(stage, "offset", -1), (long)streams * n_pos * width);
    double worst = 0;

    if (!cJSON_IsString(name) || !want || streams < 1)
        return INFINITY;
    for (int i = 0; i < streams; i++) {
        double e = stream_error(
            c, name->valuestring, i, want + (long)i * n_pos * width, pos, n_pos, width);

        worst = e > worst ? e : worst;
    }
    return worst;
}

static void check_hidden(const struct check *c, const cJSON *hidden)
{
    const cJSON *prompt = cJSON_GetObjectItemCaseSensitive(hidden, "prompt"), *stage;
    int n_ids = 0, n_pos, n_stages = 0, width = (int)golden_number(hidden, "width", 0);
    int32_t *pos = golden_ints(cJSON_GetObjectItemCaseSensitive(hidden, "positions"), &n_pos),
            *owned = NULL;
    const int32_t *ids =
        cJSON_IsString(prompt) ? case_prompt(c->g, prompt->valuestring, &n_ids, &owned) : NULL;
    struct plain_kv kv = {0};
    double worst = 0;
    struct err err;

    if (!ids || n_ids < 1 || n_ids > c->o->ro.max_chunk || n_pos < 1 || width != c->rt->hp.width ||
        plain_kv_create(&kv, c->rt, 1, n_ids, &err) < 0) {
        verify_report(c->r, false, "%s %s: hidden_states cannot be checked", c->g->dir, c->weights);
    } else {
        run_prompt(c->rt, &kv, ids, n_ids);
        cJSON_ArrayForEach(stage, cJSON_GetObjectItemCaseSensitive(hidden, "stages"))
        {
            double e = stage_error(c, stage, pos, n_pos, width);

            worst = e > worst ? e : worst;
            n_stages++;
        }
        verify_report(c->r, worst <= c->g->bound && n_stages > 0,
            "%s %s hidden states: largest difference %.2g of the range (bound %.2g) in %d stages",
            c->g->dir, c->weights, worst, c->g->bound, n_stages);
    }
    plain_kv_free(&kv);
    free(pos);
    free(owned);
}

/* ---- K and V ---- */

static double kv_error(const struct check *c, const struct plain_kv *kv, const cJSON *layer, int n)
{
    int i = (int)golden_number(layer, "layer", -1), heads, dim;
    const struct hparams_layer *l;
    const float *want[2];
    struct kv_view view;
    float *got;
    double worst = 0;

    if (i < 0 || i >= c->rt->hp.n_layers)
        return INFINITY;
    l = &c->rt->hp.layers[i];
    heads = l->n_kv_heads;
    dim = l->head_dim;
    want[0] = golden_floats(c->g, golden_number(layer, "k_offset", -1), (long)heads * dim * n);
    want[1] = golden_floats(c->g, golden_number(layer, "v_offset", -1), (long)heads * dim * n);
    if (!want[0] || !want[1] || golden_number(layer, "kv_heads", 0) != heads ||
        golden_number(layer, "head_dim", 0) != dim)
        return INFINITY;
    view = graph_kv_view(c->rt->prefill, &kv->memory, i, kv->table);
    got = xcalloc(2 * (size_t)heads * (size_t)dim, sizeof(*got));
    for (int p = 0; p < n; p++) {
        c->rt->kernels.attention.kv_read(&view, p, got, got + heads * dim);
        for (int side = 0; side < 2; side++) {
            for (int h = 0; h < heads; h++) {
                double e = golden_row_error(
                    got + (side * heads + h) * dim, want[side] + ((long)h * n + p) * dim, dim);

                worst = e > worst ? e : worst;
            }
        }
    }
    free(got);
    return worst;
}

static void check_kv(const struct check *c, const cJSON *section)
{
    const cJSON *layer;
    struct plain_kv kv = {0};
    int n, n_layers = 0;
    int32_t *ids = golden_ints(cJSON_GetObjectItemCaseSensitive(section, "prompt_ids"), &n);
    double worst = 0;
    struct err err;

    if (n < 1 || plain_kv_create(&kv, c->rt, 1, n, &err) < 0) {
        verify_report(c->r, false, "%s %s: kv cannot be checked", c->g->dir, c->weights);
    } else {
        plain_feed(c->rt, &kv, 0, 0, ids, n, c->o->ro.max_chunk, NULL);
        cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(section, "layers"))
        {
            double e = kv_error(c, &kv, layer, n);

            worst = e > worst ? e : worst;
            n_layers++;
        }
        verify_report(c->r, worst <= c->g->bound && n_layers > 0,
            "%s %s K and V: largest difference %.2g of the range (bound %.2g) in %d layers",
            c->g->dir, c->weights, worst, c->g->bound, n_layers);
    }
    plain_kv_free(&kv);
    free(ids);
}

/* ---- embeddings ---- */

static double vector_error(
    const struct check *c, const cJSON *item, const char *what, const float *got, int width)
{
    char offset[32], n[32];
    const float *want;

    snprintf(offset, sizeof(offset), "%s_offset", what);
    snprintf(n, sizeof(n), "%s_width", what);
    want = golden_floats(c->g, golden_number(item, offset, -1), width);
    if (!want || !got || golden_number(item, n, -1) != width)
        return INFINITY;
    return golden_row_error(got, want, width);
}

static void check_embedding(const struct check *c, const cJSON *item)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
    int n, rows, mean_width = 0, width = graph_out_width(c->rt->prefill);
    int32_t *ids = golden_ints(cJSON_GetObjectItemCaseSensitive(item, "prompt_ids"), &n);
    float *vector = xcalloc((size_t)width, sizeof(*vector));
    struct plain_kv kv = {0};
    const float *mean;
    double e, m;
    struct err err;

    if (n < 1 || n > c->o->ro.max_chunk || !cJSON_IsString(name) ||
        plain_kv_create(&kv, c->rt, 1, n, &err) < 0) {
        verify_report(c->r, false, "%s %s: an embedding cannot be checked", c->g->dir, c->weights);
    } else {
        plain_feed(c->rt, &kv, 0, 0, ids, n, n, vector);
        mean = graph_tap(c->rt->prefill, "mean", &rows, &mean_width);
        m = vector_error(c, item, "mean", mean, mean_width);
        e = vector_error(c, item, "embedding", vector, width);
        verify_report(c->r, m <= c->g->bound && e <= c->g->bound,
            "%s %s embedding %s: largest difference %.2g of the range, mean %.2g (bound %.2g)",
            c->g->dir, c->weights, name->valuestring, e, m, c->g->bound);
    }
    plain_kv_free(&kv);
    free(vector);
    free(ids);
}

/* ---- a file ---- */

static void check_weights(struct verify_result *r, const struct verify_opts *o,
    const struct golden *g, const char *path, const char *name)
{
    const cJSON *item, *hidden = cJSON_GetObjectItemCaseSensitive(g->json, "hidden_states");
    const cJSON *kv = cJSON_GetObjectItemCaseSensitive(g->json, "kv");
    struct check c = {r, g, NULL, name, o};
    struct err err;

    if (cJSON_GetObjectItemCaseSensitive(g->json, "drafts")) {
        verify_drafts(r, o, g, path, name);
        return;
    }
    if (verify_open(&c.rt, o, path, true, &err) < 0) {
        verify_report(r, false, "%s %s: %s", g->dir, name, err.msg);
        return;
    }
    if (golden_number(g->json, "vocab", 0) != c.rt->hp.vocab) {
        verify_report(r, false, "%s %s: %d tokens, the golden file has %g", g->dir, name,
            c.rt->hp.vocab, golden_number(g->json, "vocab", 0));
    } else {
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(g->json, "cases"))
            check_case(&c, item);
        if (hidden)
            check_hidden(&c, hidden);
        if (kv)
            check_kv(&c, kv);
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(g->json, "embeddings"))
            check_embedding(&c, item);
    }
    runtime_close(c.rt);
}

void verify_family(
    struct verify_result *r, const struct verify_opts *o, const char *dir, const char *file)
{
    struct golden g = {.dir = dir, .file = file, .exact = strcmp(o->ro.profile, "default") != 0};
    const bool reference = strcmp(o->ro.profile, "reference") == 0;
    const cJSON *item;
    char path[4096];
    struct err err;

    snprintf(path, sizeof(path), "%s/%s", dir, file);
    g.json = golden_json(path, &err);
    if (!g.json || read_floats(&g, &err) < 0) {
        verify_report(r, false, "%s", err.msg);
        cJSON_Delete(g.json);
        return;
    }
    g.bound = o->bound > 0 ? o->bound
              : reference  ? golden_number(g.json, "bound", 2e-4)
              : g.exact    ? 1e-3
                           : 0.1;
    if (o->ro.model_path) {
        check_weights(r, o, &g, o->ro.model_path, o->ro.model_path);
    } else if (!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(g.json, "weights"))) {
        verify_report(r, false, "%s/%s: names no \"weights\"", dir, file);
    } else {
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(g.json, "weights"))
        {
            const char *name = cJSON_IsString(item) ? item->valuestring : "";
            bool folder = strstr(name, ".safetensors") != NULL;

            snprintf(path, sizeof(path), "%s%s%s", dir, folder ? "" : "/", folder ? "" : name);
            check_weights(r, o, &g, path, name);
        }
    }
    free(g.data);
    cJSON_Delete(g.json);
}
