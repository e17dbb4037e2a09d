/* stats.h - counting times. Bounds are in gemmad/engine.h. */
#ifndef ENGINE_STATS_H
#define ENGINE_STATS_H

#include "gemmad/engine.h"

void histogram_add(struct histogram *h, double seconds);

#endif
