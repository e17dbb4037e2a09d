/* matmul_impl.h - what the matmul files share: prepared activations and the levels' hooks. */
#ifndef KERNELS_MATMUL_IMPL_H
#define KERNELS_MATMUL_IMPL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/matmul.h"
#include "kernels/wmat_impl.h"

struct kernels;

/* 32 activations of an ACT_Q8 column: code = round-half-even(x * (127 / peak)). Weight codes are
 * stored unsigned, so an integer kernel starts its accumulator at -zero * (sum of codes), that is
 * at offset / 128 * zero: one load and a shift instead of a subtraction per weight. A block with a
 * NaN or an infinity has codes 0 and scale NaN, so that the result is NaN. */
struct act_block {
    int8_t q[BLOCK_K];   /* -127 .. 127 */
    float scale;         /* peak / 127 */
    int32_t offset;      /* -128 * sum of q */
    int32_t offset_high; /* the same of k = 16..31 alone, for types with 16-wide sub-blocks */
    float sum;           /* scale * sum of q: what a base (minimum) is multiplied with */
};

/* Below this peak a block counts as zero: 127 / peak could overflow. */
#define ACT_TINY 0x1p-100f

static inline const uint8_t *act_col(const struct act *x, int col)
{
    return x->data + (size_t)col * x->col_bytes;
}

/* Columns that are copied or rounded. A BF16 column is filled up with zeros, because its last pair
 * may reach beyond an odd k. */
static inline void act_fill_plain(const struct act *a, uint8_t *to, const float *x)
{
    uint16_t *halves = (uint16_t *)to;

    if (a->kind == ACT_F32) {
        memcpy(to, x, (size_t)a->k * sizeof(float));
        return;
    }
    for (int i = 0; i < a->k; i++) {
        const uint32_t bits = f32_bits(x[i]);
        const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);

        /* f32_to_bf16(), for a loop that vectorises */
        halves[i] =
            (uint16_t)(((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded) >> 16);
    }
    memset(halves + a->k, 0, a->col_bytes - (size_t)a->k * 2);
}

/* Rows of panel i that exist. */
static inline int wmat_panel_rows(const struct wmat *w, int i)
{
    const int left = w->rows - i * PANEL_ROWS;

    return left < PANEL_ROWS ? left : PANEL_ROWS;
}

/* Values of k0 .. k0 + n - 1 of a panel, exactly to_float's: out[i * ld + row]. k0 is a multiple of
 * 32, and so is n unless it ends the row. Plain C. */
void wmat_panel_floats(const struct wmat *w, int panel, int k0, int n, float *out, size_t ld);

/* Each level overwrites what it does better; called from kernels_init() in this order. */
void matmul_init_c(struct kernels *k);
void matmul_init_avx2(struct kernels *k);
void matmul_init_avx512(struct kernels *k);
void matmul_init_avx512bf16(struct kernels *k);
void matmul_init_neon(struct kernels *k);
void matmul_init_neondot(struct kernels *k);

/* What the bf16 level calls for every kind but its own. */
void matmul_run_avx512(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last);

#endif
