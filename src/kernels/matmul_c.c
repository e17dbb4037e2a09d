/* matmul_c.c - the definition of every result, in plain C.
 *
 * ACT_Q8 and ACT_Q16, for each sub-block (32 k, or 16 for Q2_K, Q3_K, Q6_K) ascending:
 *     y = fma((float)dot, w_scale * x_scale, y)
 *     y = fma(base, x_scale * sum of x codes, y)      (types with a base)
 * where dot is the exact integer sum of weight value times activation code: of the unsigned code,
 * from the column's offset on, where the type has a zero point. */
#include "kernels/kernels.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define F32_LANES 4
#define F32_COLS 2
#include "kernels/matmul_f32.h"

enum { COLS = 8 };

/* 32 floats; the comparison of magnitudes as integers puts NaN above infinity above all numbers. */
static void quantise_block(int planes, const float *x, struct act_block *out)
{
    const float rounder = 0x1.8p23f; /* adding it leaves the integer nearest to v in the low bits */
    int32_t peak_bits = 0, sum[2] = {0, 0};
    float peak, inverse = 0;

    for (int i = 0; i < BLOCK_K; i++) {
        const int32_t magnitude = (int32_t)(f32_bits(x[i]) & 0x7fffffff);

        peak_bits = magnitude > peak_bits ? magnitude : peak_bits;
    }
    peak = f32_of_bits((uint32_t)peak_bits);
    memset(out, 0, act_block_bytes(planes));
    out->scale = peak_bits >= 0x7f800000 ? NAN : 0;
    if (peak_bits < 0x7f800000 && peak > ACT_TINY) {
        out->scale = peak / act_most(planes);
        inverse = act_most(planes) / peak;
    }
    for (int i = 0; i < BLOCK_K && inverse > 0; i++) {
        const int32_t code = (int32_t)(f32_bits(x[i] * inverse + rounder) - f32_bits(rounder));

        const int32_t high = planes == 2 ? (code + 128) >> 8 : code;

        out->q[0][i] = (int8_t)high;
        if (planes == 2)
            out->q[1][i] = (int8_t)(code - 256 * high);
        sum[i / 16] += code;
    }
    out->offset = -128 * (sum[0] + sum[1]);
    out->offset_high = -128 * sum[1];
    out->sum = out->scale * (float)(sum[0] + sum[1]);
}

static void fill(const struct act *a, int col, const float *x)
{
    const int planes = act_planes(a->kind);
    uint8_t *to = a->data + (size_t)col * a->col_bytes;

    if (a->kind == ACT_Q8 || a->kind == ACT_Q16)
        for (int b = 0; b < a->k / BLOCK_K; b++, to += act_block_bytes(planes))
            quantise_block(planes, x + (size_t)b * BLOCK_K, (struct act_block *)to);
    else
        act_fill_plain(a, to, x);
}

struct block {
    int32_t values[BLOCK_K][PANEL_ROWS];
    float scale[2][PANEL_ROWS], base[2][PANEL_ROWS];
};

ALWAYS_INLINE void read_block(
    enum dtype type, const uint8_t *panel, const uint8_t *fine, int b, struct block *restrict out)
{
    const uint8_t *tile = wmat_tile(type, panel, b);
    const int j = b % wmat_format(type).tile_blocks;

    for (int half = 0; half < 2; half++)
        for (int r = 0; r < PANEL_ROWS; r++)
            out->scale[half][r] = wmat_scale(type, tile, j, half, r, &out->base[half][r]);
    for (int g = 0; g < 8; g++)
        for (int r = 0; r < PANEL_ROWS; r++) {
            const uint32_t word = wmat_whole_word(type, panel, fine, b, r, g);

            for (int i = 0; i < 4; i++)
                out->values[4 * g + i][r] = wmat_value(type, word, i) + wmat_zero(type);
        }
}

/* Minus the zero point times the sum of the codes of 16 or 32 k. */
ALWAYS_INLINE int32_t start(enum dtype type, const struct act_block *x, int first)
{
    const int32_t both = wmat_sub(type) == 32 ? x->offset : x->offset - x->offset_high;

    return wmat_zero(type) ? (first ? x->offset_high : both) / (128 / wmat_zero(type)) : 0;
}

/* Adds one block's products to the sums of one column. */
ALWAYS_INLINE void add_block(enum dtype type, int planes, const struct block *w,
    const struct act_block *x, float sum[PANEL_ROWS])
{
    const int sub = wmat_sub(type);
    int32_t code[BLOCK_K];

    for (int k = 0; k < BLOCK_K; k++)
        code[k] = planes == 2 ? 256 * x->q[0][k] + x->q[1][k] : x->q[0][k];
    for (int first = 0; first < BLOCK_K; first += sub) {
        int32_t dot[PANEL_ROWS], codes = 0;

        for (int r = 0; r < PANEL_ROWS; r++)
            dot[r] = start(type, x, first);
        for (int k = first; k < first + sub; k++) {
            codes += code[k];
            for (int r = 0; r < PANEL_ROWS; r++)
                dot[r] += w->values[k][r] * code[k];
        }
        for (int r = 0; r < PANEL_ROWS; r++)
            sum[r] = fmaf((float)dot[r], w->scale[first / 16][r] * x->scale, sum[r]);
        if (wmat_has_base(type))
            for (int r = 0; r < PANEL_ROWS; r++)
                sum[r] = fmaf(w->base[first / 16][r], x->scale * (float)codes, sum[r]);
    }
}

/* Columns c0 .. c0 + n - 1 of one panel. */
ALWAYS_INLINE void panel_codes(enum dtype type, const struct wmat *w, const struct act *x,
    int panel, int c0, int n, float sum[COLS][PANEL_ROWS])
{
    const uint8_t *data = w->data + (size_t)panel * w->panel_bytes;
    const uint8_t *fine = wmat_fine(w, panel);
    const int planes = act_planes(x->kind);

    for (int b = 0; b < w->k / BLOCK_K; b++) {
        const size_t at = (size_t)b * act_block_bytes(planes);

        struct block block;

        read_block(type, data, fine, b, &block);
        for (int c = 0; c < n; c++)
            add_block(
                type, planes, &block, (const struct act_block *)(act_col(x, c0 + c) + at), sum[c]);
    }
}

static void run_codes(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    for (int panel = first; panel < last; panel++)
        for (int c0 = 0; c0 < x->n_cols; c0 += COLS) {
            const int n = x->n_cols - c0 < COLS ? x->n_cols - c0 : COLS;
            float sum[COLS][PANEL_ROWS] = {0};

            switch (w->layout) {
#define PANEL(t) \
    case t: panel_codes(t, w, x, panel, c0, n, sum); break;
                WMAT_QUANTISED(PANEL)
                PANEL(DTYPE_Q8_0_PLANES)
                PANEL(DTYPE_Q8_0_COARSE)
#undef PANEL
            default: assert(!"codes are for quantised weights");
            }
            for (int c = 0; c < n; c++)
                memcpy(y + (c0 + c) * ldy + (size_t)panel * PANEL_ROWS, sum[c],
                    (size_t)wmat_panel_rows(w, panel) * sizeof(float));
        }
}

static void run(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last)
{
    assert(x->k == w->k && x->kind <= ACT_Q16);
    if (x->kind == ACT_F32)
        run_f32(w, x, y, ldy, first, last);
    else
        run_codes(w, x, y, ldy, first, last);
}

void wmat_panel_floats(const struct wmat *w, int panel, int k0, int n, float *out, size_t ld)
{
    panel_floats(w, panel, k0, n, out, ld);
}

void matmul_init_c(struct kernels *k)
{
    k->matmul = (struct matmul_kernels){fill, run};
}
