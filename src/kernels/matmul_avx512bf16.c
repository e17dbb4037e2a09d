/* matmul_avx512bf16.c - bf16 weights times bf16 columns with vdpbf16ps, two k per step: one chain
 * of sums per output in ascending k, whatever tile it falls in. A column of two planes adds the
 * higher parts' products and then the lower ones' in each step. Other kinds go to AVX-512's run. */
#include "kernels/kernels.h"

#define SIMD_X86
#include "kernels/simd.h"

#include "kernels/matmul_tiles.h"

enum { TILE_PANELS = 4, TILE_COLS = 6 };

/* One line holds two k of 16 rows. */
ALWAYS_INLINE void tile_steps(const int n_panels, const int planes, const int n_cols,
    const int n_steps, const struct tile *t, const uint8_t *w, const uint8_t *x,
    __m512 sum[TILE_PANELS][TILE_COLS])
{
    const size_t plane_bytes = t->col_bytes / planes;

    UNROLL
    for (int s = 0; s < n_steps; s++) {
        __m512i lines[TILE_PANELS];

        UNROLL
        for (int p = 0; p < n_panels; p++)
            lines[p] = _mm512_loadu_si512(w + p * t->panel_bytes + 64 * s);
        UNROLL
        for (int i = 0; i < n_cols * planes; i++) {
            const int c = i / planes;
            const uint32_t pair = load_u32(x + i * plane_bytes + 4 * s);

            UNROLL
            for (int p = 0; p < n_panels; p++)
                sum[p][c] = _mm512_dpbf16_ps(
                    sum[p][c], (__m512bh)lines[p], (__m512bh)_mm512_set1_epi32((int)pair));
        }
    }
}

ALWAYS_INLINE void tile_bf16(
    const int n_panels, const int planes, const int n_cols, const struct tile *t)
{
    enum { STEPS = BLOCK_K / 4 };
    const uint8_t *w = t->panel, *x = t->x, *fetch = t->fetch;
    __m512 sum[TILE_PANELS][TILE_COLS];
    int left = (t->k + 1) / 2;

    UNROLL
    for (int c = 0; c < n_cols; c++) {
        UNROLL
        for (int p = 0; p < n_panels; p++)
            sum[p][c] = _mm512_setzero_ps();
    }
    for (; left >= STEPS; left -= STEPS, w += 64 * STEPS, x += 4 * STEPS) {
        fetch = tile_fetch(fetch, t->fetch_lines);
        tile_steps(n_panels, planes, n_cols, STEPS, t, w, x, sum);
    }
    for (; left > 0; left--, w += 64, x += 4)
        tile_steps(n_panels, planes, n_cols, 1, t, w, x, sum);
    UNROLL
    for (int c = 0; c < n_cols; c++) {
        _Alignas(64) float out[TILE_PANELS * PANEL_ROWS];

        UNROLL
        for (int p = 0; p < n_panels; p++)
            _mm512_storeu_ps(out + p * PANEL_ROWS, sum[p][c]);
        tile_store(t, c, out, t->n_rows);
    }
}

ALWAYS_INLINE void tile_cols(const int n_panels, const int planes, const struct tile *t)
{
#ifdef TILES_AS_LOOPS
    tile_bf16(n_panels, planes, t->n_cols, t);
#else
    switch (t->n_cols) {
    case 1: tile_bf16(n_panels, planes, 1, t); break;
    case 2: tile_bf16(n_panels, planes, 2, t); break;
    case 3: tile_bf16(n_panels, planes, 3, t); break;
    case 4: tile_bf16(n_panels, planes, 4, t); break;
    case 5: tile_bf16(n_panels, planes, 5, t); break;
    default: tile_bf16(n_panels, planes, 6, t);
    }
#endif
}

static void tile_of_one(const struct tile *t)
{
    if (t->n_panels == TILE_PANELS)
        tile_cols(TILE_PANELS, 1, t);
    else
        tile_cols(1, 1, t);
}

static void tile_of_two(const struct tile *t)
{
    if (t->n_panels == TILE_PANELS)
        tile_cols(TILE_PANELS, 2, t);
    else
        tile_cols(1, 2, t);
}

static void run(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    const struct tiling how = {
        TILE_PANELS, TILE_COLS, TILE_PANELS, 2, 8, x->kind == ACT_BF16 ? tile_of_one : tile_of_two};

    if (x->kind == ACT_BF16 || x->kind == ACT_BF16X2)
        matmul_tiles(&how, w, x, y, ldy, first, last);
    else
        matmul_run_avx512(w, x, y, ldy, first, last);
}

void matmul_init_avx512bf16(struct kernels *k)
{
    k->matmul.run = run;
}
