/* detok.c - bytes in, whole UTF-8 out. */
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer.h"

static size_t put(char *out, const char *s, size_t n)
{
    memcpy(out, s, n);
    return n;
}

static size_t put_bad(char *out)
{
    return put(out, "\xef\xbf\xbd", 3);
}

/* Completes the character that began in an earlier push, byte by byte; returns the bytes written
 * and sets *used. */
static size_t finish_pending(
    struct utf8_stream *s, const char *bytes, size_t len, size_t *used, char *out)
{
    size_t written = 0, bad;
    uint32_t cp;

    while (s->n > 0 && *used < len) {
        s->pending[s->n++] = (unsigned char)bytes[(*used)++];
        if (utf8_decode((const char *)s->pending, (size_t)s->n, &cp, &bad) > 0) {
            written += put(out + written, (const char *)s->pending, (size_t)s->n);
            s->n = 0;
        } else if (bad > 0) {
            /* The last byte does not go on with it: it is looked at afresh. */
            written += put_bad(out + written);
            s->n = 0;
            --*used;
        }
    }
    return written;
}

size_t utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t len, char *out)
{
    size_t at = 0, written = finish_pending(s, bytes, len, &at, out);

    while (at < len) {
        uint32_t cp;
        size_t bad, n = utf8_decode(bytes + at, len - at, &cp, &bad);

        if (n > 0) {
            written += put(out + written, bytes + at, n);
        } else if (bad > 0) {
            written += put_bad(out + written);
            n = bad;
        } else {
            s->n = (int)(len - at);
            memcpy(s->pending, bytes + at, len - at);
            n = len - at;
        }
        at += n;
    }
    return written;
}

size_t utf8_stream_end(struct utf8_stream *s, char *out)
{
    size_t n = s->n > 0 ? put_bad(out) : 0;

    s->n = 0;
    return n;
}
