/* json.h - a strict front for cJSON, and getters that explain what they did not like.
 *
 * json_parse() first walks the bytes by RFC 8259 and refuses what cJSON would let through or bend:
 * trailing bytes, leading zeros, numbers beyond a double, control characters, broken UTF-8, lone
 * surrogates, U+0000, more than 64 levels, too many values. Then cJSON builds the tree, and
 * duplicate keys are refused by name. Strings of the tree therefore hold no NUL. */
#ifndef API_JSON_H
#define API_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "gemmad/err.h"

enum { JSON_DEPTH_MAX = 64, JSON_MEMBERS_MAX = 256, JSON_PATH_MAX = 64, JSON_SHOW_MAX = 64 };

struct json {
    cJSON *root;
    /* The number of the member "seed" of the root as it was written: it may need 64 bits, where a
     * double has 53. Borrowed from the body; NULL when there is none. */
    const char *seed;
    size_t seed_len;
};

/* GD_EINVAL with the byte or key at fault, GD_ETOOBIG, GD_ENOMEM. Free out->root with
 * cJSON_Delete(). */
int json_parse(struct json *out, const char *body, size_t len, size_t bytes_max, size_t values_max,
    struct err *err);

/* An object whose members are taken one by one; what was never asked for is left over. */
struct json_object {
    const cJSON *item;
    char path[JSON_PATH_MAX];             /* "" or "messages[3]", for errors */
    uint64_t seen[JSON_MEMBERS_MAX / 64]; /* by position */
};

/* GD_EINVAL when item is no object or has more than JSON_MEMBERS_MAX members. */
int json_open(struct json_object *o, const cJSON *item, const char *path, struct err *err);
/* NULL when absent or null. Linear, so an object has few members. */
const cJSON *json_take(struct json_object *o, const char *name);
/* The next member nobody took, in order; *at starts at 0. NULL at the end. */
const cJSON *json_left(const struct json_object *o, size_t *at);
/* "messages[3].role" */
void json_path(const struct json_object *o, const char *name, char out[JSON_PATH_MAX]);

/* Members by type: 1 and *out set, 0 when absent or null, or GD_EINVAL: "n: want an integer in
 * 1..16, got a string". Strings and arrays are borrowed from the tree. */
int json_bool(struct json_object *o, const char *name, bool *out, struct err *err);
int json_int(struct json_object *o, const char *name, int64_t min, int64_t max, int64_t *out,
    struct err *err);
int json_number(
    struct json_object *o, const char *name, double min, double max, double *out, struct err *err);
int json_string(struct json_object *o, const char *name, const char **out, struct err *err);
int json_array(
    struct json_object *o, const char *name, int max, const cJSON **out, int *n, struct err *err);

/* An integer value by itself; the same refusals. */
int json_integer(
    const cJSON *item, const char *path, int64_t min, int64_t max, int64_t *out, struct err *err);

/* A foreign name as it may stand in a sentence or a header: printable ASCII without quotes and
 * commas, cut. */
void json_show(const char *text, char out[JSON_SHOW_MAX]);
/* "PATH: want WANT, got a string" and GD_EINVAL. */
int json_refuse(struct err *err, const char *path, const char *want, const cJSON *got);

#endif
