/* altup.c - Gemma 3n: four residual streams of which one is computed on, a low-rank branch beside
 * attention (Laurel), and per-layer input embeddings, which Gemma 4's small models have too.
 *
 * A layer predicts every stream from all of them, runs attention and feed-forward on the active
 * one, and corrects every stream by what the active one turned out to be. */
#include <math.h>
#include <stdio.h>

#include "graph/flow.h"

/* ---- before the layers ---- */

/* What the model makes of the embedding for each layer: norm(W h / sqrt(D)), layers side by side.
 */
static int projected_inputs(struct flow *f, int h, int total)
{
    const struct hparams *hp = f->hp;
    int x = flow_linear(
            f, -1, h, "model inputs", ir_weight(total, hp->width, "per_layer_model_proj.weight")),
        y;
    struct ir_node *n;

    x = flow_scale(f, -1, x, 1 / hp->embed_scale, "model inputs scaled");
    y = flow_value(f, -1, ROWS_TOKENS, total, "model inputs normed");
    n = ir_node(&f->ir, IR_HEAD_NORM, -1, x, y);
    n->eps = hp->norm_eps;
    n->n_heads = hp->n_layers;
    n->head_dim = hp->per_layer_width;
    n->weight = ir_weight(1, hp->per_layer_width, "per_layer_proj_norm.weight");
    return y;
}

/* e[l] = (projected[l] + table[token][l] * sqrt(P)) / sqrt(2); without a table the projection
 * alone. */
void flow_per_layer_embeddings(struct flow *f, int h)
{
    const struct hparams *hp = f->hp;
    int total = hp->per_layer_width * hp->n_layers, x = projected_inputs(f, h, total), table;
    struct ir_node *n;

    f->per_layer = x;
    if (!hp->per_layer_vocab)
        return;
    table = flow_value(f, -1, ROWS_TOKENS, total, "token inputs");
    n = ir_node(&f->ir, IR_EMBED, -1, -1, table);
    n->mapped = true;
    n->scale = sqrtf((float)hp->per_layer_width);
    n->weight = ir_weight(hp->per_layer_vocab, total, "per_layer_token_embd.weight");
    x = flow_add(f, -1, x, table, "inputs");
    f->per_layer = flow_scale(f, -1, x, sqrtf(0.5f), "layer embeddings");
}

static struct ir_weight slice(const char *name, int i, int n, int width)
{
    struct ir_weight w = ir_weight(width, width, "%s", name);

    w.slice = i;
    w.n_slices = n;
    w.shared = true;
    return w;
}

/* y with the root mean square of `like`. */
static int match(struct flow *f, int y, int like, const char *name)
{
    int out = flow_unary(f, IR_MATCH_RMS, -1, y, name);

    f->ir.nodes[f->ir.n_nodes - 1].eps = 1e-5f; /* floor of the mean square, Hugging Face's */
    ir_input(&f->ir.nodes[f->ir.n_nodes - 1], like);
    return out;
}

void flow_altup_streams(struct flow *f, int h)
{
    int n = f->hp->n_streams;

    f->streams[0] = h;
    for (int i = 1; i < n; i++) {
        int y =
            flow_linear(f, -1, h, "stream", slice("altup_proj.weight", i - 1, n - 1, f->hp->width));

        f->streams[i] = match(f, y, h, "stream scaled");
    }
}

int flow_altup_merge(struct flow *f)
{
    int n = f->hp->n_streams, parts[FLOW_MAX_STREAMS], out;
    struct ir_node *mean;

    parts[0] = f->streams[0];
    for (int i = 1; i < n; i++) {
        parts[i] = flow_linear(f, -1, f->streams[i], "unembed",
            slice("altup_unembd_proj.weight", i - 1, n - 1, f->hp->width));
        parts[i] = match(f, parts[i], f->streams[0], "unembed scaled");
    }
    out = flow_value(f, -1, ROWS_TOKENS, f->hp->width, "merged");
    mean = ir_node(&f->ir, IR_MEAN, -1, parts[0], out);
    for (int i = 1; i < n; i++)
        ir_input(mean, parts[i]);
    return out;
}

/* ---- a layer ---- */

/* tanh(W (norm(x) / D)): one number per stream. */
static int modalities(struct flow *f, int layer, int x)
{
    int width = f->hp->width;
    struct ir_weight norm = flow_layer_weight(layer, "altup_router_norm", 1, width);
    struct ir_weight router = flow_layer_weight(layer, "altup_router", f->hp->n_streams, width);

    norm.shared = router.shared = true; /* prediction and correction both ask */
    router.use = USE_COEFFICIENTS;
    x = flow_norm(f, layer, x, "router norm", norm);
    x = flow_scale(f, layer, x, 1 / (float)width, "router input");
    x = flow_linear(f, layer, x, "router", router);
    return flow_unary(f, IR_TANH, layer, x, "modalities");
}

static struct ir_weight coefficients(int layer, const char *name, int rows, int k)
{
    struct ir_weight w = flow_layer_weight(layer, name, rows, k);

    w.use = USE_COEFFICIENTS;
    return w;
}

static void predict(struct flow *f, int layer, int *predicted)
{
    int n = f->hp->n_streams;
    int c = flow_linear(f, layer, modalities(f, layer, f->streams[0]), "prediction",
        coefficients(layer, "altup_predict_coef", n * n, n));
    struct ir_node *node;

    for (int i = 0; i < n; i++)
        predicted[i] = flow_value(f, layer, ROWS_TOKENS, f->hp->width, "predicted");
    node = ir_node(&f->ir, IR_ALTUP_PREDICT, layer, f->streams[0], predicted[0]);
    for (int i = 1; i < n; i++) {
        ir_input(node, f->streams[i]);
        node->out[node->n_out++] = predicted[i];
    }
    ir_input(node, c);
}

static void correct(struct flow *f, int layer, const int *predicted, int y, int *corrected)
{
    int n = f->hp->n_streams;
    int c = flow_linear(f, layer, modalities(f, layer, y), "correction",
        coefficients(layer, "altup_correct_coef", n, n));
    struct ir_node *node;

    for (int i = 0; i < n; i++)
        corrected[i] = flow_value(f, layer, ROWS_TOKENS, f->hp->width, "corrected");
    node = ir_node(&f->ir, IR_ALTUP_CORRECT, layer, predicted[0], corrected[0]);
    for (int i = 1; i < n; i++) {
        ir_input(node, predicted[i]);
        node->out[node->n_out++] = corrected[i];
    }
    ir_input(node, y);
    ir_input(node, c);
}

/* n + norm(Wr (Wl n)) */
static int laurel(struct flow *f, int layer, int x)
{
    int width = f->hp->width, rank = f->hp->laurel_rank;
    int y =
        flow_linear(f, layer, x, "laurel left", flow_layer_weight(layer, "laurel_l", rank, width));

    y = flow_linear(f, layer, y, "laurel right", flow_layer_weight(layer, "laurel_r", width, rank));
    y = flow_norm(
        f, layer, y, "laurel norm", flow_layer_weight(layer, "laurel_post_norm", 1, width));
    return flow_add(f, layer, x, y, "laurel");
}

/* Attention, Laurel and feed-forward on the active prediction. */
static int active(struct flow *f, int layer, int x)
{
    int width = f->hp->width;
    int n = flow_norm(f, layer, x, "attn norm", flow_layer_weight(layer, "attn_norm", 1, width));
    int side = laurel(f, layer, n), y;

    y = flow_attention(f, layer, n);
    y = flow_norm(
        f, layer, y, "post attn", flow_layer_weight(layer, "post_attention_norm", 1, width));
    y = flow_add(f, layer, x, y, "after attn");
    y = flow_add(f, layer, y, side, "with laurel");
    x = flow_scale(f, layer, y, sqrtf(0.5f), "mid");
    y = flow_norm(f, layer, x, "ffn norm", flow_layer_weight(layer, "ffn_norm", 1, width));
    y = flow_feed_forward(f, layer, y);
    y = flow_norm(f, layer, y, "post ffn", flow_layer_weight(layer, "post_ffw_norm", 1, width));
    return flow_add(f, layer, x, y, "after ffn");
}

static void name_stream(struct flow *f, int layer, int stream)
{
    struct ir_value *v = &f->ir.values[f->streams[stream]];

    if (stream)
        snprintf(v->name, sizeof(v->name), "layer %d.%d", layer, stream);
    else
        snprintf(v->name, sizeof(v->name), "layer %d", layer);
    flow_tap(f, f->streams[stream]);
}

int flow_altup_layer(struct flow *f, int layer, int h)
{
    int predicted[FLOW_MAX_STREAMS] = {0}, corrected[FLOW_MAX_STREAMS] = {0}, t;

    f->streams[0] = h;
    predict(f, layer, predicted);
    correct(f, layer, predicted, active(f, layer, predicted[0]), corrected);
    t = flow_unary(f, IR_MUL, layer, corrected[0], "scaled");
    f->ir.nodes[f->ir.n_nodes - 1].weight =
        flow_layer_weight(layer, "altup_correct_scale", 1, f->hp->width);
    t = flow_per_layer_input(f, layer, t);
    f->streams[0] = corrected[0]; /* the active stream gets no layer input */
    name_stream(f, layer, 0);
    for (int i = 1; i < f->hp->n_streams; i++) {
        f->streams[i] = flow_add(f, layer, corrected[i], t, "stream");
        name_stream(f, layer, i);
    }
    return f->streams[0];
}
