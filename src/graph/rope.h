/* rope.h - cos and sin rows: what a build and a run call. Private to the graph layer. */
#ifndef GRAPH_ROPE_H
#define GRAPH_ROPE_H

#include "graph/plan.h"

/* Takes the factors of the frequencies, as a build takes its weights. */
int rope_take_factors(struct graph *g, struct weight_store *store, struct err *err);
/* Fills g->inv_freq, which have been allocated, and makes the tables where they are asked for. */
int rope_prepare(struct graph *g, struct err *err);
/* The bytes of all tables of n_positions; false when they overflow. */
bool rope_table_bytes(const struct hparams *hp, int n_positions, size_t *out);

#endif
