/* test_gguf_build.h - GGUF files made in memory, good and bad, for the tests of the model layer. */
#ifndef TEST_GGUF_BUILD_H
#define TEST_GGUF_BUILD_H

#include <stdint.h>

#include "base/buf.h"
#include "gemmad/err.h"
#include "model/gguf.h"
#include "model/source.h"

/* One key. Numbers (bools too) come from num; an array has n elements, each num, or str. */
struct test_key {
    const char *key;
    uint32_t type; /* enum gguf_type */
    double num;
    const char *str;
    uint32_t elem_type;
    unsigned n;
};

struct test_tensor {
    const char *name;
    uint32_t type; /* enum dtype */
    uint32_t n_dims;
    int64_t ne[4];
    uint64_t offset;
};

void put_bytes(struct buf *b, const void *p, size_t n);
void put_u32(struct buf *b, uint32_t v);
void put_u64(struct buf *b, uint64_t v);
void put_string(struct buf *b, const char *s);
void put_header(struct buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys);
void put_key(struct buf *b, const struct test_key *k);
void put_tensor(struct buf *b, const struct test_tensor *t);
void put_padding(struct buf *b, size_t alignment);

/* Opens bytes as a file (a memfd). */
int open_bytes(struct source **out, const void *bytes, size_t n, struct err *err);
/* Path of a file under tests/golden, in a static buffer. */
const char *golden_path(const char *below);

#endif
