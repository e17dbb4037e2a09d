/* runtime.h - one model ready to run: file, shape, tokenizer, packed weights, the two graphs, and
 * the threads under them.
 *
 * What the engine thread and the commands (verify, bench, generate) share. Opened and used by one
 * thread. */
#ifndef ENGINE_RUNTIME_H
#define ENGINE_RUNTIME_H

#include "base/pool.h"
#include "gemmad/err.h"
#include "graph/graph.h"
#include "kernels/kernels.h"
#include "model/hparams.h"
#include "model/source.h"
#include "model/tokenizer.h"

struct runtime_opts {
    const char *model_path;
    const char *profile; /* "default", "precise" or "reference" */
    const char *isa;     /* "auto" or a name */
    const char *kv_type; /* "auto" (bf16 in the default profile where the CPU computes it, else
                            f32), "f32", "bf16" */
    const char *matmul_prefill, *matmul_decode; /* "auto", "native", "blas" */
    const char *quantize; /* float matrices, while loading: "none", "q8_0", "q4_0" */
    const char *head;     /* a float head, while loading: "file", "q8_0", "q6_k", "q4_0" */
    bool screen_head;     /* keep a Q8_0 head so that the best logits are found in a part of it */
    const char *packed_file; /* where the packed weights are kept for the next start; "": nowhere */
    int n_threads;           /* 0 = cpu_allowed() */
    int max_sequences;       /* rows of the decode graph, or together embedded */
    int max_chunk;           /* tokens of the prefill graph */
    bool taps;               /* keep every layer's output of the prefill graph for graph_tap() */
    bool ids_only;           /* no tokenizer is opened (tok stays NULL) */
};

struct packed;
struct weight_store;

struct runtime {
    struct source *src;
    struct hparams hp;
    struct tokenizer *tok;
    struct kernels kernels;
    const char *profile; /* the built-in profile's name, static */
    struct pool *pool;
    struct weight_store *weights;
    struct packed *packed; /* NULL without a packed_file */
    /* The prefill graph takes pieces of prompts of together max_chunk tokens, beside one of each
     * answer. An embedding model (hp.bidirectional) has no decode graph, and its prefill graph
     * takes max_sequences whole sequences of together max_chunk. */
    struct graph *prefill, *decode;
    int max_chunk;
    struct kv_layout kv;
    int64_t n_params;
    size_t weight_bytes; /* resident: packed weights and what stays in the mapping */
};

void runtime_opts_default(struct runtime_opts *o);
int runtime_open(struct runtime **out, const struct runtime_opts *o, struct err *err);
void runtime_close(struct runtime *rt); /* NULL is fine */

#endif
