/* stage.c - what a flow's hooks build with: values by handle, built-in operations, stages of their
 * own. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "graph/flow.h"

/* Remembers the first one. */
static void __attribute__((format(printf, 2, 3))) mistake(struct flow *f, const char *fmt, ...)
{
    char sentence[sizeof(f->mistake.msg)];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, ap);
    va_end(ap);
    if (!f->mistake.code)
        err_fill_at(&f->mistake, GD_EINVAL, "hooks", "%s", sentence);
}

static bool is_value(struct flow *f, int v)
{
    if (v >= 0 && v < f->ir.n_values)
        return true;
    mistake(f, "a hook used the value %d, but the flow has %d", v, f->ir.n_values);
    return false;
}

int flow_checked(struct flow *f, int got, int like)
{
    if (!is_value(f, got))
        return like;
    if (f->ir.values[got].width != f->ir.values[like].width ||
        f->ir.values[got].rows != f->ir.values[like].rows) {
        mistake(f, "a hook returned a value of width %d where %d is wanted",
            f->ir.values[got].width, f->ir.values[like].width);
        return like;
    }
    return got;
}

int flow_width(const struct flow *f, int value)
{
    return value >= 0 && value < f->ir.n_values ? f->ir.values[value].width : 0;
}

void flow_custom(struct flow *f, const struct flow_stage *s, const int *in, int *out)
{
    struct ir_node *n;
    int first;

    for (int i = 0; i < s->n_out && i < FLOW_STAGE_ARGS; i++)
        out[i] = -1;
    if (s->n_in < 1 || s->n_in > FLOW_STAGE_ARGS || s->n_out < 1 || s->n_out > FLOW_STAGE_ARGS) {
        mistake(f, "a stage has %d inputs and %d outputs, both must be 1..4", s->n_in, s->n_out);
        return;
    }
    for (int i = 0; i < s->n_in; i++) {
        if (!is_value(f, in[i]))
            return;
        if (f->ir.values[in[i]].width != s->in_width[i]) {
            mistake(f, "a stage declares an input of width %d and was given %d", s->in_width[i],
                f->ir.values[in[i]].width);
            return;
        }
    }
    for (int i = 0; i < s->n_out; i++) {
        if (s->out_width[i] < 1 || s->out_width[i] > (1 << 20)) {
            mistake(f, "a stage declares an output of width %d, it must be 1..%d", s->out_width[i],
                1 << 20);
            return;
        }
        out[i] = ir_value(&f->ir, f->ir.values[in[0]].rows, s->out_width[i], "%s", s->name);
    }
    first = out[0];
    n = ir_node(&f->ir, IR_CUSTOM, -1, in[0], first);
    n->stage = *s;
    for (int i = 1; i < s->n_in; i++)
        ir_input(n, in[i]);
    for (int i = 1; i < s->n_out; i++)
        n->out[n->n_out++] = out[i];
}

int flow_rmsnorm(struct flow *f, int x, const char *weight)
{
    if (!is_value(f, x))
        return -1;
    return flow_norm(f, -1, x, "norm",
        weight ? ir_weight(1, f->ir.values[x].width, "%s", weight) : (struct ir_weight){0});
}

int flow_matmul(struct flow *f, int x, const char *weight, int out_width)
{
    if (!is_value(f, x))
        return -1;
    if (out_width < 1) {
        mistake(f, "a product has %d rows, it must have 1..%d", out_width, 1 << 24);
        return -1;
    }
    return flow_linear(
        f, -1, x, "product", ir_weight(out_width, f->ir.values[x].width, "%s", weight));
}

int flow_sum(struct flow *f, int x, int y)
{
    if (!is_value(f, x) || !is_value(f, y) || flow_checked(f, y, x) != y)
        return -1;
    return flow_add(f, -1, x, y, "sum");
}

void flow_layer_describe(const struct hparams *hp, int layer, struct flow_layer_info *out)
{
    const struct hparams_layer *l = &hp->layers[layer];

    *out = (struct flow_layer_info){.index = layer,
        .style = hp->n_streams ? FLOW_LAYER_ALTUP
                 : l->moe      ? FLOW_LAYER_EXPERTS
                               : FLOW_LAYER_DENSE,
        .n_heads = l->n_heads,
        .n_kv_heads = l->n_kv_heads,
        .head_dim = l->head_dim,
        .window = l->window,
        .rope_table = l->rope_table,
        .scale = hp->attention_scale,
        .softcap = hp->attention_softcap,
        .kv_sink = l->kv_layer};
}

int flow_default_layer(struct flow *f, const struct flow_layer_info *layer, int h)
{
    if (layer->index < 0 || layer->index >= f->hp->n_layers || !is_value(f, h)) {
        mistake(
            f, "a hook asked for layer %d, but the model has %d", layer->index, f->hp->n_layers);
        return h;
    }
    if (layer->window < 0 || layer->window > FLOW_MAX_WINDOW || !isfinite(layer->scale) ||
        !isfinite(layer->softcap) || layer->softcap < 0) {
        mistake(f, "a hook gave layer %d a window of %d, a scale of %g and a soft-cap of %g",
            layer->index, layer->window, (double)layer->scale, (double)layer->softcap);
        return h;
    }
    f->attention = *layer;
    if (f->hp->n_streams)
        return flow_altup_layer(f, layer->index, h);
    return flow_layer(f, layer->index, h);
}
