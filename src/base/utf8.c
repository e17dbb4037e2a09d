#include "base/utf8.h"

/* Table 3-7 of the Unicode standard: the second byte's range depends on the first. */
static bool lead(unsigned char c, size_t *len, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        *len = 2;
    } else if (c >= 0xe0 && c <= 0xef) {
        *len = 3;
        if (c == 0xe0)
            *lo = 0xa0;
        if (c == 0xed)
            *hi = 0x9f; /* no surrogates */
    } else if (c >= 0xf0 && c <= 0xf4) {
        *len = 4;
        if (c == 0xf0)
            *lo = 0x90;
        if (c == 0xf4)
            *hi = 0x8f; /* nothing above U+10FFFF */
    } else {
        return false;
    }
    return true;
}

size_t utf8_decode(const char *s, size_t n, uint32_t *cp, size_t *bad)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char lo, hi;
    uint32_t v;
    size_t len;

    *bad = 0;
    if (n == 0)
        return 0;
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    if (!lead(p[0], &len, &lo, &hi)) {
        *bad = 1;
        return 0;
    }
    v = p[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++, lo = 0x80, hi = 0xbf) {
        if (i == n)
            return 0;
        if (p[i] < lo || p[i] > hi) {
            *bad = i;
            return 0;
        }
        v = v << 6 | (p[i] & 0x3f);
    }
    *cp = v;
    return len;
}

size_t utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

bool utf8_valid(const char *s, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        size_t bad, len = utf8_decode(s + at, n - at, &cp, &bad);

        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

/* The white space of Python's str.strip(). */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

void utf8_trim(const char **text, size_t *len)
{
    const char *s = *text, *end = s + *len;
    size_t bad, n;
    uint32_t c;

    while ((n = utf8_decode(s, (size_t)(end - s), &c, &bad)) > 0 && is_space(c))
        s += n;
    while (s < end) {
        size_t back = 1;

        while (back < 3 && (size_t)(end - s) > back && (end[-(ptrdiff_t)back] & 0xc0) == 0x80)
            back++;
        if (utf8_decode(end - back, back, &c, &bad) != back || !is_space(c))
            break;
        end -= back;
    }
    *text = s;
    *len = (size_t)(end - s);
}
