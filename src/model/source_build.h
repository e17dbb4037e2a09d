/* source_build.h - how the readers of model files put a source together. Private to them and to
 * source.c.
 *
 * A source is some read-only file mappings, a table of metadata and a table of tensors. A reader
 * fills the tables once; from then on nothing changes, so that any thread may look up. Whatever is
 * counted or measured here was checked against the mapping first, and is kept here rather than read
 * from the file again: a file that changes under the daemon can spoil values, not bounds. */
#ifndef MODEL_SOURCE_BUILD_H
#define MODEL_SOURCE_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "gemmad/err.h"
#include "model/source.h"
#include "model/source_show.h"

/* Far above what a Gemma needs (about 60 keys, 1000 tensors); below what would make a hostile file
 * costly. */
enum { SOURCE_MAX_NAMES = 65536, SOURCE_MAX_NAME = 255 };
/* GGUF limits a tensor's name to 64 bytes with the NUL. */
enum { SOURCE_MAX_TENSOR_NAME = 63 };

/* Distinct names in order of arrival, found by hash. Zeros are an empty table. */
struct names {
    char **at;       /* n of them, owned */
    uint32_t *slots; /* n_slots (a power of two) of index + 1; 0 = empty */
    size_t n, cap, n_slots;
};

/* False, and *i the older one, when the name is already there. The caller bounds n and len. */
bool names_add(struct names *t, const char *name, size_t len, size_t *i);
bool names_find(const struct names *t, const char *name, size_t *i);
void names_free(struct names *t);

struct mapping {
    struct file_map file;
    struct shown name;
};

struct value {
    uint32_t type, elem_type; /* enum gguf_type; elem_type of an array's elements */
    uint64_t n;               /* elements of an array, bytes of a string, else 1 */
    const uint8_t *data;      /* unaligned: the number, the bytes, the first element */
    const char *origin;       /* how config.json spells the key (a constant), NULL for GGUF */
    /* Arrays of strings, owned: element i lies between its own 8-byte length and the next one's,
     * strings[i] + 8 .. strings[i + 1]. */
    const uint8_t **strings;
};

struct values {
    struct names names;
    struct value *at; /* names.n of them */
    size_t cap;
};

/* The new value, zeroed; NULL when the key is already there. */
struct value *values_add(struct values *v, const char *key, size_t len);
const struct value *values_find(const struct values *v, const char *key);
void values_free(struct values *v);
/* As source_u32() and source_str(), on one table. */
int values_u32(const struct values *v, const char *key, uint32_t *out, struct err *err);

struct source {
    char *path;
    bool is_folder;
    bool given; /* tensors are the caller's, under their GGUF names */
    int arch;   /* of a folder: enum gemma_arch */
    struct values values;
    struct names tensor_names;
    struct tensor *tensors; /* tensor_names.n of them, by number */
    size_t tensors_cap;
    struct mapping *maps;
    size_t n_maps;
    void **owned; /* memory that tensors and values point into, freed at close */
    size_t n_owned;
};

/* The new tensor, zeroed but for its name; NULL when the name is already there. */
struct tensor *source_add_tensor(struct source *s, const char *name, size_t len);
void source_drop_tensors(struct source *s); /* forgets them all */
int source_give(struct source *s, const struct given_tensors *given, struct err *err);
/* Sets the bytes that type and shape make; an error names the tensor. */
int source_size_tensor(struct tensor *t, struct err *err);
/* Maps a regular file read-only into the source; an empty one has size 0. *out is a copy. */
int source_map(struct source *s, const char *path, struct mapping *out, struct err *err);
void source_unmap(struct source *s);
/* Zeroed memory that lives as long as the source; NULL when there is none. */
void *source_alloc(struct source *s, size_t bytes);

#endif
