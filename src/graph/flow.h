/* flow.h - private to the graph layer: the flow and the blocks that write it down. */
#ifndef GRAPH_FLOW_H
#define GRAPH_FLOW_H

#include "gemmad/flow.h"
#include "graph/ir.h"
#include "model/hparams.h"

enum { FLOW_MAX_ROWS = 8192 };

enum { FLOW_MAX_STREAMS = 4, FLOW_MAX_WINDOW = 1 << 24 };

struct flow {
    const struct hparams *hp; /* borrowed */
    struct flow_options options;
    struct ir ir;
    int per_layer; /* value with every layer's input embeddings side by side, -1 none */
    int streams[FLOW_MAX_STREAMS]; /* AltUp: the residual streams, [0] is the active one */
    int asked_layer; /* from its attention on, only the rows that are asked for; -1 none */
    struct flow_layer_info attention; /* window, scale and softcap of the layer being written */
    bool complete;      /* the model's own layers and head, and nothing in their place */
    struct err mistake; /* code != 0: the first one a hook made */
};

/* Building blocks: each adds operations and returns the value that holds the result. layer < 0:
 * outside. */
int flow_value(struct flow *f, int layer, enum ir_rows rows, int width, const char *name);
int flow_norm(struct flow *f, int layer, int x, const char *name,
    struct ir_weight w); /* no name in w: no weight */
int flow_linear(struct flow *f, int layer, int x, const char *name, struct ir_weight w);
int flow_add(struct flow *f, int layer, int x, int y, const char *name);
int flow_scale(struct flow *f, int layer, int x, float factor, const char *name);
int flow_geglu(struct flow *f, int layer, int gate, int up, const char *name);
/* Any operation of one input and one output. */
int flow_unary(struct flow *f, enum ir_op op, int layer, int x, const char *name);
struct ir_weight flow_layer_weight(
    int layer, const char *name, int rows, int k); /* blk.LAYER.NAME.weight */
void flow_tap(struct flow *f, int value);

/* The ROWS_OUT rows of x in the layer that narrows to them; x itself in every other. */
int flow_asked_rows(struct flow *f, int layer, int x);

/* Parts of a layer. attention: normed input -> output of the o projection; feed_forward: normed
 * input -> down. */
int flow_attention(struct flow *f, int layer, int x);
int flow_feed_forward(struct flow *f, int layer, int x);
/* gelu(gate h) * this layer's input embedding, projected back and normed. */
int flow_per_layer_input(struct flow *f, int layer, int h);

/* One transformer layer: residual stream in, residual stream out. The AltUp form works on
 * f->streams. */
int flow_layer(struct flow *f, int layer, int h);
int flow_altup_layer(struct flow *f, int layer, int h);

int flow_n_layers(const struct flow *f);
void flow_layer_describe(const struct hparams *hp, int layer, struct flow_layer_info *out);
/* `got` when it is a value of the same width as `like`; otherwise remembers the mistake and gives
 * like. */
int flow_checked(struct flow *f, int got, int like);

/* What stands before the layers and after them. */
void flow_per_layer_embeddings(struct flow *f, int h);
void flow_altup_streams(struct flow *f, int h);
int flow_altup_merge(struct flow *f);

#endif
