/* planes.h - a Q8_0 matrix in two planes, to rule rows out after reading three fifths of them.
 *
 *   Q8_0 panel     scales | codes                                   of 16 rows
 *   coarse plane   scales | upper halves of the codes, and lower    panel after panel: a matrix of
 *                           ones of the strong columns              its own
 *   fine plane              lower halves of the others              panel after panel
 *
 * (wmat_planes.h has the lines.) Together they are as large as before and mean the same;
 * matmul_kernels.run and wmat_read_row() take either. A code is 16 u + l with l = 0..15, so
 *
 *   sum of (16 u + l - 128) x  <=  sum of (16 u + [l of strong columns] - 128) x
 *                                  + 15 (sum of the positive x of the other columns)
 *
 * for the codes x of an activation: what a row's product can at most be, from its coarse plane. The
 * right side is a product with another start of the integer sums, which planes_bound() makes.
 *
 * The bound is the closer the less there is in the other columns. Activations after a norm are
 * large where its weights are: of each 32 columns the 4 with the largest weights are strong. They
 * take the first 4 places; what was there takes theirs. So columns of activations have to be
 * arranged the same way, which changes no sum of a block. */
#ifndef KERNELS_PLANES_H
#define KERNELS_PLANES_H

#include "kernels/matmul.h"

enum { STRONG = 4 /* columns of a block of 32 */ };

/* Whether a matrix can lie in planes: Q8_0, k in pairs of blocks. */
bool planes_fit(enum dtype type, int k);
/* Chooses the strong columns, strong[k / 32 * STRONG], by the size of norm[k], by place without one
 * (NULL): place i of block b trades with column strong[b * STRONG + i] of the block. */
void planes_order(uint8_t *strong, int k, const float *norm);
/* A [rows, k] matrix in planes over memory the caller owns, as large as without; strong is borrowed
 * as well. max_scale is still to be set. */
struct wmat planes_init(int rows, int k, const void *data, const uint8_t *strong);
/* The coarse plane as a matrix. */
struct wmat planes_coarse(const struct wmat *w);

/* Splits a packed Q8_0 panel, whose columns it arranges first, into both planes at dst, as panel i.
 * Returns the largest of its scales, INFINITY where one is negative or no number: such a matrix has
 * no bound. */
float planes_store(const struct wmat *w, uint8_t *dst, int i, uint8_t *packed);

/* Arranges column `col` of x, just filled and ACT_Q8 or ACT_Q16, for products with w. */
void planes_arrange(const struct wmat *w, const struct act *x, int col);

/* Fetches panel i of both planes into the cache. */
void planes_fetch(const struct wmat *w, int i);

/* Fills column `col` of bound from that of x, which is arranged: planes_coarse() times it is no
 * less than w times x but for rounding. Returns what to add for that; not finite when numbers are
 * too large or none, so that there is no bound. */
float planes_bound(const struct wmat *w, const struct act *x, const struct act *bound, int col);

#endif
