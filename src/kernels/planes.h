/* planes.h - a Q8_0 matrix in two planes of 4 bits, to rule rows out after reading half of them.
 *
 *   Q8_0 panel     scales | codes                      of 16 rows
 *   coarse plane   scales | upper halves of the codes  panel after panel: a Q4_0 matrix of its own
 *   fine plane              lower halves               panel after panel, laid out like Q4_0's
 * codes
 *
 * Together they are as large as before and mean the same; matmul_kernels.run and wmat_read_row()
 * take either. A code is 16 u + l with l = 0..15, so
 *
 *   sum of (16 u + l - 128) x  <=  sum of (16 u - 128) x  +  15 (sum of the positive x)
 *
 * for the codes x of an activation: what a row's product can at most be, from its coarse plane. The
 * right side is what the Q4_0 product gives for a column with another offset and scale, so that no
 * kernel knows of it. planes_bound() makes such a column. */
#ifndef KERNELS_PLANES_H
#define KERNELS_PLANES_H

#include "kernels/matmul.h"

/* A [rows, k] Q8_0 matrix in planes over memory the caller owns, as large as without. max_scale is
 * still to be set. */
struct wmat planes_init(int rows, int k, const void *data);
/* The coarse plane as a matrix. */
struct wmat planes_coarse(const struct wmat *w);

/* Splits a packed Q8_0 panel into both planes at dst, as panel i. Returns the largest of its
 * scales, INFINITY where one is negative or no number: such a matrix has no bound. */
float planes_store(const struct wmat *w, uint8_t *dst, int i, const uint8_t *packed);

/* Fetches panel i of both planes into the cache. */
void planes_fetch(const struct wmat *w, int i);

/* Fills column `col` of bound from that of x, both ACT_Q8 or ACT_Q16: planes_coarse() times it is
 * no less than w times x but for rounding. Returns what to add for that; not finite when numbers
 * are too large or none, so that there is no bound. */
float planes_bound(const struct wmat *w, const struct act *x, const struct act *bound, int col);

#endif
