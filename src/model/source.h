/* source.h - "find a tensor by name" and "find a key by name": the one interface that model file
 * readers implement.
 *
 * Names are GGUF's (token_embd.weight, blk.3.attn_q.weight): a reader of another format translates.
 * Everything returned is borrowed from the source and lives as long as it is open. Opened and
 * closed by one thread; between the two, any thread may look up. */
#ifndef MODEL_SOURCE_H
#define MODEL_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/err.h"

struct tensor {
    const char *name;
    uint32_t type; /* GGUF type id; the reader has checked that the bytes are there */
    int n_dims;
    int64_t ne[4];       /* ne[0] is contiguous; unused entries are 1 */
    const uint8_t *data; /* mostly in the file mapping; unaligned */
    size_t bytes;
    bool in_memory; /* data is memory, not the file mapping */
    bool given;     /* by the caller of source_open_given() */
};

struct source;

/* Opens a GGUF file (any part of a split set: all parts are mapped) or a Hugging Face folder
 * (config.json and safetensors). */
int source_open(struct source **out, const char *path, struct err *err);
void source_close(struct source *s); /* NULL is fine */
/* Weights that come from elsewhere, in the caller's memory, which must outlive the source: the file
 * or folder gives the keys, and its own tensors are left out. Of each, name (copied), type, n_dims,
 * ne, data and bytes are looked at and checked as a file's would be: GD_EFORMAT names the tensor.
 */
struct given_tensors {
    const struct tensor *at;
    size_t n;
};
int source_open_given(
    struct source **out, const char *path, const struct given_tensors *given, struct err *err);
/* After the tensors have been read: GD_EIO, naming the file, when one was changed meanwhile, so
 * that what was read may be spoiled. (Touching the bytes of a file that shrank raises SIGBUS.) */
int source_unchanged(const struct source *s, struct err *err);
/* Which model this is: from sizes and times of its files, from names, types, shapes and places of
 * its tensors, and from samples of them (small ones whole). What stays equal although the model
 * became another one: a change of a few numbers in place, with the time put back. */
uint64_t source_fingerprint(const struct source *s);
/* Whether everybody on this machine may read all of its files. */
bool source_is_public(const struct source *s);
const char *source_path(const struct source *s);
/* True for a Hugging Face folder: its tokenizer is in files of source_path(), not in keys. */
bool source_is_folder(const struct source *s);

size_t source_n_tensors(const struct source *s);
const struct tensor *source_tensor_at(const struct source *s, size_t i);
const struct tensor *source_tensor(const struct source *s, const char *name); /* NULL when absent */

/* Metadata. Each returns 1 when found and of a fitting type, 0 when the key is absent, GD_EFORMAT
 * (naming the key) when its type does not fit. Integers accept every integer width that holds the
 * value; floats accept f32 and f64. */
int source_u32(const struct source *s, const char *key, uint32_t *out, struct err *err);
int source_f32(const struct source *s, const char *key, float *out, struct err *err);
int source_bool(const struct source *s, const char *key, bool *out, struct err *err);
int source_str(
    const struct source *s, const char *key, const char **out, size_t *len, struct err *err);

/* Arrays. */
struct source_array {
    uint32_t type; /* GGUF value type id of the elements */
    uint64_t n;
    const uint8_t *data; /* unaligned elements; strings: see source_array_str */
    const void *strings; /* reader's own index, for source_array_str */
};
int source_array(
    const struct source *s, const char *key, struct source_array *out, struct err *err);
/* Element i as an integer, a float, a string. False when the type does not fit or i is out of
 * range. */
bool source_array_int(const struct source_array *a, uint64_t i, int64_t *out);
bool source_array_f32(const struct source_array *a, uint64_t i, float *out);
bool source_array_str(const struct source_array *a, uint64_t i, const char **out, size_t *len);

/* How the model's own files spell a key: config.json's name in a folder, else the key itself. */
const char *source_key_origin(const struct source *s, const char *key);
/* The same for a tensor, there or not; out may hold the answer. */
const char *source_tensor_origin(const struct source *s, const char *name, char out[96]);

/* The i-th metadata key, NULL past the end (for people: gemmad graph, tests). */
const char *source_key_at(const struct source *s, size_t i);

#endif
