/* tokenizer_merge.c - characters -> pieces: the pair that makes the piece of the lowest rank is
 * merged first, of equal ranks the leftmost, until no pair makes a piece.
 *
 * Units of natural text are words: a scan over arrays of a few entries is the fastest then. A long
 * one (a megabyte of base64) goes through a heap, in windows. */
#include <stdlib.h>

#include "model/tokenizer_private.h"
#include "model/vocab_lookup.h"

enum { SHORT_MAX = 48 };
static const uint32_t no_rank = UINT32_MAX;

/* One character that is no piece: its bytes, or the unknown token when one of them has none. */
static void push_bytes(const struct vocab *v, const char *s, size_t n, struct token_list *out)
{
    for (size_t i = 0; i < n; i++) {
        if (v->bytes[(unsigned char)s[i]] < 0) {
            out->ids[out->n++] = v->unk;
            return;
        }
    }
    for (size_t i = 0; i < n; i++)
        out->ids[out->n++] = v->bytes[(unsigned char)s[i]];
}

/* A symbol that was never merged. */
static void push_char(const struct vocab *v, const char *s, size_t n, struct token_list *out)
{
    const struct vocab_slot *slot;

    if (n == 1 && (unsigned char)s[0] < 128 && v->ascii[(unsigned char)s[0]] >= 0) {
        out->ids[out->n++] = v->ascii[(unsigned char)s[0]];
        return;
    }
    slot = vocab_slot(v, s, n);
    if (slot)
        out->ids[out->n++] = (int32_t)(slot->id_len >> 8);
    else
        push_bytes(v, s, n, out);
}

/* Symbol i is text[at[i]..at[i + 1]); merging it with the next one makes piece `pair` of `rank`. */
struct short_unit {
    const struct vocab *v;
    const char *text;
    int n;
    uint32_t at[SHORT_MAX + 1], rank[SHORT_MAX];
    int32_t id[SHORT_MAX], pair[SHORT_MAX];
};

static void look(struct short_unit *u, int i)
{
    const struct vocab_slot *slot = NULL;

    if (i + 1 < u->n)
        slot = vocab_slot(u->v, u->text + u->at[i], u->at[i + 2] - u->at[i]);
    u->rank[i] = slot ? slot->rank : no_rank;
    u->pair[i] = slot ? (int32_t)(slot->id_len >> 8) : -1;
}

static void merge_at(struct short_unit *u, int i)
{
    size_t tail = (size_t)(u->n - i - 2);

    u->id[i] = u->pair[i];
    memmove(u->at + i + 1, u->at + i + 2, (tail + 1) * sizeof(*u->at));
    memmove(u->id + i + 1, u->id + i + 2, tail * sizeof(*u->id));
    memmove(u->rank + i + 1, u->rank + i + 2, tail * sizeof(*u->rank));
    memmove(u->pair + i + 1, u->pair + i + 2, tail * sizeof(*u->pair));
    u->n--;
    look(u, i);
    if (i > 0)
        look(u, i - 1);
}

static void merge_short(struct short_unit *u, struct token_list *out)
{
    for (int i = 0; i < u->n; i++) {
        u->id[i] = -1;
        look(u, i);
    }
    for (;;) {
        int best = 0;

        for (int i = 1; i < u->n; i++)
            best = u->rank[i] < u->rank[best] ? i : best;
        if (u->rank[best] == no_rank)
            break;
        merge_at(u, best);
    }
    for (int i = 0; i < u->n; i++) {
        if (u->id[i] >= 0)
            out->ids[out->n++] = u->id[i];
        else
            push_char(u->v, u->text + u->at[i], u->at[i + 1] - u->at[i], out);
    }
}

/* Symbols of a long text are a list; next of the last one is n. A symbol that was merged into its
 * left neighbour has no rank any more. */
struct link {
    uint32_t at, prev, next;
    uint32_t rank; /* of merging it with the next */
    int32_t id;    /* -1: one character */
};

/* A text with as many characters as `links` holds. Heap keys are rank << 32 | symbol: the smallest
 * is the next merge. A key whose symbol has another rank by now is stale. */
struct long_unit {
    const struct vocab *v;
    const char *text;
    size_t len;
    uint32_t n;
    struct link *links;
    uint64_t *heap; /* a merge takes one key and gives two at most: twice the characters */
    size_t n_heap;
};

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t key = heap[i];

    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (heap[child] >= key)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = key;
}

static void heap_push(struct long_unit *u, uint64_t key)
{
    size_t i = u->n_heap++;

    for (; i > 0 && u->heap[(i - 1) / 2] > key; i = (i - 1) / 2)
        u->heap[i] = u->heap[(i - 1) / 2];
    u->heap[i] = key;
}

static uint64_t heap_pop(struct long_unit *u)
{
    uint64_t key = u->heap[0];

    u->heap[0] = u->heap[--u->n_heap];
    if (u->n_heap)
        sift_down(u->heap, u->n_heap, 0);
    return key;
}

static size_t link_end(const struct long_unit *u, uint32_t i)
{
    return u->links[i].next < u->n ? u->links[u->links[i].next].at : u->len;
}

static const struct vocab_slot *pair_of(const struct long_unit *u, uint32_t i)
{
    if (u->links[i].next == u->n)
        return NULL;
    return vocab_slot(
        u->v, u->text + u->links[i].at, link_end(u, u->links[i].next) - u->links[i].at);
}

static bool look_long(struct long_unit *u, uint32_t i)
{
    const struct vocab_slot *slot = pair_of(u, i);

    u->links[i].rank = slot ? slot->rank : no_rank;
    return slot != NULL;
}

static uint64_t key_of(const struct long_unit *u, uint32_t i)
{
    return (uint64_t)u->links[i].rank << 32 | i;
}

static void merge_link(struct long_unit *u, uint32_t i)
{
    const struct vocab_slot *slot = pair_of(u, i);
    uint32_t right = u->links[i].next;

    u->links[i].id = (int32_t)(slot->id_len >> 8);
    u->links[i].next = u->links[right].next;
    if (u->links[i].next < u->n)
        u->links[u->links[i].next].prev = i;
    u->links[right].rank = no_rank;
    if (look_long(u, i))
        heap_push(u, key_of(u, i));
    if (i > 0 && look_long(u, u->links[i].prev))
        heap_push(u, key_of(u, u->links[i].prev));
}

static void merge_long(struct long_unit *u, const char *text, size_t len)
{
    u->text = text;
    u->len = len;
    u->n = 0;
    for (size_t at = 0; at < len; u->n++) {
        uint32_t c;

        u->links[u->n] = (struct link){(uint32_t)at, u->n - 1, u->n + 1, no_rank, -1};
        at += vocab_char(text + at, &c);
    }
    u->n_heap = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        if (look_long(u, i))
            u->heap[u->n_heap++] = key_of(u, i);
    }
    for (size_t i = u->n_heap / 2; i-- > 0;)
        sift_down(u->heap, u->n_heap, i);
    while (u->n_heap) {
        uint64_t key = heap_pop(u);
        uint32_t i = (uint32_t)key;

        if (u->links[i].rank == key >> 32)
            merge_link(u, i);
    }
}

/* Appends the symbols that end at `end` of the text or before. Returns where they end; *last: where
 * the last of them begins. */
static size_t push_symbols(
    const struct long_unit *u, size_t end, size_t *last, struct token_list *out)
{
    size_t at = 0;

    for (uint32_t i = 0; i < u->n && link_end(u, i) <= end; i = u->links[i].next) {
        *last = u->links[i].at;
        at = link_end(u, i);
        if (u->links[i].id >= 0)
            out->ids[out->n++] = u->links[i].id;
        else
            push_char(u->v, u->text + *last, at - *last, out);
    }
    return at;
}

/* True when text[0..len), merged alone, is two symbols that meet at `seam`. */
static bool seam_holds(struct long_unit *u, const char *text, size_t seam, size_t len)
{
    merge_long(u, text, len);
    return link_end(u, 0) == seam && link_end(u, u->links[0].next) == len;
}

static bool unit_alloc(struct long_unit *u, const struct vocab *v, size_t n)
{
    u->v = v;
    u->links = malloc(n * sizeof(*u->links));
    u->heap = malloc(2 * n * sizeof(*u->heap));
    return u->links && u->heap;
}

static void unit_free(struct long_unit *u)
{
    free(u->links);
    free(u->heap);
}

/* A long text is merged in windows that fit into the fastest cache, each from where the symbols
 * kept of the one before end; of a window its last eighth is not kept. That is the same as merging
 * the text at once if every two neighbours at a seam, merged alone, stay the same two symbols:
 * before the first merge across any border of the kept symbols, what happens between the borders is
 * what happens to the neighbours alone. Returns 1, or 0 when a seam does not hold. */
static int merge_windows(struct long_unit *u, struct long_unit *seam, const char *text, size_t len,
    size_t window, struct token_list *out)
{
    size_t at = 0, left = 0;

    while (at < len) {
        size_t n = len - at, keep = n, last = 0, kept;

        if (n > window) {
            for (n = window; (text[at + n] & 0xc0) == 0x80; n--)
                ; /* whole characters */
            keep = n - n / 8;
        }
        merge_long(u, text + at, n);
        if (at > 0 && !seam_holds(seam, text + left, at - left, at + link_end(u, 0) - left))
            return 0;
        kept = push_symbols(u, keep, &last, out);
        left = at + last;
        at += kept;
    }
    return 1;
}

enum { WINDOW_MIN = 1024 }; /* well above MERGE_MAX: some symbol is always kept */

static int long_unit(
    const struct vocab *v, const char *text, size_t len, struct token_list *out, struct err *err)
{
    struct long_unit seam = {.v = v};
    size_t first = out->n;
    int r = unit_alloc(&seam, v, (size_t)2 * MERGE_MAX) ? 0 : GD_ENOMEM;

    /* A seam fails only in texts made for it; then the windows double, up to the whole text. */
    for (size_t window = WINDOW_MIN; r == 0; window *= 2) {
        struct long_unit u = {.v = v};

        out->n = first;
        r = unit_alloc(&u, v, window < len ? window : len) ? 0 : GD_ENOMEM;
        if (r == 0)
            r = merge_windows(&u, &seam, text, len, window, out);
        unit_free(&u);
    }
    unit_free(&seam);
    return r < 0 ? err_set(err, r, "out of memory for a word of %zu bytes", len) : 0;
}

int merge_unit(
    const struct vocab *v, const char *text, size_t len, struct token_list *out, struct err *err)
{
    struct short_unit u = {.v = v, .text = text};
    size_t at = 0;
    int r = token_list_reserve(out, len, err);

    if (r < 0)
        return r;
    while (at < len && u.n < SHORT_MAX) {
        uint32_t c;

        u.at[u.n++] = (uint32_t)at;
        at += vocab_char(text + at, &c);
    }
    if (at < len)
        return long_unit(v, text, len, out, err);
    u.at[u.n] = (uint32_t)at;
    merge_short(&u, out);
    return 0;
}
