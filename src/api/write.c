#include "api/write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static void escape(struct buf *b, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char u[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

    switch (c) {
    case '"': buf_append(b, "\\\"", 2); break;
    case '\\': buf_append(b, "\\\\", 2); break;
    case '\n': buf_append(b, "\\n", 2); break;
    case '\r': buf_append(b, "\\r", 2); break;
    case '\t': buf_append(b, "\\t", 2); break;
    default: buf_append(b, u, sizeof(u));
    }
}

void write_escaped(struct buf *b, const char *s, size_t n)
{
    size_t from = 0, at = 0; /* s[from..at) is clean and not yet copied */

    if (n == 0)
        return; /* s may be NULL */

    while (at < n) {
        unsigned char c = (unsigned char)s[at];
        size_t bad = 0, len = 1;
        uint32_t cp;

        if (c >= 0x80)
            len = utf8_decode(s + at, n - at, &cp, &bad);
        if (len > 0 && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            at += len;
            continue;
        }
        buf_append(b, s + from, at - from);
        if (len > 0) {
            escape(b, c);
            at++;
        } else {
            buf_append(b, "\xef\xbf\xbd", 3);
            at += bad ? bad : n - at; /* 0: an unfinished sequence at the end */
        }
        from = at;
    }
    buf_append(b, s + from, n - from);
}

void write_string(struct buf *b, const char *s, size_t n)
{
    buf_putc(b, '"');
    write_escaped(b, s, n);
    buf_putc(b, '"');
}

void write_int(struct buf *b, int64_t v)
{
    char text[24];
    size_t at = sizeof(text);
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do {
        text[--at] = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (v < 0)
        text[--at] = '-';
    buf_append(b, text + at, sizeof(text) - at);
}

void write_bytes(struct buf *b, const char *s, size_t n)
{
    buf_putc(b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_putc(b, ',');
        write_int(b, (unsigned char)s[i]);
    }
    buf_putc(b, ']');
}

void write_logprob(struct buf *b, float v)
{
    char text[32];
    int n = 0;

    if (isnan(v) || v < -9999.0f)
        v = -9999.0f;
    if (v > 9999.0f)
        v = 9999.0f;
    if (v == 0)
        v = 0; /* not -0.0 */
    for (int digits = 6; digits <= 9; digits++) {
        n = snprintf(text, sizeof(text), "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    buf_append(b, text, (size_t)n);
    if (!strpbrk(text, ".e"))
        buf_puts(b, ".0");
}

void write_float(struct buf *b, float v)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%.9g", (double)v);

    if (!isfinite(v)) {
        buf_puts(b, "null");
        return;
    }
    buf_append(b, text, (size_t)n);
    if (!strpbrk(text, ".e"))
        buf_puts(b, ".0");
}

void write_base64(struct buf *b, const unsigned char *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v = (uint32_t)bytes[i] << 16;
        char out[4];

        v |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        v |= left > 2 ? bytes[i + 2] : 0;
        out[0] = digits[v >> 18];
        out[1] = digits[v >> 12 & 63];
        out[2] = left > 1 ? digits[v >> 6 & 63] : '=';
        out[3] = left > 2 ? digits[v & 63] : '=';
        buf_append(b, out, 4);
    }
}
