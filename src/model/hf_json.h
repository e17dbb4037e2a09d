/* hf_json.h - JSON of a Hugging Face folder, parsed strictly. Private to the folder reader.
 *
 * cJSON alone takes trailing rubbish, cuts strings at an escaped NUL, keeps duplicate keys and
 * needs 80 bytes per value; what it would misread is refused before it sees the text. */
#ifndef MODEL_HF_JSON_H
#define MODEL_HF_JSON_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "gemmad/err.h"

/* Parses text, which must be an object. `name` is what sentences call it. GD_EFORMAT when it is not
 * JSON, repeats a key, nests deeper than 32 or holds more than 400,000 values. Caller deletes *out.
 */
int hf_json_parse(cJSON **out, const void *text, size_t len, const char *name, struct err *err);

/* The same for a text that must be an array. */
int hf_json_parse_array(
    cJSON **out, const void *text, size_t len, const char *name, struct err *err);

/* The member, or NULL when it is absent. */
const cJSON *hf_json_get(const cJSON *object, const char *key);

#endif
