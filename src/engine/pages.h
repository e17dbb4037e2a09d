/* pages.h - the pages of one group: who holds them, and those that only a later prompt may want.
 *
 * A page is free, held (references > 0), or idle: nobody holds it, but prefix.h knows what it
 * contains. Free pages go first; when there are none, the oldest idle one is taken. Used by kv.c
 * and prefix.c alone. */
#ifndef ENGINE_PAGES_H
#define ENGINE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NO_PAGE = -1 };

struct pages {
    size_t page_bytes, bytes;
    int window; /* 0: sees everything */
    uint32_t n, n_free, n_idle;
    uint32_t *free; /* a stack: the page given back last is handed out first, its memory is warm */
    uint32_t *refs;
    int32_t *older, *newer; /* neighbours of an idle page */
    int32_t oldest, newest; /* ends of that list */
};

void pages_init(struct pages *p, uint32_t n);
void pages_finish(struct pages *p);

/* Free and idle: what could be had. */
uint32_t pages_available(const struct pages *p);
/* Takes a free page with one reference; there must be one. */
uint32_t pages_take_free(struct pages *p);
void pages_free(struct pages *p, uint32_t page);
/* One reference more; an idle page is idle no longer. */
void pages_hold(struct pages *p, uint32_t page);

/* Into the list of idle pages, to be evicted last or first; and out of it. */
void pages_idle(struct pages *p, uint32_t page, bool evict_first);
void pages_unlink(struct pages *p, uint32_t page);

#endif
