/* wmat_planes.h - where the parts of a matrix in planes lie (kernels/planes.h); for the matmul
 * files only.
 *
 * Two blocks of 32 k of a panel, in lines of 16 rows as in wmat_impl.h; "g | h" is a line with
 * group g in its low nibbles and h in its high ones, g' and h' are groups of the second block:
 *
 *   coarse plane    scales                                 lower halves of the strong columns
 *                   d[2][16]                               0 | 0'
 *     upper halves  0 | 4    1 | 5    2 | 6    3 | 7       0' | 4'  1' | 5'  2' | 6'  3' | 7'
 *   fine plane      4 | 4'
 *     lower halves  1 | 5    2 | 6    3 | 7                1' | 5'  2' | 6'  3' | 7' */
#ifndef KERNELS_WMAT_PLANES_H
#define KERNELS_WMAT_PLANES_H

#include "kernels/planes.h"
#include "kernels/wmat_lane.h"

enum { PLANES_K = 64, FINE_TILE = 7 * 64 };

ALWAYS_INLINE size_t planes_fine_bytes(int k)
{
    return (size_t)(k / PLANES_K) * FINE_TILE;
}

/* The lower halves of a panel; a valid pointer of no use where there are none. */
ALWAYS_INLINE const uint8_t *wmat_fine(const struct wmat *w, int panel)
{
    return w->fine ? w->fine + (size_t)panel * planes_fine_bytes(w->k) : w->data;
}

ALWAYS_INLINE bool wmat_planes(enum dtype type)
{
    return type == DTYPE_Q8_0_PLANES || type == DTYPE_Q8_0_COARSE;
}

/* Whether the lower halves of group g are there. */
ALWAYS_INLINE bool wmat_has_lower(enum dtype type, int g)
{
    return type == DTYPE_Q8_0_PLANES || g == 0;
}

/* The line with the lower halves of group g of block j of a tile, and by how much they are to be
 * shifted right. */
ALWAYS_INLINE const uint8_t *wmat_lower(
    const uint8_t *coarse_tile, const uint8_t *fine_tile, int j, int g, int *shift)
{
    *shift = g % 4 == 0 ? 4 * j : g / 4 * 4;
    if (g == 0)
        return coarse_tile + 64;
    return g == 4 ? fine_tile : fine_tile + 64 * (3 * j + g % 4);
}

/* wmat_word() of block b for every type, in planes too. */
ALWAYS_INLINE uint32_t wmat_whole_word(
    enum dtype type, const uint8_t *panel, const uint8_t *fine, int b, int r, int g)
{
    const uint32_t word = wmat_word(type, wmat_codes(type, panel, b), r, g);
    const uint8_t *line;
    int shift;

    if (!wmat_planes(type))
        return word;
    if (!wmat_has_lower(type, g))
        return word << 4;
    line =
        wmat_lower(wmat_tile(type, panel, b), fine + (size_t)(b / 2) * FINE_TILE, b % 2, g, &shift);
    return word << 4 | (load_u32(line + 4 * r) >> shift & 0x0f0f0f0f);
}

#endif
