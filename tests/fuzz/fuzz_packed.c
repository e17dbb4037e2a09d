/* Any bytes as a file of packed weights, with what vouches for them put right, so that the rest is
 * seen too: whatever is taken lies within the file. The first byte says how far. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "graph/packed_file.h"

enum { HEADER = 56, ENTRY = 112, TAIL = 24 }; /* see packed_file.c */

static const struct packed_key key = {7, 8, 14, 1};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(uint8_t *at, uint64_t value, size_t n)
{
    memcpy(at, &value, n);
}

/* The sums of the entries that lie in the file, then the header's. */
static void put_sums(uint8_t *file, size_t size)
{
    uint32_t n;

    memcpy(&n, file + 52, 4);
    n = (uint32_t)(n % ((size - HEADER) / ENTRY + 1));
    put(file + 52, n, 4);
    for (uint8_t *e = file + HEADER; e < file + HEADER + n * ENTRY; e += ENTRY) {
        uint64_t offset, bytes, h;

        memcpy(&offset, e + 88, 8);
        memcpy(&bytes, e + 96, 8);
        if (offset > size || bytes > size - offset)
            continue;
        h = hash_bytes(0, file + offset, bytes);
        put(e + 104, hash_bytes(0, &h, sizeof(h)), 8);
    }
    put(file + 16, hash_bytes(hash_bytes(0, file + TAIL, HEADER - TAIL), file + HEADER, n * ENTRY),
        8);
}

static void put_header(uint8_t *file, size_t size)
{
    memcpy(file, "gemmadpw", 8);
    put(file + 8, 0x01020304, 4);
    put(file + 12, PACKED_FORMAT, 4);
    put(file + 24, size, 8);
    put(file + 32, key.model, 8);
    put(file + 40, key.quantize, 4);
    put(file + 44, key.head, 4);
    put(file + 48, key.head_in_planes, 4);
}

/* Every entry by what the directory says of it, and all of its bytes. */
static void find_all(const struct packed_file *f, const uint8_t *file, size_t size)
{
    uint32_t n;

    memcpy(&n, file + 52, 4);
    for (const uint8_t *e = file + HEADER; e < file + HEADER + n * ENTRY; e += ENTRY) {
        uint32_t fields[5];
        uint64_t bytes;
        struct packed_matrix m;

        memcpy(fields, e + 64, sizeof(fields));
        memcpy(&bytes, e + 96, 8);
        m = (struct packed_matrix){.name = (const char *)e,
            .type = fields[0],
            .rows = (int)fields[1],
            .k = (int)fields[2],
            .n = (int)fields[3],
            .in_planes = fields[4],
            .bytes = bytes};
        if (!packed_file_find(f, &m) || m.data < file || bytes > size ||
            m.data > file + size - bytes || !(m.max_scale >= 0))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct packed_file *f;
    struct err err = {0};
    uint8_t *file;

    if (size < 1)
        return 0;
    file = malloc(size); /* its end is where the sanitizer watches */
    memcpy(file, data + 1, --size);
    if (size >= HEADER && data[0] % 4 > 0)
        put_header(file, size);
    if (size >= HEADER && data[0] % 4 > 1)
        put_sums(file, size);
    if (packed_file_open(&f, file, size, &key, NULL, &err) < 0) {
        if (err.code != GD_EFORMAT || !err.msg[0])
            abort();
    } else {
        find_all(f, file, size);
        packed_file_close(f);
    }
    free(file);
    return 0;
}
