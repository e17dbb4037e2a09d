#include "api/arena.h"

#include <stdlib.h>

#include "base/mem.h"

struct arena_block {
    struct arena_block *next;
    max_align_t data[];
};

void *arena_alloc(struct arena *a, size_t n, size_t size)
{
    struct arena_block *block;
    size_t bytes;

    if (!mem_mul(n, size, &bytes) || !mem_add(bytes, sizeof(*block), &bytes))
        return NULL;
    block = calloc(1, bytes);
    if (!block)
        return NULL;
    block->next = a->blocks;
    a->blocks = block;
    return block->data;
}

void arena_free(struct arena *a)
{
    while (a->blocks) {
        struct arena_block *next = a->blocks->next;

        free(a->blocks);
        a->blocks = next;
    }
}
