/* partial.h - a draw from a part of a row of which only the largest logits are known. Used by the
 * sampler alone. */
#ifndef ENGINE_PARTIAL_H
#define ENGINE_PARTIAL_H

#include "graph/graph.h"

/* shortlist.choose() for draws that top_k, top_p and min_p of list->user, a struct sampling,
 * truncate. With any row that the list fits, the place of what sampler_pick() draws, or -1. */
int partial_draw(const struct shortlist *list, int i);

#endif
