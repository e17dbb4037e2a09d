/* carve.h - one allocation for many arrays: carved once to count, once to lay out. */
#ifndef GRAPH_CARVE_H
#define GRAPH_CARVE_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

/* Carves pieces off one allocation; with base NULL it only counts. */
struct carver {
    uint8_t *base;
    size_t at;
};

static inline void *carve(struct carver *c, size_t bytes)
{
    void *p = c->base ? c->base + c->at : NULL;

    c->at += mem_round_up(bytes, 64);
    return p;
}

#endif
