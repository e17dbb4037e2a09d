/* ir.h - the intermediate form of a graph: operations on values of shape [rows, width], f32.
 *
 * Two operations carry optional parts so that fusion changes attributes, not kinds: a matmul may
 * have a prologue (residual add, norms, row gather) and an epilogue; attention may norm and rotate
 * its q and k. The unfused form has none of them. Every part is executed by the same code fused or
 * not, so fusion never changes a bit. */
#ifndef GRAPH_IR_H
#define GRAPH_IR_H

#include <stdbool.h>

#include "base/buf.h"
#include "gemmad/flow.h"
#include "kernels/attention.h"

enum ir_rows { ROWS_TOKENS, ROWS_OUT };

enum ir_op {
    IR_EMBED,     /* out = table[token] * scale */
    IR_RMSNORM,   /* out = rmsnorm(in; weight) */
    IR_MATMUL,    /* see struct ir_matmul */
    IR_HEAD_NORM, /* out = rmsnorm of each head */
    IR_ROPE,      /* out = each head rotated by its row's position */
    IR_ATTENTION, /* out = attention(q, k, v), k and v appended to the layer's pages */
    IR_GEGLU,     /* out = gelu(in0) * in1 */
    IR_ADD,       /* out = in0 + in1 */
    IR_SOFTCAP,   /* out = cap * tanh(in / cap); cap 0 is the identity */
    IR_GATHER,    /* ROWS_OUT rows of in */
    IR_SCALE,     /* out = in * scale, and times the one number of weight where it is named */
    IR_MUL,       /* out = in0 * in1, or in0 * weight, a vector as wide as in0 */
    IR_TANH,
    IR_SPARSE,    /* out = max(0, in - (mean + scale * std)), over the row, std with n under it */
    IR_MATCH_RMS, /* out = in0 * rms(in1) / rms(in0), mean(in0^2) at least eps */
    IR_MEAN,      /* out = mean of the inputs */
    IR_ALTUP_PREDICT, /* out_k = in_k + sum_i c[k n + i] in_i; inputs: n streams, then c */
    IR_ALTUP_CORRECT, /* out_k = in_k + (1 + c[k]) (y - in_0); inputs: n predictions, then y, c */
    IR_MOE,           /* see struct ir_moe */
    IR_POOL,          /* ROWS_OUT: mean over the rows of each sequence */
    IR_UNIT,          /* out = in / |in| */
    IR_INPUT,         /* out = rows that the run brings: graph_seq.input */
    IR_CUSTOM         /* a stage of the caller's */
};

enum { IR_MAX_LINEARS = 3, IR_NAME = 48, IR_MAX_ARGS = 6 };

/* A weight by its name in the file: (rows, k) for a matrix, rows == 1 for a vector of k; with
 * n_slices one matrix of a stack of so many. No name: no weight. use: whether quantising while
 * loading may do as asked, go down to Q8_0 only (embedding, head), or must not touch it. */
enum ir_use { USE_MATRIX, USE_TABLE, USE_COEFFICIENTS };
struct ir_weight {
    char name[IR_NAME];
    int rows, k;
    int slice, n_slices;
    bool shared; /* may be named by more than one operation: the tied embedding, a stack */
    enum ir_use use;
};

enum ir_epilogue { EPI_NONE, EPI_GEGLU, EPI_SOFTCAP };

/* x = in0, or with `gather` its ROWS_OUT rows;
 * add:  h = in1 + (branch_norm ? rmsnorm(x; branch) : x), written to out0; x = h
 * norm: x = rmsnorm(x; pre)
 * then y_i = W_i x, i < n_linears; EPI_GEGLU: one output gelu(y_0) * y_1. */
struct ir_matmul {
    bool gather, add, branch_norm, norm;
    struct ir_weight branch, pre;
    int n_linears;
    struct ir_weight linear[IR_MAX_LINEARS];
    enum ir_epilogue epilogue;
};

/* Inputs q, k, v; or q alone, which attends to the pages of another layer. */
struct ir_attention {
    struct attention_spec spec;
    int kv_layer;            /* whose pages are read */
    bool norm, rope, v_norm; /* fused into the step; v_norm has no weight */
    struct ir_weight q_norm, k_norm;
};

/* Inputs: what the experts read, and the router's logits, one per expert. p = softmax(logits); the
 * n_used largest (lower index first on ties), renormalised to sum 1, times expert_scale where it is
 * named; out = sum_j p_j Wdown_j (gelu(Wgate_j x) * (Wup_j x)). */
struct ir_moe {
    int n_experts, n_used, width; /* width of gate and up of one expert */
    struct ir_weight gate_up; /* gate and up of each expert in turn; or no name and the two below */
    struct ir_weight gate, up, down, expert_scale;
};

struct ir_node {
    enum ir_op op;
    int layer; /* -1 outside the layers */
    int n_in, n_out;
    int in[IR_MAX_ARGS], out[IR_MAX_ARGS]; /* value ids */
    float scale, cap, eps;
    int n_heads, head_dim;   /* IR_HEAD_NORM, IR_ROPE */
    int rope_table;          /* IR_ROPE, IR_ATTENTION */
    struct ir_weight weight; /* IR_EMBED, IR_RMSNORM, IR_HEAD_NORM, IR_SCALE, IR_MUL */
    bool mapped;             /* IR_EMBED: rows are read from the file mapping, never packed */
    struct ir_matmul mm;
    struct ir_attention attn;
    struct ir_moe moe;
    struct flow_stage stage; /* IR_CUSTOM */
};

struct ir_value {
    char name[IR_NAME];
    enum ir_rows rows;
    int width;
    int parent, offset; /* a view: columns [offset, offset + width) of parent; -1 none */
    bool tap;           /* an extra output, found by its name */
    bool norm_input;    /* also found as "norm input": what the final norm reads */
    bool output;        /* the graph's result */
};

struct ir {
    struct ir_node *nodes;
    int n_nodes, cap_nodes;
    struct ir_value *values;
    int n_values, cap_values;
};

/* Adds a value; fmt is its printf-style name. */
int ir_value(struct ir *ir, enum ir_rows rows, int width, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int ir_view(struct ir *ir, int parent, int offset, int width, const char *name);
/* Adds an input to a node. */
void ir_input(struct ir_node *n, int value);
/* Adds a node with one input (in < 0: none) and one output; the pointer is good until the next
 * ir_node(). */
struct ir_node *ir_node(struct ir *ir, enum ir_op op, int layer, int in, int out);
struct ir_weight ir_weight(int rows, int k, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* How many nodes read a value or a view of it, and the last one (-1: none). */
int ir_uses(const struct ir *ir, int value, int *last);
int ir_producer(const struct ir *ir, int value);
void ir_remove(struct ir *ir, int node);
void ir_free(struct ir *ir);
const char *ir_op_name(enum ir_op op);
/* One line of text for a node, without a newline. */
void ir_describe(const struct ir *ir, const struct ir_node *n, struct buf *out);

/* Passes; each returns how many nodes it changed or removed. */
int pass_constants(struct ir *ir);              /* drops what its constants make the identity */
int pass_fuse(struct ir *ir, unsigned fusions); /* enum fusion bits */
int pass_dead_code(struct ir *ir);
/* The first node that one of these fusions is for and that stands alone; -1 none. */
int pass_unfused(const struct ir *ir, unsigned fusions);

#endif
