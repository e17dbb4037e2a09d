/* passes.c - rewriting the IR.
 *
 * Fusion only moves an operation into the step of its neighbour; what is computed for a row, and in
 * which order, stays the same. A value that somebody else reads, or that is a tap, keeps its own
 * buffer, so it blocks the fusion that would make it vanish. A layer of the dense families ends as
 * five nodes: [residual, norm, q k v] [head norm, rope, attention] [o] [residual, norm, gate up
 * geglu] [down] */
#include <string.h>

#include "graph/ir.h"

/* The node that makes `value`, when it is of this kind and nobody but one reader needs the value;
 * else -1. */
static int sole_producer(const struct ir *ir, int value, enum ir_op op)
{
    const struct ir_value *v = &ir->values[value];
    int last, p;

    if (v->tap || v->norm_input || v->output || ir_uses(ir, value, &last) != 1)
        return -1;
    p = ir_producer(ir, value);
    return p >= 0 && ir->nodes[p].op == op ? p : -1;
}

static void replace_uses(struct ir *ir, int from, int to)
{
    for (int i = 0; i < ir->n_nodes; i++)
        for (int j = 0; j < ir->nodes[i].n_in; j++)
            if (ir->nodes[i].in[j] == from)
                ir->nodes[i].in[j] = to;
    if (ir->values[from].output) {
        ir->values[from].output = false;
        ir->values[to].output = true;
    }
}

int pass_constants(struct ir *ir)
{
    int changed = 0;

    for (int i = 0; i < ir->n_nodes; i++) {
        struct ir_node *n = &ir->nodes[i];

        if (n->op == IR_SOFTCAP && n->cap <= 0) {
            replace_uses(ir, n->out[0], n->in[0]);
            ir_remove(ir, i--);
            changed++;
        }
    }
    return changed;
}

/* Takes node `from` out and lets the attention at *at read its input instead. */
static void absorb(struct ir *ir, int *at, int arg, int from)
{
    ir->nodes[*at].in[arg] = ir->nodes[from].in[0];
    ir_remove(ir, from);
    *at -= from < *at;
}

/* Rotation, then head norm, of q and k, and the norm of v, into the attention that reads them. */
static int fuse_attention(struct ir *ir, int at)
{
    bool own = ir->nodes[at].n_in > 1; /* has k and v */
    int before = ir->n_nodes, v;

    for (int step = 0; step < 2; step++) {
        enum ir_op op = step == 0 ? IR_ROPE : IR_HEAD_NORM;
        int q = sole_producer(ir, ir->nodes[at].in[0], op);
        int k = own ? sole_producer(ir, ir->nodes[at].in[1], op) : -1;

        if (q < 0 || (own && k < 0))
            break;
        if (op == IR_ROPE) {
            ir->nodes[at].attn.rope = true;
        } else {
            ir->nodes[at].attn.norm = true;
            ir->nodes[at].attn.q_norm = ir->nodes[q].weight;
            if (own)
                ir->nodes[at].attn.k_norm = ir->nodes[k].weight;
        }
        absorb(ir, &at, 0, q);
        if (own)
            absorb(ir, &at, 1, sole_producer(ir, ir->nodes[at].in[1], op));
    }
    v = own ? sole_producer(ir, ir->nodes[at].in[2], IR_HEAD_NORM) : -1;
    if (v >= 0 && !ir->nodes[v].weight.name[0]) {
        ir->nodes[at].attn.v_norm = true;
        absorb(ir, &at, 2, v);
    }
    return before - ir->n_nodes;
}

static bool is_plain(const struct ir_node *n)
{
    return n->op == IR_MATMUL && !n->mm.gather && !n->mm.add && !n->mm.norm &&
           n->mm.epilogue == EPI_NONE;
}

/* Matrices that read the same value become one node. */
static int fuse_siblings(struct ir *ir, int at)
{
    int changed = 0;

    for (int i = at + 1; i < ir->n_nodes && ir->nodes[at].mm.n_linears < IR_MAX_LINEARS; i++) {
        struct ir_node *n = &ir->nodes[at], *other = &ir->nodes[i];

        if (!is_plain(other) || other->in[0] != n->in[0] || other->mm.n_linears != 1)
            continue;
        n->mm.linear[n->mm.n_linears++] = other->mm.linear[0];
        n->out[n->n_out++] = other->out[0];
        ir_remove(ir, i--);
        changed++;
    }
    return changed;
}

static int fuse_epilogue(struct ir *ir, int at)
{
    struct ir_node *n = &ir->nodes[at];
    int first = n->in[0], p = sole_producer(ir, first, IR_MATMUL);
    struct ir_node *m;

    if (p < 0)
        return 0;
    m = &ir->nodes[p];
    if (m->mm.epilogue != EPI_NONE)
        return 0;
    if (n->op == IR_GEGLU) {
        if (sole_producer(ir, n->in[1], IR_MATMUL) != p || m->mm.n_linears != 2 ||
            first != m->out[0] || m->mm.linear[0].rows != m->mm.linear[1].rows)
            return 0;
        m->mm.epilogue = EPI_GEGLU;
        m->n_out = 1;
    } else {
        if (m->mm.n_linears != 1)
            return 0;
        m->mm.epilogue = EPI_SOFTCAP;
        m->cap = n->cap;
    }
    m->out[0] = n->out[0];
    ir_remove(ir, at);
    return 1;
}

/* base + branch before the norm: the sum becomes the node's first output. */
static bool fuse_residual(struct ir *ir, int at)
{
    struct ir_node *m = &ir->nodes[at];
    int sum = m->in[0], a = ir_producer(ir, sum), norm;

    if (a < 0 || ir->nodes[a].op != IR_ADD)
        return false;
    if (m->mm.gather) {
        if (sole_producer(ir, sum, IR_ADD) < 0)
            return false;
        ir->values[sum].rows = ROWS_OUT;
    }
    for (int i = a + 1; i < at; i++) /* every other reader must come later than this node */
        for (int j = 0; j < ir->nodes[i].n_in; j++)
            if (ir->nodes[i].in[j] == sum)
                return false;
    m->mm.add = true;
    m->in[0] = ir->nodes[a].in[1];
    m->in[1] = ir->nodes[a].in[0];
    m->n_in = 2;
    memmove(&m->out[1], &m->out[0], (size_t)m->n_out * sizeof(m->out[0]));
    m->out[0] = sum;
    m->n_out++;
    ir_remove(ir, a);
    at--;
    m = &ir->nodes[at];
    norm = sole_producer(ir, m->in[0], IR_RMSNORM);
    if (norm >= 0) {
        m->mm.branch_norm = true;
        m->mm.branch = ir->nodes[norm].weight;
        m->in[0] = ir->nodes[norm].in[0];
        ir_remove(ir, norm);
    }
    return true;
}

static int fuse_prologue(struct ir *ir, int at, unsigned fusions)
{
    int p, changed = 0;

    p = sole_producer(ir, ir->nodes[at].in[0], IR_RMSNORM);
    if (p < 0)
        return 0;
    ir->nodes[at].mm.norm = true;
    ir->nodes[at].mm.pre = ir->nodes[p].weight;
    ir->nodes[at].in[0] = ir->nodes[p].in[0];
    ir_remove(ir, p);
    at--;
    changed++;
    p = sole_producer(ir, ir->nodes[at].in[0], IR_GATHER);
    if (p >= 0) {
        ir->nodes[at].mm.gather = true;
        ir->nodes[at].in[0] = ir->nodes[p].in[0];
        ir_remove(ir, p);
        at--;
        changed++;
    }
    return changed + (fusions & FUSE_RESIDUAL ? fuse_residual(ir, at) : 0);
}

/* One node of a kind that some fusion takes away. */
static int fuse_at(struct ir *ir, int at, unsigned fusions)
{
    switch (ir->nodes[at].op) {
    case IR_ATTENTION: return fusions & FUSE_ATTENTION ? fuse_attention(ir, at) : 0;
    case IR_GEGLU:
    case IR_SOFTCAP: return fusions & FUSE_EPILOGUE ? fuse_epilogue(ir, at) : 0;
    default: return 0;
    }
}

int pass_fuse(struct ir *ir, unsigned fusions)
{
    int changed = 0;

    for (int i = 0; fusions & FUSE_SIBLINGS && i < ir->n_nodes; i++)
        if (is_plain(&ir->nodes[i]))
            changed += fuse_siblings(ir, i);
    for (int i = 0; i < ir->n_nodes; i++) {
        int n = fuse_at(ir, i, fusions);

        i -= n;
        changed += n;
    }
    for (int i = 0; fusions & FUSE_PROLOGUE && i < ir->n_nodes; i++) {
        int before = ir->n_nodes;

        if (ir->nodes[i].op == IR_MATMUL && !ir->nodes[i].mm.norm)
            changed += fuse_prologue(ir, i, fusions);
        i -= before - ir->n_nodes;
    }
    return changed;
}

int pass_unfused(const struct ir *ir, unsigned fusions)
{
    for (int i = 0; i < ir->n_nodes; i++) {
        unsigned want = 0;

        switch (ir->nodes[i].op) {
        case IR_HEAD_NORM:
        case IR_ROPE: want = FUSE_ATTENTION; break;
        case IR_GEGLU:
        case IR_SOFTCAP: want = FUSE_EPILOGUE; break;
        case IR_RMSNORM: want = FUSE_PROLOGUE; break;
        case IR_ADD: want = FUSE_RESIDUAL; break;
        default: break;
        }
        if (want & fusions)
            return i;
    }
    return -1;
}

int pass_dead_code(struct ir *ir)
{
    int changed = 0;

    for (int i = ir->n_nodes - 1; i >= 0; i--) {
        const struct ir_node *n = &ir->nodes[i];
        bool live = n->op == IR_ATTENTION; /* it appends to the cache */

        for (int j = 0; j < n->n_out; j++) {
            const struct ir_value *v = &ir->values[n->out[j]];
            int last;

            live |= v->output || v->tap || v->norm_input || ir_uses(ir, n->out[j], &last) > 0;
        }
        if (!live) {
            ir_remove(ir, i);
            changed++;
        }
    }
    return changed;
}
