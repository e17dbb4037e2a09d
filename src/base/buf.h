/* buf.h - growable bytes. Appending aborts when memory is out: callers bound what they append. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>

struct buf {
    char *data; /* len bytes and a NUL, or NULL while empty */
    size_t len, cap;
};

void buf_reserve(struct buf *b, size_t extra);
void buf_append(struct buf *b, const void *src, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_clear(struct buf *b);
char *buf_take(struct buf *b); /* never NULL; caller frees */
void buf_free(struct buf *b);

#endif
