/* graph.h - running a compiled graph.
 *
 * A graph is a flat plan of steps over one arena of buffers, built once (gemmad/flow.h); running it
 * allocates nothing and cannot fail. It reads and writes K/V through page tables the caller owns:
 * layers fall in groups that share one table, group 0 the layers that see every position, group 1
 * those with a sliding window. One thread runs a graph at a time. */
#ifndef GRAPH_GRAPH_H
#define GRAPH_GRAPH_H

#include <stddef.h>
#include <stdint.h>

#include "gemmad/flow.h"
#include "kernels/attention.h"

enum { KV_GROUPS = 2, KV_GLOBAL = 0, KV_SLIDING = 1 };

struct kv_layout {
    enum kv_type type;
    struct kv_group {
        int n_layers;      /* 0: the model has no such layers, and no pages are needed */
        int window;        /* 0 for the global group */
        size_t page_bytes; /* one page of KV_PAGE positions of all layers of the group */
    } group[KV_GROUPS];
};

/* Page p of group g lies at base[g] + p * group[g].page_bytes; bases are 64-byte aligned. */
struct kv_memory {
    uint8_t *base[KV_GROUPS];
};

enum { SHORTLIST_MAX = 128 };

struct logit {
    int32_t id;
    float value;
};

/* Draws from softmax(scale * logits), whose noise key tells (kernels/noise.h). */
struct draw {
    float scale; /* 1 / temperature; 0: nothing is drawn */
    uint64_t key;
};

/* What is wanted of a row of logits instead of the row: its k largest, larger first, lower ids
 * first among equals; or the token drawn from all of it, best[0].
 *
 * With choose() the draw is from a part of the row. The token drawn from all is also the one drawn
 * from a part that it belongs to, so choose() is asked what is drawn when that token is best[i] and
 * best[0..n) are large logits in order, among them all that come before best[i]. It returns a place
 * in best, or -1 when it cannot tell: then the k largest are given, or with row_else the row. */
struct shortlist {
    int k;                                              /* wanted, 1 .. SHORTLIST_MAX */
    struct draw draw;                                   /* wanted instead of the largest */
    int (*choose)(const struct shortlist *list, int i); /* any thread; NULL: all may be drawn */
    const void *user;                                   /* of choose() */
    bool row_else;
    struct logit *best; /* room for k */
    int n;              /* set by the run; 0: the row is in graph_seq.logits instead */
    bool drawn;         /* set by the run: best[0] is a draw */
};

/* One sequence's part of a run. */
struct graph_seq {
    int past;     /* positions already in the cache */
    int n_tokens; /* new ones: 1 in a decode graph, a piece of a prompt in a prefill graph */
    const int32_t *tokens;
    /* Physical page of each logical page (64 positions) up to past + n_tokens; in the sliding group
     * entries wholly below every new token's window may be stale. */
    const uint32_t *pages[KV_GROUPS];
    int n_logits; /* logits of so many new tokens, the last ones but n_after; 0 = none */
    int n_after;
    const float *input; /* a drafter's rows, (n_tokens, 2 * width of the target); NULL otherwise */
    int shift;     /* added to positions where they turn q and k: 0 unless keys were left out */
    float *logits; /* (n_logits, vocab), written by the run; of an embedding graph, with n_logits 1:
                      the sequence's vector, (graph_out_width) */
    /* With n_logits 1: the best may be given instead of the row, which is then undefined. That is
     * up to the graph: it saves half of the head's bytes when it can. NULL: the row. */
    struct shortlist *best;
};

/* A prefill graph takes pieces of up to graph_max_sequences() sequences, together at most
 * graph_max_tokens() long, an embedding graph whole sequences; a decode graph one token of each. */
void graph_run(
    struct graph *g, const struct kv_memory *kv, const struct graph_seq *seqs, int n_seqs);
/* Layer `layer` of a sequence whose page table is `pages`. */
struct kv_view graph_kv_view(
    const struct graph *g, const struct kv_memory *kv, int layer, const uint32_t *pages);
/* Bytes of the head that all runs so far have read, and those they would have read without leaving
 * rows out. Any thread. */
void graph_head_bytes(const struct graph *g, int64_t *read, int64_t *whole);
/* Whether a row's numbers are the same to the bit whichever of two graphs of a model computes it:
 * not where only one leaves products to OpenBLAS. */
bool graph_same_bits(const struct graph *a, const struct graph *b);
void graph_kv_layout(const struct graph *g, struct kv_layout *out);
int graph_n_steps(const struct graph *g);
int graph_max_tokens(const struct graph *g);
int graph_max_sequences(const struct graph *g);

#endif
