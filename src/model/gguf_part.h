/* gguf_part.h - one file of a GGUF model, while it is being read. Private to the GGUF reader. */
#ifndef MODEL_GGUF_PART_H
#define MODEL_GGUF_PART_H

#include <stdint.h>
#include <stdio.h>

#include "gemmad/err.h"
#include "model/gguf.h"
#include "model/source_build.h"
#include "model/source_show.h"

struct gguf_part {
    struct mapping map; /* a copy of the source's */
    size_t at;          /* how far it has been read */
    uint64_t n_tensors, n_keys;
    struct values values; /* owned; free with values_free() */
    struct shown name;
};

/* Maps the file and reads header and metadata. On failure too, p->values is the caller's to free.
 */
int gguf_part_open(struct gguf_part *p, struct source *s, const char *path, struct err *err);
/* After open: adds its tensors to the source. */
int gguf_part_tensors(struct gguf_part *p, struct source *s, struct err *err);

#endif
