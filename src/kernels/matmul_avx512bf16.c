/* matmul_avx512bf16.c - bf16 weights times bf16 columns with vdpbf16ps, two k per step: one chain
 * of sums per output in ascending k, whatever tile it falls in. Other kinds go to AVX-512's run. */
#include "kernels/kernels.h"

#define SIMD_X86
#include "kernels/simd.h"

#include "kernels/matmul_tiles.h"

enum { TILE_PANELS = 4, TILE_COLS = 6 };

/* One line holds two k of 16 rows. */
ALWAYS_INLINE void tile_steps(const int n_panels, const int n_cols, const int n_steps,
    const uint8_t *w, size_t panel_bytes, const uint8_t *x, size_t col_bytes,
    __m512 sum[TILE_PANELS][TILE_COLS])
{
    UNROLL
    for (int s = 0; s < n_steps; s++) {
        __m512i lines[TILE_PANELS];

        UNROLL
        for (int p = 0; p < n_panels; p++)
            lines[p] = _mm512_loadu_si512(w + p * panel_bytes + 64 * s);
        UNROLL
        for (int c = 0; c < n_cols; c++) {
            const __m512i pair = _mm512_set1_epi32((int)load_u32(x + c * col_bytes + 4 * s));

            UNROLL
            for (int p = 0; p < n_panels; p++)
                sum[p][c] = _mm512_dpbf16_ps(sum[p][c], (__m512bh)lines[p], (__m512bh)pair);
        }
    }
}

ALWAYS_INLINE void tile_bf16(const int n_panels, const int n_cols, const struct tile *t)
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
        tile_steps(n_panels, n_cols, STEPS, w, t->panel_bytes, x, t->col_bytes, sum);
    }
    for (; left > 0; left--, w += 64, x += 4)
        tile_steps(n_panels, n_cols, 1, w, t->panel_bytes, x, t->col_bytes, sum);
    UNROLL
    for (int c = 0; c < n_cols; c++) {
        _Alignas(64) float out[TILE_PANELS * PANEL_ROWS];

        UNROLL
        for (int p = 0; p < n_panels; p++)
            _mm512_storeu_ps(out + p * PANEL_ROWS, sum[p][c]);
        tile_store(t, c, out, t->n_rows);
    }
}

ALWAYS_INLINE void tile_cols(const int n_panels, const struct tile *t)
{
#ifdef TILES_AS_LOOPS
    tile_bf16(n_panels, t->n_cols, t);
#else
    switch (t->n_cols) {
    case 1: tile_bf16(n_panels, 1, t); break;
    case 2: tile_bf16(n_panels, 2, t); break;
    case 3: tile_bf16(n_panels, 3, t); break;
    case 4: tile_bf16(n_panels, 4, t); break;
    case 5: tile_bf16(n_panels, 5, t); break;
    default: tile_bf16(n_panels, 6, t);
    }
#endif
}

static void tile(const struct tile *t)
{
    if (t->n_panels == TILE_PANELS)
        tile_cols(TILE_PANELS, t);
    else
        tile_cols(1, t);
}

static void run(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    static const struct tiling how = {TILE_PANELS, TILE_COLS, TILE_PANELS, 2, 8, tile};

    if (x->kind == ACT_BF16)
        matmul_tiles(&how, w, x, y, ldy, first, last);
    else
        matmul_run_avx512(w, x, y, ldy, first, last);
}

void matmul_init_avx512bf16(struct kernels *k)
{
    k->matmul.run = run;
}
