/* layers.c - one Gemma layer in the order of the papers. Family differences are fields of struct
 * hparams.
 *
 *   n = norm(h)
 *   q, k, v = Wq n, Wk n, Wv n;  q, k = rope(head norm(q), head norm(k))      head norms: Gemma 3
 *   a = Wo attention(q, k, v);   h = h + post norm(a)                         post norms: Gemma 2
 * and later m = Wdown(gelu(Wgate n') * (Wup n')),  n' = norm(h);  h = h + post norm(m) */
#include "graph/flow.h"

static struct ir_weight layer_weight(int layer, const char *name, int rows, int k)
{
    return ir_weight(rows, k, "blk.%d.%s.weight", layer, name);
}

static enum ir_rows rows_of(const struct flow *f, int x)
{
    return f->ir.values[x].rows;
}

static int value(struct flow *f, int layer, enum ir_rows rows, int width, const char *name)
{
    if (layer < 0)
        return ir_value(&f->ir, rows, width, "%s", name);
    return ir_value(&f->ir, rows, width, "%d.%s", layer, name);
}

void flow_tap(struct flow *f, int v)
{
    f->ir.values[v].tap = f->options.taps;
}

int flow_norm(struct flow *f, int layer, int x, const char *name, struct ir_weight w)
{
    int y = value(f, layer, rows_of(f, x), w.k, name);
    struct ir_node *n = ir_node(&f->ir, IR_RMSNORM, layer, x, y);

    n->weight = w;
    n->eps = f->hp->norm_eps;
    return y;
}

int flow_linear(struct flow *f, int layer, int x, const char *name, struct ir_weight w)
{
    int y = value(f, layer, rows_of(f, x), w.rows, name);
    struct ir_node *n = ir_node(&f->ir, IR_MATMUL, layer, x, y);

    n->mm.n_linears = 1;
    n->mm.linear[0] = w;
    n->eps = f->hp->norm_eps;
    return y;
}

/* sum = x + y */
static void add(struct flow *f, int layer, int x, int y, int sum)
{
    struct ir_node *n = ir_node(&f->ir, IR_ADD, layer, x, sum);

    n->n_in = 2;
    n->in[1] = y;
}

/* Head norm and rotation of q or k. */
static int rotated(struct flow *f, int layer, int x, int n_heads, const char *name)
{
    const struct hparams_layer *l = &f->hp->layers[layer];
    struct ir_node *n;
    int width = n_heads * l->head_dim;
    int y;

    if (f->hp->qk_norm) {
        y = ir_value(&f->ir, ROWS_TOKENS, width, "%d.%s normed", layer, name);
        n = ir_node(&f->ir, IR_HEAD_NORM, layer, x, y);
        n->weight = ir_weight(1, l->head_dim, "blk.%d.attn_%s_norm.weight", layer, name);
        n->eps = f->hp->norm_eps;
        n->n_heads = n_heads;
        n->head_dim = l->head_dim;
        x = y;
    }
    y = ir_value(&f->ir, ROWS_TOKENS, width, "%d.%s rotated", layer, name);
    n = ir_node(&f->ir, IR_ROPE, layer, x, y);
    n->rope_table = l->rope_table;
    n->n_heads = n_heads;
    n->head_dim = l->head_dim;
    return y;
}

static int attention(struct flow *f, int layer, int x)
{
    const struct hparams *hp = f->hp;
    const struct hparams_layer *l = &hp->layers[layer];
    int q_width = l->n_heads * l->head_dim, kv_width = l->n_kv_heads * l->head_dim;
    int q = flow_linear(f, layer, x, "q", layer_weight(layer, "attn_q", q_width, hp->width));
    int k = flow_linear(f, layer, x, "k", layer_weight(layer, "attn_k", kv_width, hp->width));
    int v = flow_linear(f, layer, x, "v", layer_weight(layer, "attn_v", kv_width, hp->width));
    struct ir_node *n;
    int a;

    q = rotated(f, layer, q, l->n_heads, "q");
    k = rotated(f, layer, k, l->n_kv_heads, "k");
    a = ir_value(&f->ir, ROWS_TOKENS, q_width, "%d.attention", layer);
    n = ir_node(&f->ir, IR_ATTENTION, layer, q, a);
    n->n_in = 3;
    n->in[1] = k;
    n->in[2] = v;
    n->eps = hp->norm_eps;
    n->rope_table = l->rope_table;
    n->attn.kv_layer = layer;
    n->attn.spec = (struct attention_spec){.n_heads = l->n_heads,
        .n_kv_heads = l->n_kv_heads,
        .head_dim = l->head_dim,
        .window = l->window,
        .scale = hp->attention_scale,
        .softcap = hp->attention_softcap};
    return flow_linear(f, layer, a, "o", layer_weight(layer, "attn_output", hp->width, q_width));
}

static int feed_forward(struct flow *f, int layer, int x)
{
    const struct hparams *hp = f->hp;
    int width = hp->layers[layer].ffn;
    int gate = flow_linear(f, layer, x, "gate", layer_weight(layer, "ffn_gate", width, hp->width));
    int up = flow_linear(f, layer, x, "up", layer_weight(layer, "ffn_up", width, hp->width));
    int y = value(f, layer, ROWS_TOKENS, width, "geglu");
    struct ir_node *n = ir_node(&f->ir, IR_GEGLU, layer, gate, y);

    n->n_in = 2;
    n->in[1] = up;
    return flow_linear(f, layer, y, "down", layer_weight(layer, "ffn_down", hp->width, width));
}

int flow_layer(struct flow *f, int layer, int h)
{
    int width = f->hp->width;
    int x = flow_norm(f, layer, h, "attn norm", layer_weight(layer, "attn_norm", 1, width));
    int mid, out;

    x = attention(f, layer, x);
    if (f->hp->post_norms)
        x = flow_norm(
            f, layer, x, "post attn", layer_weight(layer, "post_attention_norm", 1, width));
    mid = value(f, layer, ROWS_TOKENS, width, "mid");
    add(f, layer, h, x, mid);
    x = flow_norm(f, layer, mid, "ffn norm", layer_weight(layer, "ffn_norm", 1, width));
    x = feed_forward(f, layer, x);
    if (f->hp->post_norms)
        x = flow_norm(f, layer, x, "post ffn", layer_weight(layer, "post_ffw_norm", 1, width));
    out = ir_value(&f->ir, ROWS_TOKENS, width, "layer %d", layer);
    add(f, layer, mid, x, out);
    flow_tap(f, out);
    return out;
}
