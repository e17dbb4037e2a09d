/* source_show.h - foreign text made fit for a sentence. Private to the model layer. */
#ifndef MODEL_SOURCE_SHOW_H
#define MODEL_SOURCE_SHOW_H

#include <stdbool.h>
#include <stddef.h>

/* s with control characters and invalid UTF-8 replaced by '?', cut to fit cap (>= 8) bytes with a
 * NUL; "..." marks a cut. */
void show_text(char *out, size_t cap, const char *s, size_t len);

struct shown {
    char text[96]; /* the longest names of tensors are 70 */
};
const char *show(struct shown *out, const char *s, size_t len);
const char *show_file(struct shown *out, const char *path); /* its last component */

/* Printable ASCII, 1 to max bytes. */
bool name_valid(const char *s, size_t len, size_t max);

#endif
