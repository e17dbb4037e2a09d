/* flow.h - describe a Gemma graph, compile it, look at it.
 *
 * A flow says what is computed: mode, sizes, outputs, how deep. flow_build() turns it into a graph:
 *
 *   flow -> IR (typed operations on [rows, width] values) -> passes (constants, fusion, dead code)
 *        -> plan (steps over one arena; one step is one parallel phase, steps are separated by
 * barriers)
 *
 * Rows are symbolic: TOKENS is the number of new tokens of a run, OUT the number of tokens whose
 * logits or hidden states are asked for. Everything else is fixed when the graph is built.
 *
 * A flow and a build belong to one thread; the graph then runs on one thread at a time
 * (graph/graph.h). */
#ifndef GEMMAD_FLOW_H
#define GEMMAD_FLOW_H

#include <stdbool.h>

#include "gemmad/err.h"

struct buf;
struct flow;
struct graph;
struct hparams;
struct kernels;
struct pool;
struct weight_store;

enum flow_mode { FLOW_PREFILL, FLOW_DECODE };

enum flow_output {
    FLOW_LAST_LOGITS, /* logits of the rows a run asks for (graph_seq.n_logits) */
    FLOW_HIDDEN       /* final-norm hidden states of those rows, (n_logits, width), no head */
};

struct flow_options {
    enum flow_mode mode;
    int batch; /* sequences of a run: 1 in prefill, up to this many in decode */
    int seq;   /* prefill: most new tokens of a run; decode: 1 */
    enum flow_output output;
    int effective_layers; /* stop after this many layers; 0 = all */
    bool taps; /* keep every stage's output for graph_tap(): embedding, layers, norm input and
                  output */
};

/* batch 1, seq 128, logits of the rows asked for, all layers. */
void flow_prefill_options(struct flow_options *o);
/* the same with batch sequences of one token each. */
void flow_decode_options(struct flow_options *o, int batch);

enum fusion_policy {
    FUSION_DIRECT, /* every operation its own step */
    FUSION_FUSABLE /* norms, residuals, rotations and activations fold into their neighbours: five
                      steps a layer */
};

enum backend_choice { BACKEND_AUTO, BACKEND_NATIVE, BACKEND_BLAS };

struct flow_profile {
    bool exact; /* f32 activations in plain order instead of 8-bit or bf16 ones */
    enum fusion_policy fusion;
    enum backend_choice matmul; /* of this mode's phase */
    enum { FLOW_KV_F32, FLOW_KV_BF16 } kv;
};

/* reference: exact, direct, f32 pages. default: quantised activations, fusable. */
void flow_profile_reference(struct flow_profile *p);
void flow_profile_default(struct flow_profile *p);

/* hp is borrowed until flow_destroy. GD_EINVAL names the option that cannot be. */
int flow_create(
    struct flow **out, const struct hparams *hp, const struct flow_options *o, struct err *err);
void flow_destroy(struct flow *f); /* NULL is fine */

/* Compiles. Each weight is taken once by its name from the store; GD_EFORMAT names one that is
 * missing, has another shape, or is left over. The store, pool and kernels must outlive the graph;
 * pool may be NULL. */
int flow_build(struct graph **out, const struct flow *f, const struct flow_profile *p,
    struct weight_store *weights, const struct kernels *k, struct pool *pool, struct err *err);

/* One line per operation and per step, for people; dot: a Graphviz digraph instead. */
void graph_print(const struct graph *g, bool dot, struct buf *out);

/* After a run of a graph built with taps: rows of the named stage ("embedding", "layer 3", "norm
 * input", "norm output"), (rows, width) row-major, valid until the next run; NULL when there is no
 * such stage. */
const float *graph_tap(const struct graph *g, const char *stage, int *rows, int *width);

#endif
