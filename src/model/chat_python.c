#include "model/chat_python.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* repr(float): the fewest digits that read back as the same number; an exponent below 1e-04 and
 * from 1e+16 on. */
static void put_float(struct buf *out, double value)
{
    char shortest[40], digits[24] = {0};
    int precision = 0, exponent, n = 0;

    if (!isfinite(value)) {
        buf_puts(out, value < 0 ? "-inf" : "inf");
        return;
    }
    do
        snprintf(shortest, sizeof(shortest), "%.*e", precision, value);
    while (strtod(shortest, NULL) != value && ++precision < 17);
    exponent = (int)strtol(strchr(shortest, 'e') + 1, NULL, 10);
    for (const char *p = shortest; *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    }
    if (shortest[0] == '-')
        buf_putc(out, '-');
    if (exponent < -4 || exponent >= 16) {
        buf_printf(out, "%c%s%.*se%c%02d", digits[0], n > 1 ? "." : "", n - 1, digits + 1,
            exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        buf_printf(out, "0.%.*s%.*s", -exponent - 1, "000", n, digits);
    } else {
        for (int i = 0; i <= exponent || i < n; i++) {
            if (i == exponent + 1)
                buf_putc(out, '.');
            buf_putc(out, i < n ? digits[i] : '0');
        }
        if (n <= exponent + 1)
            buf_puts(out, ".0");
    }
}

static void put_number(struct buf *out, const struct json_value *v)
{
    char *copy;

    if (!memchr(v->text, '.', v->len) && !memchr(v->text, 'e', v->len) &&
        !memchr(v->text, 'E', v->len)) {
        bool minus_zero = v->len == 2 && memcmp(v->text, "-0", 2) == 0;

        buf_append(out, v->text + minus_zero, v->len - minus_zero);
        return;
    }
    copy = strndup(v->text, v->len);
    if (!copy)
        abort(); /* as buf does */
    put_float(out, strtod(copy, NULL));
    free(copy);
}

/* repr(str), but characters that Python calls unprintable are escaped in ASCII only. */
static void put_repr(struct buf *out, const char *text, size_t len)
{
    char quote = memchr(text, '\'', len) && !memchr(text, '"', len) ? '"' : '\'';

    buf_putc(out, quote);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        const char *named = c ? strchr("\nn\rr\tt", c) : NULL;

        if (c == '\\' || c == (unsigned char)quote)
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 && named)
            buf_printf(out, "\\%c", named[1]);
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_putc(out, (char)c);
    }
    buf_putc(out, quote);
}

static void put_value(struct buf *out, const struct json_value *v) /* NOLINT(misc-no-recursion) */
{
    switch (v->kind) {
    case JSON_NULL: buf_puts(out, "None"); return;
    case JSON_FALSE: buf_puts(out, "False"); return;
    case JSON_TRUE: buf_puts(out, "True"); return;
    case JSON_NUMBER: put_number(out, v); return;
    case JSON_STRING: put_repr(out, v->text, v->len); return;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    buf_putc(out, v->kind == JSON_ARRAY ? '[' : '{');
    for (const struct json_value *c = v->child; c; c = c->next) {
        if (v->kind == JSON_OBJECT) {
            put_repr(out, c->key, c->key_len);
            buf_puts(out, ": ");
        }
        put_value(out, c);
        if (c->next)
            buf_puts(out, ", ");
    }
    buf_putc(out, v->kind == JSON_ARRAY ? ']' : '}');
}

void python_str(struct buf *out, const struct json_value *v)
{
    if (json_is(v, JSON_STRING))
        buf_append(out, v->text, v->len);
    else if (v)
        put_value(out, v);
}

/* str.lower() of one character: ASCII, Latin, Greek, Cyrillic and Armenian. */
static uint32_t lower(uint32_t c)
{
    static const struct {
        uint32_t first, last;
        int add; /* 0: capitals and small letters alternate, the capital is even */
    } ranges[] = {{'A', 'Z', 32}, {0xc0, 0xd6, 32}, {0xd8, 0xde, 32}, {0x100, 0x12f, 0},
        {0x132, 0x137, 0}, {0x14a, 0x177, 0}, {0x388, 0x38a, 37}, {0x391, 0x3a1, 32},
        {0x3a3, 0x3ab, 32}, {0x400, 0x40f, 80}, {0x410, 0x42f, 32}, {0x460, 0x481, 0},
        {0x48a, 0x4bf, 0}, {0x4d0, 0x52f, 0}, {0x531, 0x556, 48}, {0x1e00, 0x1e95, 0}};

    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges) && c >= ranges[i].first; i++) {
        if (c <= ranges[i].last)
            return ranges[i].add ? c + (uint32_t)ranges[i].add : c | 1;
    }
    return c;
}

static int compare(const struct json_value *a, const struct json_value *b)
{
    size_t i = 0, k = 0;

    while (i < a->key_len && k < b->key_len) {
        uint32_t x, y;
        size_t bad;

        i += utf8_decode(a->key + i, a->key_len - i, &x, &bad);
        k += utf8_decode(b->key + k, b->key_len - k, &y, &bad);
        if (lower(x) != lower(y))
            return lower(x) < lower(y) ? -1 : 1;
    }
    return i < a->key_len ? 1 : k < b->key_len ? -1 : 0;
}

static int by_key(const void *a, const void *b)
{
    const struct json_value *x = *(const struct json_value *const *)a;
    const struct json_value *y = *(const struct json_value *const *)b;
    int order = compare(x, y);

    return order ? order : x < y ? -1 : 1; /* the tree's values stand in the text's order */
}

size_t python_sorted(
    const struct json_value *object, const struct json_value *out[JSON_VALUE_MEMBERS])
{
    size_t n = 0;

    for (const struct json_value *c = object->child; c && n < JSON_VALUE_MEMBERS; c = c->next)
        out[n++] = c;
    qsort(out, n, sizeof(void *), by_key);
    return n;
}

void python_upper(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf_putc(out, text[i] >= 'a' && text[i] <= 'z' ? (char)(text[i] - 32) : text[i]);
}
