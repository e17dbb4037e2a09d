/* kv.h - the pages that keys and values live in, and who holds them.
 *
 * Layers fall in two groups (graph/graph.h): the global ones keep every position, the sliding ones
 * only what their window still reaches. Each group has its own pages of KV_PAGE positions, with
 * reference counts: sequences over one prompt share its pages, and a page that is shared is copied
 * before it is written.
 *
 * Full pages are kept after their sequence has gone, the least recently used going first when pages
 * are wanted: a later prompt that begins with the same tokens takes them over (prefix.h).
 *
 * A table lists the pages of one sequence. The memory is reserved at once, but a page that was
 * never handed out costs nothing resident. Engine thread only. */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/err.h"
#include "graph/graph.h"

struct kv;

/* What a budget of memory holds. */
struct kv_plan {
    int ctx_tokens; /* as asked, or what one sequence can have */
    uint32_t n_pages[KV_GROUPS];
    size_t bytes;
};

struct kv_need {
    int ctx_tokens; /* longest sequence; with shrink_ctx an upper bound */
    bool shrink_ctx;
    int max_sequences, max_chunk;
    bool no_prefixes; /* no room for beginnings that are only kept for later prompts */
};

/* Splits at most `budget` bytes between the groups by need: max_sequences of ctx_tokens if that
 * fits, else as much as there is. GD_ENOMEM with the numbers when not even one sequence of
 * ctx_tokens fits. */
int kv_plan(struct kv_plan *out, const struct kv_layout *layout, const struct kv_need *need,
    size_t budget, struct err *err);

/* keep_prefixes: computed beginnings are kept for later sequences that begin the same. */
int kv_open(struct kv **out, const struct kv_layout *layout, const struct kv_plan *plan,
    bool keep_prefixes, struct err *err);
void kv_close(struct kv *kv); /* NULL is fine */
const struct kv_memory *kv_memory(const struct kv *kv);

/* Pages that could be had: free, or kept for a beginning that nobody holds. */
uint32_t kv_free_pages(const struct kv *kv, int group);
uint32_t kv_total_pages(const struct kv *kv, int group);
/* Pages in use, 0..1, of the fuller group. */
double kv_used(const struct kv *kv);

/* Pages of a group that a sequence holds at most while positions [0, n) are computed in pieces of
 * up to max_chunk. */
uint32_t kv_pages_for(const struct kv *kv, int group, int n, int max_chunk);

/* Logical page i is pages[g][i] for first[g] <= i < n[g]; entries below first are stale. */
struct kv_table {
    uint32_t *pages[KV_GROUPS];
    int n[KV_GROUPS], first[KV_GROUPS];
    int cap;
    int n_known;    /* pages whose text kv_commit() has made known, */
    uint64_t known; /* up to this node of prefix.h; 0 = none */
};
/* Room for sequences of ctx_tokens. */
void kv_table_init(struct kv_table *t, int ctx_tokens);
/* The pages must have been dropped. */
void kv_table_finish(struct kv_table *t);

/* Makes positions [past, end) writable: takes the pages that are missing and copies those that are
 * shared. False, and nothing changed, when there are not enough free pages. */
bool kv_reserve(struct kv *kv, struct kv_table *t, int past, int end);
/* Positions below `next` are computed: gives back sliding pages that no later query reads. */
void kv_trim(struct kv *kv, struct kv_table *t, int next);
/* tokens[0..past) are computed: full pages are kept for others to adopt. Call it before kv_trim().
 */
void kv_commit(struct kv *kv, struct kv_table *t, const int32_t *tokens, int past);
/* If more of tokens[0..limit) than the first `past` is known, takes over its pages; returns how
 * many positions are computed then. Does nothing unless past ends a page. */
int kv_adopt(struct kv *kv, struct kv_table *t, const int32_t *tokens, int past, int limit);
/* Both have computed the same full pages so far, and b nothing else. */
bool kv_same_text(const struct kv *kv, const struct kv_table *a, const struct kv_table *b);
/* dst (empty) shares every page of src. */
void kv_share(struct kv *kv, struct kv_table *dst, const struct kv_table *src);
/* Gives every page back. */
void kv_drop(struct kv *kv, struct kv_table *t);
/* Pages a table holds in a group. */
uint32_t kv_held(const struct kv_table *t, int group);

#endif
