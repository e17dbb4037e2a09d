/* steps_matmul.h - what the steps that multiply share. Private to the graph layer. */
#ifndef GRAPH_STEPS_MATMUL_H
#define GRAPH_STEPS_MATMUL_H

#include "graph/plan.h"

/* The rows of a step's input, ready to multiply: one set of columns per kind its matrices read. */
struct prepared {
    struct act act[ACT_KINDS];
};

/* n rows. With few every thread has its own copy; with many, all have been waited for. */
void matmul_prepare(struct graph *g, struct step *s, int thread, int n, struct prepared *p);

/* y rows of x's columns and the panels [first, last): y[c * ldy + row]. */
void matmul_multiply(struct graph *g, const struct linear *l, const struct act *x, float *y,
    size_t ldy, int first, int last, int thread);

static inline struct act matmul_columns(const struct act *x, int first, int n)
{
    struct act part = *x;

    part.n_cols = n;
    part.data += (size_t)first * x->col_bytes;
    return part;
}

#endif
