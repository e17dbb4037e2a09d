/* simd_neon.h - `vf`, 4 floats of NEON; see simd_avx512.h. */
#ifndef KERNELS_SIMD_NEON_H
#define KERNELS_SIMD_NEON_H

#define SIMD_NEON
#include "kernels/simd.h"

#include <stdint.h>
#include <string.h>

typedef float32x4_t vf;
enum { LANES = 4, TILE_VECTORS = 4 };

static inline vf vf_set1(float x)
{
    return vdupq_n_f32(x);
}

static inline vf vf_load(const float *p)
{
    return vld1q_f32(p);
}

static inline void vf_store(float *p, vf v)
{
    vst1q_f32(p, v);
}

/* The first n < LANES lanes; the others are 0. */
static inline vf vf_load_n(const float *p, int n)
{
    float x[LANES] = {0};

    memcpy(x, p, (size_t)n * sizeof(float));
    return vld1q_f32(x);
}

static inline void vf_store_n(float *p, vf v, int n)
{
    float x[LANES];

    vst1q_f32(x, v);
    memcpy(p, x, (size_t)n * sizeof(float));
}

static inline vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}

/* a * b + c, rounded once */
static inline vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

/* c - a * b, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return vfmsq_f32(c, a, b);
}

/* y where x is NaN */
static inline vf vf_max(vf x, vf y)
{
    return vmaxnmq_f32(x, y);
}

/* a < b ? yes : no; `no` where either is NaN */
static inline vf vf_if_less(vf a, vf b, vf yes, vf no)
{
    return vbslq_f32(vcltq_f32(a, b), yes, no);
}

static inline vf vf_abs(vf x)
{
    return vabsq_f32(x);
}

/* p * 2^n for integral n, where p and the result are ordinary numbers */
static inline vf vf_times_2n(vf p, vf n)
{
    int32x4_t shift = vshlq_n_s32(vcvtq_s32_f32(n), 23);

    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), shift));
}

static inline float vf_sum(vf v)
{
    return vaddvq_f32(v);
}

static inline float vf_max_of(vf v)
{
    return vmaxnmvq_f32(v);
}

/* LANES pairs of bf16: the first and the second of each. */
static inline void vf_load_pairs(const uint16_t *p, vf *first, vf *second)
{
    uint32x4_t x = vreinterpretq_u32_u16(vld1q_u16(p));

    *first = vreinterpretq_f32_u32(vshlq_n_u32(x, 16));
    *second = vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff0000)));
}

/* Stores v rounded to bf16, to nearest even, and returns it so. NaN stays NaN. */
static inline vf vf_store_bf16(uint16_t *p, vf v)
{
    uint32x4_t u = vreinterpretq_u32_f32(v), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t up = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    uint16x4_t h = vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), up, quiet), 16);

    vst1_u16(p, h);
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(h), 16));
}

#endif
