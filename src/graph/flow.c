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

/* The whole model: embedding, layers, final norm, head. */
static void describe(struct flow *f)
{
    const struct hparams *hp = f->hp;
    int n_layers = f->options.effective_layers ? f->options.effective_layers : hp->n_layers;
    struct ir_node *n;
    int h, x, y;

    h = ir_value(&f->ir, ROWS_TOKENS, hp->width, "embedding");
    n = ir_node(&f->ir, IR_EMBED, -1, -1, h);
    n->scale = hp->embed_scale;
    n->weight = ir_weight(hp->vocab, hp->width, "token_embd.weight");
    n->weight.shared = !hp->separate_head;
    flow_tap(f, h);
    for (int i = 0; i < n_layers; i++)
        h = flow_layer(f, i, h);
    if (f->options.taps)
        f->ir.values[h].norm_input = true;

    x = ir_value(&f->ir, ROWS_OUT, hp->width, "last rows");
    ir_node(&f->ir, IR_GATHER, -1, h, x);
    y = flow_norm(f, -1, x, "norm output", ir_weight(1, hp->width, "output_norm.weight"));
    flow_tap(f, y);
    if (f->options.output == FLOW_LAST_LOGITS) {
        struct ir_weight head = ir_weight(
            hp->vocab, hp->width, hp->separate_head ? "output.weight" : "token_embd.weight");

        head.shared = !hp->separate_head;
        y = flow_linear(f, -1, y, "logits", head);
        x = ir_value(&f->ir, ROWS_OUT, hp->vocab, "capped logits");
        ir_node(&f->ir, IR_SOFTCAP, -1, y, x)->cap = hp->final_softcap;
        y = x;
    }
    f->ir.values[y].output = true;
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
