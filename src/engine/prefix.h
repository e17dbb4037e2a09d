/* prefix.h - which pages hold the keys and values of which beginning of a text.
 *
 * A full page belongs to a beginning of 64 * i tokens: its last 64 tokens, after the beginning that
 * ends one page earlier. Beginnings form a tree; a node is found by its parent and its tokens, both
 * compared exactly, so no two texts can be taken for each other. A node is a page of the global
 * group, plus, as long as it is there, the page of the sliding group for the same positions.
 *
 * Taking over a beginning needs every global page of it, and sliding pages only for the last
 * window. Sliding pages that a running text leaves behind are therefore evicted first, unless some
 * prompt has parted from another just there: then the next one will want them. */
#ifndef ENGINE_PREFIX_H
#define ENGINE_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/pages.h"
#include "graph/graph.h"

struct prefix_node {
    uint64_t serial, parent; /* never used twice; parent 0 is the empty text; serial 0: no node */
    int32_t sliding;         /* page, or NO_PAGE */
    int32_t next;            /* in the bucket */
    bool parting;            /* a prompt ended or parted within a window after it */
    int32_t tokens[KV_PAGE];
};

struct prefix {
    struct prefix_node *nodes; /* by global page; NULL: nothing is kept */
    int32_t *buckets;
    uint32_t n_buckets; /* a power of two */
    int32_t *owner;     /* by sliding page: its node, or NO_PAGE */
    uint64_t last_serial, salt;
    struct pages *global, *sliding; /* borrowed */
};

void prefix_init(struct prefix *x, struct pages *global, struct pages *sliding);
void prefix_finish(struct prefix *x);

/* The node that continues `parent` with these KV_PAGE tokens, or NO_PAGE. */
int32_t prefix_find(const struct prefix *x, uint64_t parent, const int32_t *tokens);
/* Makes the page a node; sliding may be NO_PAGE. There must be none for this text. */
void prefix_add(
    struct prefix *x, uint32_t page, int32_t sliding, uint64_t parent, const int32_t *tokens);
/* Gives a node that lost its sliding page another one. */
void prefix_attach(struct prefix *x, uint32_t node, uint32_t sliding);

/* A page of a group with one reference: a free one, or what an idle one held is forgotten. */
uint32_t prefix_take(struct prefix *x, int group);
/* One reference less. evict_first: of sliding pages left behind. */
void prefix_give_back(struct prefix *x, int group, uint32_t page, bool left_behind);

#endif
