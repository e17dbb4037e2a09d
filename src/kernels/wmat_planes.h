/* wmat_planes.h - where the parts of a matrix in planes lie (kernels/planes.h); for the matmul
 * files only. */
#ifndef KERNELS_WMAT_PLANES_H
#define KERNELS_WMAT_PLANES_H

#include "kernels/wmat_lane.h"

enum { FINE_BLOCK = 256 }; /* bytes of 32 k: four lines, as Q4_0's codes */

ALWAYS_INLINE size_t planes_coarse_bytes(int k)
{
    return (size_t)k * 8 + ((size_t)k / BLOCK_K + 1) / 2 * 64;
}

ALWAYS_INLINE size_t planes_fine_bytes(int k)
{
    return (size_t)k * 8;
}

/* The type whose layout a matrix has. */
ALWAYS_INLINE enum dtype wmat_layout(const struct wmat *w)
{
    return w->fine ? DTYPE_Q8_0_PLANES : w->type->type;
}

/* The lower halves of a panel; a valid pointer of no use where there are none. */
ALWAYS_INLINE const uint8_t *wmat_fine(const struct wmat *w, int panel)
{
    return w->fine ? w->fine + (size_t)panel * planes_fine_bytes(w->k) : w->data;
}

/* wmat_word() of block b for every type, in planes too. */
ALWAYS_INLINE uint32_t wmat_whole_word(
    enum dtype type, const uint8_t *codes, const uint8_t *fine, int b, int r, int g)
{
    const uint32_t word = wmat_word(type, codes, r, g);

    if (type != DTYPE_Q8_0_PLANES)
        return word;
    return word << 4 | wmat_word(type, fine + (size_t)b * FINE_BLOCK, r, g);
}

#endif
