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
    IR_GATHER     /* ROWS_OUT rows of in */
};

enum { IR_MAX_LINEARS = 3, IR_NAME = 48 };

/* A weight by its name in the file: (rows, k) for a matrix, rows == 1 for a vector of k. */
struct ir_weight {
    char name[IR_NAME];
    int rows, k;
    bool shared; /* may be named by more than one operation: the tied embedding */
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

struct ir_attention {
    struct attention_spec spec;
    int kv_layer;    /* whose pages are read */
    bool norm, rope; /* fused into the step */
    struct ir_weight q_norm, k_norm;
};

struct ir_node {
    enum ir_op op;
    int layer; /* -1 outside the layers */
    int n_in, n_out;
    int in[4], out[4]; /* value ids */
    float scale, cap, eps;
    int n_heads, head_dim;   /* IR_HEAD_NORM, IR_ROPE */
    int rope_table;          /* IR_ROPE, IR_ATTENTION */
    struct ir_weight weight; /* IR_EMBED, IR_RMSNORM, IR_HEAD_NORM */
    struct ir_matmul mm;
    struct ir_attention attn;
};

struct ir_value {
    char name[IR_NAME];
    enum ir_rows rows;
    int width;
    bool tap;        /* an extra output, found by its name */
    bool norm_input; /* also found as "norm input": what the final norm reads */
    bool output;     /* the graph's result */
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
/* Adds a node with one input (in < 0: none) and one output; the pointer is good until the next
 * ir_node(). */
struct ir_node *ir_node(struct ir *ir, enum ir_op op, int layer, int in, int out);
struct ir_weight ir_weight(int rows, int k, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* How many nodes read a value, and the last one that does (-1: none). */
int ir_uses(const struct ir *ir, int value, int *last);
int ir_producer(const struct ir *ir, int value);
void ir_remove(struct ir *ir, int node);
void ir_free(struct ir *ir);

const char *ir_op_name(enum ir_op op);
/* One line of text for a node, without a newline. */
void ir_describe(const struct ir *ir, const struct ir_node *n, struct buf *out);

/* Passes; each returns how many nodes it changed or removed. */
int pass_constants(struct ir *ir); /* drops what its constants make the identity */
int pass_fuse(struct ir *ir);
int pass_dead_code(struct ir *ir);

#endif
