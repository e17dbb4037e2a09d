/* matmul_neon.c - ACT_Q8 and ACT_Q16 products for aarch64; matmul_neondot.c compiles it once more
 * with the dot product extension. A register holds 4 rows. Bytes are signed here: Q8_0 codes become
 * values again, and table types look their values up. */
#define SIMD_NEON
#include "kernels/simd.h"

#define F32_LANES 4
#define F32_COLS 4
#include "kernels/kernels.h"
#include "kernels/matmul_f32.h"
#include "kernels/matmul_lanes.h"
#include "kernels/matmul_tiles.h"

#include <assert.h>
#include <string.h>

enum { QUARTERS = 4, TILE_COLS = 4, TILE_PLANES = 8 /* of all columns */ };

/* Adds the products of four k, 4 rows. */
ALWAYS_INLINE ivec dot4(ivec sum, int8x16_t w, int8x16_t x)
{
#ifdef NEON_DOT
    return (ivec)vdotq_s32((int32x4_t)sum, w, x);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)); /* rows 0, 1 */
    const int16x8_t high = vmull_s8(vget_high_s8(w), vget_high_s8(x));

    return sum + (ivec)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#endif
}

/* Bits of a line's bytes, shifted right by n, or left where n is negative. */
ALWAYS_INLINE uint8x16_t line_bits(const uint8_t *line, int n, uint8_t mask)
{
    const int8x16_t by = vdupq_n_s8((int8_t)-n);

    return vandq_u8(vshlq_u8(vld1q_u8(line), by), vdupq_n_u8(mask));
}

/* Group g of 4 rows: values, or codes whose zero point start() takes back. */
ALWAYS_INLINE int8x16_t load_group(enum dtype type, const uint8_t *codes, int g)
{
    uint8x16_t v;

    if (type == DTYPE_Q8_0)
        return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes + 64 * g), vdupq_n_u8(0x80)));
    if (type == DTYPE_Q2_K || type == DTYPE_Q3_K)
        v = line_bits(codes + g / 4 * 64, g % 4 * 2, 3);
    else
        v = line_bits(codes + g % 4 * 64, g / 4 * 4, 15);
    if (wmat_table(type))
        return vqtbl1q_s8(vld1q_s8(wmat_table(type)), v);
    if (type == DTYPE_Q5_0 || type == DTYPE_Q5_1 || type == DTYPE_Q5_K)
        v = vorrq_u8(v, line_bits(codes + 256, g - 4, 16));
    if (type == DTYPE_Q6_K)
        v = vorrq_u8(v, line_bits(codes + 256 + g / 4 * 64, g % 4 * 2 - 4, 48));
    if (type == DTYPE_Q3_K)
        v = vorrq_u8(v, line_bits(codes + 128, g - 2, 4));
    return vreinterpretq_s8_u8(v);
}

/* Start of the integer sums of 16 or 32 k: minus zero point times the sum of the x codes. */
ALWAYS_INLINE ivec start(enum dtype type, const struct act_block *x, int half)
{
    const ivec none = {0};
    int32_t offset = x->offset;

    if (type == DTYPE_Q8_0_COARSE)
        return none + x->offset_high; /* of planes_bound() */
    if (type == DTYPE_Q8_0 || type == DTYPE_Q8_0_PLANES || wmat_zero(type) == 0)
        return none;
    if (wmat_sub(type) == 16)
        offset = half ? x->offset_high : offset - x->offset_high;
    return none + (offset >> (7 - zero_log2(type)));
}

/* Where a tile stands: block j of a weight tile, from row `row` on, and of the first column. */
struct cursor {
    const uint8_t *header, *codes, *fine, *x;
    int j, row;
    size_t col_bytes;
};

ALWAYS_INLINE const struct act_block *act_at(const struct cursor *at, int c)
{
    return (const struct act_block *)(at->x + c * at->col_bytes);
}

/* load_group() of the rows from 4 * q on, in planes: values. */
ALWAYS_INLINE int8x16_t load_halves_group(enum dtype type, const struct cursor *at, int q, int g)
{
    uint8x16_t v = vshlq_n_u8(line_bits(at->codes + 16 * q + g % 4 * 64, g / 4 * 4, 15), 4);
    const uint8_t *line;
    int shift;

    if (wmat_has_lower(type, g)) {
        line = wmat_lower(at->header + 4 * at->row, at->fine, at->j, g, &shift);
        v = vorrq_u8(v, line_bits(line + 16 * q, shift, 15));
    }
    return vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(0x80)));
}

/* The 32 k of a block, or 16 from `first` on where sub-blocks are 16 wide. */
ALWAYS_INLINE void add_sub_block(enum dtype type, const int n_quarters, const int planes,
    const int n_cols, const int first, const struct cursor *at, fvec sum[QUARTERS][TILE_COLS])
{
    const int last = planes - 1;
    ivec dot[QUARTERS][TILE_PLANES];

    UNROLL
    for (int i = 0; i < n_cols * planes; i++) {
        UNROLL
        for (int q = 0; q < n_quarters; q++)
            dot[q][i] =
                i % planes == last ? start(type, act_at(at, i / planes), first / 16) : (ivec){0};
    }
    UNROLL
    for (int g = first / 4; g < (first + wmat_sub(type)) / 4; g++) {
        UNROLL
        for (int q = 0; q < n_quarters; q++) {
            const int8x16_t w = wmat_planes(type) ? load_halves_group(type, at, q, g)
                                                  : load_group(type, at->codes + 16 * q, g);

            UNROLL
            for (int i = 0; i < n_cols * planes; i++) {
                int32_t x;

                memcpy(&x, act_at(at, i / planes)->q[i % planes] + 4 * g, sizeof(x));
                dot[q][i] = dot4(dot[q][i], w, vreinterpretq_s8_s32(vdupq_n_s32(x)));
            }
        }
    }
    UNROLL
    for (int q = 0; q < n_quarters; q++) {
        const struct scales s = load_scales(type, at->header, at->j, first / 16, at->row + 4 * q);

        UNROLL
        for (int c = 0; c < n_cols; c++) {
            const ivec *d = &dot[q][c * planes];

            sum[q][c] = fma_lanes(to_float(join_planes(planes, d[0], d[last])),
                s.scale * act_at(at, c)->scale, sum[q][c]);
            if (wmat_has_base(type))
                sum[q][c] = fma_lanes(s.base,
                    (fvec){0} + base_factor(wmat_sub(type), act_at(at, c), first / 16), sum[q][c]);
        }
    }
}

/* 4 * n_quarters rows from `row` of the panel on, all of k. */
ALWAYS_INLINE void tile_codes(enum dtype type, const int n_quarters, const int planes,
    const int n_cols, const struct tile *t, int row)
{
    const struct wmat_format f = wmat_format(type);
    struct cursor at = {.header = t->panel,
        .fine = t->fine + 4 * row,
        .x = t->x,
        .row = row,
        .col_bytes = t->col_bytes};
    fvec sum[QUARTERS][TILE_COLS] = {0};
    const int left_rows = t->n_rows - row,
              n_rows = left_rows < 4 * n_quarters ? left_rows : 4 * n_quarters;

    for (int left = t->k / BLOCK_K; left > 0; left -= f.tile_blocks) {
        const int n = left < f.tile_blocks ? left : f.tile_blocks;

        at.codes = at.header + f.header_bytes + 4 * row;
#pragma GCC unroll 1
        for (at.j = 0; at.j < n; at.j++) {
            add_sub_block(type, n_quarters, planes, n_cols, 0, &at, sum);
            if (wmat_sub(type) == 16)
                add_sub_block(type, n_quarters, planes, n_cols, 16, &at, sum);
            at.codes += f.code_bytes;
            at.x += act_block_bytes(planes);
        }
        at.header = at.codes - 4 * row;
        if (type == DTYPE_Q8_0_PLANES)
            at.fine += FINE_TILE;
    }
    UNROLL
    for (int c = 0; c < n_cols; c++) {
        float out[PANEL_ROWS];

        UNROLL
        for (int q = 0; q < n_quarters; q++)
            memcpy(out + 4 * q, &sum[q][c], sizeof(fvec));
        memcpy(t->y + c * t->ldy + row, out, (size_t)n_rows * sizeof(float));
    }
}

ALWAYS_INLINE void tile_any(enum dtype type, const int planes, const struct tile *t)
{
#ifdef TILES_AS_LOOPS
    tile_codes(type, QUARTERS, planes, t->n_cols, t, 0);
#else
    if (t->n_cols == 1) {
        tile_codes(type, QUARTERS, planes, 1, t, 0);
        return;
    }
    for (int row = 0; row < t->n_rows; row += 8)
        switch (t->n_cols) {
        case 2: tile_codes(type, 2, planes, 2, t, row); break;
        case 3: tile_codes(type, 2, planes, 3, t, row); break;
        default: tile_codes(type, 2, planes, 4, t, row);
        }
#endif
}

WMAT_QUANTISED(DEFINE_TILES)
DEFINE_TILES(DTYPE_Q8_0_PLANES)
DEFINE_TILES(DTYPE_Q8_0_COARSE)

static void run(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    struct tiling how = {1, TILE_COLS, 1, 1, 0, NULL};

    assert(x->k == w->k && x->kind <= ACT_Q16);
    if (x->kind == ACT_F32) {
        run_f32(w, x, y, ldy, first, last);
        return;
    }
    switch (w->layout) {
#define TILE(type) \
    case type: how.tile = TILE_OF(type, act_planes(x->kind)); break;
        WMAT_QUANTISED(TILE)
        TILE(DTYPE_Q8_0_PLANES)
        TILE(DTYPE_Q8_0_COARSE)
#undef TILE
    default: assert(!"codes are for quantised weights");
    }
    matmul_tiles(&how, w, x, y, ldy, first, last);
}

#ifdef NEON_DOT
void matmul_init_neondot(struct kernels *k)
#else
void matmul_init_neon(struct kernels *k)
#endif
{
    k->matmul.run = run; /* the compiler vectorises plain C's act_fill */
}
