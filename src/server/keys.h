/* keys.h - API keys. The file's keys are kept as SHA-256 digests only. */
#ifndef SERVER_KEYS_H
#define SERVER_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "gemmad/err.h"

struct keys;

/* One key a line: `key` or `name:key`; # comments and empty lines. GD_EINVAL names file and line.
 */
int keys_load(struct keys **out, const char *path, struct err *err);
void keys_free(struct keys *k); /* NULL is fine */
size_t keys_count(const struct keys *k);

/* NULL when no key matches, else the key's name ("" when it has none), borrowed. Takes the same
 * time whichever key matches or none. */
const char *keys_match(const struct keys *k, const char *key, size_t len);

#endif
