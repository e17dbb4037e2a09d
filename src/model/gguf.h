/* gguf.h - the GGUF container, versions 2 and 3, one file or a split set. Called by source_open().
 */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H

#include <stddef.h>

#include "gemmad/err.h"
#include "model/source.h"

/* What a metadata value is; the numbers are GGUF's. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_N_TYPES
};

const char *gguf_type_name(uint32_t type); /* "unknown" past the last */
/* Bytes of one value; 0 for strings, arrays and unknown types, whose size varies. */
size_t gguf_type_bytes(uint32_t type);

/* Fills an empty source from `path`, any part of a split set. On failure s is half filled and
 * source_close() cleans it up. */
int gguf_read(struct source *s, const char *path, struct err *err);

#endif
