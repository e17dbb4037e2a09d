/* wmat_lane.h - reads one lane (row) of a packed panel in plain C; the meaning of the layout in
 * wmat_impl.h. Loops over the 16 lanes vectorise: every lane does the same on 32-bit words. */
#ifndef KERNELS_WMAT_LANE_H
#define KERNELS_WMAT_LANE_H

#include "kernels/wmat_impl.h"

/* f16_to_f32() with masks (all ones where true) for branches, so that loops over lanes vectorise.
 */
ALWAYS_INLINE float f16_value(uint32_t h)
{
    const uint32_t sign = (h & 0x8000) << 16, magnitude = h & 0x7fff;
    const uint32_t is_tiny = -(uint32_t)(magnitude < 0x0400);
    const uint32_t is_special = -(uint32_t)(magnitude >= 0x7c00);
    const uint32_t is_nan = -(uint32_t)(magnitude > 0x7c00);
    const uint32_t tiny = f32_bits((float)(int32_t)magnitude * 0x1p-24f);
    const uint32_t normal = (magnitude << 13) + (112u << 23) + (is_special & 112u << 23);

    return f32_of_bits(sign | (tiny & is_tiny) | ((normal | (is_nan & 0x400000)) & ~is_tiny));
}

ALWAYS_INLINE float load_f16(const uint8_t *p, int r)
{
    return f16_value(load_u16(p + 2 * r));
}

/* The four codes of group g (k = 4g .. 4g + 3 of a block), lane r: one code per byte. */
ALWAYS_INLINE uint32_t wmat_word(enum dtype type, const uint8_t *codes, int r, int g)
{
    const uint8_t *lane = codes + 4 * r;
    uint32_t word;

    if (type == DTYPE_Q8_0)
        return load_u32(lane + 64 * g);
    if (type == DTYPE_Q2_K || type == DTYPE_Q3_K)
        word = load_u32(lane + g / 4 * 64) >> g % 4 * 2 & 0x03030303;
    else
        word = load_u32(lane + g % 4 * 64) >> g / 4 * 4 & 0x0f0f0f0f;
    if (type == DTYPE_Q5_0 || type == DTYPE_Q5_1 || type == DTYPE_Q5_K)
        word |= (load_u32(lane + 256) >> g & 0x01010101) << 4;
    if (type == DTYPE_Q6_K)
        word |= (load_u32(lane + 256 + g / 4 * 64) >> g % 4 * 2 & 0x03030303) << 4;
    if (type == DTYPE_Q3_K)
        word |= (load_u32(lane + 128) >> g & 0x01010101) << 2;
    return word;
}

/* Value i (0..3) of a word of codes, before the scale. */
ALWAYS_INLINE int wmat_value(enum dtype type, uint32_t word, int i)
{
    const int code = (int)(word >> 8 * i & 255);

    return wmat_table(type) ? wmat_table(type)[code] : code - wmat_zero(type);
}

/* Two 6-bit numbers of block j, see the layout. */
ALWAYS_INLINE void wmat_pair(const uint8_t *pairs, int j, int r, int *a, int *b)
{
    const int low = pairs[16 * j + r];
    const uint32_t high = load_u32(pairs + 128 + 4 * r) >> 4 * j;

    *a = (low & 15) | (int)(high & 3) << 4;
    *b = low >> 4 | (int)(high >> 2 & 3) << 4;
}

/* Scale and base of lane r for k half `half` of block j of a tile (types with one scale per 32 have
 * the same in both halves). The products are rounded as dtype_info.to_float rounds them. */
ALWAYS_INLINE float wmat_scale(
    enum dtype type, const uint8_t *tile, int j, int half, int r, float *base)
{
    int a, b;

    *base = 0;
    switch (type) {
    case DTYPE_Q4_1:
    case DTYPE_Q5_1: *base = load_f16(tile + 32, r); return load_f16(tile, r);
    case DTYPE_MXFP4: {
        const uint32_t e = tile[16 * j + r];

        return f32_of_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    }
    case DTYPE_Q2_K:
        a = tile[64 + 16 * (2 * j + half) + r];
        *base = -load_f16(tile + 32, r) * (float)(a >> 4);
        return load_f16(tile, r) * (float)(a & 15);
    case DTYPE_Q3_K:
        wmat_pair(tile + 64, j, r, &a, &b);
        return load_f16(tile, r) * (float)((half ? b : a) - 32);
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        wmat_pair(tile + 64, j, r, &a, &b);
        *base = -load_f16(tile + 32, r) * (float)b;
        return load_f16(tile, r) * (float)a;
    case DTYPE_Q6_K: return load_f16(tile, r) * (float)(int8_t)tile[64 + 16 * (2 * j + half) + r];
    case DTYPE_IQ4_XS:
        a = tile[64 + j / 2 * 16 + r] >> j % 2 * 4 & 15;
        b = load_u16(tile + 32 + 2 * r) >> 2 * j & 3;
        return load_f16(tile, r) * (float)((a | b << 4) - 32);
    default: return load_f16(tile + 32 * j, r);
    }
}

/* Scale and base to one value, as to_float has it. */
ALWAYS_INLINE float wmat_decode(enum dtype type, float scale, float base, int value)
{
    const float product = scale * (float)value;

    return wmat_has_base(type) ? product + base : product;
}

#endif
