/* pack.h - a tensor's rows packed into panels by all threads, quantised on the way where the packed
 * type is another. Private to the graph layer. */
#ifndef GRAPH_PACK_H
#define GRAPH_PACK_H

#include <stdint.h>

#include "base/pool.h"
#include "gemmad/err.h"
#include "kernels/matmul.h"
#include "model/source.h"

/* Packs the n matrices [w->rows, w->k] that lie one after the other in t into dst, wmat_bytes(w)
 * each; only one, when it goes in planes, and then sets w->max_scale. Another type than t's: Q8_0,
 * Q6_K or Q4_0 from floats. t's part of the file mapping may be dropped afterwards. pool NULL: the
 * caller alone. GD_ENOMEM. */
int pack_matrices(struct pool *pool, const struct tensor *t, struct wmat *w, int n, uint8_t *dst,
    struct err *err);

#endif
