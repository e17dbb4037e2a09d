/* attention_simd_tiles.h - the products of a block on vectors, for the `vf` of the including file.
 *
 * Tiles of up to 4 queries by TILE_VECTORS lines stay in registers. Every number of a tile has one
 * accumulator, which runs over dimensions or positions in ascending order: a tile's shape changes
 * nothing. `page`, `n_queries` and `n_lines` are constants wherever these functions are called. */
#ifndef KERNELS_ATTENTION_SIMD_TILES_H
#define KERNELS_ATTENTION_SIMD_TILES_H

#include "kernels/attention_simd_line.h"

enum { TILE_QUERIES = 4 };

/* Scores of n_lines * LANES slots, from a multiple of 16 on, whose keys start at k. */
INLINE void scores_tile(enum page page, int n_queries, int n_lines, float *s, const uint8_t *q,
    const uint8_t *k, int width)
{
    const size_t plane = KV_PAGE * (size_t)width * PAGE_BYTES(page);
    const size_t group = 16 * (size_t)width * PAGE_BYTES(page);
    const size_t q_row = (size_t)width * FACTOR_BYTES(page);
    vf acc[TILE_QUERIES][TILE_VECTORS];

    for (int i = 0; i < n_queries; i++) {
        for (int j = 0; j < n_lines; j++)
            acc[i][j] = vf_set1(0);
    }
    for (int d = 0; d < width; d += LINE_STEP(page)) {
        struct line l[TILE_VECTORS];

        for (int j = 0; j < n_lines; j++) {
            int slot = j * LANES;

            l[j] = load_line(page, k + (size_t)(slot / 16) * group + slot % 16 * sizeof(float));
            if (slot % 16 == 0)
                __builtin_prefetch(k + plane + (size_t)(slot / 16) * group, 0, 2);
        }
        for (int i = 0; i < n_queries; i++) {
            for (int j = 0; j < n_lines; j++)
                acc[i][j] = fold(page, acc[i][j], l[j], q + (size_t)i * q_row);
        }
        k += 16 * sizeof(float);
        q += LINE_STEP(page) * FACTOR_BYTES(page);
    }
    for (int i = 0; i < n_queries; i++) {
        for (int j = 0; j < n_lines; j++)
            vf_store(s + i * ROW_FLOATS + j * LANES, acc[i][j]);
    }
}

INLINE void scores_rows(enum page page, int n_queries, float *s, const uint8_t *q, const uint8_t *k,
    const struct block *b)
{
    const int wide = TILE_VECTORS * LANES;
    int slot = b->first / wide * wide;

    for (; slot + wide - 16 < b->last; slot += wide)
        scores_tile(page, n_queries, TILE_VECTORS, s + slot, q,
            k + (size_t)slot * (size_t)b->width * PAGE_BYTES(page), b->width);
    for (; slot < b->last; slot += 16)
        scores_tile(page, n_queries, 16 / LANES, s + slot, q,
            k + (size_t)slot * (size_t)b->width * PAGE_BYTES(page), b->width);
}

/* Dimensions [0, n_lines * LANES) from acc and v on. */
INLINE void values_tile(enum page page, int n_queries, int n_lines, float *acc, const float *p,
    const float *rescale, const uint8_t *v, const struct block *b)
{
    const size_t stride = part_stride(b->width);
    const int step = LINE_STEP(page);
    const uint8_t *x = (const uint8_t *)p;
    vf a[TILE_QUERIES][TILE_VECTORS];
    struct line l[TILE_VECTORS];
    int slot = b->first / step * step;

    for (int i = 0; i < n_queries; i++) {
        for (int j = 0; j < n_lines; j++)
            a[i][j] = vf_mul(vf_load(acc + (size_t)i * stride + j * LANES), vf_set1(rescale[i]));
    }
    for (; slot < b->last; slot += step) {
        const uint8_t *at = v + (size_t)slot * (size_t)b->width * PAGE_BYTES(page);

        for (int j = 0; j < n_lines; j++, at += LANES * sizeof(float)) {
            if (j * LANES % 16 == 0)
                __builtin_prefetch(b->next + (at - v), 0, 2);
            l[j] = slot + step <= b->last ? load_line(page, at) : load_half_line(page, at);
        }
        for (int i = 0; i < n_queries; i++) {
            for (int j = 0; j < n_lines; j++)
                a[i][j] = fold(page, a[i][j], l[j],
                    x + ((size_t)i * ROW_FLOATS * sizeof(float) +
                            (size_t)slot * FACTOR_BYTES(page)));
        }
    }
    for (int i = 0; i < n_queries; i++) {
        for (int j = 0; j < n_lines; j++)
            vf_store(acc + (size_t)i * stride + j * LANES, a[i][j]);
    }
}

INLINE void values_rows(enum page page, int n_queries, float *acc, const float *p,
    const float *rescale, const uint8_t *v, const struct block *b)
{
    const int wide = TILE_VECTORS * LANES;
    struct block from_d = *b;
    int d = 0;

    for (; d + wide <= b->width; d += wide) {
        size_t at = (size_t)(d * LINE_STEP(page)) * PAGE_BYTES(page);

        from_d.next = b->next + at;
        values_tile(page, n_queries, TILE_VECTORS, acc + d, p, rescale, v + at, &from_d);
    }
    for (; d < b->width; d += LANES) {
        size_t at = (size_t)(d * LINE_STEP(page)) * PAGE_BYTES(page);

        from_d.next = b->next + at;
        values_tile(page, n_queries, 1, acc + d, p, rescale, v + at, &from_d);
    }
}

#endif
