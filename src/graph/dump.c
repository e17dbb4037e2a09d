/* dump.c - a graph for people: text, or Graphviz dot. */
#include "graph/plan.h"

static const char *backend_name(const struct step *s, int i)
{
    return s->linear[i].backend == MATMUL_BLAS ? "blas" : "native";
}

static void describe_weights(const struct step *s, struct buf *out)
{
    static const char *const kinds[ACT_KINDS] = {"f32", "q8", "q16", "bf16", "2bf16"};

    if (s->node.op != IR_MATMUL)
        return;
    for (int i = 0; i < s->node.mm.n_linears; i++)
        buf_printf(out, "%s%s*%s/%s", i ? " " : "  {", s->linear[i].w.type->name,
            kinds[s->linear[i].kind], backend_name(s, i));
    buf_putc(out, '}');
}

static const char *rows_name(enum ir_rows rows)
{
    return rows == ROWS_TOKENS ? "TOKENS" : "OUT";
}

static void print_text(const struct graph *g, struct buf *out)
{
    for (int i = 0; i < g->n_steps; i++) {
        const struct step *s = &g->steps[i];
        const struct ir_value *v = &g->ir.values[s->node.out[s->node.n_out - 1]];

        buf_printf(out, "%4d  [%s, %d]  ", i, rows_name(v->rows), v->width);
        ir_describe(&g->ir, &s->node, out);
        describe_weights(s, out);
        buf_putc(out, '\n');
    }
}

static void print_dot(const struct graph *g, struct buf *out)
{
    buf_puts(out,
        "digraph gemma {\n  rankdir=TB; node [shape=box, fontname=\"Helvetica\", fontsize=10];\n");
    for (int i = 0; i < g->n_steps; i++) {
        const struct step *s = &g->steps[i];
        int layer = s->node.layer;

        if (layer >= 0 && (i == 0 || g->steps[i - 1].node.layer != layer))
            buf_printf(out, "  subgraph cluster_%d {\n    label=\"layer %d\"; style=rounded;\n",
                layer, layer);
        buf_printf(out, "  s%d [label=\"", i);
        ir_describe(&g->ir, &s->node, out);
        buf_puts(out, "\"];\n");
        if (layer >= 0 && (i + 1 == g->n_steps || g->steps[i + 1].node.layer != layer))
            buf_puts(out, "  }\n");
    }
    for (int i = 0; i < g->n_steps; i++) {
        for (int j = 0; j < g->steps[i].node.n_in; j++) {
            int v = g->steps[i].node.in[j], p = ir_producer(&g->ir, v);

            if (p >= 0)
                buf_printf(
                    out, "  s%d -> s%d [label=\"%d\", fontsize=8];\n", p, i, g->ir.values[v].width);
        }
    }
    buf_puts(out, "}\n");
}

void graph_print(const struct graph *g, bool dot, struct buf *out)
{
    if (dot) {
        print_dot(g, out);
        return;
    }
    buf_printf(out,
        "%s graph: %d layers, up to %d rows of %d sequences; %d operations in %d steps, %.1f MiB "
        "of buffers\n",
        g->mode == FLOW_PREFILL ? "prefill" : "decode", g->n_layers, g->max_rows, g->max_seqs,
        g->n_ir_before, g->n_steps, (double)(g->arena_bytes + g->scratch_bytes) / (1 << 20));
    if (g->rope_memory)
        buf_printf(out, "rope: %d table%s of %d positions, %.1f MiB\n", g->hp.n_rope,
            g->hp.n_rope == 1 ? "" : "s", g->options.rope_positions,
            (double)g->rope_bytes / (1 << 20));
    if (g->profile.verbose)
        buf_printf(out, "passes: constants changed %d, fusion %d, dead code %d\n", g->changes[0],
            g->changes[1], g->changes[2]);
    print_text(g, out);
}

char *graph_text(const struct graph *g, bool dot)
{
    struct buf out = {0};

    graph_print(g, dot, &out);
    return buf_take(&out);
}
