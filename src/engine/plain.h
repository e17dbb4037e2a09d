/* plain.h - K/V memory without an allocator, for tools and tests: every sequence owns its pages
 * from the start. */
#ifndef ENGINE_PLAIN_H
#define ENGINE_PLAIN_H

#include "engine/runtime.h"

struct plain_kv {
    struct kv_memory memory;
    size_t bytes[KV_GROUPS];
    uint32_t *table;     /* (n_seqs, n_pages), the same for both groups */
    int n_seqs, n_pages; /* pages per sequence */
};

int plain_kv_create(
    struct plain_kv *kv, const struct runtime *rt, int n_seqs, int n_positions, struct err *err);
void plain_kv_free(struct plain_kv *kv); /* zeroed is fine */

/* Appends n tokens to sequence seq, which holds `past` positions, in pieces of at most `chunk`
 * tokens through the prefill graph. logits, (vocab), of the last token; NULL = none. */
void plain_feed(struct runtime *rt, struct plain_kv *kv, int seq, int past, const int32_t *tokens,
    int n, int chunk, float *logits);
/* One decode step over sequences 0..n-1: past[i], token[i]; logits (n, vocab) or NULL. */
void plain_decode(struct runtime *rt, struct plain_kv *kv, const int *past, const int32_t *tokens,
    int n, float *logits);
/* The same with a list per sequence (graph.h): its k largest logits, or n = 0 and the row. */
void plain_decode_best(struct runtime *rt, struct plain_kv *kv, const int *past,
    const int32_t *tokens, int n, float *logits, struct shortlist *best);

#endif
