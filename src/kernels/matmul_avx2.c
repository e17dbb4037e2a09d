/* matmul_avx2.c - ACT_Q8 and ACT_Q16 products with AVX2, without VNNI: vpmaddubsw adds two products
 * of an unsigned and a signed byte in 16 bits, and saturates. It never does here, with bytes down
 * to -128 in the lower plane:
 *
 *   codes of c <= 15   2 * 15 * 128 = 3840 per product pair: 8 groups fit 16 bits together
 *   codes of c <= 31   7936: 4 groups;   c <= 63: 16128: 2 groups
 *   bytes              as two nibbles, the high ones joined with a factor of 16
 *
 * Sums of as many groups as fit are widened by one vpmaddwd. A register holds 8 rows, half a panel.
 * Here weights are unpacked in registers, for few columns; more go to matmul_wide_avx2.c. */
#include "kernels/kernels.h"

#include "kernels/matmul_simd256.h"

#define F32_COLS 4
#include "kernels/matmul_f32.h"
#include "kernels/matmul_tiles.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum { HALVES = 2, TILE_COLS = 5, TILE_PLANES = 6 /* of all columns */ };

/* Codes as two nibbles. */
ALWAYS_INLINE bool is_split(enum dtype type)
{
    return zero_log2(type) == 7;
}

/* Groups whose product pairs fit 16 bits together. */
ALWAYS_INLINE int headroom(enum dtype type)
{
    switch (type) {
    case DTYPE_Q6_K: return 2;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K:
    case DTYPE_MXFP4: return 4; /* MXFP4: 12 + 16 at most */
    default: return wmat_sub(type) / 4;
    }
}

/* Where a tile stands: block j of a weight tile of the panel's first half, and of the first column.
 */
struct cursor {
    const uint8_t *header, *codes, *fine, *x;
    int j, row;
    size_t col_bytes;
};

ALWAYS_INLINE const struct act_block *act_at(const struct cursor *at, int c)
{
    return (const struct act_block *)(at->x + c * at->col_bytes);
}

/* Start of the integer sums of 16 or 32 k: minus zero point times the sum of the x codes. */
ALWAYS_INLINE ivec start(enum dtype type, const struct act_block *x, int half)
{
    const ivec zero = {0};
    int32_t offset = x->offset;

    if (zero_log2(type) < 0)
        return zero;
    if (wmat_sub(type) == 16)
        offset = half ? x->offset_high : offset - x->offset_high;
    return zero + (offset >> (7 - zero_log2(type)));
}

/* The nibbles of a split type's codes, of 8 rows from 8 * h of the tile's on; all of the others'
 * codes are in the lower half. In planes the halves lie apart. */
ALWAYS_INLINE __m256i lower_half(
    enum dtype type, __m256i codes, const struct cursor *at, int h, int g)
{
    if (!wmat_planes(type))
        return is_split(type) ? _mm256_and_si256(codes, _mm256_set1_epi8(15)) : codes;
    return load_lower(at->header + 4 * at->row + 32 * h, at->fine + 32 * h, at->j, g);
}

ALWAYS_INLINE __m256i upper_half(enum dtype type, __m256i codes)
{
    if (wmat_planes(type))
        return codes;
    return _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(15));
}

/* Adds groups from the first on, as many as fit 16 bits, to the integer sums. */
ALWAYS_INLINE void add_groups(enum dtype type, const int n_halves, const int planes,
    const int n_cols, const int first, const struct cursor *at, ivec dot[HALVES][TILE_PLANES])
{
    __m256i low[HALVES][TILE_PLANES], high[HALVES][TILE_PLANES];

    UNROLL
    for (int g = first; g < first + headroom(type); g++) {
        UNROLL
        for (int h = 0; h < n_halves; h++) {
            const __m256i w = load_group(type, at->codes + 32 * h, g);
            const bool has_low = !wmat_planes(type) || wmat_has_lower(type, g);
            const __m256i w_low = has_low ? lower_half(type, w, at, h, g) : w;
            const __m256i w_high = upper_half(type, w);

            UNROLL
            for (int i = 0; i < n_cols * planes; i++) {
                const int8_t *codes = act_at(at, i / planes)->q[i % planes];
                const __m256i x = broadcast4(codes + 4 * g);

                if (has_low) {
                    const __m256i lower = _mm256_maddubs_epi16(w_low, x);

                    low[h][i] = g > first ? _mm256_add_epi16(low[h][i], lower) : lower;
                    KEEP_IN_REGISTER(low[h][i]);
                }
                if (is_split(type)) {
                    const __m256i upper = _mm256_maddubs_epi16(w_high, x);

                    high[h][i] = g > first ? _mm256_add_epi16(high[h][i], upper) : upper;
                    KEEP_IN_REGISTER(high[h][i]);
                }
            }
        }
    }
    UNROLL
    for (int h = 0; h < n_halves; h++) {
        UNROLL
        for (int i = 0; i < n_cols * planes; i++) {
            dot[h][i] += (ivec)_mm256_madd_epi16(low[h][i], _mm256_set1_epi16(1));
            if (is_split(type))
                dot[h][i] += (ivec)_mm256_madd_epi16(high[h][i], _mm256_set1_epi16(16));
        }
    }
}

/* The 32 k of a block, or 16 from `first` on where sub-blocks are 16 wide. */
ALWAYS_INLINE void add_sub_block(enum dtype type, const int n_halves, const int planes,
    const int n_cols, const int first, const struct cursor *at, fvec sum[HALVES][TILE_COLS])
{
    const int last = planes - 1;
    ivec dot[HALVES][TILE_PLANES];

    UNROLL
    for (int i = 0; i < n_cols * planes; i++) {
        UNROLL
        for (int h = 0; h < n_halves; h++)
            dot[h][i] =
                i % planes == last ? start(type, act_at(at, i / planes), first / 16) : (ivec){0};
    }
    UNROLL
    for (int g = first / 4; g < (first + wmat_sub(type)) / 4; g += headroom(type))
        add_groups(type, n_halves, planes, n_cols, g, at, dot);
    UNROLL
    for (int h = 0; h < n_halves; h++) {
        const struct scales s = load_scales(type, at->header, at->j, first / 16, at->row + 8 * h);

        UNROLL
        for (int c = 0; c < n_cols; c++) {
            const ivec *d = &dot[h][c * planes];

            sum[h][c] = fma_lanes(to_float(join_planes(planes, d[0], d[last])),
                s.scale * act_at(at, c)->scale, sum[h][c]);
            if (wmat_has_base(type))
                sum[h][c] = fma_lanes(s.base,
                    (fvec){0} + base_factor(wmat_sub(type), act_at(at, c), first / 16), sum[h][c]);
        }
    }
}

/* 8 or 16 rows from `row` of the panel on, all of k. */
ALWAYS_INLINE void tile_codes(enum dtype type, const int n_halves, const int planes,
    const int n_cols, const struct tile *t, int row)
{
    const struct wmat_format f = wmat_format(type);
    struct cursor at = {.header = t->panel,
        .fine = t->fine + 4 * row,
        .x = t->x,
        .row = row,
        .col_bytes = t->col_bytes};
    const uint8_t *fetch = t->fetch;
    fvec sum[HALVES][TILE_COLS];
    int n_rows = t->n_rows - row;

    UNROLL
    for (int c = 0; c < n_cols; c++) {
        UNROLL
        for (int h = 0; h < n_halves; h++)
            sum[h][c] = (fvec){0};
    }
    for (int left = t->k / BLOCK_K; left > 0; left -= f.tile_blocks) {
        const int n = left < f.tile_blocks ? left : f.tile_blocks;

        at.codes = at.header + f.header_bytes + 4 * row;
#pragma GCC unroll 1
        for (at.j = 0; at.j < n; at.j++) {
            fetch = tile_fetch(fetch, t->fetch_lines);
            if (type == DTYPE_Q8_0_PLANES && t->fetch_lines)
                tile_fetch(at.fine + planes_fine_bytes(t->k) + 192 * at.j, 4);
            add_sub_block(type, n_halves, planes, n_cols, 0, &at, sum);
            if (wmat_sub(type) == 16)
                add_sub_block(type, n_halves, planes, n_cols, 16, &at, sum);
            at.codes += f.code_bytes;
            at.x += act_block_bytes(planes);
        }
        at.header = at.codes - 4 * row;
        if (type == DTYPE_Q8_0_PLANES)
            at.fine += FINE_TILE;
    }
    n_rows = n_rows < 8 * n_halves ? n_rows : 8 * n_halves;
    UNROLL
    for (int c = 0; c < n_cols; c++) {
        float out[PANEL_ROWS];

        UNROLL
        for (int h = 0; h < n_halves; h++)
            memcpy(out + 8 * h, &sum[h][c], sizeof(fvec));
        memcpy(t->y + c * t->ldy + row, out, (size_t)(n_rows > 0 ? n_rows : 0) * sizeof(float));
    }
}

/* Columns of a tile. Sums beyond the 16 registers would go through memory. */
ALWAYS_INLINE int most_cols(enum dtype type, int planes)
{
    if (planes == 2)
        return is_split(type) ? 2 : 3;
    return is_split(type) ? 3 : TILE_COLS;
}

/* Columns from which on laying out both sides first pays: more than one tile here, and a little
 * later where the planes of codes must be joined for it. A coarse plane has few columns. */
ALWAYS_INLINE int wide_from(enum dtype type, int planes)
{
    if (type == DTYPE_Q8_0_COARSE)
        return INT_MAX;
    return type == DTYPE_Q8_0_PLANES && planes == 1 ? 8 : most_cols(type, planes) + 1;
}

ALWAYS_INLINE void tile_any(enum dtype type, const int planes, const struct tile *t)
{
#ifdef TILES_AS_LOOPS
    tile_codes(type, HALVES, planes, t->n_cols, t, 0);
#else
    const int most = most_cols(type, planes);

    if (t->n_cols == 1) {
        tile_codes(type, HALVES, planes, 1, t, 0);
        return;
    }
    for (int row = 0; row < PANEL_ROWS && row < t->n_rows; row += 8)
        if (t->n_cols == 2)
            tile_codes(type, 1, planes, 2, t, row);
        else if (most >= 3 && t->n_cols == 3)
            tile_codes(type, 1, planes, 3, t, row);
        else if (most >= 4 && t->n_cols == 4)
            tile_codes(type, 1, planes, 4, t, row);
        else if (most == 5)
            tile_codes(type, 1, planes, 5, t, row);
#endif
}

WMAT_QUANTISED(DEFINE_TILES)
DEFINE_TILES(DTYPE_Q8_0_PLANES)
DEFINE_TILES(DTYPE_Q8_0_COARSE)

void matmul_run_avx2(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    const int planes = act_planes(x->kind);
    struct tiling how = {1, TILE_COLS, 1, 1, 8, NULL};
    int wide = 1;

    assert(x->k == w->k && x->kind <= ACT_Q16);
    if (x->kind == ACT_F32) {
        run_f32(w, x, y, ldy, first, last);
        return;
    }
    switch (w->layout) {
#define TILE(type)                          \
    case type:                              \
        how.tile = TILE_OF(type, planes);   \
        how.cols = most_cols(type, planes); \
        wide = wide_from(type, planes);     \
        break;
        WMAT_QUANTISED(TILE)
        TILE(DTYPE_Q8_0_PLANES)
        TILE(DTYPE_Q8_0_COARSE)
#undef TILE
    default: assert(!"codes are for quantised weights");
    }
    if (x->n_cols >= wide)
        matmul_wide_avx2(w, x, y, ldy, first, last);
    else
        matmul_tiles(&how, w, x, y, ldy, first, last);
}

/* Largest lane; lanes are not negative. */
ALWAYS_INLINE int32_t max_lane(ivec v)
{
    __m128i m =
        _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));

    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

ALWAYS_INLINE int32_t add_lanes(ivec v)
{
    __m128i s =
        _mm_add_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));

    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

/* 32 numbers that fit a byte. */
ALWAYS_INLINE void store_bytes(int8_t *p, const ivec v[4])
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packs work within halves */
    const __m256i low = _mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]);
    const __m256i high = _mm256_packs_epi32((__m256i)v[2], (__m256i)v[3]);

    _mm256_storeu_si256(
        (__m256i *)p, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order));
}

/* As matmul_c.c's. */
ALWAYS_INLINE void quantise_block(const int planes, const float *x, struct act_block *out)
{
    const fvec rounder = (fvec){0} + 0x1.8p23f;
    ivec magnitude = {0}, code[4], high[4];
    fvec v[4];
    int32_t peak_bits, sum[2];
    float peak;

    for (int i = 0; i < 4; i++) {
        v[i] = load_lanes(x + 8 * i);
        magnitude = (ivec)_mm256_max_epi32((__m256i)magnitude, (__m256i)((ivec)v[i] & 0x7fffffff));
    }
    peak_bits = max_lane(magnitude);
    peak = f32_of_bits((uint32_t)peak_bits);
    if (peak_bits >= 0x7f800000 || peak <= ACT_TINY) {
        memset(out, 0, act_block_bytes(planes));
        if (peak_bits >= 0x7f800000)
            out->scale = out->sum = NAN;
        return;
    }
    for (int i = 0; i < 4; i++)
        code[i] = (ivec)(v[i] * (act_most(planes) / peak) + rounder) - (ivec)rounder;
    sum[0] = add_lanes(code[0] + code[1]);
    sum[1] = add_lanes(code[2] + code[3]);
    out->scale = peak / act_most(planes);
    out->offset = -128 * (sum[0] + sum[1]);
    out->offset_high = -128 * sum[1];
    out->sum = out->scale * (float)(sum[0] + sum[1]);
    if (planes == 1) {
        store_bytes(out->q[0], code);
        return;
    }
    for (int i = 0; i < 4; i++) {
        high[i] = (code[i] + 128) >> 8;
        code[i] -= high[i] * 256;
    }
    store_bytes(out->q[0], high);
    store_bytes(out->q[1], code);
}

static void fill(const struct act *a, int col, const float *x)
{
    uint8_t *to = a->data + (size_t)col * a->col_bytes;

    if (a->kind == ACT_Q8)
        for (int b = 0; b < a->k / BLOCK_K; b++, to += act_block_bytes(1))
            quantise_block(1, x + (size_t)b * BLOCK_K, (struct act_block *)to);
    else if (a->kind == ACT_Q16)
        for (int b = 0; b < a->k / BLOCK_K; b++, to += act_block_bytes(2))
            quantise_block(2, x + (size_t)b * BLOCK_K, (struct act_block *)to);
    else
        act_fill_plain(a, to, x);
}

void matmul_init_avx2(struct kernels *k)
{
    k->matmul = (struct matmul_kernels){fill, matmul_run_avx2};
}
