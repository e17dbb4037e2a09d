/* detok.c - bytes in, whole UTF-8 out. */
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer.h"

static const char replacement[3] = {'\xef', '\xbf', '\xbd'}; /* U+FFFD */

/* The two bytes that would begin a surrogate. They can become nothing valid, but they wait for
 * their third byte all the same: so does the decoder whose chunks ours are compared with. */
static bool is_half_surrogate(const char *s, size_t n)
{
    return n == 2 && (unsigned char)s[0] == 0xed && (unsigned char)s[1] >= 0xa0 &&
           (unsigned char)s[1] <= 0xbf;
}

/* Decodes what is decided of s[0..n) to out; *left: how many bytes at the end wait for more. */
static size_t decode(const char *s, size_t n, bool last, size_t *left, char *out)
{
    size_t written = 0, at = 0;

    while (at < n) {
        uint32_t cp;
        size_t bad, len = utf8_decode(s + at, n - at, &cp, &bad);

        if (!last && len == 0 && (bad == 0 || is_half_surrogate(s + at, n - at)))
            break;
        if (len > 0) {
            memcpy(out + written, s + at, len);
            written += len;
        } else {
            memcpy(out + written, replacement, sizeof(replacement));
            written += sizeof(replacement);
            len = bad > 0 ? bad : n - at;
        }
        at += len;
    }
    *left = n - at;
    return written;
}

static void keep(struct utf8_stream *s, const char *bytes, size_t n)
{
    memmove(s->pending, bytes, n);
    s->n = (int)n;
}

size_t utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t len, char *out)
{
    char *pending = (char *)s->pending;
    size_t written = 0, left;

    for (; s->n > 0 && len > 0; bytes++, len--) { /* the character that began earlier */
        pending[s->n++] = *bytes;
        written += decode(pending, (size_t)s->n, false, &left, out + written);
        keep(s, pending + (size_t)s->n - left, left);
    }
    if (len == 0)
        return written;
    written += decode(bytes, len, false, &left, out + written);
    keep(s, bytes + len - left, left);
    return written;
}

size_t utf8_stream_end(struct utf8_stream *s, char *out)
{
    size_t left, n = decode((const char *)s->pending, (size_t)s->n, true, &left, out);

    s->n = 0;
    return n;
}
