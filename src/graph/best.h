/* best.h - the k largest of a row so far, as a heap. Private to the graph layer. */
#ifndef GRAPH_BEST_H
#define GRAPH_BEST_H

#include <stdbool.h>

#include "graph/graph.h"

/* The worst of them first. */
struct best {
    int n;
    struct logit heap[SHORTLIST_MAX];
};

/* Larger first, lower ids first among equals. */
bool best_before(const struct logit *a, const struct logit *b);
void best_add(struct best *b, int k, struct logit new);
/* n values of rows id, id + 1, ... */
void best_add_rows(struct best *b, int k, int id, const float *values, int n);
/* Below this nothing is among the k best any more. */
float best_floor(const struct best *b, int k);
/* Sorts them; they are no heap then. */
void best_sort(struct best *b);

#endif
