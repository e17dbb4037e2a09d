/* matmul_wide_avx512.c - ACT_Q8 and ACT_Q16 products of many columns for types that are costly to
 * unpack. Two panels at a time, 512 k of them become bytes with float scales, in L1, and all
 * columns of a chunk multiply those. The sums are those of matmul_avx512.c, in the same order;
 * between slices of k they rest in y. */
#include "kernels/kernels.h"

#include "kernels/matmul_simd512.h"
#include "kernels/matmul_tiles.h"

enum { PANELS = 2, SLICE = 16 /* blocks */, CHUNK_BYTES = 384 << 10 };
enum { MAX_COLS = 6, MAX_COLS_16 = 4, MAX_PLANES = 8 /* of all columns of a tile */ };

/* One block of one panel. */
struct wide_block {
    uint8_t codes[8][64];
    struct scales scales[2]; /* of the two halves; one where sub-blocks are 32 wide */
};

struct wide {
    struct wide_block block[SLICE][PANELS];
    int n_blocks;
    int shift; /* from act_block's offset to minus zero point times the sum of the x codes */
};

ALWAYS_INLINE void unpack(
    enum dtype type, const uint8_t *panel, size_t panel_bytes, int b0, struct wide *out)
{
    out->shift = zero_log2(type) < 0 ? 31 : 7 - zero_log2(type);
    for (int b = 0; b < out->n_blocks; b++)
        for (int p = 0; p < PANELS; p++) {
            const uint8_t *from = panel + p * panel_bytes;
            const uint8_t *codes = wmat_codes(type, from, b0 + b);
            const int j = (b0 + b) % wmat_format(type).tile_blocks;
            struct wide_block *to = &out->block[b][p];

            UNROLL
            for (int g = 0; g < 8; g++)
                _mm512_storeu_si512(to->codes[g], load_group(type, codes, g));
            for (int h = 0; h < BLOCK_K / wmat_sub(type); h++)
                to->scales[h] = load_scales(type, wmat_tile(type, from, b0 + b), j, h, 0);
        }
}

/* What is constant in a tile's code: planes of the columns, width of a sub-block, and a base or
 * else a zero point. */
struct kind {
    int planes, sub;
    bool has_base;
};

struct tile_at {
    const struct wide *w;
    const uint8_t *x; /* first column, first block of the slice */
    size_t col_bytes;
    float *y; /* first row of the first column */
    size_t ldy;
    int n_rows;
    bool is_first; /* y holds nothing yet */
};

/* Block b of column c, where x is the first column's first block. */
ALWAYS_INLINE const struct act_block *act_at(
    struct kind kind, const struct tile_at *at, int b, int c)
{
    const size_t offset = (size_t)b * act_block_bytes(kind.planes);

    return (const struct act_block *)(at->x + offset + c * at->col_bytes);
}

/* Start of the integer sums, as in matmul_avx512.c. */
ALWAYS_INLINE __m512i start(struct kind kind, const struct act_block *x, int half, int shift)
{
    ivec offset = (ivec)_mm512_set1_epi32(x->offset);

    if (kind.has_base)
        return _mm512_setzero_si512();
    if (kind.sub == 16) {
        const ivec high = (ivec)_mm512_set1_epi32(x->offset_high);

        offset = half ? high : offset - high;
    }
    return (__m512i)(offset >> shift);
}

ALWAYS_INLINE void add_sub_block(struct kind kind, const int n_cols, const int first,
    const struct tile_at *at, int b, fvec sum[PANELS][MAX_COLS])
{
    const struct wide_block *w = at->w->block[b];
    const int planes = kind.planes, last = planes - 1;
    __m512i dot[PANELS][MAX_PLANES];

    UNROLL
    for (int i = 0; i < n_cols * planes; i++) {
        const struct act_block *x = act_at(kind, at, b, i / planes);

        UNROLL
        for (int p = 0; p < PANELS; p++)
            dot[p][i] = i % planes == last ? start(kind, x, first / 16, at->w->shift)
                                           : _mm512_setzero_si512();
    }
    UNROLL
    for (int g = first / 4; g < (first + kind.sub) / 4; g++) {
        UNROLL
        for (int i = 0; i < n_cols * planes; i++) {
            const int8_t *codes = act_at(kind, at, b, i / planes)->q[i % planes];
            const __m512i x = broadcast4(codes + 4 * g);

            UNROLL
            for (int p = 0; p < PANELS; p++)
                dot[p][i] = _mm512_dpbusd_epi32(dot[p][i], _mm512_loadu_si512(w[p].codes[g]), x);
        }
    }
    UNROLL
    for (int p = 0; p < PANELS; p++) {
        const struct scales s = w[p].scales[first / 16];

        UNROLL
        for (int c = 0; c < n_cols; c++) {
            const struct act_block *x = act_at(kind, at, b, c);
            const __m512i *d = &dot[p][c * planes];
            const ivec whole = join_planes(planes, (ivec)d[0], (ivec)d[last]);

            sum[p][c] = fma_lanes(to_float(whole), s.scale * x->scale, sum[p][c]);
            if (kind.has_base)
                sum[p][c] =
                    fma_lanes(s.base, (fvec){0} + base_factor(kind.sub, x, first / 16), sum[p][c]);
        }
    }
}

/* One column's 32 sums from y or to it; rows beyond n_rows are not there. */
ALWAYS_INLINE void load_sums(const float *y, int n_rows, fvec *a, fvec *b)
{
    float rows[PANELS * PANEL_ROWS] = {0};

    if (n_rows == PANELS * PANEL_ROWS)
        memcpy(rows, y, sizeof(rows));
    else
        memcpy(rows, y, (size_t)n_rows * sizeof(float));
    memcpy(a, rows, sizeof(*a));
    memcpy(b, rows + PANEL_ROWS, sizeof(*b));
}

ALWAYS_INLINE void store_sums(float *y, int n_rows, fvec a, fvec b)
{
    float rows[PANELS * PANEL_ROWS];

    memcpy(rows, &a, sizeof(a));
    memcpy(rows + PANEL_ROWS, &b, sizeof(b));
    if (n_rows == PANELS * PANEL_ROWS)
        memcpy(y, rows, sizeof(rows));
    else
        memcpy(y, rows, (size_t)n_rows * sizeof(float));
}

/* n_cols columns of y += the slice, or = the slice if it is the first. */
ALWAYS_INLINE void tile(struct kind kind, const int n_cols, const struct tile_at *at)
{
    fvec sum[PANELS][MAX_COLS];

    UNROLL
    for (int c = 0; c < n_cols; c++) {
        sum[0][c] = sum[1][c] = (fvec){0};
        if (!at->is_first)
            load_sums(at->y + c * at->ldy, at->n_rows, &sum[0][c], &sum[1][c]);
    }
#pragma GCC unroll 1
    for (int b = 0; b < at->w->n_blocks; b++) {
        add_sub_block(kind, n_cols, 0, at, b, sum);
        if (kind.sub == 16)
            add_sub_block(kind, n_cols, 16, at, b, sum);
    }
    UNROLL
    for (int c = 0; c < n_cols; c++)
        store_sums(at->y + c * at->ldy, at->n_rows, sum[0][c], sum[1][c]);
}

/* From 20 columns on, cutting evenly gives tiles of 5 and 6, or of 3 and 4, only. */
ALWAYS_INLINE void tile_cols(struct kind kind, int n_cols, const struct tile_at *at)
{
    if (kind.planes == 1 && n_cols == 5)
        tile(kind, 5, at);
    else if (kind.planes == 1)
        tile(kind, 6, at);
    else if (n_cols == 3)
        tile(kind, 3, at);
    else
        tile(kind, 4, at);
}

/* One function per kind: together, gcc would spill their registers. */
#define DEFINE_TILE(planes, sub, has_base)                                               \
    static void tile_##planes##_##sub##_##has_base(int n_cols, const struct tile_at *at) \
    {                                                                                    \
        tile_cols((struct kind){planes, sub, has_base}, n_cols, at);                     \
    }
DEFINE_TILE(1, 32, 0)
DEFINE_TILE(1, 32, 1)
DEFINE_TILE(1, 16, 0)
DEFINE_TILE(1, 16, 1)
DEFINE_TILE(2, 32, 0)
DEFINE_TILE(2, 32, 1)
DEFINE_TILE(2, 16, 0)
DEFINE_TILE(2, 16, 1)

static void tile_any(struct kind kind, int n_cols, const struct tile_at *at)
{
    static void (*const tiles[2][2][2])(int n_cols, const struct tile_at *at) = {
        {{tile_1_32_0, tile_1_32_1}, {tile_1_16_0, tile_1_16_1}},
        {{tile_2_32_0, tile_2_32_1}, {tile_2_16_0, tile_2_16_1}}};

    tiles[kind.planes - 1][kind.sub == 16][kind.has_base](n_cols, at);
}

/* Panel p and the next, if there is one, for columns c0 .. c1 - 1. */
ALWAYS_INLINE void strip(enum dtype type, const struct wmat *w, const struct act *x, float *y,
    size_t ldy, const int panels[2], const int cols[2])
{
    const uint8_t *panel = w->data + (size_t)panels[0] * w->panel_bytes;
    const int left = w->rows - panels[0] * PANEL_ROWS, most = (panels[1] - panels[0]) * PANEL_ROWS;
    const struct kind kind = {act_planes(x->kind), wmat_sub(type), wmat_has_base(type)};
    const int most_cols = kind.planes == 1 ? MAX_COLS : MAX_COLS_16;
    struct tile_at at = {
        .col_bytes = x->col_bytes, .ldy = ldy, .n_rows = left < most ? left : most};
    struct wide wide;

    for (int b = 0; b < w->k / BLOCK_K; b += SLICE) {
        int c = cols[0];

        wide.n_blocks = w->k / BLOCK_K - b < SLICE ? w->k / BLOCK_K - b : SLICE;
        unpack(type, panel, panels[1] - panels[0] > 1 ? w->panel_bytes : 0, b, &wide);
        at.w = &wide;
        at.is_first = b == 0;
        for (int n_tiles = (cols[1] - c + most_cols - 1) / most_cols; n_tiles > 0; n_tiles--) {
            const int n = (cols[1] - c + n_tiles - 1) / n_tiles;

            at.x = act_col(x, c) + (size_t)b * act_block_bytes(kind.planes);
            at.y = y + (size_t)c * ldy + (size_t)panels[0] * PANEL_ROWS;
            tile_any(kind, n, &at);
            c += n;
        }
    }
}

/* The types that gain: Q6_K 400 to 680 GOPS, Q5_0 750 to 810. */
/* clang-format off */
#define WIDE_TYPES(X) \
    X(DTYPE_Q5_0) X(DTYPE_Q2_K) X(DTYPE_Q3_K) X(DTYPE_Q4_K) X(DTYPE_Q5_K) X(DTYPE_Q6_K) \
    X(DTYPE_IQ4_XS) X(DTYPE_MXFP4)
/* clang-format on */

#define DEFINE(type)                                                                          \
    static void strip_##type(const struct wmat *w, const struct act *x, float *y, size_t ldy, \
        const int panels[2], const int cols[2])                                               \
    {                                                                                         \
        strip(type, w, x, y, ldy, panels, cols);                                              \
    }
WIDE_TYPES(DEFINE)

bool matmul_wide_avx512(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    const int fit = (int)(CHUNK_BYTES / x->col_bytes), chunk = fit > 48 ? fit : 48;
    const int n_chunks = (x->n_cols + chunk - 1) / chunk;
    void (*run)(const struct wmat *w, const struct act *x, float *y, size_t ldy,
        const int panels[2], const int cols[2]);

    switch (w->type->type) {
#define CASE(type) \
    case type: run = strip_##type; break;
        WIDE_TYPES(CASE)
#undef CASE
    default: return false;
    }
    for (int i = 0; i < n_chunks; i++) {
        const int cols[2] = {(int)((int64_t)x->n_cols * i / n_chunks),
            (int)((int64_t)x->n_cols * (i + 1) / n_chunks)};

        for (int p = first; p < last; p += PANELS) {
            const int panels[2] = {p, p + PANELS < last ? p + PANELS : last};

            run(w, x, y, ldy, panels, cols);
        }
    }
    return true;
}
