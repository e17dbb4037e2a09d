/* flow.c - options checked, and the model written down from top to bottom as IR. */
#include "graph/flow.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void flow_prefill_options(struct flow_options *o)
{
    *o = (struct flow_options){.mode = FLOW_PREFILL, .batch = 1, .seq = 128};
}

void flow_decode_options(struct flow_options *o, int batch)
{
    *o = (struct flow_options){.mode = FLOW_DECODE, .batch = batch, .seq = 1};
}

void flow_profile_reference(struct flow_profile *p)
{
    *p = (struct flow_profile){.exact = true, .fusion = FUSION_DIRECT, .kv = FLOW_KV_F32};
}

void flow_profile_default(struct flow_profile *p)
{
    *p = (struct flow_profile){.fusion = FUSION_FUSABLE, .kv = FLOW_KV_BF16};
}

static int check(const struct flow_options *o, const struct hparams *hp, struct err *err)
{
    if (hp->backbone_width)
        return err_set_at(err, GD_ENOTSUP, "general.architecture",
            "%s is a draft model: it reads the state of another model and cannot run alone",
            hp->arch_name);
    if (o->mode == FLOW_PREFILL && o->batch != 1)
        return err_set_at(err, GD_EINVAL, "batch",
            "a prefill graph with a dynamic sequence takes batch 1, not %d", o->batch);
    if (o->mode == FLOW_DECODE && o->seq != 1)
        return err_set_at(err, GD_EINVAL, "seq", "a decode graph takes seq 1, not %d", o->seq);
    if (o->batch < 1 || o->batch > FLOW_MAX_ROWS)
        return err_set_at(
            err, GD_EINVAL, "batch", "batch must be 1..%d, not %d", FLOW_MAX_ROWS, o->batch);
    if (o->seq < 1 || o->seq > FLOW_MAX_ROWS)
        return err_set_at(
            err, GD_EINVAL, "seq", "seq must be 1..%d, not %d", FLOW_MAX_ROWS, o->seq);
    if (o->effective_layers < 0 || o->effective_layers > hp->n_layers)
        return err_set_at(err, GD_EINVAL, "effective_layers",
            "effective_layers must be 0..%d, not %d", hp->n_layers, o->effective_layers);
    return 0;
}

/* The layers: residual stream in, the value the final norm reads out. */
static int describe_layers(struct flow *f, int h)
{
    const struct hparams *hp = f->hp;
    int n_layers = f->options.effective_layers ? f->options.effective_layers : hp->n_layers;

    if (hp->per_layer_width)
        flow_per_layer_embeddings(f, h);
    if (!hp->n_streams) {
        for (int i = 0; i < n_layers; i++)
            h = flow_layer(f, i, h);
        return h;
    }
    flow_altup_streams(f, h);
    for (int i = 0; i < n_layers; i++)
        flow_altup_layer(f, i);
    return flow_altup_merge(f);
}

/* Embedding models: mean over the sequence, dense maps, length 1. */
static int describe_embedding(struct flow *f, int x)
{
    const struct hparams *hp = f->hp;
    int y = flow_value(f, -1, ROWS_OUT, hp->width, "mean");

    ir_node(&f->ir, IR_POOL, -1, x, y);
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
    x = flow_linear(f, -1, x, "logits", w);
    x = flow_unary(f, IR_SOFTCAP, -1, x, "capped logits");
    f->ir.nodes[f->ir.n_nodes - 1].cap = hp->final_softcap;
    return x;
}

/* The whole model: embedding, layers, final norm, head. */
static void describe(struct flow *f)
{
    const struct hparams *hp = f->hp;
    struct ir_node *n;
    int h, x;

    h = ir_value(&f->ir, ROWS_TOKENS, hp->width, "embedding");
    n = ir_node(&f->ir, IR_EMBED, -1, -1, h);
    n->scale = hp->embed_scale;
    n->weight = ir_weight(hp->vocab, hp->width, "token_embd.weight");
    n->weight.shared = !hp->separate_head;
    flow_tap(f, h);
    x = describe_layers(f, h);
    f->ir.values[x].norm_input = f->options.taps;
    if (!hp->bidirectional) {
        h = ir_value(&f->ir, ROWS_OUT, hp->width, "last rows");
        ir_node(&f->ir, IR_GATHER, -1, x, h);
        x = h;
    }
    x = flow_norm(f, -1, x, "norm output", ir_weight(1, hp->width, "output_norm.weight"));
    flow_tap(f, x);
    if (hp->bidirectional)
        x = describe_embedding(f, x);
    else if (f->options.output == FLOW_LAST_LOGITS)
        x = describe_head(f, x);
    f->ir.values[x].output = true;
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
    describe(f);
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
