/* matmul_wide_avx2.c - ACT_Q8 and ACT_Q16 products of several columns with AVX2, without VNNI;
 * matmul_avxvnni.c compiles it once more for CPUs that have AVX-VNNI, but no AVX-512.
 *
 * Both sides are laid out first so that a tile needs one register per operand and no unpacking:
 * the columns of a tile beside each other, and a panel's codes with their scales as floats, both
 * in L1 or near it:
 *
 *                     x[step]   c0 c1 c2 c3 c4 c5      each 4 bytes, broadcast
 *                               |  |  |  |  |  |
 *   w[step]  rows 0..7    ------*--*--*--*--*--*       12 integer sums in registers,
 *            rows 8..15   ------*--*--*--*--*--*       each of 8 rows; 4 registers are left
 *
 * A step is 4 k as bytes, multiplied by vpmaddubsw and added up in 16 bits, or 2 k as 16-bit
 * numbers, multiplied by vpmaddwd and added up in 32 bits. Bytes are twice as fast, but only for
 * columns of one plane and where all products of a block fit 16 bits:
 *
 *   codes of c <= 15      16 * 15 * 127 = 30480 at most
 *   codes of c <= 31      16 less, so -16 .. 15: 16 * 16 * 127 = 32512
 *   Q6_K, c <= 63         32 less, and only 16 k: 8 * 32 * 127 = 32512
 *
 * Codes stay unsigned, for vpmaddubsw; the sums start at -bias times the sum of the x codes
 * instead. They wrap around on the way, which does not matter. With VNNI a step is one vpdpbusd or
 * vpdpwssd and all sums have 32 bits, so columns of one plane are always bytes.
 *
 * The outputs are those of matmul_avx2.c, in the same order; between slices of k they rest in y. */
#include "kernels/kernels.h"

#include "kernels/matmul_simd256.h"
#include "kernels/matmul_tiles.h"

enum {
    COLS = 6,       /* of a tile, at most */
    HALVES = 2,     /* of a panel, each a register of rows */
    SLICE = 20,     /* blocks of a panel at a time, at most 20 KB of codes */
    X_TILES = 8,    /* tiles of columns at a time */
    X_BLOCKS = 128, /* blocks of all these tiles */
    FETCH_TILES = 4 /* up to so many tiles, computing does not hide the memory by itself */
};

/* Keeps the sums of a tile in memory from block to block, where fma reads them. */
#if defined(USE_SIMDE)
#define KEEP_IN_MEMORY()
#else
#define KEEP_IN_MEMORY() __asm__ volatile("" ::: "memory")
#endif

#ifdef WIDE_VNNI
enum { VNNI = true };
#else
enum { VNNI = false };
#endif

/* What is constant in a tile's code. */
struct kind {
    bool shorts;   /* steps of 2 k, not 4 */
    int sub;       /* k per scale */
    bool has_bias; /* 16-bit sums start at a bias */
    bool is_moved; /* 32-bit sums of bytes start at a number */
    bool has_base;
};

/* 32 k of a panel. Scales are those of the two halves of k, or one where sub-blocks are 32 wide. */
struct w_block {
    _Alignas(32) uint8_t codes[16][HALVES][32]; /* [step]; 8 steps of bytes, 16 of shorts */
    struct scales scales[2][HALVES];
};

/* 32 k of the columns of a tile. */
struct x_block {
    float scale[COLS];
    float factor[2][COLS];   /* of a base, per half of k */
    int32_t start[2][COLS];  /* of the 32-bit sums, per half where sub-blocks are 16 wide */
    int32_t bias[2][COLS];   /* of the 16-bit sums: two of them, of even and odd pairs of k */
    int32_t codes[COLS][16]; /* [column][step] */
};

struct wide {
    struct w_block w[SLICE];
    struct x_block x[X_BLOCKS]; /* [tile][block of the part] */
};

/* ---- one tile ---- */

struct tile_at {
    const struct w_block *w;
    const struct x_block *x;
    int n_blocks;
    float *y; /* first row of the first column */
    size_t ldy;
    int n_rows;
    bool is_first; /* y holds nothing yet */
    struct fetch {
        const uint8_t *at;
        int lines; /* per block */
    } fetch[2];    /* what comes next, to be brought into the cache */
};

ALWAYS_INLINE __m256i broadcast(int32_t v)
{
    return _mm256_set1_epi32(v);
}

/* sum + the products of a step, in 32 bits or, for bytes without VNNI, in 16. */
ALWAYS_INLINE __m256i add_products(struct kind kind, __m256i sum, __m256i w, __m256i x)
{
#if defined(WIDE_VNNI) && defined(USE_SIMDE)
    return kind.shorts ? _mm256_add_epi32(sum, _mm256_madd_epi16(w, x))
                       : _mm256_dpbusd_epi32(sum, w, x);
#elif defined(WIDE_VNNI)
    return kind.shorts ? _mm256_dpwssd_avx_epi32(sum, w, x) : _mm256_dpbusd_avx_epi32(sum, w, x);
#else
    return kind.shorts ? _mm256_add_epi32(sum, _mm256_madd_epi16(w, x))
                       : _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
#endif
}

/* One step of all columns; `fresh` sums of bytes are not there yet. */
ALWAYS_INLINE void add_step(struct kind kind, const int n_cols, bool fresh, int step,
    const struct w_block *w, const struct x_block *x, __m256i dot[HALVES][COLS])
{
    const __m256i w0 = load256(w->codes[step][0]), w1 = load256(w->codes[step][1]);

    UNROLL
    for (int c = 0; c < n_cols; c++) {
        const __m256i v = broadcast(x->codes[c][step]);

        UNROLL
        for (int h = 0; h < HALVES; h++) {
            dot[h][c] = fresh ? _mm256_maddubs_epi16(h ? w1 : w0, v)
                              : add_products(kind, dot[h][c], h ? w1 : w0, v);
            KEEP_IN_REGISTER(dot[h][c]);
        }
    }
}

/* 32 k, or the half from `first` on, to sums[column][row]. */
ALWAYS_INLINE void add_sub_block(struct kind kind, const int n_cols, const int first,
    const struct w_block *w, const struct x_block *x, float sums[COLS][PANEL_ROWS])
{
    const int k = kind.shorts ? 2 : 4, from = first / k, n_steps = kind.sub / k, half = first / 16;
    const bool in_32 = kind.shorts || VNNI, fresh = !in_32 && !kind.has_bias;
    __m256i dot[HALVES][COLS];

    if (!fresh) {
        UNROLL
        for (int c = 0; c < n_cols; c++)
            dot[0][c] = dot[1][c] = broadcast(in_32 ? x->start[half][c] : x->bias[half][c]);
    }
    add_step(kind, n_cols, fresh, from, w, x, dot);
    UNROLL
    for (int s = from + 1; s < from + n_steps; s++)
        add_step(kind, n_cols, false, s, w, x, dot);
    UNROLL
    for (int h = 0; h < HALVES; h++) {
        const struct scales s = w->scales[half][h];

        UNROLL
        for (int c = 0; c < n_cols; c++) {
            ivec whole = (ivec)dot[h][c];
            fvec sum;

            if (!in_32)
                whole = (ivec)_mm256_madd_epi16(dot[h][c], _mm256_set1_epi16(1));
            if (!in_32 && kind.is_moved)
                whole += x->start[half][c];
            memcpy(&sum, &sums[c][8 * h], sizeof(sum));
            sum = fma_lanes(to_float(whole), s.scale * x->scale[c], sum);
            if (kind.has_base)
                sum = fma_lanes(s.base, (fvec){0} + x->factor[half][c], sum);
            memcpy(&sums[c][8 * h], &sum, sizeof(sum));
        }
    }
}

ALWAYS_INLINE void copy_rows(float *to, const float *from, int n)
{
    if (n == PANEL_ROWS)
        memcpy(to, from, PANEL_ROWS * sizeof(float));
    else
        memcpy(to, from, (size_t)n * sizeof(float));
}

/* n_cols columns of y += the slice, or = the slice if it is the first. */
ALWAYS_INLINE void tile(struct kind kind, const int n_cols, const struct tile_at *at)
{
    _Alignas(32) float sums[COLS][PANEL_ROWS];
    const uint8_t *fetch = at->fetch[0].at, *fetch_fine = at->fetch[1].at;

    for (int c = 0; c < n_cols; c++) {
        memset(sums[c], 0, sizeof(sums[c]));
        if (!at->is_first)
            copy_rows(sums[c], at->y + c * at->ldy, at->n_rows);
    }
#pragma GCC unroll 1
    for (int b = 0; b < at->n_blocks; b++) {
        fetch = tile_fetch(fetch, at->fetch[0].lines);
        fetch_fine = tile_fetch(fetch_fine, at->fetch[1].lines);
        add_sub_block(kind, n_cols, 0, &at->w[b], &at->x[b], sums);
        if (kind.sub == 16)
            add_sub_block(kind, n_cols, 16, &at->w[b], &at->x[b], sums);
        KEEP_IN_MEMORY();
    }
    for (int c = 0; c < n_cols; c++)
        copy_rows(at->y + c * at->ldy, sums[c], at->n_rows);
}

/* From 3 columns on, cutting evenly gives tiles of 3 to 6. */
ALWAYS_INLINE void tile_cols(struct kind kind, int n_cols, const struct tile_at *at)
{
#ifdef TILES_AS_LOOPS
    tile(kind, n_cols, at);
#else
    switch (n_cols) {
    case 3: tile(kind, 3, at); break;
    case 4: tile(kind, 4, at); break;
    case 5: tile(kind, 5, at); break;
    default: tile(kind, 6, at);
    }
#endif
}

/* One function per kind: together, gcc would spill their registers. */
#define DEFINE_TILE(name, ...)                             \
    static void name(int n_cols, const struct tile_at *at) \
    {                                                      \
        tile_cols((struct kind){__VA_ARGS__}, n_cols, at); \
    }
DEFINE_TILE(shorts_32, true, 32, false, false, false)
DEFINE_TILE(shorts_32_base, true, 32, false, false, true)
DEFINE_TILE(shorts_16, true, 16, false, false, false)
DEFINE_TILE(shorts_16_base, true, 16, false, false, true)
DEFINE_TILE(bytes_32_moved, false, 32, false, true, false)    /* Q4_0 */
DEFINE_TILE(bytes_32_base, false, 32, false, false, true)     /* Q4_1 Q4_K */
DEFINE_TILE(bytes_32_bias, false, 32, true, false, false)     /* Q5_0 MXFP4 */
DEFINE_TILE(bytes_32_bias_moved, false, 32, true, true, true) /* Q5_1 Q5_K */
DEFINE_TILE(bytes_16_moved, false, 16, false, true, false)    /* Q3_K */
DEFINE_TILE(bytes_16_base, false, 16, false, false, true)     /* Q2_K */
DEFINE_TILE(bytes_16_bias, false, 16, true, false, false)     /* Q6_K */

typedef void tile_function(int n_cols, const struct tile_at *at);

ALWAYS_INLINE bool is_shorts(enum dtype type, int planes)
{
    return planes == 2 || (!VNNI && zero_log2(type) == 7);
}

/* What codes of bytes are lessened by; 0 where all sums fit without. */
ALWAYS_INLINE int bias(enum dtype type)
{
    if (VNNI)
        return 0;
    switch (type) {
    case DTYPE_Q6_K: return 32;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K:
    case DTYPE_MXFP4: return 16;
    default: return 0;
    }
}

ALWAYS_INLINE tile_function *choose(enum dtype type, int planes)
{
    const bool has_base = wmat_has_base(type);

    if (is_shorts(type, planes)) {
        if (wmat_sub(type) == 16)
            return has_base ? shorts_16_base : shorts_16;
        return has_base ? shorts_32_base : shorts_32;
    }
    if (wmat_sub(type) == 16)
        return bias(type) ? bytes_16_bias : has_base ? bytes_16_base : bytes_16_moved;
    if (bias(type))
        return has_base ? bytes_32_bias_moved : bytes_32_bias;
    return has_base ? bytes_32_base : bytes_32_moved;
}

/* ---- laying out ---- */

ALWAYS_INLINE void store256(uint8_t *p, __m256i v)
{
    _mm256_storeu_si256((__m256i *)p, v);
}

/* All bits of the codes of group g of block b, 8 rows from 8 * h on. */
ALWAYS_INLINE __m256i load_whole(
    enum dtype type, const uint8_t *panel, const uint8_t *fine, int b, int h, int g)
{
    const __m256i v = load_group(type, wmat_codes(type, panel, b) + 32 * h, g);

    if (type != DTYPE_Q8_0_PLANES)
        return v;
    return _mm256_or_si256(
        _mm256_slli_epi16(v, 4), load_lower(wmat_tile(type, panel, b) + 32 * h,
                                     fine + (size_t)(b / 2) * FINE_TILE + 32 * h, b % 2, g));
}

/* n blocks of a panel from b0 on. The shorts of a step are bytes 0 and 2 of a group, then 1 and 3.
 */
ALWAYS_INLINE void unpack(enum dtype type, const bool shorts, const uint8_t *panel,
    const uint8_t *fine, int b0, int n, struct w_block *to)
{
    for (int b = b0; b < b0 + n; b++, to++) {
        const uint8_t *tile = wmat_tile(type, panel, b);

        UNROLL
        for (int g = 0; g < 8; g++)
            for (int h = 0; h < HALVES; h++) {
                const __m256i v = load_whole(type, panel, fine, b, h, g);

                if (shorts) {
                    store256(to->codes[2 * g][h], _mm256_and_si256(v, _mm256_set1_epi16(255)));
                    store256(to->codes[2 * g + 1][h], _mm256_srli_epi16(v, 8));
                } else {
                    store256(to->codes[g][h], v);
                }
            }
        for (int i = 0; i < BLOCK_K / wmat_sub(type); i++)
            for (int h = 0; h < HALVES; h++)
                to->scales[i][h] =
                    load_scales(type, tile, b % wmat_format(type).tile_blocks, i, 8 * h);
    }
}

/* The 16 codes of half i as numbers of 16 bits, in the order in which unpack() leaves the weights.
 */
ALWAYS_INLINE __m256i widen(const int planes, const struct act_block *x, int i)
{
    const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
    __m128i q[2];
    __m256i first;

    for (int p = 0; p < planes; p++)
        q[p] = _mm_shuffle_epi8(
            _mm_loadu_si128((const __m128i *)(const void *)(x->q[p] + 16 * i)), order);
    first = _mm256_cvtepi8_epi16(q[0]);
    if (planes == 1)
        return first;
    return _mm256_add_epi16(_mm256_slli_epi16(first, 8), _mm256_cvtepi8_epi16(q[1]));
}

/* Sums of the 4 even and of the 4 odd pairs of 16 codes, in turns, as numbers of 16 bits. */
ALWAYS_INLINE __m128i pair_sums(const int8_t *codes)
{
    const __m128i q = _mm_loadu_si128((const __m128i *)(const void *)codes);
    __m128i s = _mm_maddubs_epi16(_mm_set1_epi8(1), q);

    s = _mm_add_epi16(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_add_epi16(s, _mm_shuffle_epi32(s, 0xb1));
}

/* Where the 16-bit sums start: -bias times the sums of the even and of the odd pairs. */
ALWAYS_INLINE int32_t bias_pair(enum dtype type, const int8_t *codes)
{
    __m128i s = pair_sums(codes);

    if (wmat_sub(type) == 32)
        s = _mm_add_epi16(s, pair_sums(codes + 16));
    return _mm_cvtsi128_si32(_mm_mullo_epi16(s, _mm_set1_epi16((short)-bias(type))));
}

/* Where the sums of a column start. */
ALWAYS_INLINE void set_starts(
    enum dtype type, const int planes, const struct act_block *x, struct x_block *to, int c)
{
    for (int i = 0; i < BLOCK_K / wmat_sub(type); i++) {
        int32_t offset = x->offset; /* -128 times the sum of the codes */

        if (wmat_sub(type) == 16)
            offset = i ? x->offset_high : offset - x->offset_high;
        to->start[i][c] = zero_log2(type) < 0 ? 0 : offset >> (7 - zero_log2(type));
        if (wmat_has_base(type))
            to->factor[i][c] = base_factor(wmat_sub(type), x, i);
        if (is_shorts(type, planes) || !bias(type))
            continue;
        to->bias[i][c] = bias_pair(type, x->q[0] + 16 * i);
        to->start[i][c] -= bias(type) * (offset >> 7);
    }
}

/* n_cols columns of a tile, blocks b0 .. b0 + n - 1. */
ALWAYS_INLINE void lay_columns(enum dtype type, const int planes, const struct act *x, int col,
    int n_cols, int b0, int n, struct x_block *to)
{
    for (int c = 0; c < n_cols; c++) {
        const uint8_t *from = act_col(x, col + c) + (size_t)b0 * act_block_bytes(planes);

        for (int b = 0; b < n; b++, from += act_block_bytes(planes)) {
            const struct act_block *block = (const struct act_block *)from;

            to[b].scale[c] = block->scale;
            set_starts(type, planes, block, &to[b], c);
            if (is_shorts(type, planes)) {
                for (int i = 0; i < 2; i++)
                    store256((uint8_t *)&to[b].codes[c][8 * i], widen(planes, block, i));
            } else {
                memcpy(to[b].codes[c], block->q[0], BLOCK_K);
            }
        }
    }
}

/* ---- all of it ---- */

/* Some columns of x and blocks of k of a product. */
struct part {
    const struct wmat *w;
    const struct act *x;
    float *y;
    size_t ldy;
    int col, n_cols, n_tiles;
    int first_block, n_blocks;
    bool fetches; /* computing does not hide the memory by itself */
};

struct columns {
    int first, n;
};

/* Of tile t: as many as in the others, or one more. */
ALWAYS_INLINE struct columns tile_columns(const struct part *p, int t)
{
    const int first = p->n_cols * t / p->n_tiles, last = p->n_cols * (t + 1) / p->n_tiles;

    return (struct columns){p->col + first, last - first};
}

/* What tile t fetches of n blocks of `bytes` each. */
ALWAYS_INLINE struct fetch share(
    const struct part *p, int t, const uint8_t *from, int n, size_t bytes)
{
    const int lines = ((int)bytes / 64 + p->n_tiles) / p->n_tiles;

    return (struct fetch){from + (size_t)t * (size_t)n * (size_t)lines * 64, lines};
}

/* One panel times the part; the next panel is fetched meanwhile. */
ALWAYS_INLINE void multiply_panel(
    enum dtype type, const int planes, struct wide *wide, const struct part *p, int panel)
{
    const struct wmat *w = p->w;
    const uint8_t *data = w->data + (size_t)panel * w->panel_bytes;
    const size_t block_bytes = w->panel_bytes / (size_t)(w->k / BLOCK_K);
    const int n_slices = (p->n_blocks + SLICE - 1) / SLICE;
    struct tile_at at = {.w = wide->w, .ldy = p->ldy, .n_rows = wmat_panel_rows(w, panel)};

    for (int i = 0; i < n_slices; i++) {
        const int b = p->n_blocks * i / n_slices, n = p->n_blocks * (i + 1) / n_slices - b;
        const size_t block = (size_t)p->first_block + (size_t)b;
        const uint8_t *next = data + w->panel_bytes + block * block_bytes;
        const uint8_t *next_fine = wmat_fine(w, panel + 1) + block * FINE_TILE / 2;

        unpack(type, is_shorts(type, planes), data, wmat_fine(w, panel), (int)block, n, wide->w);
        at.n_blocks = n;
        at.is_first = block == 0;
        for (int t = 0; t < p->n_tiles; t++) {
            const struct columns c = tile_columns(p, t);

            at.x = wide->x + (size_t)t * (size_t)p->n_blocks + b;
            at.y = p->y + (size_t)c.first * p->ldy + (size_t)panel * PANEL_ROWS;
            if (p->fetches)
                at.fetch[0] = share(p, t, next, n, block_bytes);
            if (p->fetches && type == DTYPE_Q8_0_PLANES)
                at.fetch[1] = share(p, t, next_fine, n, FINE_TILE / 2);
            choose(type, planes)(c.n, &at);
        }
    }
}

ALWAYS_INLINE void multiply(
    enum dtype type, const int planes, struct wide *wide, const struct part *p, int first, int last)
{
    for (int t = 0; t < p->n_tiles; t++) {
        const struct columns c = tile_columns(p, t);

        lay_columns(type, planes, p->x, c.first, c.n, p->first_block, p->n_blocks,
            wide->x + (size_t)t * (size_t)p->n_blocks);
    }
    for (int panel = first; panel < last; panel++)
        multiply_panel(type, planes, wide, p, panel);
}

#define DEFINE(type)                                                                          \
    static void multiply_##type(struct wide *wide, const struct part *p, int first, int last) \
    {                                                                                         \
        if (p->x->kind == ACT_Q8)                                                             \
            multiply(type, 1, wide, p, first, last);                                          \
        else                                                                                  \
            multiply(type, 2, wide, p, first, last);                                          \
    }
WMAT_QUANTISED(DEFINE)
DEFINE(DTYPE_Q8_0_PLANES)

static void run_wide(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    const int n_chunks = (x->n_cols + X_TILES * COLS - 1) / (X_TILES * COLS);
    const int n_blocks = w->k / BLOCK_K;
    void (*run)(struct wide * wide, const struct part *p, int first, int last) = NULL;
    struct wide wide;

    switch (w->layout) {
#define CASE(type) \
    case type: run = multiply_##type; break;
        WMAT_QUANTISED(CASE)
        CASE(DTYPE_Q8_0_PLANES)
#undef CASE
    default: return;
    }
    for (int i = 0; i < n_chunks; i++) {
        const int col = (int)((int64_t)x->n_cols * i / n_chunks);
        const int n_cols = (int)((int64_t)x->n_cols * (i + 1) / n_chunks) - col;
        const int n_tiles = (n_cols + COLS - 1) / COLS;
        const int most = X_BLOCKS / n_tiles, n_slices = (n_blocks + most - 1) / most;

        for (int s = 0; s < n_slices; s++) {
            const int b = (int)((int64_t)n_blocks * s / n_slices);
            const int end = (int)((int64_t)n_blocks * (s + 1) / n_slices);
            const struct part p = {w, x, y, ldy, col, n_cols, n_tiles, b, end - b,
                .fetches = n_tiles <= FETCH_TILES && last - first > 1};

            run(&wide, &p, first, last);
        }
    }
}

#ifdef WIDE_VNNI
/* Few columns wait for memory anyway, and are multiplied without laying anything out. */
static void run(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    const int from = x->kind == ACT_Q16 ? 3 : 4;

    if (x->kind != ACT_F32 && x->n_cols >= from && w->layout != DTYPE_Q8_0_COARSE)
        run_wide(w, x, y, ldy, first, last);
    else
        matmul_run_avx2(w, x, y, ldy, first, last);
}

void matmul_init_avxvnni(struct kernels *k)
{
    k->matmul.run = run;
}
#else
void matmul_wide_avx2(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    run_wide(w, x, y, ldy, first, last);
}
#endif
