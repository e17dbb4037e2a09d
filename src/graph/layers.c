/* layers.c - one Gemma layer in the order of the papers. Family differences are fields of struct
 * hparams.
 *
 *   n = norm(h)
 *   q, k, v = Wq n, Wk n, Wv n;  q, k = rope(head norm(q), head norm(k))      head norms: Gemma 3
 * and later a = Wo attention(q, k, v);   h = h + post norm(a)                         post norms:
 * Gemma 2 and later m = Wdown(gelu(Wgate n') * (Wup n')),  n' = norm(h);  h = h + post norm(m) h =
 * h + norm(Wproj(gelu(Winp h) * e)),  e = this layer's input embedding  Gemma 4 E2B, E4B h = h * s
 * Gemma 4 */
#include <stdio.h>

#include "graph/flow.h"

struct ir_weight flow_layer_weight(int layer, const char *name, int rows, int k)
{
    return ir_weight(rows, k, "blk.%d.%s.weight", layer, name);
}

static enum ir_rows rows_of(const struct flow *f, int x)
{
    return f->ir.values[x].rows;
}

static int width_of(const struct flow *f, int x)
{
    return f->ir.values[x].width;
}

int flow_value(struct flow *f, int layer, enum ir_rows rows, int width, const char *name)
{
    if (layer < 0)
        return ir_value(&f->ir, rows, width, "%s", name);
    return ir_value(&f->ir, rows, width, "%d.%s", layer, name);
}

void flow_tap(struct flow *f, int v)
{
    f->ir.values[v].tap = f->options.taps;
}

int flow_unary(struct flow *f, enum ir_op op, int layer, int x, const char *name)
{
    int y = flow_value(f, layer, rows_of(f, x), width_of(f, x), name);

    ir_node(&f->ir, op, layer, x, y)->eps = f->hp->norm_eps;
    return y;
}

int flow_norm(struct flow *f, int layer, int x, const char *name, struct ir_weight w)
{
    int y = flow_unary(f, IR_RMSNORM, layer, x, name);

    f->ir.nodes[f->ir.n_nodes - 1].weight = w;
    return y;
}

int flow_scale(struct flow *f, int layer, int x, float factor, const char *name)
{
    int y = flow_unary(f, IR_SCALE, layer, x, name);

    f->ir.nodes[f->ir.n_nodes - 1].scale = factor;
    return y;
}

int flow_linear(struct flow *f, int layer, int x, const char *name, struct ir_weight w)
{
    int y = flow_value(f, layer, rows_of(f, x), w.rows, name);
    struct ir_node *n = ir_node(&f->ir, IR_MATMUL, layer, x, y);

    n->mm.n_linears = 1;
    n->mm.linear[0] = w;
    n->eps = f->hp->norm_eps;
    return y;
}

static void add(struct flow *f, int layer, int x, int y, int sum)
{
    ir_input(ir_node(&f->ir, IR_ADD, layer, x, sum), y);
}

int flow_add(struct flow *f, int layer, int x, int y, const char *name)
{
    int sum = flow_value(f, layer, rows_of(f, x), width_of(f, x), name);

    add(f, layer, x, y, sum);
    return sum;
}

int flow_geglu(struct flow *f, int layer, int gate, int up, const char *name)
{
    int y = flow_unary(f, IR_GEGLU, layer, gate, name);

    ir_input(&f->ir.nodes[f->ir.n_nodes - 1], up);
    return y;
}

int flow_asked_rows(struct flow *f, int layer, int x)
{
    int y;

    if (layer != f->asked_layer)
        return x;
    y = ir_value(&f->ir, ROWS_OUT, width_of(f, x), "%d.asked rows", layer);
    ir_node(&f->ir, IR_GATHER, layer, x, y);
    return y;
}

/* ---- attention ---- */

static int head_norm(
    struct flow *f, int layer, int x, int n_heads, const char *name, struct ir_weight w)
{
    const struct hparams_layer *l = &f->hp->layers[layer];
    int y = ir_value(&f->ir, ROWS_TOKENS, n_heads * l->head_dim, "%d.%s normed", layer, name);
    struct ir_node *n = ir_node(&f->ir, IR_HEAD_NORM, layer, x, y);

    n->weight = w;
    n->eps = f->hp->norm_eps;
    n->n_heads = n_heads;
    n->head_dim = l->head_dim;
    return y;
}

/* Head norm and rotation of q or k. */
static int rotated(struct flow *f, int layer, int x, int n_heads, const char *name)
{
    const struct hparams_layer *l = &f->hp->layers[layer];
    struct ir_node *n;
    int y;

    if (f->hp->qk_norm)
        x = head_norm(f, layer, x, n_heads, name,
            ir_weight(1, l->head_dim, "blk.%d.attn_%s_norm.weight", layer, name));
    y = ir_value(&f->ir, ROWS_TOKENS, n_heads * l->head_dim, "%d.%s rotated", layer, name);
    n = ir_node(&f->ir, IR_ROPE, layer, x, y);
    n->rope_table = l->rope_table;
    n->n_heads = n_heads;
    n->head_dim = l->head_dim;
    return y;
}

/* K and V of a layer that has its own. */
static void keys_and_values(struct flow *f, int layer, int x, int *k, int *v)
{
    const struct hparams_layer *l = &f->hp->layers[layer];
    int width = l->n_kv_heads * l->head_dim;

    *k = flow_linear(f, layer, x, "k", flow_layer_weight(layer, "attn_k", width, f->hp->width));
    *v = l->v_from_k ? *k
                     : flow_linear(f, layer, x, "v",
                           flow_layer_weight(layer, "attn_v", width, f->hp->width));
    if (f->hp->v_norm)
        *v = head_norm(f, layer, *v, l->n_kv_heads, "v", (struct ir_weight){0});
    *k = rotated(f, layer, *k, l->n_kv_heads, "k");
}

/* The target's last layer of the same kind that has K and V; -1 when its heads are others. */
static int target_layer(const struct hparams *target, const struct hparams_layer *l)
{
    for (int i = target->n_layers - 1; i >= 0; i--) {
        const struct hparams_layer *t = &target->layers[i];

        if (t->kv_layer == i && !t->window == !l->window)
            return t->n_kv_heads == l->n_kv_heads && t->head_dim == l->head_dim ? i : -1;
    }
    return -1;
}

int flow_attention(struct flow *f, int layer, int x)
{
    const struct hparams *hp = f->hp;
    const struct hparams_layer *l = &hp->layers[layer];
    int q_width = l->n_heads * l->head_dim, k = -1, v = -1;
    int q = flow_linear(f, layer, x, "q", flow_layer_weight(layer, "attn_q", q_width, hp->width));
    struct ir_node *n;
    int a;

    if (l->kv_layer == layer)
        keys_and_values(f, layer, x, &k, &v);
    q = rotated(f, layer, q, l->n_heads, "q");
    a = ir_value(&f->ir, ROWS_TOKENS, q_width, "%d.attention", layer);
    n = ir_node(&f->ir, IR_ATTENTION, layer, q, a);
    if (k >= 0) {
        ir_input(n, k);
        ir_input(n, v);
    }
    n->eps = hp->norm_eps;
    n->rope_table = l->rope_table;
    n->attn.kv_layer = f->options.target ? target_layer(f->options.target, l) : l->kv_layer;
    if (n->attn.kv_layer < 0)
        err_fill_at(&f->mistake, GD_EINVAL, "target",
            "layer %d of the drafter finds no keys of its shape in the target", layer);
    n->attn.spec = (struct attention_spec){.n_heads = l->n_heads,
        .n_kv_heads = l->n_kv_heads,
        .head_dim = l->head_dim,
        /* A drafter's token is not among the keys: its window ends one before it. */
        .window = f->attention.window + (f->options.target && f->attention.window),
        .scale = f->attention.scale,
        .softcap = f->attention.softcap};
    a = flow_asked_rows(f, layer, a);
    return flow_linear(
        f, layer, a, "o", flow_layer_weight(layer, "attn_output", hp->width, q_width));
}

/* ---- feed-forward ---- */

int flow_feed_forward(struct flow *f, int layer, int x)
{
    const struct hparams *hp = f->hp;
    const struct hparams_layer *l = &hp->layers[layer];
    int gate =
        flow_linear(f, layer, x, "gate", flow_layer_weight(layer, "ffn_gate", l->ffn, hp->width));
    int up = flow_linear(f, layer, x, "up", flow_layer_weight(layer, "ffn_up", l->ffn, hp->width));
    int y;

    if (l->sparsity > 0) {
        gate = flow_unary(f, IR_SPARSE, layer, gate, "sparse gate");
        f->ir.nodes[f->ir.n_nodes - 1].scale = l->sparsity;
    }
    y = flow_geglu(f, layer, gate, up, "geglu");
    return flow_linear(
        f, layer, y, "down", flow_layer_weight(layer, "ffn_down", hp->width, l->ffn));
}

static struct ir_weight stack(int layer, const char *name, int rows, int k, int n)
{
    struct ir_weight w = flow_layer_weight(layer, name, rows, k);

    w.n_slices = n;
    return w;
}

/* x: what the experts read; logits: the router's. */
static int mixture(struct flow *f, int layer, int x, int logits)
{
    const struct hparams *hp = f->hp;
    int y = flow_value(f, layer, rows_of(f, x), hp->width, "experts");
    struct ir_node *n = ir_node(&f->ir, IR_MOE, layer, x, y);
    int e = hp->n_experts, width = hp->expert_ffn;

    ir_input(n, logits);
    n->moe = (struct ir_moe){.n_experts = e, .n_used = hp->n_experts_used, .width = width};
    if (hp->fused_gate_up) {
        n->moe.gate_up = stack(layer, "ffn_gate_up_exps", width, hp->width, 2 * e);
    } else {
        n->moe.gate = stack(layer, "ffn_gate_exps", width, hp->width, e);
        n->moe.up = stack(layer, "ffn_up_exps", width, hp->width, e);
    }
    n->moe.down = stack(layer, "ffn_down_exps", hp->width, width, e);
    if (hp->expert_scaled)
        n->moe.expert_scale = ir_weight(1, e, "blk.%d.ffn_down_exps.scale", layer);
    return y;
}

static struct ir_weight router(const struct flow *f, int layer)
{
    struct ir_weight w = flow_layer_weight(layer, "ffn_gate_inp", f->hp->n_experts, f->hp->width);

    w.use = USE_COEFFICIENTS;
    return w;
}

/* Gemma 4: router and experts each read their own norm of the residual stream. */
static int experts_of_residual(struct flow *f, int layer, int h)
{
    const struct hparams *hp = f->hp;
    int r = flow_norm(f, layer, h, "router norm", (struct ir_weight){0}), x;

    r = flow_unary(f, IR_MUL, layer, r, "router input");
    f->ir.nodes[f->ir.n_nodes - 1].weight =
        ir_weight(1, hp->width, "blk.%d.ffn_gate_inp.scale", layer);
    r = flow_scale(f, layer, r, 1 / hp->embed_scale, "router scaled");
    r = flow_linear(f, layer, r, "router", router(f, layer));
    x = flow_norm(
        f, layer, h, "expert norm", flow_layer_weight(layer, "pre_ffw_norm_2", 1, hp->width));
    x = mixture(f, layer, x, r);
    return flow_norm(
        f, layer, x, "post experts", flow_layer_weight(layer, "post_ffw_norm_2", 1, hp->width));
}

/* Everything between the residual stream and the norm after the feed-forward. */
static int feed_forward_of(struct flow *f, int layer, int h)
{
    const struct hparams *hp = f->hp;
    int x = flow_norm(f, layer, h, "ffn norm", flow_layer_weight(layer, "ffn_norm", 1, hp->width)),
        y;

    if (!hp->layers[layer].moe)
        return flow_feed_forward(f, layer, x);
    if (!hp->router_scaled)
        return mixture(f, layer, x, flow_linear(f, layer, x, "router", router(f, layer)));
    y = experts_of_residual(f, layer, h);
    if (!hp->dense_beside_experts)
        return y;
    x = flow_feed_forward(f, layer, x);
    x = flow_norm(
        f, layer, x, "post dense", flow_layer_weight(layer, "post_ffw_norm_1", 1, hp->width));
    return flow_add(f, layer, x, y, "dense and experts");
}

/* ---- per-layer inputs and the layer ---- */

int flow_per_layer_input(struct flow *f, int layer, int h)
{
    int width = f->hp->width, p = f->hp->per_layer_width;
    int e = ir_view(&f->ir, f->per_layer, layer * p, p, "layer embedding");
    int t = flow_linear(f, layer, h, "inp gate", flow_layer_weight(layer, "inp_gate", p, width));

    t = flow_geglu(f, layer, t, flow_asked_rows(f, layer, e), "layer input");
    t = flow_linear(f, layer, t, "proj", flow_layer_weight(layer, "proj", width, p));
    return flow_norm(f, layer, t, "post input", flow_layer_weight(layer, "post_norm", 1, width));
}

/* The residual stream after a layer goes by the name of the layer. */
static void name_output(struct flow *f, int layer, int h)
{
    struct ir_value *v = &f->ir.values[h];

    snprintf(v->name, sizeof(v->name), "layer %d", layer);
    flow_tap(f, h);
}

int flow_layer(struct flow *f, int layer, int h)
{
    const struct hparams *hp = f->hp;
    int width = hp->width;
    int x = flow_norm(f, layer, h, "attn norm", flow_layer_weight(layer, "attn_norm", 1, width));

    x = flow_attention(f, layer, x);
    if (hp->post_norms)
        x = flow_norm(
            f, layer, x, "post attn", flow_layer_weight(layer, "post_attention_norm", 1, width));
    h = flow_add(f, layer, flow_asked_rows(f, layer, h), x, "mid");
    x = feed_forward_of(f, layer, h);
    if (hp->post_norms)
        x = flow_norm(f, layer, x, "post ffn", flow_layer_weight(layer, "post_ffw_norm", 1, width));
    h = flow_add(f, layer, h, x, "after ffn");
    if (hp->per_layer_width)
        h = flow_add(f, layer, h, flow_per_layer_input(f, layer, h), "after input");
    if (hp->layers[layer].scaled) {
        h = flow_scale(f, layer, h, 1, "scaled");
        f->ir.nodes[f->ir.n_nodes - 1].weight =
            flow_layer_weight(layer, "layer_output_scale", 1, 1);
    }
    name_output(f, layer, h);
    return h;
}
