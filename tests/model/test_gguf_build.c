#include "test_gguf_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

void put_bytes(struct buf *b, const void *p, size_t n)
{
    buf_append(b, p, n);
}

void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof(v));
}

void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof(v));
}

void put_string(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    put_bytes(b, s, strlen(s));
}

void put_header(struct buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    put_bytes(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_keys);
}

static void put_value(struct buf *b, uint32_t type, double num, const char *str)
{
    float f = (float)num;
    int64_t i = type == GGUF_F32 || type == GGUF_F64 ? 0 : (int64_t)num;

    if (type == GGUF_STRING)
        put_string(b, str);
    else if (type == GGUF_F32)
        put_bytes(b, &f, sizeof(f));
    else if (type == GGUF_F64)
        put_bytes(b, &num, sizeof(num));
    else
        put_bytes(b, &i, gguf_type_bytes(type));
}

void put_key(struct buf *b, const struct test_key *k)
{
    put_string(b, k->key);
    put_u32(b, k->type);
    if (k->type != GGUF_ARRAY) {
        put_value(b, k->type, k->num, k->str);
        return;
    }
    put_u32(b, k->elem_type);
    put_u64(b, k->n);
    for (unsigned i = 0; i < k->n; i++)
        put_value(b, k->elem_type, k->num, k->str);
}

void put_tensor(struct buf *b, const struct test_tensor *t)
{
    put_string(b, t->name);
    put_u32(b, t->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++)
        put_u64(b, (uint64_t)t->ne[i % 4]);
    put_u32(b, t->type);
    put_u64(b, t->offset);
}

void put_padding(struct buf *b, size_t alignment)
{
    while (b->len % alignment != 0)
        buf_putc(b, 0);
}

int open_bytes(struct source **out, const void *bytes, size_t n, struct err *err)
{
    char path[64];
    int fd = memfd_create("model.gguf", MFD_CLOEXEC);
    int r;

    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    r = source_open(out, path, err);
    close(fd);
    return r;
}

const char *golden_path(const char *below)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/%s", GOLDEN_DIR, below);
    return path;
}
