/* select.h - the best of many, without sorting them. Used by the sampler alone. */
#ifndef ENGINE_SELECT_H
#define ENGINE_SELECT_H

#include <stdbool.h>

#include "engine/sampler.h"

/* The total order: smaller key first, then smaller id. */
bool select_before(const struct candidate *a, const struct candidate *b);

/* Every value >= threshold of row[0..n) into out (room for n), ids ascending, key = -logit. Returns
 * how many. NaN is never among them. */
int select_above(const float *row, int n, float threshold, struct candidate *out);

/* The k (<= n) largest values, lower ids first on ties, in no particular order; key = -logit. out
 * has room for n. Fewer come back only when the row holds NaN. */
int select_largest(const float *row, int n, int k, struct candidate *out);

/* Moves the shortest beginning of c (in select_before order) whose masses reach target to the front
 * and returns its length: at least 1, n when the target is never reached. Expected linear time. */
int select_mass(struct candidate *c, int n, double target);

#endif
