/* matmul_avx512.c - ACT_Q8 and ACT_Q16 products with AVX-512 VNNI.
 *
 * One register tile function serves every type: always inlined with constant type, panels, planes
 * and columns, so that its arrays become registers. Per block, panel and column: 8 vpdpbusd for
 * each plane, a scale multiplication and an fma (twice those two for types with 16-wide
 * sub-blocks); conversions run beside them. 24 of the 32 registers are sums: 2 panels x 6 columns
 * of one plane are 12 integer and 12 float ones, 2 x 4 columns of two planes 16 and 8. */
#include "kernels/kernels.h"

#define F32_LANES 16
#define F32_COLS 8
#include "kernels/matmul_simd512.h"
#include "kernels/matmul_f32.h"
#include "kernels/matmul_tiles.h"

#include <assert.h>
#include <string.h>

enum { TILE_PANELS = 2, TILE_COLS = 6, TILE_COLS_16 = 4, TILE_PLANES = 8 /* of all columns */ };

/* Start of the integer sums of 16 or 32 k: minus zero point times the sum of the x codes. */
ALWAYS_INLINE __m512i start(enum dtype type, const struct act_block *x, int half)
{
    ivec offset = (ivec)_mm512_set1_epi32(x->offset);

    if (zero_log2(type) < 0)
        return _mm512_setzero_si512();
    if (wmat_sub(type) == 16) {
        const ivec high = (ivec)_mm512_set1_epi32(x->offset_high);

        offset = half ? high : offset - high;
    }
    return (__m512i)(offset >> (7 - zero_log2(type)));
}

/* Where a tile stands: block j of a weight tile of the first panel, and of the first column. */
struct cursor {
    const uint8_t *header, *codes, *fine, *x;
    int j;
    size_t panel_bytes, fine_bytes, col_bytes;
};

ALWAYS_INLINE const struct act_block *act_at(const struct cursor *at, int c)
{
    return (const struct act_block *)(at->x + c * at->col_bytes);
}

/* The 32 k of a block, or 16 from `first` on where sub-blocks are 16 wide. */
ALWAYS_INLINE void add_sub_block(enum dtype type, const int n_panels, const int planes,
    const int n_cols, const int first, const struct cursor *at, fvec sum[TILE_PANELS][TILE_COLS])
{
    const int half = first / 16, last = planes - 1;
    __m512i dot[TILE_PANELS][TILE_PLANES];

    UNROLL
    for (int i = 0; i < n_cols * planes; i++) {
        UNROLL
        for (int p = 0; p < n_panels; p++)
            dot[p][i] = i % planes == last ? start(type, act_at(at, i / planes), half)
                                           : _mm512_setzero_si512();
    }
    UNROLL
    for (int n = 0; n < wmat_sub(type) / 4; n++) {
        /* groups g and 4 + g share lines of nibbles: one right after the other, lines die early */
        const int g =
            wmat_nibbles(type) && wmat_sub(type) == 32 ? n / 2 + n % 2 * 4 : first / 4 + n;
        __m512i w[TILE_PANELS];

        UNROLL
        for (int p = 0; p < n_panels; p++)
            w[p] = wmat_planes(type) ? load_halves_group(type, at->header + p * at->panel_bytes,
                                           at->codes + p * at->panel_bytes,
                                           at->fine + p * at->fine_bytes, at->j, g)
                                     : load_group(type, at->codes + p * at->panel_bytes, g);
        UNROLL
        for (int i = 0; i < n_cols * planes; i++) {
            const __m512i act = broadcast4(act_at(at, i / planes)->q[i % planes] + 4 * g);

            UNROLL
            for (int p = 0; p < n_panels; p++)
                dot[p][i] = _mm512_dpbusd_epi32(dot[p][i], w[p], act);
        }
    }
    UNROLL
    for (int p = 0; p < n_panels; p++) {
        const struct scales s = load_scales(type, at->header + p * at->panel_bytes, at->j, half, 0);

        UNROLL
        for (int c = 0; c < n_cols; c++) {
            const fvec scale = s.scale * act_at(at, c)->scale;
            const __m512i *d = &dot[p][c * planes];
            const ivec whole = join_planes(planes, (ivec)d[0], (ivec)d[last]);

            sum[p][c] = fma_lanes(to_float(whole), scale, sum[p][c]);
            if (wmat_has_base(type))
                sum[p][c] = fma_lanes(s.base,
                    (fvec){0} + base_factor(wmat_sub(type), act_at(at, c), half), sum[p][c]);
        }
    }
}

ALWAYS_INLINE void tile_codes(
    enum dtype type, const int n_panels, const int planes, const int n_cols, const struct tile *t)
{
    const struct wmat_format f = wmat_format(type);
    struct cursor at = {.header = t->panel,
        .x = t->x,
        .fine = t->fine,
        .panel_bytes = t->n_panels == n_panels ? t->panel_bytes : 0,
        .fine_bytes = t->n_panels == n_panels ? planes_fine_bytes(t->k) : 0,
        .col_bytes = t->col_bytes};
    const uint8_t *fetch = t->fetch;
    fvec sum[TILE_PANELS][TILE_COLS];

    UNROLL
    for (int c = 0; c < n_cols; c++) {
        UNROLL
        for (int p = 0; p < n_panels; p++)
            sum[p][c] = (fvec){0};
    }
    for (int left = t->k / BLOCK_K; left > 0; left -= f.tile_blocks) {
        const int n = left < f.tile_blocks ? left : f.tile_blocks;

        at.codes = at.header + f.header_bytes;
#pragma GCC unroll 1
        for (at.j = 0; at.j < n; at.j++) {
            fetch = tile_fetch(fetch, t->fetch_lines);
            for (int p = 0; type == DTYPE_Q8_0_PLANES && t->fetch_lines && p < n_panels; p++)
                tile_fetch(at.fine + (n_panels + p) * planes_fine_bytes(t->k) + 192 * at.j, 4);
            add_sub_block(type, n_panels, planes, n_cols, 0, &at, sum);
            if (wmat_sub(type) == 16)
                add_sub_block(type, n_panels, planes, n_cols, 16, &at, sum);
            at.codes += f.code_bytes;
            at.x += act_block_bytes(planes);
        }
        at.header = at.codes;
        if (type == DTYPE_Q8_0_PLANES)
            at.fine += FINE_TILE;
    }
    if (t->n_rows == n_panels * PANEL_ROWS) {
        UNROLL
        for (int c = 0; c < n_cols; c++) {
            UNROLL
            for (int p = 0; p < n_panels; p++)
                memcpy(t->y + c * t->ldy + p * PANEL_ROWS, &sum[p][c], sizeof(fvec));
        }
        return;
    }
    for (int c = 0; c < n_cols; c++) {
        float out[TILE_PANELS * PANEL_ROWS];

        for (int p = 0; p < n_panels; p++)
            memcpy(out + p * PANEL_ROWS, &sum[p][c], sizeof(fvec));
        tile_store(t, c, out, t->n_rows);
    }
}

/* An odd last panel is computed twice by a tile of two: it is one in many. */
ALWAYS_INLINE void tile_any(enum dtype type, const int planes, const struct tile *t)
{
#ifdef TILES_AS_LOOPS
    tile_codes(type, TILE_PANELS, planes, t->n_cols, t);
#else
    switch (t->n_cols) {
    case 1:
        if (t->n_panels == 1)
            tile_codes(type, 1, planes, 1, t);
        else
            tile_codes(type, 2, planes, 1, t);
        break;
    case 2: tile_codes(type, 2, planes, 2, t); break;
    case 3: tile_codes(type, 2, planes, 3, t); break;
    case 4: tile_codes(type, 2, planes, 4, t); break;
    case 5:
        if (planes == 1)
            tile_codes(type, 2, 1, 5, t);
        break;
    default:
        if (planes == 1)
            tile_codes(type, 2, 1, 6, t);
    }
#endif
}

WMAT_QUANTISED(DEFINE_TILES)
DEFINE_TILES(DTYPE_Q8_0_PLANES)
DEFINE_TILES(DTYPE_Q8_0_COARSE)

void matmul_run_avx512(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    const int planes = act_planes(x->kind);
    struct tiling how = {TILE_PANELS, planes == 1 ? TILE_COLS : TILE_COLS_16,
        w->layout == DTYPE_Q8_0 || w->layout == DTYPE_Q8_0_PLANES ? 1 : 2, 1, 8, NULL};

    assert(x->k == w->k && x->kind <= ACT_Q16);
    if (x->kind == ACT_F32) {
        run_f32(w, x, y, ldy, first, last);
        return;
    }
    if (x->n_cols >= WIDE_COLS && matmul_wide_avx512(w, x, y, ldy, first, last))
        return;
    switch (w->layout) {
#define TILE(type) \
    case type: how.tile = TILE_OF(type, planes); break;
        WMAT_QUANTISED(TILE)
        TILE(DTYPE_Q8_0_PLANES)
        TILE(DTYPE_Q8_0_COARSE)
#undef TILE
    default: assert(!"codes are for quantised weights");
    }
    matmul_tiles(&how, w, x, y, ldy, first, last);
}

void matmul_init_avx512(struct kernels *k)
{
    k->matmul.run = matmul_run_avx512; /* act_fill stays AVX2's */
}
