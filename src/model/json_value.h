/* json_value.h - JSON text as a tree that keeps numbers as they were written.
 *
 * Chat templates print numbers as Python does, which tells 2 from 2.0 and knows integers of any
 * length; a reader that makes doubles of them cannot. Used for a request's tools and arguments,
 * which are small, by any thread. */
#ifndef MODEL_JSON_VALUE_H
#define MODEL_JSON_VALUE_H

#include <stdbool.h>
#include <stddef.h>

/* Bounds on what hostile text can cost: nesting, values in all, members of one object. */
enum { JSON_VALUE_DEPTH = 64, JSON_VALUES_MAX = 100000, JSON_VALUE_MEMBERS = 256 };

enum json_kind {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

struct json_value {
    enum json_kind kind;
    const char *text; /* a string's characters, a number as written; may hold NULs */
    size_t len;
    const char *key; /* of a member; of two with one name the last counts, at the first's place */
    size_t key_len;
    struct json_value *child, *next;
    size_t n; /* children */
};

struct json_tree {
    struct json_value *root; /* NULL: nothing was read */
    void *memory;
};

/* Reads all of text by RFC 8259. NULL on success; else words that say what is wrong ("an object
 * without , or }"). Free in either case. */
const char *json_tree_read(struct json_tree *t, const char *text, size_t len);
void json_tree_free(struct json_tree *t);

/* The member of an object; NULL when v is none, is NULL, or has no such member. */
const struct json_value *json_member(const struct json_value *v, const char *key);
static inline bool json_is(const struct json_value *v, enum json_kind kind) /* NULL is nothing */
{
    return v && v->kind == kind;
}

/* What Python takes for false: nothing, null, false, zero, and empty strings, lists, objects. */
bool json_truthy(const struct json_value *v);

#endif
