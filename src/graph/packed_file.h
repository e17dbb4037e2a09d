/* packed_file.h - packed matrices in a file of their own, so that a restart maps what an earlier
 * start packed.
 *
 *   header      56 bytes: magic, byte order, format, checksum, size, what it belongs to
 *   directory   n entries of 112 bytes, names strictly ascending
 *   payload     a matrix per entry, or a stack of them, at a multiple of 64 bytes
 *
 * Every byte is foreign until it is checked. The header says which model and settings it belongs
 * to, and the format what else decides the bytes: PACKED_FORMAT goes up whenever a layout of
 * kernels/wmat_impl.h or a quantisation changes (tests/graph/test_packed.c notices). They do not
 * depend on the instruction set. The checksum is of header and directory, so that a file is refused
 * before a wrong offset is used.
 *
 * The payload has checksums too, one a matrix, and all are checked before the first use. That means
 * reading everything once; but from the page cache that is as fast as memory is (two threads of a
 * Zen 5: 25 ms for a gigabyte), and what is not in the cache has to come from the disk before the
 * first token anyway. Without it a damaged disk or a tool that wrote into the file would be wrong
 * answers. What changes in the file after the check is not noticed, as with the model itself. */
#ifndef GRAPH_PACKED_FILE_H
#define GRAPH_PACKED_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "gemmad/err.h"

enum { PACKED_FORMAT = 2, PACKED_NAME = 64 };

/* What the bytes depend on beside the format. */
struct packed_key {
    uint64_t model;          /* source_fingerprint() */
    uint32_t quantize, head; /* enum dtype, as weight_store_quantize() and _head() have them */
    uint32_t head_in_planes; /* 0 or 1 */
};

struct packed_matrix {
    const char *name;
    uint32_t type; /* enum dtype, in memory */
    int rows, k, n;
    bool in_planes;
    float max_scale; /* struct wmat's */
    size_t bytes;    /* of all n */
    const uint8_t *data;
};

struct packed_file;

/* Whether a file may be replaced: it is empty, or one of these, in whatever state. */
bool packed_file_is_one(const uint8_t *data, size_t size);

/* Checks all of a file's bytes (borrowed, 64-byte aligned) with the threads of the pool, NULL: with
 * the caller alone. GD_EFORMAT with a sentence about "it" when it cannot be used for this key. */
int packed_file_open(struct packed_file **out, const uint8_t *data, size_t size,
    const struct packed_key *key, struct pool *pool, struct err *err);
void packed_file_close(struct packed_file *f); /* NULL is fine */

/* Sets data and max_scale of a matrix when the file has one that is like it in everything else. */
bool packed_file_find(const struct packed_file *f, struct packed_matrix *m);

/* Writes a file of n matrices (sorts them) over the one at path, see file_draft_open() for what can
 * stand in the way; is_public: for everybody to read, as far as the umask goes. *stop, from any
 * thread, ends it with GD_ECANCELED and nothing left. */
int packed_file_write(const char *path, bool is_public, const struct packed_key *key,
    struct packed_matrix *m, size_t n, const atomic_bool *stop, struct err *err);

#endif
