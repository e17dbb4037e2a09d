/* stop.h - stop strings in a stream of text that arrives in pieces.
 *
 * Text is given on as soon as no stop string can begin in it: what is held back is the longest
 * suffix that is a beginning of a stop string. The first stop string to be complete ends the
 * text; of several complete at the same byte, the longest. One pass, one state per string
 * (Knuth, Morris and Pratt), whatever the borders between pieces. */
#ifndef ENGINE_STOP_H
#define ENGINE_STOP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* The strings of a request; immutable, shared by its choices. */
struct stop_set;

/* Copies the strings, each with at least one byte. n == 0 is fine. */
struct stop_set *stop_set_create(const char *const *strings, size_t n);
void stop_set_destroy(struct stop_set *set); /* NULL is fine */
const char *stop_set_string(const struct stop_set *set, size_t i);

/* Where one choice stands; set is borrowed. */
struct stop_scan {
    const struct stop_set *set;
    size_t *matched; /* bytes of each string that the text ends with */
    char *held;
    size_t n_held;
};
void stop_scan_init(struct stop_scan *scan, const struct stop_set *set);
void stop_scan_finish(struct stop_scan *scan);

/* Appends to out the text that is decided. Returns the index of the stop string that ended the
 * text, or -1. After an end nothing more may be pushed; the stop string itself is in out when
 * include is set. */
int stop_scan_push(
    struct stop_scan *scan, const char *text, size_t len, bool include, struct buf *out);

/* No more text comes: gives what was held back. cut(): other text may come, in which nothing that
 * began here goes on. */
void stop_scan_cut(struct stop_scan *scan, struct buf *out);
void stop_scan_end(struct stop_scan *scan, struct buf *out);

#endif
