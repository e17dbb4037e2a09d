/* tokenizer_json.c - Hugging Face's tokenizer.json -> the pieces of a vocabulary.
 *
 * The file lists which two pieces merge into a third, best first. Every way to cut a piece in two
 * is in the list and they stand together, so the first merge that makes a piece ranks it, and the
 * encoder needs only the rank. A piece of several characters that no merge makes is never made.
 *
 * An added token's `lstrip` is not applied (some files have it for <mask>, which is never
 * written); other switches that would change the text are refused. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/tokenizer_private.h"
#include "model/tokenizer_scan.h"
#include "model/vocab_lookup.h"

#define NAME "tokenizer.json"

struct row {
    uint32_t at, len; /* in texts */
    int32_t rank;     /* of the first merge that makes it, -1: none */
    uint8_t kind;
    bool there, added;
};

struct reader {
    struct scan s;
    struct err *err;
    struct buf texts;
    struct row *rows; /* by id */
    size_t n, cap;
    uint32_t *slots; /* id + 1 by text */
    int slot_bits;
    const char *added, *vocab, *merges; /* where these values begin; NULL: absent */
    bool byte_fallback;
};

static int wrong(struct reader *r, const char *what)
{
    return err_set_at(
        r->err, GD_EFORMAT, NAME, NAME ": %s (at byte %zu)", what, (size_t)(r->s.at - r->s.begin));
}

static int unsupported(struct reader *r, const char *what)
{
    return err_set_at(r->err, GD_ENOTSUP, NAME, NAME ": %s, which no Gemma has", what);
}

static int bad_json(struct reader *r)
{
    return r->s.bad ? wrong(r, "not the JSON that is expected") : 0;
}

/* Row id, growing the table. An entry has five bytes or more, so ids that leave no gaps are below a
 * fourth of the file's length: a file cannot ask for much more memory than it has bytes. */
static struct row *row_at(struct reader *r, int64_t id)
{
    if (id < 0 || id >= VOCAB_MAX || id > (r->s.end - r->s.begin) / 4)
        return NULL;
    if ((size_t)id >= r->cap) {
        size_t cap = r->cap ? r->cap : 4096;
        struct row *rows;

        while (cap <= (size_t)id)
            cap *= 2;
        rows = realloc(r->rows, cap * sizeof(*rows));
        if (!rows)
            return NULL;
        memset(rows + r->cap, 0, (cap - r->cap) * sizeof(*rows));
        r->rows = rows;
        r->cap = cap;
    }
    if ((size_t)id >= r->n)
        r->n = (size_t)id + 1;
    return &r->rows[id];
}

static int set_row(struct reader *r, int64_t id, const char *text, size_t len, struct row **out)
{
    struct row *row = row_at(r, id);

    if (!row)
        return wrong(r, "an id is out of range");
    if (r->texts.len + len > UINT32_MAX)
        return wrong(r, "more than 4 GB of text");
    if (!row->there)
        row->rank = -1;
    row->there = true;
    row->at = (uint32_t)r->texts.len;
    row->len = (uint32_t)len;
    buf_append(&r->texts, text, len);
    *out = row;
    return 0;
}

static bool is_byte(const char *s, size_t len)
{
    return len == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' &&
           strspn((const char[]){s[3], s[4], 0}, "0123456789ABCDEF") == 2;
}

static int read_vocab(struct reader *r)
{
    r->s.at = r->vocab;
    for (bool more = scan_open(&r->s, '{'); more; more = scan_more(&r->s, '}')) {
        struct row *row;
        const char *text;
        size_t len, at = r->texts.len;
        int64_t id;
        int e;

        scan_key(&r->s, &text, &len);
        buf_append(&r->texts, text, len); /* before the id is known: the text is borrowed */
        id = scan_int(&r->s);
        if (r->s.bad)
            break;
        if (id >= 0 && (size_t)id < r->n && r->rows[id].there)
            return wrong(r, "two pieces have one id");
        e = set_row(r, id, "", 0, &row);
        if (e < 0)
            return e;
        row->at = (uint32_t)at;
        row->len = (uint32_t)len;
        row->kind =
            r->byte_fallback && is_byte(r->texts.data + at, len) ? PIECE_BYTE : PIECE_NORMAL;
    }
    return bad_json(r);
}

static uint32_t *slot_of(struct reader *r, const char *text, size_t len)
{
    size_t mask = ((size_t)1 << r->slot_bits) - 1, i = vocab_hash(text, len) & mask;

    for (; r->slots[i]; i = (i + 1) & mask) {
        const struct row *row = &r->rows[r->slots[i] - 1];

        if (row->len == len && vocab_same(r->texts.data + row->at, text, len))
            break;
    }
    return &r->slots[i];
}

static int index_texts(struct reader *r)
{
    for (r->slot_bits = 4; (size_t)1 << r->slot_bits < 2 * r->n; r->slot_bits++)
        ;
    r->slots = calloc((size_t)1 << r->slot_bits, sizeof(*r->slots));
    if (!r->slots)
        return err_set(r->err, GD_ENOMEM, "out of memory for " NAME);
    for (size_t id = 0; id < r->n; id++) {
        uint32_t *slot;

        if (!r->rows[id].there)
            continue;
        slot = slot_of(r, r->texts.data + r->rows[id].at, r->rows[id].len);
        *slot = *slot ? *slot : (uint32_t)id + 1;
    }
    return 0;
}

/* "a b" or ["a", "b"] -> ab */
static int read_merge(struct reader *r, struct buf *both)
{
    const char *text, *blank;
    size_t len;
    int n = 0;

    buf_clear(both);
    if (scan_peek(&r->s) == '"') {
        scan_string(&r->s, &text, &len);
        blank = memchr(text, ' ', len);
        if (r->s.bad || !blank || memchr(blank + 1, ' ', len - (size_t)(blank + 1 - text)))
            return wrong(r, "a merge is not two pieces");
        buf_append(both, text, (size_t)(blank - text));
        buf_append(both, blank + 1, len - (size_t)(blank + 1 - text));
        return 0;
    }
    for (bool more = scan_open(&r->s, '['); more; more = scan_more(&r->s, ']')) {
        scan_string(&r->s, &text, &len);
        buf_append(both, text, len);
        n++;
    }
    return r->s.bad || n != 2 ? wrong(r, "a merge is not two pieces") : 0;
}

static int read_merges(struct reader *r)
{
    struct buf both = {0};
    int32_t rank = 0;
    int e = index_texts(r);

    r->s.at = r->merges;
    for (bool more = e == 0 && scan_open(&r->s, '['); more; more = scan_more(&r->s, ']')) {
        uint32_t slot;

        e = read_merge(r, &both);
        if (e < 0)
            break;
        slot = *slot_of(r, both.data, both.len);
        if (slot == 0 || rank == INT32_MAX) {
            e = wrong(r, "a merge makes no piece of the vocabulary");
            break;
        }
        if (r->rows[slot - 1].rank < 0)
            r->rows[slot - 1].rank = rank;
        rank++;
    }
    buf_free(&both);
    return e < 0 ? e : bad_json(r);
}

static int read_added_token(struct reader *r)
{
    bool special = false, normalized = false, single_word = false, rstrip = false;
    struct buf content = {0};
    const char *key, *text;
    struct row *row;
    int64_t id = -1;
    size_t len;
    int e;

    for (bool more = scan_open(&r->s, '{'); more; more = scan_more(&r->s, '}')) {
        scan_key(&r->s, &key, &len);
        if (scan_is(key, len, "id")) {
            id = scan_int(&r->s);
        } else if (scan_is(key, len, "content")) {
            scan_string(&r->s, &text, &len);
            buf_clear(&content);
            buf_append(&content, text, len);
        } else if (scan_is(key, len, "special")) {
            special = scan_bool(&r->s);
        } else if (scan_is(key, len, "normalized")) {
            normalized = scan_bool(&r->s);
        } else if (scan_is(key, len, "single_word")) {
            single_word = scan_bool(&r->s);
        } else if (scan_is(key, len, "rstrip")) {
            rstrip = scan_bool(&r->s);
        } else {
            scan_skip(&r->s);
        }
    }
    e = bad_json(r);
    if (e == 0 && (single_word || rstrip ||
                      (normalized && content.data && memchr(content.data, ' ', content.len))))
        e = unsupported(r, "an added token with single_word, rstrip or a normalized blank");
    if (e == 0 && id >= 0 && (size_t)id < r->n && r->rows[id].added)
        e = wrong(r, "two added tokens have one id");
    if (e == 0)
        e = set_row(r, id, content.data ? content.data : "", content.len, &row);
    if (e == 0) {
        row->added = true;
        row->kind = (uint8_t)tokenizer_kind(r->texts.data + row->at, row->len, special);
    }
    buf_free(&content);
    return e;
}

static int read_added(struct reader *r)
{
    r->s.at = r->added;
    for (bool more = scan_open(&r->s, '['); more; more = scan_more(&r->s, ']')) {
        int e = read_added_token(r);

        if (e < 0)
            return e;
    }
    return bad_json(r);
}

/* A normalizer or pre-tokenizer: {"type", "pattern": {"String"}, "content"}. */
struct rule {
    bool there, replace, split, blank, sign;
};

static void read_pattern(struct reader *r, struct rule *rule)
{
    for (bool more = scan_open(&r->s, '{'); more; more = scan_more(&r->s, '}')) {
        const char *key, *text;
        bool literal;
        size_t len;

        scan_key(&r->s, &key, &len);
        literal = scan_is(key, len, "String");
        scan_string(&r->s, &text, &len);
        rule->blank = literal && scan_is(text, len, " ");
    }
}

static struct rule read_rule(struct reader *r)
{
    struct rule rule = {.there = scan_peek(&r->s) == '{'};
    const char *key, *text;
    size_t len;

    if (!rule.there) {
        scan_skip(&r->s);
        return rule;
    }
    for (bool more = scan_open(&r->s, '{'); more; more = scan_more(&r->s, '}')) {
        scan_key(&r->s, &key, &len);
        if (scan_is(key, len, "pattern") && scan_peek(&r->s) == '{') {
            read_pattern(r, &rule);
        } else if (scan_is(key, len, "type")) {
            scan_string(&r->s, &text, &len);
            rule.replace = scan_is(text, len, "Replace");
            rule.split = scan_is(text, len, "Split");
        } else if (scan_is(key, len, "content")) {
            scan_string(&r->s, &text, &len);
            rule.sign = scan_is(text, len, "\xe2\x96\x81");
        } else {
            scan_skip(&r->s);
        }
    }
    return rule;
}

/* Every blank becomes U+2581; cutting at blanks after that is cutting nowhere. */
static int check_rules(struct reader *r, struct rule normalizer, struct rule split)
{
    if (!normalizer.replace || !normalizer.blank || !normalizer.sign)
        return unsupported(r, "another normalizer than one that replaces blanks");
    if (split.there && (!split.split || !split.blank))
        return unsupported(r, "another pre_tokenizer than one that cuts at blanks");
    return 0;
}

static int read_model(struct reader *r)
{
    const char *key, *text;
    size_t len;

    for (bool more = scan_open(&r->s, '{'); more; more = scan_more(&r->s, '}')) {
        scan_key(&r->s, &key, &len);
        if (scan_is(key, len, "type")) {
            scan_string(&r->s, &text, &len);
            if (!r->s.bad && !scan_is(text, len, "BPE"))
                return unsupported(r, "a model of another type than BPE");
        } else if (scan_is(key, len, "byte_fallback")) {
            r->byte_fallback = scan_bool(&r->s);
        } else if (scan_is(key, len, "ignore_merges")) {
            if (scan_bool(&r->s))
                return unsupported(r, "ignore_merges");
        } else {
            scan_peek(&r->s);
            if (scan_is(key, len, "vocab"))
                r->vocab = r->s.at;
            if (scan_is(key, len, "merges"))
                r->merges = r->s.at;
            scan_skip(&r->s);
        }
    }
    return bad_json(r);
}

static int find_parts(struct reader *r)
{
    struct rule normalizer = {0}, split = {0};
    const char *key;
    size_t len;
    int e = 0;

    for (bool more = scan_open(&r->s, '{'); more; more = e == 0 && scan_more(&r->s, '}')) {
        scan_key(&r->s, &key, &len);
        scan_peek(&r->s);
        if (scan_is(key, len, "model")) {
            e = read_model(r);
        } else if (scan_is(key, len, "normalizer")) {
            normalizer = read_rule(r);
        } else if (scan_is(key, len, "pre_tokenizer")) {
            split = read_rule(r);
        } else {
            if (scan_is(key, len, "added_tokens"))
                r->added = r->s.at;
            scan_skip(&r->s);
        }
    }
    if (e == 0)
        e = bad_json(r);
    if (e == 0 && scan_peek(&r->s) != 0)
        e = wrong(r, "something follows the JSON");
    if (e == 0 && (!r->vocab || !r->merges))
        e = wrong(r, "model.vocab or model.merges is missing");
    return e < 0 ? e : check_rules(r, normalizer, split);
}

static bool is_char(const char *s, size_t len)
{
    uint32_t c;
    size_t bad;

    return len > 0 && utf8_decode(s, len, &c, &bad) == len;
}

static int add_rows(struct reader *r, struct vocab *v)
{
    for (size_t id = 0; id < r->n; id++) {
        const struct row *row = &r->rows[id];
        struct vocab_piece p = {"", 0, PIECE_UNUSED, 0};
        int e;

        if (row->there) {
            p = (struct vocab_piece){r->texts.data + row->at, row->len, (enum piece_kind)row->kind,
                row->rank < 0 ? -FLT_MAX : -(float)row->rank};
            if (p.kind == PIECE_NORMAL && row->rank < 0 && !is_char(p.text, p.len))
                p.kind = PIECE_UNUSED;
        }
        e = vocab_add(v, &p, r->err);
        if (e < 0)
            return e;
    }
    return 0;
}

/* Which of the two orders the merges of blanks have (tokenizer_encode.c). */
static bool merges_short_blanks_first(struct reader *r)
{
    static const char run[] = "\xe2\x96\x81\xe2\x96\x81\xe2\x96\x81";
    uint32_t two = *slot_of(r, run, 6), three = *slot_of(r, run, 9);

    return two && three && r->rows[two - 1].rank >= 0 && r->rows[three - 1].rank >= 0 &&
           r->rows[two - 1].rank < r->rows[three - 1].rank;
}

int tokenizer_read_json(struct vocab **out, const char *text, size_t len, struct err *err)
{
    struct reader r = {.err = err};
    int e;

    scan_init(&r.s, text, len);
    e = find_parts(&r);
    if (e == 0)
        e = read_vocab(&r);
    if (e == 0)
        e = read_merges(&r);
    if (e == 0 && r.added)
        e = read_added(&r);
    if (e == 0)
        e = vocab_create(out, NAME, r.n, err);
    if (e == 0)
        e = add_rows(&r, *out);
    if (e == 0)
        (*out)->blanks_even = merges_short_blanks_first(&r);
    scan_free(&r.s);
    buf_free(&r.texts);
    free(r.rows);
    free(r.slots);
    return e;
}
