/* chat_python.h - JSON values as Python and Jinja print them. Private to the chat formats.
 *
 * The published templates run on Python's values: what they print, how they sort and what they
 * call upper case is Python's. Letters outside the scripts of chat_python.c keep their case. */
#ifndef MODEL_CHAT_PYTHON_H
#define MODEL_CHAT_PYTHON_H

#include "base/buf.h"
#include "model/json_value.h"

/* str(v): a string as it is; inside lists and objects quoted by repr(). NULL prints nothing. */
void python_str(struct buf *out, const struct json_value *v);

/* The members by lower-cased name, those with one name in their order: Jinja's dictsort. Returns
 * how many there are; at most JSON_VALUE_MEMBERS. */
size_t python_sorted(
    const struct json_value *object, const struct json_value *out[JSON_VALUE_MEMBERS]);

/* ASCII letters in upper case, appended. */
void python_upper(struct buf *out, const char *text, size_t len);

#endif
