/* tokenizer_encode.c - text -> ids.
 *
 * 1. Bytes that are not UTF-8 become U+FFFD (one for each maximal invalid subpart).
 * 2. Pieces that are matched as written cut the text: leftmost, longest first.
 * 3. In a gap between them a literal U+2581 is the same as a blank. A run of two or more blanks is
 *    cut into the runs the vocabulary has: by Gemma 3's rule the longest first (one blank may
 *    remain), by Gemma 1's and 2's as evenly as pairwise merging does. A GGUF does not hold the
 *    merges of blanks; Hugging Face's tokenizer.json files differ in their order.
 * 4. The rest is cut where no piece can span the cut (vocab.joins): units, mostly words. Each unit
 *    is merged alone. In a long text a unit that was met before has its ids copied. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/tokenizer_private.h"
#include "model/vocab_lookup.h"

enum { CACHE_MIN_TEXT = 1 << 10, CACHE_MAX_BITS = 13, CACHE_MAX_UNIT = 64 };

/* A unit that was met: where it stands in the text and where its ids stand in the output. Compared
 * by its text, so a wrong answer cannot come out. */
struct met {
    uint32_t tag;
    uint32_t at, out;
    uint16_t len, n; /* len 0: free */
};

struct encoder {
    const struct vocab *v;
    bool control;
    struct token_list *out;
    struct err *err;
    struct met *met; /* NULL: off */
    int met_bits;
    const char *base; /* what struct met counts from */
    size_t first;     /* of out */
};

static int push(struct encoder *e, int32_t id)
{
    int r = token_list_reserve(e->out, 1, e->err);

    if (r == 0)
        e->out->ids[e->out->n++] = id;
    return r;
}

static int encode_unit(struct encoder *e, const char *s, size_t n)
{
    struct met *m = NULL;
    size_t first = e->out->n;
    uint64_t h;
    int r;

    if (n == 1 && (unsigned char)s[0] < 128 && e->v->ascii[(unsigned char)s[0]] >= 0)
        return push(e, e->v->ascii[(unsigned char)s[0]]);
    if (e->met && n <= CACHE_MAX_UNIT) {
        h = vocab_hash(s, n);
        m = &e->met[h & (((size_t)1 << e->met_bits) - 1)];
        if (m->len == n && m->tag == (uint32_t)(h >> 32) && vocab_same(e->base + m->at, s, n)) {
            r = token_list_reserve(e->out, m->n, e->err);
            if (r < 0)
                return r;
            memcpy(e->out->ids + first, e->out->ids + e->first + m->out, m->n * sizeof(int32_t));
            e->out->n += m->n;
            return 0;
        }
    }
    r = merge_unit(e->v, s, n, e->out, e->err);
    if (r == 0 && m)
        *m = (struct met){(uint32_t)(h >> 32), (uint32_t)(s - e->base),
            (uint32_t)(first - e->first), (uint16_t)n, (uint16_t)(e->out->n - first)};
    return r;
}

/* The longest run first; what is left over (one blank, as a rule) belongs to the text after it. */
static size_t blanks_greedy(struct encoder *e, size_t n)
{
    size_t run = n < e->v->longest_blanks ? n : e->v->longest_blanks;

    while (n >= 2 && run >= 2) {
        if (run > n || e->v->blanks[run] < 0) {
            run--;
            continue;
        }
        e->out->ids[e->out->n++] = e->v->blanks[run];
        n -= run;
    }
    return n;
}

/* As merging neighbours does that makes the shorter runs first: 35 are 16 and 19, not 31 and 4.
 * Sums only grow, so one pass for each length is enough, and the list shrinks by half. */
static int blanks_even(struct encoder *e, size_t n)
{
    uint8_t *run = malloc(n);

    if (!run)
        return err_set(e->err, GD_ENOMEM, "out of memory for %zu blanks", n);
    memset(run, 1, n);
    for (size_t length = 2; length <= e->v->longest_blanks; length++) {
        size_t to = 0;

        if (e->v->blanks[length] < 0)
            continue;
        for (size_t i = 0; i < n; i++) {
            if (i + 1 < n && (size_t)run[i] + run[i + 1] == length)
                run[to++] = (uint8_t)length, i++;
            else
                run[to++] = run[i];
        }
        n = to;
    }
    for (size_t i = 0; i < n; i++)
        e->out->ids[e->out->n++] = e->v->blanks[run[i]];
    free(run);
    return 0;
}

/* Cuts n >= 2 blanks into runs of the vocabulary. *left: how many remain for the text after them.
 */
static int encode_blanks(struct encoder *e, size_t n, size_t *left)
{
    int r = token_list_reserve(e->out, n / 2 + 1, e->err); /* no run is shorter than two */

    *left = 0;
    if (r < 0)
        return r;
    /* With runs of 2 and 3 no single blank can be left. */
    if (e->v->blanks_even && e->v->blanks[2] >= 0 && e->v->blanks[3] >= 0)
        return blanks_even(e, n);
    *left = blanks_greedy(e, n);
    return 0;
}

/* No literal U+2581 in the gap any more. */
static int encode_gap(struct encoder *e, const char *s, const char *end)
{
    int r = 0;

    while (r == 0 && s < end) {
        const char *unit = s;
        uint32_t left, right;

        if (*s == ' ' && e->v->longest_blanks) {
            size_t n = 1;

            while (s + n < end && s[n] == ' ')
                n++;
            if (n > 1) {
                size_t kept;

                r = encode_blanks(e, n, &kept);
                s += n - kept;
                if (r < 0 || s == end)
                    break;
            }
            unit = s;
        }
        for (s += vocab_char(s, &left); s < end; left = right) {
            size_t n = vocab_char(s, &right);

            if (!vocab_joins(e->v, left, right))
                break;
            if (left != ' ' && right == ' ' && e->v->longest_blanks && s + 1 < end && s[1] == ' ')
                break; /* a run of blanks begins */
            s += n;
        }
        r = encode_unit(e, unit, (size_t)(s - unit));
    }
    return r;
}

static bool is_blank_sign(const char *s, const char *end)
{
    return end - s >= 3 && memcmp(s, "\xe2\x96\x81", 3) == 0;
}

/* A gap with literal U+2581 is rewritten with blanks; its copy does not live long enough for the
 * units met. */
static int encode_gap_copy(struct encoder *e, const char *s, const char *end)
{
    char *copy = malloc((size_t)(end - s)), *to = copy;
    struct met *met = e->met;
    int r;

    if (!copy)
        return err_set(e->err, GD_ENOMEM, "out of memory for %zu bytes of text", end - s);
    while (s < end) {
        if (is_blank_sign(s, end)) {
            *to++ = ' ';
            s += 3;
        } else {
            *to++ = *s++;
        }
    }
    e->met = NULL;
    r = encode_gap(e, copy, to);
    e->met = met;
    free(copy);
    return r;
}

static int flush_gap(struct encoder *e, const char *s, const char *end, bool has_sign)
{
    return has_sign ? encode_gap_copy(e, s, end) : encode_gap(e, s, end);
}

static int encode_valid(struct encoder *e, const char *text, size_t len)
{
    const char *end = text + len, *gap = text, *s = text;
    bool has_sign = false;
    int r;

    while (s < end) {
        size_t n = 0;
        int32_t id = -1;

        if (!e->v->trie.starts[(unsigned char)*s] && *s != '\xe2') {
            s++;
            continue;
        }
        id = vocab_match(e->v, s, (size_t)(end - s), e->control, &n);
        if (id < 0) {
            has_sign = has_sign || is_blank_sign(s, end);
            s++;
            continue;
        }
        r = flush_gap(e, gap, s, has_sign);
        if (r < 0)
            return r;
        r = push(e, id);
        if (r < 0)
            return r;
        s += n;
        gap = s;
        has_sign = false;
    }
    return flush_gap(e, gap, end, has_sign);
}

static const char replacement[3] = {'\xef', '\xbf', '\xbd'}; /* U+FFFD */

/* A copy of text with U+FFFD for what is not UTF-8; NULL when there is no memory. */
static char *repair(const char *text, size_t *len)
{
    char *copy = *len < SIZE_MAX / 3 ? malloc(3 * *len) : NULL;
    size_t to = 0;

    for (size_t at = 0; copy && at < *len;) {
        uint32_t cp;
        size_t bad, n = utf8_decode(text + at, *len - at, &cp, &bad);

        if (n > 0) {
            memcpy(copy + to, text + at, n);
            to += n;
        } else {
            memcpy(copy + to, replacement, 3);
            to += 3;
            n = bad ? bad : *len - at; /* or the text ends inside a character */
        }
        at += n;
    }
    *len = to;
    return copy;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool parse_special,
    struct token_list *out, struct err *err)
{
    struct encoder e = {
        .v = t->vocab, .control = parse_special, .out = out, .err = err, .first = out->n};
    char *repaired = NULL;
    int r;

    if (len == 0)
        return 0;
    if (len > INT32_MAX)
        return err_set(err, GD_ETOOBIG, "a text of %zu bytes is too long", len);
    if (!utf8_valid(text, len)) {
        repaired = repair(text, &len);
        if (!repaired)
            return err_set(err, GD_ENOMEM, "out of memory for %zu bytes of text", len);
        text = repaired;
    }
    if (len >= CACHE_MIN_TEXT) {
        for (e.met_bits = 6; e.met_bits < CACHE_MAX_BITS && len >> (e.met_bits + 3); e.met_bits++)
            ;
        e.met = calloc((size_t)1 << e.met_bits, sizeof(*e.met)); /* it does without, too */
        e.base = text;
    }
    r = encode_valid(&e, text, len);
    free(e.met);
    free(repaired);
    return r;
}
