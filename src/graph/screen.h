/* screen.h - the best of each row, by leaving panels out that cannot hold them. Private to the
 * graph layer. */
#ifndef GRAPH_SCREEN_H
#define GRAPH_SCREEN_H

#include "graph/head.h"

/* Every thread's part of it: its lists get what is among the best. False: nothing was done. */
bool head_screened(struct graph *g, struct step *s, const struct act *x, int thread);

#endif
