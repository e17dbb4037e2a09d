/* ir.c - building, asking and printing the IR. */
#include "graph/ir.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

int ir_value(struct ir *ir, enum ir_rows rows, int width, const char *fmt, ...)
{
    struct ir_value *v;
    va_list ap;

    if (ir->n_values == ir->cap_values) {
        ir->cap_values = ir->cap_values ? 2 * ir->cap_values : 64;
        ir->values = xrealloc(ir->values, (size_t)ir->cap_values * sizeof(*ir->values));
    }
    v = &ir->values[ir->n_values];
    *v = (struct ir_value){.rows = rows, .width = width, .parent = -1};
    va_start(ap, fmt);
    vsnprintf(v->name, sizeof(v->name), fmt, ap);
    va_end(ap);
    return ir->n_values++;
}

int ir_view(struct ir *ir, int parent, int offset, int width, const char *name)
{
    int v = ir_value(ir, ir->values[parent].rows, width, "%s", name);

    ir->values[v].parent = parent;
    ir->values[v].offset = offset;
    return v;
}

void ir_input(struct ir_node *n, int value)
{
    n->in[n->n_in++] = value;
}

struct ir_node *ir_node(struct ir *ir, enum ir_op op, int layer, int in, int out)
{
    struct ir_node *n;

    if (ir->n_nodes == ir->cap_nodes) {
        ir->cap_nodes = ir->cap_nodes ? 2 * ir->cap_nodes : 64;
        ir->nodes = xrealloc(ir->nodes, (size_t)ir->cap_nodes * sizeof(*ir->nodes));
    }
    n = &ir->nodes[ir->n_nodes++];
    *n = (struct ir_node){.op = op, .layer = layer, .n_in = in >= 0, .n_out = 1};
    n->in[0] = in;
    n->out[0] = out;
    return n;
}

struct ir_weight ir_weight(int rows, int k, const char *fmt, ...)
{
    struct ir_weight w = {.rows = rows, .k = k};
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(w.name, sizeof(w.name), fmt, ap);
    va_end(ap);
    return w;
}

int ir_uses(const struct ir *ir, int value, int *last)
{
    int uses = 0;

    *last = -1;
    for (int i = 0; i < ir->n_nodes; i++) {
        for (int j = 0; j < ir->nodes[i].n_in; j++) {
            int in = ir->nodes[i].in[j];

            if (in == value || ir->values[in].parent == value) {
                uses++;
                *last = i;
            }
        }
    }
    return uses;
}

int ir_producer(const struct ir *ir, int value)
{
    for (int i = 0; i < ir->n_nodes; i++)
        for (int j = 0; j < ir->nodes[i].n_out; j++)
            if (ir->nodes[i].out[j] == value)
                return i;
    return -1;
}

void ir_remove(struct ir *ir, int node)
{
    ir->n_nodes--;
    memmove(
        &ir->nodes[node], &ir->nodes[node + 1], (size_t)(ir->n_nodes - node) * sizeof(*ir->nodes));
}

void ir_free(struct ir *ir)
{
    free(ir->nodes);
    free(ir->values);
    *ir = (struct ir){0};
}

const char *ir_op_name(enum ir_op op)
{
    static const char *const names[] = {"embed", "rmsnorm", "matmul", "head_norm", "rope",
        "attention", "geglu", "add", "softcap", "gather", "scale", "mul", "tanh", "sparse",
        "match_rms", "mean", "altup_predict", "altup_correct", "moe", "pool", "unit", "input",
        "custom"};

    return names[op];
}

static void describe_values(const struct ir *ir, const int *ids, int n, struct buf *out)
{
    for (int i = 0; i < n; i++)
        buf_printf(out, "%s%s", i ? ", " : "", ir->values[ids[i]].name);
}

static void describe_matmul(const struct ir_matmul *mm, struct buf *out)
{
    if (mm->gather)
        buf_puts(out, " gather");
    if (mm->add)
        buf_puts(out, mm->branch_norm ? " norm+residual" : " residual");
    if (mm->norm)
        buf_puts(out, " norm");
    for (int i = 0; i < mm->n_linears; i++)
        buf_printf(out, " %s[%d,%d]", mm->linear[i].name, mm->linear[i].rows, mm->linear[i].k);
    if (mm->epilogue == EPI_GEGLU)
        buf_puts(out, " geglu");
    if (mm->epilogue == EPI_SOFTCAP)
        buf_puts(out, " softcap");
}

void ir_describe(const struct ir *ir, const struct ir_node *n, struct buf *out)
{
    describe_values(ir, n->out, n->n_out, out);
    buf_printf(out, " = %s(", ir_op_name(n->op));
    describe_values(ir, n->in, n->n_in, out);
    buf_putc(out, ')');
    switch (n->op) {
    case IR_MATMUL: describe_matmul(&n->mm, out); break;
    case IR_ATTENTION:
        buf_printf(out, "%s%s%s heads %d:%d x %d, ", n->attn.norm ? " qk-norm" : "",
            n->attn.v_norm ? " v-norm" : "", n->attn.rope ? " rope" : "", n->attn.spec.n_heads,
            n->attn.spec.n_kv_heads, n->attn.spec.head_dim);
        if (n->attn.kv_layer != n->layer)
            buf_printf(out, "keys of layer %d, ", n->attn.kv_layer);
        if (n->attn.spec.window)
            buf_printf(out, "window %d", n->attn.spec.window);
        else
            buf_puts(out, "causal");
        if (n->attn.spec.softcap > 0)
            buf_printf(out, ", softcap %g", (double)n->attn.spec.softcap);
        break;
    case IR_EMBED:
    case IR_RMSNORM:
    case IR_HEAD_NORM:
    case IR_SCALE:
    case IR_MUL:
        if (n->weight.name[0])
            buf_printf(out, " %s", n->weight.name);
        if (n->op == IR_SCALE && !n->weight.name[0])
            buf_printf(out, " %g", (double)n->scale);
        break;
    case IR_MOE:
        buf_printf(out, " %d of %d experts of %d", n->moe.n_used, n->moe.n_experts, n->moe.width);
        break;
    case IR_CUSTOM: buf_printf(out, " %s", n->stage.name); break;
    case IR_ROPE: buf_printf(out, " table %d", n->rope_table); break;
    case IR_SOFTCAP: buf_printf(out, " %g", (double)n->cap); break;
    default: break;
    }
}
