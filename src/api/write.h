/* write.h - JSON by hand, where a token must not cost more than a microsecond.
 *
 * Everything written is valid JSON in valid UTF-8, whatever the bytes were. */
#ifndef API_WRITE_H
#define API_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* A JSON string with its quotes. Invalid UTF-8 becomes U+FFFD. */
void write_string(struct buf *b, const char *s, size_t n);
/* The string's inside only, so that one string can be made of several pieces. */
void write_escaped(struct buf *b, const char *s, size_t n);
/* [240,159,152] */
void write_bytes(struct buf *b, const char *s, size_t n);
void write_int(struct buf *b, int64_t v);
/* Shortest form that reads back as the same float, always with a point or an exponent; what is
 * below -9999 or no number is -9999.0, OpenAI's "too unlikely". */
void write_logprob(struct buf *b, float v);
/* Nine digits, which read back as the same float; null for what is no number. One call of printf:
 * vectors have hundreds of them. */
void write_float(struct buf *b, float v);
/* Padded, without line breaks or quotes. */
void write_base64(struct buf *b, const unsigned char *bytes, size_t n);

#endif
