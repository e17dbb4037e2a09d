/* matmul_f32.h - the ACT_F32 product: y = y + w * x for ascending k, each operation rounded, for
 * every weight type. The lanes of a register are rows, so every instruction set computes the same
 * bits. Included by one file per level, which defines F32_LANES (floats per register) and F32_COLS
 * (columns whose sums fit the registers) and is compiled with that level's flags.
 *
 * Compilers' vector extensions stand in for intrinsics: w * x + y here is a multiplication and an
 * addition (-ffp-contract=off). */
#ifndef KERNELS_MATMUL_F32_H
#define KERNELS_MATMUL_F32_H

#include "kernels/matmul_impl.h"
#include "kernels/wmat_floats.h"

typedef float lanes __attribute__((vector_size(4 * F32_LANES)));

enum {
    F32_VECS = PANEL_ROWS / F32_LANES,
    F32_SLICE = 256, /* k per slice: 16 KB of floats, in L1 beside the columns */
};

ALWAYS_INLINE lanes load_lanes(const float *p)
{
    lanes v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* y += W x for n_cols columns and n k; w is [n][16], y holds 16 floats per column at ldy. */
ALWAYS_INLINE void f32_tile(
    const int n_cols, const float *w, int n, const float *x, size_t ldx, float *y, size_t ldy)
{
    lanes sum[F32_COLS][F32_VECS];

#pragma GCC unroll 16
    for (int c = 0; c < n_cols; c++)
#pragma GCC unroll 4
        for (int v = 0; v < F32_VECS; v++)
            sum[c][v] = load_lanes(y + c * ldy + v * F32_LANES);
    for (int k = 0; k < n; k++, w += PANEL_ROWS) {
#pragma GCC unroll 16
        for (int c = 0; c < n_cols; c++)
#pragma GCC unroll 4
            for (int v = 0; v < F32_VECS; v++)
                sum[c][v] += load_lanes(w + v * F32_LANES) * x[c * ldx + k];
    }
#pragma GCC unroll 16
    for (int c = 0; c < n_cols; c++)
#pragma GCC unroll 4
        for (int v = 0; v < F32_VECS; v++)
            memcpy(y + c * ldy + v * F32_LANES, &sum[c][v], sizeof(lanes));
}

/* Columns c .. c + n_cols - 1 of a slice. A panel that the matrix does not fill goes through a
 * buffer, because rows beyond the last must not be touched in y. */
ALWAYS_INLINE void f32_columns(const int n_cols, const float *w, int k0, int n, const struct act *x,
    int c, float *y, size_t ldy, int n_rows)
{
    const float *from = (const float *)act_col(x, c) + k0;
    const size_t ldx = x->col_bytes / sizeof(float), bytes = (size_t)n_rows * sizeof(float);
    float buffer[F32_COLS][PANEL_ROWS];

    if (k0 == 0)
        for (int i = 0; i < n_cols; i++)
            memset(y + i * ldy, 0, bytes);
    if (n_rows == PANEL_ROWS) {
        f32_tile(n_cols, w, n, from, ldx, y, ldy);
        return;
    }
    memset(buffer, 0, sizeof(buffer));
    for (int i = 0; i < n_cols; i++)
        memcpy(buffer[i], y + i * ldy, bytes);
    f32_tile(n_cols, w, n, from, ldx, buffer[0], PANEL_ROWS);
    for (int i = 0; i < n_cols; i++)
        memcpy(y + i * ldy, buffer[i], bytes);
}

static void run_f32(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    _Alignas(64) float slice[F32_SLICE * PANEL_ROWS];

    for (int panel = first; panel < last; panel++) {
        const int n_rows = wmat_panel_rows(w, panel);

        for (int k0 = 0; k0 < w->k; k0 += F32_SLICE) {
            const int n = w->k - k0 < F32_SLICE ? w->k - k0 : F32_SLICE;
            float *to = y + (size_t)panel * PANEL_ROWS;
            int c = 0;

            panel_floats(w, panel, k0, n, slice, PANEL_ROWS);
            for (; c + F32_COLS <= x->n_cols; c += F32_COLS)
                f32_columns(F32_COLS, slice, k0, n, x, c, to + c * ldy, ldy, n_rows);
            if (F32_COLS > 4 && c + 4 <= x->n_cols) {
                f32_columns(4, slice, k0, n, x, c, to + c * ldy, ldy, n_rows);
                c += 4;
            }
            for (; c < x->n_cols; c++)
                f32_columns(1, slice, k0, n, x, c, to + c * ldy, ldy, n_rows);
        }
    }
}

#endif
