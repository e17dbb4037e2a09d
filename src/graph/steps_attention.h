/* steps_attention.h - what a plan sets aside for its attention steps. Private to the graph layer.
 */
#ifndef GRAPH_STEPS_ATTENTION_H
#define GRAPH_STEPS_ATTENTION_H

#include "graph/carve.h"
#include "graph/plan.h"

/* Room for the rows whose keys are shared out. */
void attention_carve(struct graph *g, struct carver *c);

#endif
