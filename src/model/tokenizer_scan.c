#include "model/tokenizer_scan.h"

#include <string.h>

#include "base/utf8.h"

enum { MAX_DEPTH = 64, MAX_DIGITS = 15 };

void scan_init(struct scan *s, const char *text, size_t len)
{
    *s = (struct scan){.begin = text, .at = text, .end = text + len};
}

void scan_free(struct scan *s)
{
    buf_free(&s->text);
}

bool scan_is(const char *text, size_t len, const char *want)
{
    return len == strlen(want) && memcmp(text, want, len) == 0;
}

char scan_peek(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
    return s->at < s->end && !s->bad ? *s->at : 0;
}

static bool take(struct scan *s, char c)
{
    if (scan_peek(s) != c || c == 0) {
        s->bad = true;
        return false;
    }
    s->at++;
    return true;
}

bool scan_open(struct scan *s, char bracket)
{
    if (!take(s, bracket))
        return false;
    if (scan_peek(s) != (bracket == '{' ? '}' : ']'))
        return true;
    s->at++;
    return false;
}

bool scan_more(struct scan *s, char bracket)
{
    if (scan_peek(s) == bracket) {
        s->at++;
        return false;
    }
    return take(s, ',');
}

/* Four hex digits after \u; -1 when they are not. */
static int32_t hex4(struct scan *s)
{
    int32_t v = 0;

    if (s->end - s->at < 4)
        return -1;
    for (int i = 0; i < 4; i++, s->at++) {
        char c = *s->at;

        if (c >= '0' && c <= '9')
            v = v << 4 | (c - '0');
        else if (((c | 32) >= 'a') && ((c | 32) <= 'f'))
            v = v << 4 | ((c | 32) - 'a' + 10);
        else
            return -1;
    }
    return v;
}

static void escaped_unicode(struct scan *s)
{
    int32_t c = hex4(s), low;
    char out[4];

    if (c >= 0xd800 && c < 0xdc00 && s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u') {
        const char *before = s->at;

        s->at += 2;
        low = hex4(s);
        if (low >= 0xdc00 && low < 0xe000)
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        else
            s->at = before; /* a character of its own */
    }
    if (c < 0)
        s->bad = true;
    else if (c >= 0xd800 && c < 0xe000)
        c = 0xfffd;
    if (!s->bad)
        buf_append(&s->text, out, utf8_encode((uint32_t)c, out));
}

static void escape(struct scan *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;

    if (s->at == s->end) {
        s->bad = true;
        return;
    }
    if (*s->at == 'u') {
        s->at++;
        escaped_unicode(s);
        return;
    }
    found = memchr(from, *s->at++, sizeof(from) - 1);
    if (found)
        buf_putc(&s->text, to[found - from]);
    else
        s->bad = true;
}

/* Up to the next quote, backslash or control character. */
static void plain(struct scan *s)
{
    while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20)
        s->at++;
}

void scan_string(struct scan *s, const char **text, size_t *len)
{
    const char *begin;

    *text = "";
    *len = 0;
    if (!take(s, '"'))
        return;
    begin = s->at;
    plain(s);
    if (s->at < s->end && *s->at == '"') { /* no escapes: the file's own bytes */
        *text = begin;
        *len = (size_t)(s->at++ - begin);
        return;
    }
    buf_clear(&s->text);
    while (!s->bad) {
        buf_append(&s->text, begin, (size_t)(s->at - begin));
        if (s->at == s->end || (*s->at != '"' && *s->at != '\\')) {
            s->bad = true;
        } else if (*s->at++ == '"') {
            *text = s->text.data;
            *len = s->text.len;
            return;
        } else {
            escape(s);
            begin = s->at;
            plain(s);
        }
    }
}

void scan_key(struct scan *s, const char **text, size_t *len)
{
    scan_string(s, text, len);
    take(s, ':');
}

int64_t scan_int(struct scan *s)
{
    bool minus = scan_peek(s) == '-';
    int64_t v = 0;
    int n = 0;

    s->at += minus;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9' && n <= MAX_DIGITS; n++)
        v = 10 * v + (*s->at++ - '0');
    if (n == 0 || n > MAX_DIGITS || (s->at < s->end && strchr(".eE", *s->at)))
        s->bad = true;
    return s->bad ? 0 : minus ? -v : v;
}

static bool word(struct scan *s, const char *want)
{
    size_t n = strlen(want);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, want, n) != 0)
        return false;
    s->at += n;
    return true;
}

bool scan_bool(struct scan *s)
{
    if (scan_peek(s) == 't' && word(s, "true"))
        return true;
    if (scan_peek(s) != 'f' || !word(s, "false"))
        s->bad = true;
    return false;
}

static void skip_scalar(struct scan *s)
{
    const char *text, *begin;
    size_t len;

    if (scan_peek(s) == '"') {
        scan_string(s, &text, &len);
        return;
    }
    if (word(s, "true") || word(s, "false") || word(s, "null"))
        return;
    begin = s->at;
    while (s->at < s->end && *s->at && strchr("+-.0123456789eE", *s->at))
        s->at++;
    s->bad = s->bad || s->at == begin;
}

void scan_skip(struct scan *s)
{
    char open[MAX_DEPTH];
    int depth = 0;

    do {
        char c = scan_peek(s);
        bool inside = false;

        if (c == '{' || c == '[') {
            s->bad = s->bad || depth == MAX_DEPTH;
            if (s->bad)
                return;
            inside = scan_open(s, c);
            if (inside)
                open[depth++] = c;
        } else {
            skip_scalar(s);
        }
        while (!inside && depth > 0 && !s->bad) { /* a value has ended */
            inside = scan_more(s, open[depth - 1] == '{' ? '}' : ']');
            depth -= !inside;
        }
        if (inside && open[depth - 1] == '{') {
            const char *key;
            size_t len;

            scan_key(s, &key, &len);
        }
    } while (depth > 0 && !s->bad);
}
