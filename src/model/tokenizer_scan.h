/* tokenizer_scan.h - reads JSON from front to back, value by value, without keeping it: a
 * tokenizer.json has a million and a half values. Private to the tokenizer.
 *
 * Members and elements:
 *     for (bool more = scan_open(&s, '{'); more; more = scan_more(&s, '}')) {
 *         scan_key(&s, &key, &len);
 *         ... exactly one value ...
 *     }
 * The first thing that is not as asked for sets s->bad, which ends every loop; look at it once. */
#ifndef MODEL_TOKENIZER_SCAN_H
#define MODEL_TOKENIZER_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct scan {
    const char *begin, *at, *end;
    bool bad;
    struct buf text; /* of a string with escapes; free with scan_free() */
};

void scan_init(struct scan *s, const char *text, size_t len);
void scan_free(struct scan *s);

bool scan_open(struct scan *s, char bracket); /* false: bad, or empty and closed already */
bool scan_more(struct scan *s, char bracket); /* false: bad, or closed */

/* The next value's first character, 0 at the end; nothing is read. */
char scan_peek(struct scan *s);
/* Borrowed until the next string is read. A lone surrogate is U+FFFD. */
void scan_string(struct scan *s, const char **text, size_t *len);
void scan_key(struct scan *s, const char **text, size_t *len); /* and the colon */
int64_t scan_int(struct scan *s);                              /* 0 when bad; at most 15 digits */
bool scan_bool(struct scan *s);
/* Reads any value. */
void scan_skip(struct scan *s);

bool scan_is(const char *text, size_t len, const char *want);

#endif
