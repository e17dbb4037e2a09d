/* params.h - the members of a request that no parser took: refused, harmless, or unknown. */
#ifndef API_PARAMS_H
#define API_PARAMS_H

#include <stdbool.h>

#include "api/json.h"
#include "base/buf.h"
#include "gemmad/err.h"

/* Judges every member of a request body that is left in o. A parameter that is known somewhere and
 * has an effect we do not have is GD_ENOTSUP, unless its value asks for nothing. An unknown one is
 * added to ignored, or GD_EINVAL when strict. */
int params_rest(const struct json_object *o, bool strict, struct buf *ignored, struct err *err);

/* The same for a nested object, where every member left is unknown. group: how all objects of its
 * kind are called in the header ("messages[]"). */
int params_nested(const struct json_object *o, const char *group, bool strict, struct buf *ignored,
    struct err *err);

#endif
