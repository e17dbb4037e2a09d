/* safetensors.h - one safetensors file: a JSON header and the tensors' bytes. Private to the folder
 * reader. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "gemmad/err.h"
#include "model/source_build.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

struct safetensor {
    const char *name;  /* valid UTF-8; of any length */
    const char *dtype; /* as the file spells it: "BF16" */
    int n_dims;
    int64_t shape[SAFETENSORS_MAX_DIMS]; /* slowest first, as the file says; may hold zeros */
    const uint8_t *data;                 /* in the mapping, unaligned */
    size_t bytes;
};

/* Called for each tensor in the header's order; a negative return ends the reading. t is valid
 * during the call, t->data as long as the source. */
typedef int safetensors_fn(void *arg, const struct safetensor *t, struct err *err);

/* Maps the file into s, checks that every tensor's bytes are there, that none overlaps another and
 * that nothing lies between or after them, and hands them to fn. */
int safetensors_read(
    struct source *s, const char *path, safetensors_fn *fn, void *arg, struct err *err);

#endif
