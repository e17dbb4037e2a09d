/* arena.h - memory of one request, given back at once. */
#ifndef API_ARENA_H
#define API_ARENA_H

#include <stddef.h>

struct arena {
    struct arena_block *blocks;
};

/* n * size zeroed bytes; NULL when there is no memory. Sizes come from requests, so it may fail. */
void *arena_alloc(struct arena *a, size_t n, size_t size);
void arena_free(struct arena *a);

#endif
