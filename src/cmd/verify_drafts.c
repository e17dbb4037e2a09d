/* verify_drafts.c - a drafter's golden file: the target runs a prompt, the drafter goes on from its
 * final state.
 *
 * A draft reads the target's scaled embedding of the last token beside the state it starts from.
 * Its query stands one position behind the last key and is turned by that position; all drafts of a
 * round stand at the same one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cmd/golden.h"
#include "gemmad/flow.h"
#include "graph/weights.h"

struct drafter {
    struct source *src;
    struct hparams hp;
    struct weight_store *weights;
    struct graph *graph;
    struct runtime *target;
    struct wmat table; /* the target's embeddings */
};

static void drafter_close(struct drafter *d)
{
    graph_destroy(d->graph);
    weight_store_destroy(d->weights);
    source_close(d->src);
    runtime_close(d->target);
}

static int build(struct drafter *d, const struct verify_opts *o, struct err *err)
{
    struct flow_options fo;
    struct flow_profile p;
    struct flow *f;
    int r;

    flow_prefill_options(&fo, 1, 1);
    fo.target = &d->target->hp;
    flow_profile_named(&p, o->ro.profile); /* the target was opened with it */
    p.kv = d->target->kv.type == KV_F32 ? FLOW_KV_F32 : FLOW_KV_BF16;
    r = flow_create(&f, &d->hp, &fo, err);
    if (r < 0)
        return r;
    r = flow_build(&d->graph, f, &p, d->weights, &d->target->kernels, d->target->pool, err);
    flow_destroy(f);
    return r;
}

static int drafter_open(struct drafter *d, const struct verify_opts *o, const struct golden *g,
    const char *path, struct err *err)
{
    const cJSON *target = cJSON_GetObjectItemCaseSensitive(g->json, "target");
    struct ir_weight table;
    char dir[4096];
    int r;

    *d = (struct drafter){0};
    if (!cJSON_IsString(target))
        return err_set(err, GD_EFORMAT, "%s names no \"target\"", g->file);
    snprintf(dir, sizeof(dir), "%s/%s", g->dir, target->valuestring);
    r = verify_open(&d->target, o, dir, true, err);
    if (r == 0)
        r = source_open(&d->src, path, err);
    if (r == 0)
        r = hparams_read(&d->hp, d->src, err);
    if (r < 0)
        return r;
    d->weights = weight_store_create(d->src, d->target->pool);
    table = ir_weight(d->target->hp.vocab, d->target->hp.width, "token_embd.weight");
    table.shared = true;
    r = build(d, o, err);
    return r < 0 ? r : weight_store_matrix(d->target->weights, &table, &d->table, err);
}

/* One draft: logits, and state in and out. */
static void draft(struct drafter *d, const struct plain_kv *kv, int32_t token, int position,
    float *input, float *logits)
{
    int width = d->target->hp.width, rows, w;
    struct graph_seq q = {.past = position - 1,
        .shift = 1,
        .n_tokens = 1,
        .tokens = &token,
        .pages = {kv->table, kv->table},
        .input = input,
        .n_logits = 1,
        .logits = logits};

    wmat_read_row(&d->table, token, input);
    for (int i = 0; i < width; i++)
        input[i] *= d->target->hp.embed_scale;
    graph_run(d->graph, &kv->memory, &q, 1);
    memcpy(input + width, graph_tap(d->graph, "state", &rows, &w), (size_t)width * sizeof(*input));
}

static void check_round(struct verify_result *r, struct drafter *d, const struct verify_opts *o,
    const struct golden *g, const char *name, const cJSON *item)
{
    const cJSON *title = cJSON_GetObjectItemCaseSensitive(item, "name");
    int width = d->target->hp.width, vocab = d->target->hp.vocab, n, n_steps, rows, w, same = 0;
    int position = (int)golden_number(item, "position", -1);
    int32_t *ids = golden_ints(cJSON_GetObjectItemCaseSensitive(item, "prompt_ids"), &n);
    int32_t *want = golden_ints(cJSON_GetObjectItemCaseSensitive(item, "draft_ids"), &n_steps);
    int32_t token = (int32_t)golden_number(item, "next_id", -1);
    const float *logits =
        golden_floats(g, golden_number(item, "logits_offset", -1), (long)n_steps * vocab);
    const float *states =
        golden_floats(g, golden_number(item, "state_offset", -1), (long)n_steps * width);
    const float *hidden = golden_floats(g, golden_number(item, "hidden_offset", -1), width), *state;
    float *row = xcalloc((size_t)vocab, sizeof(*row)),
          *input = xcalloc(2 * (size_t)width, sizeof(*input));
    struct plain_kv kv = {0};
    double worst = 0, e;
    struct err err;

    if (n < 1 || n_steps < 1 || position != n || token < 0 || token >= vocab || !logits ||
        !states || !hidden || !cJSON_IsString(title) ||
        plain_kv_create(&kv, d->target, 1, n, &err) < 0) {
        verify_report(r, false, "%s %s: a draft is malformed", g->dir, name);
    } else {
        plain_feed(d->target, &kv, 0, 0, ids, n, o->ro.max_chunk, row);
        state = graph_tap(d->target->prefill, "norm output", &rows, &w);
        worst = golden_row_error(state, hidden, width);
        memcpy(input + width, state, (size_t)width * sizeof(*input));
        for (int i = 0; i < n_steps; i++) {
            draft(d, &kv, token, position, input, row);
            e = golden_row_error(row, logits + (long)i * vocab, vocab);
            worst = e > worst ? e : worst;
            e = golden_row_error(input + width, states + (long)i * width, width);
            worst = e > worst ? e : worst;
            token = golden_argmax(row, vocab);
            same += same == i && token == want[i];
        }
        verify_report(r, worst <= g->bound && (same == n_steps || !g->exact),
            "%s %s drafts %s: largest difference %.2g of the range (bound %.2g), %d of %d ids",
            g->dir, name, title->valuestring, worst, g->bound, same, n_steps);
    }
    plain_kv_free(&kv);
    free(row);
    free(input);
    free(ids);
    free(want);
}

void verify_drafts(struct verify_result *r, const struct verify_opts *o, const struct golden *g,
    const char *path, const char *name)
{
    const cJSON *item;
    struct drafter d;
    struct err err;

    if (drafter_open(&d, o, g, path, &err) < 0) {
        verify_report(r, false, "%s %s: %s", g->dir, name, err.msg);
    } else {
        cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(g->json, "drafts"))
            check_round(r, &d, o, g, name, item);
    }
    drafter_close(&d);
}
