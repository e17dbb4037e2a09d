#include "engine/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"

void prefix_init(struct prefix *x, struct pages *global, struct pages *sliding)
{
    *x = (struct prefix){.global = global, .sliding = sliding, .n_buckets = 1};
    while (x->n_buckets < global->n)
        x->n_buckets *= 2;
    x->nodes = xcalloc(global->n, sizeof(*x->nodes));
    x->buckets = xcalloc(x->n_buckets, sizeof(*x->buckets));
    x->owner = xcalloc(sliding->n, sizeof(*x->owner));
    for (uint32_t i = 0; i < x->n_buckets; i++)
        x->buckets[i] = NO_PAGE;
    for (uint32_t i = 0; i < sliding->n; i++)
        x->owner[i] = NO_PAGE;
    /* Nobody outside can choose texts that share a bucket. */
    if (getrandom(&x->salt, sizeof(x->salt), GRND_NONBLOCK) != (ssize_t)sizeof(x->salt))
        x->salt = (uint64_t)clock_ns();
}

void prefix_finish(struct prefix *x)
{
    free(x->nodes);
    free(x->buckets);
    free(x->owner);
}

static int32_t *bucket_of(const struct prefix *x, uint64_t parent, const int32_t *tokens)
{
    uint64_t h = x->salt ^ parent;

    for (int i = 0; i < KV_PAGE; i++) {
        h = (h ^ (uint32_t)tokens[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return &x->buckets[h & (x->n_buckets - 1)];
}

int32_t prefix_find(const struct prefix *x, uint64_t parent, const int32_t *tokens)
{
    int32_t node = *bucket_of(x, parent, tokens);

    while (node != NO_PAGE &&
           (x->nodes[node].parent != parent ||
               memcmp(x->nodes[node].tokens, tokens, sizeof(x->nodes[node].tokens)) != 0))
        node = x->nodes[node].next;
    return node;
}

void prefix_add(
    struct prefix *x, uint32_t page, int32_t sliding, uint64_t parent, const int32_t *tokens)
{
    struct prefix_node *n = &x->nodes[page];
    int32_t *bucket = bucket_of(x, parent, tokens);

    assert(n->serial == 0);
    n->serial = ++x->last_serial;
    n->parent = parent;
    n->sliding = NO_PAGE;
    n->parting = false;
    memcpy(n->tokens, tokens, sizeof(n->tokens));
    n->next = *bucket;
    *bucket = (int32_t)page;
    if (sliding != NO_PAGE)
        prefix_attach(x, page, (uint32_t)sliding);
}

void prefix_attach(struct prefix *x, uint32_t node, uint32_t sliding)
{
    assert(x->nodes[node].sliding == NO_PAGE && x->owner[sliding] == NO_PAGE);
    x->nodes[node].sliding = (int32_t)sliding;
    x->owner[sliding] = (int32_t)node;
}

/* The global page will hold something else: what follows its text can't be reached any more and
 * goes when it is the oldest. */
static void forget_node(struct prefix *x, uint32_t page)
{
    struct prefix_node *n = &x->nodes[page];
    int32_t *at = bucket_of(x, n->parent, n->tokens), sliding = n->sliding;

    while (*at != (int32_t)page)
        at = &x->nodes[*at].next;
    *at = n->next;
    n->serial = 0;
    if (sliding == NO_PAGE)
        return;
    x->owner[sliding] = NO_PAGE;
    if (x->sliding->refs[sliding] == 0) {
        pages_unlink(x->sliding, (uint32_t)sliding);
        pages_free(x->sliding, (uint32_t)sliding);
    }
}

uint32_t prefix_take(struct prefix *x, int group)
{
    struct pages *p = group == KV_GLOBAL ? x->global : x->sliding;
    uint32_t page;

    if (p->n_free == 0) {
        assert(p->oldest != NO_PAGE);
        page = (uint32_t)p->oldest;
        pages_unlink(p, page);
        pages_free(p, page);
        if (group == KV_GLOBAL) {
            forget_node(x, page);
        } else {
            x->nodes[x->owner[page]].sliding = NO_PAGE;
            x->owner[page] = NO_PAGE;
        }
    }
    return pages_take_free(p);
}

void prefix_give_back(struct prefix *x, int group, uint32_t page, bool left_behind)
{
    struct pages *p = group == KV_GLOBAL ? x->global : x->sliding;

    assert(p->refs[page] > 0);
    if (--p->refs[page] > 0)
        return;
    if (group == KV_GLOBAL && x->nodes && x->nodes[page].serial)
        pages_idle(p, page, false);
    else if (group == KV_SLIDING && x->owner && x->owner[page] != NO_PAGE)
        pages_idle(p, page, left_behind && !x->nodes[x->owner[page]].parting);
    else
        pages_free(p, page);
}
