/* flow.h - private to the graph layer: the flow and the blocks that write it down. */
#ifndef GRAPH_FLOW_H
#define GRAPH_FLOW_H

#include "gemmad/flow.h"
#include "graph/ir.h"
#include "model/hparams.h"

enum { FLOW_MAX_ROWS = 8192 };

struct flow {
    const struct hparams *hp; /* borrowed */
    struct flow_options options;
    struct ir ir;
};

/* Building blocks: each adds operations and returns the value that holds the result. */
int flow_norm(struct flow *f, int layer, int x, const char *name, struct ir_weight w);
int flow_linear(struct flow *f, int layer, int x, const char *name, struct ir_weight w);
int flow_layer(struct flow *f, int layer,
    int h); /* one transformer layer: residual stream in, residual stream out */
void flow_tap(struct flow *f, int value);

#endif
