#include "model/vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/vocab_lookup.h"

static const char blank[3] = {'\xe2', '\x96', '\x81'}; /* U+2581 */

static int no_memory(struct err *err)
{
    return err_set(err, GD_ENOMEM, "out of memory for the tokenizer");
}

static void fill(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = -1;
}

int vocab_create(struct vocab **out, const char *key, size_t n, struct err *err)
{
    struct vocab *v;

    if (n == 0 || n > VOCAB_MAX)
        return err_set_at(
            err, GD_EFORMAT, key, "%s has %zu entries, want 1 to %d", key, n, VOCAB_MAX);
    v = xcalloc(1, sizeof(*v));
    v->key = key;
    v->cap = n;
    v->unk = -1;
    fill(v->bytes, 256);
    fill(v->singles, 256);
    fill(v->ascii, 128);
    fill(v->blanks, MERGE_MAX + 1);
    v->at = calloc(n + 1, sizeof(*v->at));
    v->kind = calloc(n, sizeof(*v->kind));
    v->score = calloc(n, sizeof(*v->score));
    v->merge_ids = calloc(n, sizeof(*v->merge_ids));
    if (!v->at || !v->kind || !v->score || !v->merge_ids) {
        vocab_destroy(v);
        return no_memory(err);
    }
    *out = v;
    return 0;
}

void vocab_destroy(struct vocab *v)
{
    if (!v)
        return;
    free(v->text);
    free(v->at);
    free(v->kind);
    free(v->score);
    free(v->merge_ids);
    free(v->slots);
    free(v->joins);
    vocab_trie_free(&v->trie);
    free(v);
}

static int reserve_text(struct vocab *v, size_t len, struct err *err)
{
    size_t cap = v->text_cap ? v->text_cap : 1 << 16;
    char *text;

    if (v->text_len + len > UINT32_MAX)
        return err_set_at(err, GD_EFORMAT, v->key, "%s hold more than 4 GB of text", v->key);
    if (v->text_len + len <= v->text_cap)
        return 0;
    while (cap < v->text_len + len)
        cap *= 2;
    text = realloc(v->text, cap);
    if (!text)
        return no_memory(err);
    v->text = text;
    v->text_cap = cap;
    return 0;
}

/* Appends s with every U+2581 as a blank. */
static void append_shown(struct vocab *v, const char *s, size_t n)
{
    char *out = v->text + v->text_len;

    for (size_t i = 0; i < n;) {
        if (s[i] == blank[0] && n - i >= 3 && memcmp(s + i, blank, 3) == 0) {
            *out++ = ' ';
            i += 3;
        } else {
            *out++ = s[i++];
        }
    }
    v->text_len = (size_t)(out - v->text);
}

static int add_byte(struct vocab *v, const struct vocab_piece *p, struct err *err)
{
    static const char digits[] = "0123456789ABCDEF";

    for (int b = 0; b < 256; b++) {
        const char want[6] = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'};

        if (p->len == sizeof(want) && memcmp(p->text, want, sizeof(want)) == 0) {
            v->text[v->text_len++] = (char)b;
            if (v->bytes[b] < 0)
                v->bytes[b] = (int32_t)v->n;
            return 0;
        }
    }
    return err_set_at(
        err, GD_EFORMAT, v->key, "%s[%zu] is a byte token but not written <0xNN>", v->key, v->n);
}

/* shown: the text as a reader sees it. A run of nothing but blanks is matched where the text has
 * U+2581 itself; the encoder cuts runs of real blanks by v->blanks. */
static int add_match(
    struct vocab *v, const struct vocab_piece *p, const char *shown, size_t n, struct err *err)
{
    char run[3 * MATCH_MAX];
    size_t n_blanks = 0;

    if (!utf8_valid(p->text, p->len))
        return 0; /* it would be found inside a character */
    while (n_blanks < n && shown[n_blanks] == ' ')
        n_blanks++;
    if (n > MATCH_MAX)
        return err_set_at(err, GD_EFORMAT, v->key,
            "%s[%zu] has %zu bytes, more than the %d of a control or user-defined token", v->key,
            v->n, n, MATCH_MAX);
    if (n_blanks < n || n == 0)
        return vocab_trie_add(&v->trie, p->text, p->len, (int32_t)v->n, v->kind, err);
    for (size_t i = 0; i < n; i++)
        memcpy(run + 3 * i, blank, 3);
    if (p->kind == PIECE_ADDED && n >= 2 && n <= MERGE_MAX && v->blanks[n] < 0) {
        v->blanks[n] = (int32_t)v->n;
        v->longest_blanks = n > v->longest_blanks ? n : v->longest_blanks;
    }
    return vocab_trie_add(&v->trie, run, 3 * n, (int32_t)v->n, v->kind, err);
}

static void add_merge(struct vocab *v, const struct vocab_piece *p, size_t n)
{
    /* A blank in a mergeable piece is written U+2581, so a real one can never be met. */
    if (n == 0 || n > MERGE_MAX || memchr(p->text, ' ', p->len) || !utf8_valid(p->text, p->len))
        return;
    v->merge_ids[v->n_merge_ids++] = (uint32_t)v->n;
}

int vocab_add(struct vocab *v, const struct vocab_piece *p, struct err *err)
{
    size_t begin = v->text_len, n;
    int r = reserve_text(v, p->len + 1, err);

    if (r < 0)
        return r;
    if (v->n == v->cap)
        return err_set_at(err, GD_EINTERNAL, v->key, "%s has too many entries", v->key);
    if (isnan(p->score))
        return err_set_at(
            err, GD_EFORMAT, v->key, "the score of %s[%zu] is not a number", v->key, v->n);
    v->kind[v->n] = (uint8_t)p->kind;
    v->score[v->n] = p->score;
    if (p->kind == PIECE_BYTE)
        r = add_byte(v, p, err);
    else
        append_shown(v, p->text, p->len);
    n = v->text_len - begin;
    if (r == 0 && (p->kind == PIECE_ADDED || p->kind == PIECE_CONTROL))
        r = add_match(v, p, v->text + begin, n, err);
    if (r < 0)
        return r;
    if (p->kind == PIECE_NORMAL)
        add_merge(v, p, n);
    if (n == 1 && (p->kind == PIECE_NORMAL || p->kind == PIECE_ADDED)) {
        int32_t *single = &v->singles[(unsigned char)v->text[begin]];

        *single = *single < 0 ? (int32_t)v->n : *single;
    }
    v->at[++v->n] = (uint32_t)v->text_len;
    return 0;
}

struct scored {
    float score;
    uint32_t i; /* into merge_ids */
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->i < y->i ? -1 : x->i > y->i;
}

/* rank[i] of merge_ids[i]: 0 merges first; equal scores share a rank. */
static int rank_pieces(const struct vocab *v, uint32_t *rank, struct err *err)
{
    struct scored *order;
    bool sorted = true;

    for (size_t i = 0; i < v->n_merge_ids; i++) {
        rank[i] = (uint32_t)i;
        sorted = sorted && (i == 0 || v->score[v->merge_ids[i - 1]] > v->score[v->merge_ids[i]]);
    }
    if (sorted)
        return 0;
    order = calloc(v->n_merge_ids, sizeof(*order));
    if (!order)
        return no_memory(err);
    for (size_t i = 0; i < v->n_merge_ids; i++)
        order[i] = (struct scored){v->score[v->merge_ids[i]], (uint32_t)i};
    qsort(order, v->n_merge_ids, sizeof(*order), by_score);
    for (size_t i = 0, r = 0; i < v->n_merge_ids; i++) {
        r += i > 0 && order[i].score != order[i - 1].score;
        rank[order[i].i] = (uint32_t)r;
    }
    free(order);
    return 0;
}

static void note_joins(struct vocab *v, const char *s, size_t n)
{
    uint32_t left, right;

    for (size_t at = vocab_char(s, &left); at < n; left = right) {
        uint32_t bit;

        at += vocab_char(s + at, &right);
        bit = vocab_join(left, right);
        v->joins[bit / 64] |= (uint64_t)1 << bit % 64;
    }
}

/* Of pieces with one text the first is the one that encoding makes. */
static void insert(struct vocab *v, uint32_t id, uint32_t rank)
{
    const char *s = v->text + v->at[id];
    size_t n = v->at[id + 1] - v->at[id], mask = ((size_t)1 << v->slot_bits) - 1, i;
    uint64_t h = vocab_hash(s, n);

    if (vocab_slot(v, s, n))
        return;
    for (i = h & mask; v->slots[i].id_len; i = (i + 1) & mask)
        ;
    v->slots[i] =
        (struct vocab_slot){n <= 8 ? vocab_word(s, n) : h >> 32, rank, id << 8 | (uint32_t)n};
    note_joins(v, s, n);
    if (n == 1)
        v->ascii[(unsigned char)s[0] & 127] = (int32_t)id;
}

static int build_merges(struct vocab *v, struct err *err)
{
    uint32_t *rank = calloc(v->n_merge_ids + 1, sizeof(*rank));
    int r = 0;

    for (v->slot_bits = 4; (size_t)1 << v->slot_bits < 2 * v->n_merge_ids; v->slot_bits++)
        ;
    v->slots = calloc((size_t)1 << v->slot_bits, sizeof(*v->slots));
    v->joins = calloc(((size_t)1 << VOCAB_JOIN_BITS) / 64, sizeof(*v->joins));
    if (!rank || !v->slots || !v->joins)
        r = no_memory(err);
    else
        r = rank_pieces(v, rank, err);
    for (size_t i = 0; r == 0 && i < v->n_merge_ids; i++)
        insert(v, v->merge_ids[i], rank[i]);
    free(rank);
    return r;
}

/* These bytes are in no UTF-8 text. */
static bool never_in_text(int byte)
{
    return byte == 0xc0 || byte == 0xc1 || byte >= 0xf5;
}

int vocab_finish(struct vocab *v, int32_t unk, struct err *err)
{
    char *text;
    int r;

    if (v->n != v->cap)
        return err_set_at(err, GD_EINTERNAL, v->key, "%s lacks entries", v->key);
    r = build_merges(v, err);
    if (r < 0)
        return r;
    for (int b = 0; b < 256; b++) {
        if (v->bytes[b] < 0)
            v->bytes[b] = v->singles[b];
        if (v->bytes[b] < 0 && unk < 0 && !never_in_text(b))
            return err_set_at(err, GD_EFORMAT, v->key,
                "%s has neither a token <0x%02X> nor an unknown token", v->key, b);
    }
    v->unk = unk;
    free(v->score);
    free(v->merge_ids);
    v->score = NULL;
    v->merge_ids = NULL;
    text = realloc(v->text, v->text_len + 1);
    v->text = text ? text : v->text;
    return 0;
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t len)
{
    const struct vocab_slot *slot = vocab_slot(v, text, len);
    size_t n = 0;
    int32_t id;

    if (slot)
        return (int32_t)(slot->id_len >> 8);
    while (n < len && text[n] == ' ')
        n++;
    if (n > 0 && n == len && n <= MERGE_MAX)
        return v->blanks[n];
    n = 0;
    id = vocab_match(v, text, len, true, &n);
    return n == len ? id : -1;
}
