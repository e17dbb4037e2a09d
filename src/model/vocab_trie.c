/* vocab_trie.c - the pieces that are matched as they are written: leftmost, longest first.
 *
 * A trie whose edges live in one hash table. A match looks at no more bytes than the longest piece
 * has (MATCH_MAX at most), so a text is cut in time linear in its length. */
#include "model/vocab.h"

#include <stdlib.h>

#include "base/mem.h"

static struct vocab_edge *edge_at(const struct vocab_trie *t, uint32_t key)
{
    uint32_t mask = (1u << t->edge_bits) - 1;
    uint32_t i = key * 0x9e3779b1u >> (32 - t->edge_bits);

    while (t->edges[i].child && t->edges[i].key != key)
        i = (i + 1) & mask;
    return &t->edges[i];
}

static int grow_edges(struct vocab_trie *t)
{
    struct vocab_trie bigger = {.edge_bits = t->edge_bits ? t->edge_bits + 1 : 8};

    if (bigger.edge_bits > 30)
        return GD_ENOMEM;
    bigger.edges = calloc((size_t)1 << bigger.edge_bits, sizeof(*bigger.edges));
    if (!bigger.edges)
        return GD_ENOMEM;
    for (size_t i = 0; t->edge_bits && i < (size_t)1 << t->edge_bits; i++) {
        if (t->edges[i].child)
            *edge_at(&bigger, t->edges[i].key) = t->edges[i];
    }
    free(t->edges);
    t->edges = bigger.edges;
    t->edge_bits = bigger.edge_bits;
    return 0;
}

static int add_node(struct vocab_trie *t, uint32_t *node)
{
    if (t->n_nodes == t->cap_nodes) {
        uint32_t cap = t->cap_nodes ? 2 * t->cap_nodes : 256;
        int32_t *ids = cap > VOCAB_MAX ? NULL : realloc(t->ids, cap * sizeof(*ids));

        if (!ids)
            return GD_ENOMEM;
        t->ids = ids;
        t->cap_nodes = cap;
    }
    t->ids[t->n_nodes] = -1;
    *node = t->n_nodes++;
    return 0;
}

static int step(struct vocab_trie *t, uint32_t *node, unsigned char byte)
{
    uint32_t key = *node << 8 | byte;
    struct vocab_edge *e;

    if (t->edge_bits == 0 || 2 * (uint64_t)t->n_nodes >= (uint64_t)1 << t->edge_bits) {
        if (grow_edges(t) < 0)
            return GD_ENOMEM;
    }
    e = edge_at(t, key);
    if (!e->child) {
        e->key = key;
        if (add_node(t, &e->child) < 0) {
            e->child = 0;
            return GD_ENOMEM;
        }
    }
    *node = e->child;
    return 0;
}

int vocab_trie_add(struct vocab_trie *t, const char *text, size_t len, int32_t id,
    const uint8_t *kind, struct err *err)
{
    uint32_t node = 0, root;

    if (len == 0)
        return 0;
    if (t->n_nodes == 0 && add_node(t, &root) < 0)
        return err_set(err, GD_ENOMEM, "out of memory for the tokenizer");
    for (size_t i = 0; i < len; i++) {
        if (step(t, &node, (unsigned char)text[i]) < 0)
            return err_set(err, GD_ENOMEM, "out of memory for the tokenizer");
    }
    t->starts[(unsigned char)text[0]] = true;
    /* Of two pieces with one text the first counts, but a control token goes before any other. */
    if (t->ids[node] < 0 || (kind[id] == PIECE_CONTROL && kind[t->ids[node]] != PIECE_CONTROL))
        t->ids[node] = id;
    return 0;
}

void vocab_trie_free(struct vocab_trie *t)
{
    free(t->edges);
    free(t->ids);
}

int32_t vocab_match(const struct vocab *v, const char *text, size_t n, bool control, size_t *len)
{
    const struct vocab_trie *t = &v->trie;
    uint32_t node = 0;
    int32_t found = -1;

    if (t->n_nodes == 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        node = edge_at(t, node << 8 | (unsigned char)text[i])->child;
        if (node == 0)
            break;
        if (t->ids[node] >= 0 && (control || v->kind[t->ids[node]] != PIECE_CONTROL)) {
            found = t->ids[node];
            *len = i + 1;
        }
    }
    return found;
}
