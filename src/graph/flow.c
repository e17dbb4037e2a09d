/* flow.c - options checked, and the model written down from top to bottom as IR. */
#include "graph/flow.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/rope.h"

void flow_options_default(struct flow_options *o)
{
    *o = (struct flow_options){.mode = FLOW_PREFILL, .batch = 1, .seq = 128};
}

void flow_prefill_options(struct flow_options *o, int batch, int seq)
{
    *o = (struct flow_options){.mode = FLOW_PREFILL, .batch = batch, .seq = seq};
}

void flow_decode_options(struct flow_options *o, int batch, int past_seq)
{
    *o = (struct flow_options){.mode = FLOW_DECODE, .batch = batch, .seq = 1, .past_seq = past_seq};
}

static int check_mode(const struct flow_options *o, struct err *err)
{
    bool decode = o->mode == FLOW_DECODE;

    if (o->dynamic_seq && decode)
        return err_set_at(err, GD_EINVAL, "dynamic_seq",
            "dynamic_seq is for prefill; a decode graph takes one token");
    if (o->dynamic_seq && o->batch != 1)
        return err_set_at(err, GD_EINVAL, "batch", "dynamic_seq needs batch 1, not %d", o->batch);
    if (o->dynamic_past && !decode)
        return err_set_at(err, GD_EINVAL, "dynamic_past",
            "dynamic_past is for decode; prefill starts at position 0");
    if (o->custom_mask && !decode)
        return err_set_at(err, GD_EINVAL, "custom_mask", "custom_mask is for decode graphs");
    if (decode && o->seq != 1)
        return err_set_at(err, GD_EINVAL, "seq", "a decode graph takes seq 1, not %d", o->seq);
    if (!decode && o->past_seq)
        return err_set_at(
            err, GD_EINVAL, "past_seq", "prefill takes past_seq 0, not %d", o->past_seq);
    return 0;
}

static int check_rope(const struct flow_options *o, const struct hparams *hp, struct err *err)
{
    size_t bytes;

    if (o->rope_positions < 0 || o->rope_positions > hp->context)
        return err_set_at(err, GD_EINVAL, "rope_positions", "rope_positions must be 0..%d, not %d",
            hp->context, o->rope_positions);
    if (o->rope_positions && o->mode == FLOW_PREFILL && !o->dynamic_seq &&
        o->seq > o->rope_positions)
        return err_set_at(err, GD_EINVAL, "rope_positions",
            "rope_positions is %d, but the graph runs %d tokens", o->rope_positions, o->seq);
    if (!rope_table_bytes(hp, o->rope_positions, &bytes) || bytes > FLOW_MAX_ROPE_BYTES)
        return err_set_at(err, GD_ETOOBIG, "rope_positions",
            "rope tables of %d positions are larger than %d MiB", o->rope_positions,
            FLOW_MAX_ROPE_BYTES >> 20);
    return 0;
}

static int check_layers(const struct flow_options *o, const struct hparams *hp, struct err *err)
{
    int n = o->effective_num_layers ? o->effective_num_layers : hp->n_layers;

    if (n < 0 || n > hp->n_layers)
        return err_set_at(err, GD_EINVAL, "effective_num_layers",
            "effective_num_layers must be 0..%d, not %d", hp->n_layers, o->effective_num_layers);
    for (int i = 0; o->windows && i < n; i++)
        if (o->windows[i] < 0 || o->windows[i] > FLOW_MAX_WINDOW)
            return err_set_at(err, GD_EINVAL, "windows", "windows[%d] is %d, it must be 0..%d", i,
                o->windows[i], FLOW_MAX_WINDOW);
    return 0;
}

/* Embedding models see a whole text at once, and have no head. */
static int check_embedder(const struct flow_options *o, struct err *err)
{
    if (o->mode == FLOW_DECODE)
        return err_set_at(
            err, GD_EINVAL, "mode", "an embedding model has no decode graph: it sees both ways");
    if (o->output == FLOW_LOGITS)
        return err_set_at(err, GD_EINVAL, "output",
            "an embedding model has no logits: its outputs are a vector or hidden states");
    return 0;
}

static int check(const struct flow_options *o, const struct hparams *hp, struct err *err)
{
    int r = check_mode(o, err);

    if (r == 0 && hp->bidirectional)
        r = check_embedder(o, err);
    if (r < 0)
        return r;
    if (!hp->backbone_width != !o->target)
        return err_set_at(err, GD_ENOTSUP, "target", "%s %s", hp->arch_name,
            hp->backbone_width
                ? "is a draft model: it reads the state of another model and cannot run alone"
                : "is no draft model and takes no target");
    if (o->target && (o->target->width != hp->backbone_width || o->target->vocab != hp->vocab))
        return err_set_at(err, GD_EINVAL, "target",
            "this drafter belongs to a model of width %d with %d tokens", hp->backbone_width,
            hp->vocab);
    if (o->batch < 1 || o->batch > FLOW_MAX_ROWS)
        return err_set_at(
            err, GD_EINVAL, "batch", "batch must be 1..%d, not %d", FLOW_MAX_ROWS, o->batch);
    if (o->seq < 1 || o->seq > FLOW_MAX_ROWS / o->batch)
        return err_set_at(
            err, GD_EINVAL, "seq", "seq must be 1..%d, not %d", FLOW_MAX_ROWS / o->batch, o->seq);
    if (o->past_seq < 0 || o->past_seq > hp->context)
        return err_set_at(
            err, GD_EINVAL, "past_seq", "past_seq must be 0..%d, not %d", hp->context, o->past_seq);
    r = check_layers(o, hp, err);
    return r < 0 ? r : check_rope(o, hp, err);
}

int flow_n_layers(const struct flow *f)
{
    return f->options.effective_num_layers ? f->options.effective_num_layers : f->hp->n_layers;
}

/* A hook, where there is one. */
static int extra(struct flow *f, int (*stage)(void *ud, struct flow *f, int x), int x)
{
    return stage ? flow_checked(f, stage(f->options.hooks->ud, f, x), x) : x;
}

static int one_layer(struct flow *f, int layer, int h)
{
    const struct flow_hooks *hooks = f->options.hooks;
    struct flow_layer_info info;

    flow_layer_describe(f->hp, layer, &info);
    info.mode = f->options.mode;
    if (f->options.windows)
        info.window = f->options.windows[layer];
    if (!hooks || !hooks->layer)
        return flow_default_layer(f, &info, h);
    return flow_checked(f, hooks->layer(hooks->ud, f, &info, h), h);
}

/* The layers: residual stream in, the value the final norm reads out. */
static int describe_layers(struct flow *f, int h)
{
    const struct flow_hooks *hooks = f->options.hooks;
    const struct hparams *hp = f->hp;

    if (hp->per_layer_width)
        flow_per_layer_embeddings(f, h);
    if (hooks)
        h = extra(f, hooks->before_layers, h);
    if (hp->n_streams)
        flow_altup_streams(f, h);
    for (int i = 0; i < flow_n_layers(f); i++)
        h = one_layer(f, i, h);
    if (hp->n_streams) {
        f->streams[0] = h;
        h = flow_altup_merge(f);
    }
    return hooks ? extra(f, hooks->after_layers, h) : h;
}

/* Embedding models: mean over the sequence, dense maps, length 1. */
static int describe_embedding(struct flow *f, int x)
{
    const struct hparams *hp = f->hp;
    int y;

    if (hp->token_proj)
        x = flow_linear(
            f, -1, x, "projected", ir_weight(hp->token_proj, hp->width, "token_proj.weight"));
    y = flow_value(f, -1, ROWS_OUT, f->ir.values[x].width, "mean");
    ir_node(&f->ir, IR_POOL, -1, x, y);
    flow_tap(f, y);
    for (int i = 0; i < hp->n_dense; i++)
        y = flow_linear(f, -1, y, "dense",
            ir_weight(hp->dense_out[i], f->ir.values[y].width, "dense_%d.weight", i + 2));
    return flow_unary(f, IR_UNIT, -1, y, "embedding vector");
}

static int describe_head(struct flow *f, int x)
{
    const struct hparams *hp = f->hp;
    struct ir_weight w =
        ir_weight(hp->vocab, hp->width, hp->separate_head ? "output.weight" : "token_embd.weight");

    w.shared = !hp->separate_head;
    w.use = USE_TABLE;
    x = flow_linear(f, -1, x, "logits", w);
    x = flow_unary(f, IR_SOFTCAP, -1, x, "capped logits");
    f->ir.nodes[f->ir.n_nodes - 1].cap = hp->final_softcap;
    return x;
}

/* A drafter: what the target knows in, logits and the state for the next draft out. */
static void describe_drafter(struct flow *f)
{
    const struct hparams *hp = f->hp;
    const char *block = hp->projections_in_block ? "blk.0." : "";
    int x = ir_value(&f->ir, ROWS_TOKENS, 2 * hp->backbone_width, "target state"), state;

    ir_node(&f->ir, IR_INPUT, -1, -1, x);
    x = flow_linear(f, -1, x, "embedding",
        ir_weight(hp->width, 2 * hp->backbone_width, "%snextn.pre_projection.weight", block));
    for (int i = 0; i < flow_n_layers(f); i++)
        x = one_layer(f, i, x);
    x = flow_norm(f, -1, x, "norm output", ir_weight(1, hp->width, "output_norm.weight"));
    state = flow_linear(f, -1, x, "state",
        ir_weight(hp->backbone_width, hp->width, "%snextn.post_projection.weight", block));
    f->ir.values[state].tap = true;
    state = ir_value(&f->ir, ROWS_OUT, hp->width, "last rows");
    ir_node(&f->ir, IR_GATHER, -1, x, state);
    f->ir.values[describe_head(f, state)].output = true;
}

/* The whole model: embedding, layers, final norm, head. */
static void describe(struct flow *f)
{
    const struct hparams *hp = f->hp;
    bool vector = hp->bidirectional && f->options.output != FLOW_HIDDEN;
    struct ir_node *n;
    int h, x;

    h = ir_value(&f->ir, ROWS_TOKENS, hp->width, "embedding");
    n = ir_node(&f->ir, IR_EMBED, -1, -1, h);
    n->scale = hp->embed_scale;
    n->weight = ir_weight(hp->vocab, hp->width, "token_embd.weight");
    n->weight.shared = !hp->separate_head;
    n->weight.use = USE_TABLE;
    flow_tap(f, h);
    x = describe_layers(f, h);
    f->ir.values[x].norm_input = f->options.taps;
    if (!vector && f->asked_layer < 0) { /* the rows whose results are asked for */
        h = ir_value(&f->ir, ROWS_OUT, hp->width, "last rows");
        ir_node(&f->ir, IR_GATHER, -1, x, h);
        x = h;
    }
    x = flow_norm(f, -1, x, "norm output", ir_weight(1, hp->width, "output_norm.weight"));
    flow_tap(f, x);
    if (f->options.hooks)
        x = extra(f, f->options.hooks->patch, x);
    if (vector)
        x = describe_embedding(f, x);
    else if (f->options.output != FLOW_HIDDEN)
        x = describe_head(f, x);
    f->ir.values[x].output = true;
}

/* A prompt's last layer computes K and V of every row, and everything behind them only where it is
 * asked for. */
static int narrowing_layer(const struct flow *f)
{
    const struct flow_options *o = &f->options;

    if (o->mode != FLOW_PREFILL || o->output != FLOW_LAST_LOGITS || o->taps || o->hooks ||
        f->hp->n_streams || f->hp->bidirectional || f->hp->backbone_width)
        return -1;
    return flow_n_layers(f) - 1;
}

int flow_create(
    struct flow **out, const struct hparams *hp, const struct flow_options *o, struct err *err)
{
    struct flow *f;
    int r = check(o, hp, err);

    if (r < 0)
        return r;
    f = xcalloc(1, sizeof(*f));
    f->hp = hp;
    f->per_layer = -1;
    f->options = *o;
    f->asked_layer = narrowing_layer(f);
    f->complete =
        !o->effective_num_layers && o->output != FLOW_HIDDEN && !(o->hooks && o->hooks->layer);
    if (hp->backbone_width)
        describe_drafter(f);
    else
        describe(f);
    f->options.hooks = NULL;
    f->options.windows = NULL;
    if (f->mistake.code) {
        r = f->mistake.code;
        *err = f->mistake;
        flow_destroy(f);
        return r;
    }
    *out = f;
    return 0;
}

void flow_destroy(struct flow *f)
{
    if (!f)
        return;
    ir_free(&f->ir);
    free(f);
}
