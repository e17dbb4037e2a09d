/* draw.h - a token drawn from logits as the largest with noise; see kernels/noise.h. */
#ifndef GRAPH_DRAW_H
#define GRAPH_DRAW_H

#include "graph/graph.h"
#include "kernels/kernels.h"

/* Replaces *best, with its noisy value, if one of n logits of rows row, row + 1, ... comes before
 * it with its noise: larger, or equal and of a lower id. It begins as {-1, -INFINITY}; the order in
 * which rows come makes no difference. row is a multiple of 16. NaN is never drawn. */
void draw_take(const struct kernels *k, const struct draw *d, int row, const float *logits, int n,
    struct logit *best);
/* The same of the logit of any row. */
void draw_take_one(const struct draw *d, int row, float logit, struct logit *best);

#endif
