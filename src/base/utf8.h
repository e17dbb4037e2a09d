/* utf8.h - UTF-8 as the WHATWG decoder sees it (maximal invalid subparts become one U+FFFD). */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the valid sequence at s (1..4) and its code point; otherwise 0 and *bad = length of the
 * maximal invalid subpart (>= 1), or *bad = 0 when s[0..n) is a valid beginning that needs more
 * bytes. */
size_t utf8_decode(const char *s, size_t n, uint32_t *cp, size_t *bad);

/* Writes 1..4 bytes, returns how many. cp must be a scalar value. */
size_t utf8_encode(uint32_t cp, char out[4]);

bool utf8_valid(const char *s, size_t n);

/* Moves both ends past white space, as Python's str.strip() does: chat templates trim so. */
void utf8_trim(const char **text, size_t *len);

#endif
