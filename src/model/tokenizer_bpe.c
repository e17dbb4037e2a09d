/* tokenizer_bpe.c - the Gemma 4 tokenizer of a GGUF: pieces, types, and merges ("A B") in order.
 *
 * As in tokenizer.json every way to cut a piece in two is among the merges and they stand together,
 * so the first merge that makes a piece ranks it; scores say nothing. Runs of blanks and of line
 * breaks are pieces like others. A piece of several characters that no merge makes is never
 * made, unless it is a mark like <table>: those are added tokens of tokenizer.json, and converters
 * lose their type. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/tokenizer_private.h"
#include "model/vocab_lookup.h"

#define TOKENS "tokenizer.ggml.tokens"
#define TYPES "tokenizer.ggml.token_type"
#define MERGES "tokenizer.ggml.merges"

enum { TYPE_CONTROL = 3 };

struct reader {
    struct source_array tokens, types, merges;
    int32_t *rank;   /* of the first merge that makes it, -1: none; by id */
    uint32_t *slots; /* id + 1 by text */
    int slot_bits;
    struct err *err;
};

static int array(struct reader *r, const struct source *src, const char *key, uint64_t n,
    struct source_array *out)
{
    int e = source_array(src, key, out, r->err);

    if (e < 0)
        return e;
    if (e == 0)
        return err_set_at(r->err, GD_EFORMAT, key, "%s is missing", key);
    if (n && out->n != n)
        return err_set_at(r->err, GD_EFORMAT, key, "%s has %llu entries, but " TOKENS " has %llu",
            key, (unsigned long long)out->n, (unsigned long long)n);
    return 0;
}

static int not_strings(struct reader *r, const char *key)
{
    return err_set_at(r->err, GD_EFORMAT, key, "%s is not a list of strings", key);
}

static uint32_t *slot_of(struct reader *r, const char *text, size_t len)
{
    size_t mask = ((size_t)1 << r->slot_bits) - 1, i = vocab_hash(text, len) & mask;

    for (; r->slots[i]; i = (i + 1) & mask) {
        const char *there;
        size_t n;

        source_array_str(&r->tokens, r->slots[i] - 1, &there, &n);
        if (n == len && memcmp(there, text, len) == 0)
            break;
    }
    return &r->slots[i];
}

/* Of two pieces with one text the first is made. */
static int index_tokens(struct reader *r)
{
    for (r->slot_bits = 4; (uint64_t)1 << r->slot_bits < 2 * r->tokens.n; r->slot_bits++)
        ;
    r->slots = calloc((size_t)1 << r->slot_bits, sizeof(*r->slots));
    r->rank = malloc(r->tokens.n * sizeof(*r->rank));
    if (!r->slots || !r->rank)
        return err_set(r->err, GD_ENOMEM, "out of memory for the tokenizer");
    for (uint64_t id = 0; id < r->tokens.n; id++) {
        const char *text;
        uint32_t *slot;
        size_t len;

        if (!source_array_str(&r->tokens, id, &text, &len))
            return not_strings(r, TOKENS);
        r->rank[id] = -1;
        slot = slot_of(r, text, len);
        *slot = *slot ? *slot : (uint32_t)id + 1;
    }
    return 0;
}

static int rank_merges(struct reader *r)
{
    struct buf both = {0};
    int e = 0;

    for (uint64_t i = 0; e == 0 && i < r->merges.n; i++) {
        const char *text, *blank = NULL;
        uint32_t slot = 0;
        size_t len;

        if (!source_array_str(&r->merges, i, &text, &len)) {
            e = not_strings(r, MERGES);
            break;
        }
        if (len > 1)
            blank = memchr(text + 1, ' ', len - 1);
        if (blank) {
            buf_clear(&both);
            buf_append(&both, text, (size_t)(blank - text));
            buf_append(&both, blank + 1, len - 1 - (size_t)(blank - text));
            slot = *slot_of(r, both.data, both.len);
        }
        if (slot == 0)
            e = err_set_at(r->err, GD_EFORMAT, MERGES,
                MERGES "[%llu] is not two pieces that make a third", (unsigned long long)i);
        else if (r->rank[slot - 1] < 0)
            r->rank[slot - 1] = (int32_t)i;
    }
    buf_free(&both);
    return e;
}

static bool is_char(const char *s, size_t len)
{
    uint32_t c;
    size_t bad;

    return len > 0 && utf8_decode(s, len, &c, &bad) == len;
}

static bool is_mark(const char *s, size_t len)
{
    return len > 2 && ((s[0] == '<' && s[len - 1] == '>') || (s[0] == '[' && s[len - 1] == ']'));
}

static int add_piece(struct reader *r, struct vocab *v)
{
    uint64_t id = v->n;
    struct vocab_piece p = {0};
    int64_t type;
    int kind;

    if (!source_array_str(&r->tokens, id, &p.text, &p.len))
        return not_strings(r, TOKENS);
    if (!source_array_int(&r->types, id, &type))
        return err_set_at(r->err, GD_EFORMAT, TYPES, TYPES " is not a list of integers");
    kind = tokenizer_kind_of_type(type, p.text, p.len);
    if (kind < 0)
        return err_set_at(r->err, GD_EFORMAT, TYPES, TYPES "[%llu] is %lld, want 1 to 6",
            (unsigned long long)id, (long long)type);
    /* These files are right where they say control: <mask> is, which in older ones is not. */
    p.kind = type == TYPE_CONTROL ? PIECE_CONTROL : (enum piece_kind)kind;
    p.score = r->rank[id] < 0 ? -FLT_MAX : -(float)r->rank[id];
    if (p.kind == PIECE_NORMAL && r->rank[id] < 0 && !is_char(p.text, p.len))
        p.kind = is_mark(p.text, p.len) ? tokenizer_kind(p.text, p.len, false) : PIECE_UNUSED;
    return vocab_add(v, &p, r->err);
}

int tokenizer_read_bpe(struct vocab **out, const struct source *src, struct err *err)
{
    struct reader r = {.err = err};
    int e = array(&r, src, TOKENS, 0, &r.tokens);

    if (e == 0)
        e = array(&r, src, TYPES, r.tokens.n, &r.types);
    if (e == 0)
        e = array(&r, src, MERGES, 0, &r.merges);
    if (e == 0 && r.merges.n > VOCAB_MAX) /* ranks are exact as floats */
        e = err_set_at(err, GD_EFORMAT, MERGES, MERGES " has more than %d entries", VOCAB_MAX);
    if (e == 0)
        e = vocab_create(out, TOKENS, r.tokens.n, err); /* bounds the pieces, too */
    if (e == 0)
        e = index_tokens(&r);
    if (e == 0)
        e = rank_merges(&r);
    for (uint64_t i = 0; e == 0 && i < r.tokens.n; i++)
        e = add_piece(&r, *out);
    free(r.rank);
    free(r.slots);
    return e;
}
