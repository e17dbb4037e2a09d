/* matmul_impl.h - what the matmul files share: prepared activations and the levels' hooks. */
#ifndef KERNELS_MATMUL_IMPL_H
#define KERNELS_MATMUL_IMPL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/matmul.h"
#include "kernels/wmat_planes.h"

struct kernels;

/* Planes of codes, or of bf16, that a column consists of. */
static inline int act_planes(enum act_kind kind)
{
    return kind == ACT_Q16 || kind == ACT_BF16X2 ? 2 : 1;
}

/* 32 activations of an ACT_Q8 or ACT_Q16 column: code = round-half-even(x * (most / peak)), where
 * most is 127 or 32639. ACT_Q16's code is 256 * q[0] + q[1], so that kernels see two columns of
 * int8 under one scale: |code| <= 256 * 127 + 127 keeps q[0] in -127 .. 127 and q[1] in -128 ..
 * 127. Every sum of 32 products, also on its way, stays below 2^29.
 *
 * Weight codes are stored unsigned, so an integer kernel starts its accumulator (of the last plane)
 * at -zero * (sum of codes), that is at offset / 128 * zero: one load and a shift instead of a
 * subtraction per weight. A block with a NaN or an infinity has codes 0 and scale NaN, so that the
 * result is NaN. */
struct act_block {
    float scale;         /* peak / most */
    int32_t offset;      /* -128 * sum of codes */
    int32_t offset_high; /* the same of k = 16..31 alone, for types with 16-wide sub-blocks */
    float sum;           /* scale * sum of codes: what a base (minimum) is multiplied with */
    int8_t q[][BLOCK_K]; /* [planes] */
};

static inline size_t act_block_bytes(int planes)
{
    return sizeof(struct act_block) + (size_t)planes * BLOCK_K;
}

/* Below this peak a block counts as zero: most / peak could overflow. */
#define ACT_TINY 0x1p-100f

static inline float act_most(int planes)
{
    return planes == 2 ? 32639 : 127;
}

static inline const uint8_t *act_col(const struct act *x, int col)
{
    return x->data + (size_t)col * x->col_bytes;
}

/* f32_to_bf16(), for loops that vectorise. */
static inline uint16_t act_bf16(float x)
{
    const uint32_t bits = f32_bits(x), rounded = bits + 0x7fff + (bits >> 16 & 1);

    return (uint16_t)(((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded) >> 16);
}

/* Columns that are copied or rounded. A bf16 plane is filled up with zeros, because its last pair
 * may reach beyond an odd k. The second plane holds what the first leaves over. */
static inline void act_fill_plain(const struct act *a, uint8_t *to, const float *x)
{
    const size_t plane_bytes = a->col_bytes / (size_t)act_planes(a->kind);
    uint16_t *high = (uint16_t *)to, *low = (uint16_t *)(to + plane_bytes);

    if (a->kind == ACT_F32) {
        memcpy(to, x, (size_t)a->k * sizeof(float));
        return;
    }
    for (int i = 0; i < a->k; i++)
        high[i] = act_bf16(x[i]);
    memset(high + a->k, 0, plane_bytes - (size_t)a->k * 2);
    if (a->kind == ACT_BF16)
        return;
    for (int i = 0; i < a->k; i++)
        low[i] = act_bf16(x[i] - f32_of_bits((uint32_t)high[i] << 16));
    memset(low + a->k, 0, plane_bytes - (size_t)a->k * 2);
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
void matmul_init_avxvnni(struct kernels *k);
void matmul_init_avx512(struct kernels *k);
void matmul_init_avx512bf16(struct kernels *k);
void matmul_init_neon(struct kernels *k);
void matmul_init_neondot(struct kernels *k);

/* What the bf16 level calls for every kind but its own. */
void matmul_run_avx512(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last);

#endif
