/* chat_call.c - the body of a call, as models write it, -> name and JSON.
 *
 *   call:NAME{KEY:VALUE,...}
 *
 * VALUE is a string between quote marks (nothing is escaped in it), a number, true, false, null,
 * [VALUE,...] or {KEY:VALUE,...}; FunctionGemma also writes strings as bare words. Blanks may stand
 * between all of these. Python's None is null: the prompt shows it to the model that way. */
#include <string.h>

#include "model/chat_parse.h"

enum { DEPTH_MAX = 64 };

struct reader {
    const char *at, *end;
    struct buf *out;
    bool bare_words;
    int depth;
};

static int peek(const struct reader *r)
{
    return r->at < r->end ? (unsigned char)*r->at : -1;
}

static bool is_blank(int c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_blanks(struct reader *r)
{
    while (is_blank(peek(r)))
        r->at++;
}

static bool accept(struct reader *r, int c)
{
    if (peek(r) != c)
        return false;
    r->at++;
    return true;
}

static void put_string(struct reader *r, const char *text, size_t len)
{
    buf_putc(r->out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '"' || c == '\\')
            buf_printf(r->out, "\\%c", c);
        else if (c == '\n')
            buf_puts(r->out, "\\n");
        else if (c < 0x20)
            buf_printf(r->out, "\\u%04x", c);
        else
            buf_putc(r->out, (char)c);
    }
    buf_putc(r->out, '"');
}

/* The quote mark before it has been read. */
static bool read_quoted(struct reader *r)
{
    const char *text = r->at, *close = memchr(text, CHAT_QUOTE, (size_t)(r->end - text));

    if (!close)
        return false;
    put_string(r, text, (size_t)(close - text));
    r->at = close + 1;
    return true;
}

static size_t digits(const char *s, const char *end)
{
    size_t n = 0;

    while (s + n < end && s[n] >= '0' && s[n] <= '9')
        n++;
    return n;
}

/* True when all of s is a number of JSON's grammar. */
static bool is_number(const char *s, const char *end)
{
    size_t n;

    s += s < end && *s == '-';
    n = digits(s, end);
    if (n == 0 || (n > 1 && *s == '0'))
        return false;
    s += n;
    if (s < end && *s == '.') {
        n = digits(++s, end);
        if (n == 0)
            return false;
        s += n;
    }
    if (s < end && (*s == 'e' || *s == 'E')) {
        s++;
        s += s < end && (*s == '-' || *s == '+');
        n = digits(s, end);
        s += n;
        return n > 0 && s == end;
    }
    return s == end;
}

static bool is_word(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(s, word, n) == 0;
}

/* Everything up to the next , } or ]. */
static bool read_bare(struct reader *r)
{
    const char *s = r->at;
    size_t n;

    while (peek(r) >= 0 && !strchr(",}]", peek(r)) && peek(r) != CHAT_QUOTE)
        r->at++;
    n = (size_t)(r->at - s);
    while (n > 0 && is_blank(s[n - 1]))
        n--;
    if (is_word(s, n, "true") || is_word(s, n, "false") || is_number(s, s + n)) {
        buf_append(r->out, s, n);
        return true;
    }
    if (is_word(s, n, "null") || is_word(s, n, "None")) {
        buf_puts(r->out, "null");
        return true;
    }
    if (!r->bare_words || n == 0)
        return false;
    put_string(r, s, n);
    return true;
}

static bool read_key(struct reader *r)
{
    const char *key = r->at;

    if (accept(r, CHAT_QUOTE)) {
        if (!read_quoted(r))
            return false;
        skip_blanks(r);
        return accept(r, ':');
    }
    while (peek(r) >= 0 && peek(r) != ':' && peek(r) != '}' && peek(r) != CHAT_QUOTE)
        r->at++;
    if (peek(r) != ':' || r->at == key)
        return false;
    put_string(r, key, (size_t)(r->at - key));
    r->at++;
    return true;
}

static bool read_value(struct reader *r);

static bool read_list(struct reader *r, char open, char close) /* NOLINT(misc-no-recursion) */
{
    if (++r->depth > DEPTH_MAX)
        return false;
    r->at++;
    buf_putc(r->out, open);
    skip_blanks(r);
    if (!accept(r, close)) {
        for (;;) {
            if (open == '{') {
                if (!read_key(r))
                    return false;
                buf_putc(r->out, ':');
            }
            if (!read_value(r))
                return false;
            if (!accept(r, ','))
                break;
            buf_putc(r->out, ',');
            skip_blanks(r);
        }
        if (!accept(r, close))
            return false;
    }
    buf_putc(r->out, close);
    r->depth--;
    return true;
}

static bool read_value(struct reader *r) /* NOLINT(misc-no-recursion) */
{
    bool ok;

    skip_blanks(r);
    switch (peek(r)) {
    case '{': ok = read_list(r, '{', '}'); break;
    case '[': ok = read_list(r, '[', ']'); break;
    case CHAT_QUOTE:
        r->at++;
        ok = read_quoted(r);
        break;
    default: ok = read_bare(r); break;
    }
    skip_blanks(r);
    return ok;
}

bool chat_call_read(enum chat_format f, const char *body, size_t len, const char **name,
    size_t *name_len, struct buf *arguments)
{
    static const char head[] = "call:";
    struct reader r = {
        .at = body, .end = body + len, .out = arguments, .bare_words = f == CHAT_FUNCTIONGEMMA};

    skip_blanks(&r);
    if ((size_t)(r.end - r.at) < sizeof(head) - 1 || memcmp(r.at, head, sizeof(head) - 1) != 0)
        return false;
    r.at += sizeof(head) - 1;
    *name = r.at;
    while (peek(&r) >= 0 && peek(&r) != '{')
        r.at++;
    *name_len = (size_t)(r.at - *name);
    if (peek(&r) != '{' || !read_list(&r, '{', '}'))
        return false;
    skip_blanks(&r);
    return r.at == r.end;
}
