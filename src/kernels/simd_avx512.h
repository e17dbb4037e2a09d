/* simd_avx512.h - `vf`, 16 floats of AVX-512, and what the shared SIMD sources do with it. The same
 * names mean the same in simd_avx2.h and simd_neon.h. */
#ifndef KERNELS_SIMD_AVX512_H
#define KERNELS_SIMD_AVX512_H

#define SIMD_X86
#include "kernels/simd.h"

#include <stdint.h>
#include <string.h>

typedef __m512 vf;
enum { LANES = 16, TILE_VECTORS = 4 };

static inline vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}

static inline __mmask16 first_lanes(int n)
{
    return (__mmask16)((1u << n) - 1u);
}

/* The first n < LANES lanes; the others are 0. */
static inline vf vf_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

static inline void vf_store_n(float *p, vf v, int n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

/* a * b + c, rounded once */
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* c - a * b, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* y where x is NaN */
static inline vf vf_max(vf x, vf y)
{
    return _mm512_max_ps(x, y);
}

/* a < b ? yes : no; `no` where either is NaN */
static inline vf vf_if_less(vf a, vf b, vf yes, vf no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}

static inline vf vf_abs(vf x)
{
    return _mm512_abs_ps(x);
}

/* p * 2^n for integral n */
static inline vf vf_times_2n(vf p, vf n)
{
    return _mm512_scalef_ps(p, n);
}

static inline float vf_sum(vf v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline float vf_max_of(vf v)
{
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* LANES pairs of bf16: the first and the second of each. */
static inline void vf_load_pairs(const uint16_t *p, vf *first, vf *second)
{
    __m512i x = _mm512_loadu_si512(p);

    *first = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    *second = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)));
}

/* Stores v rounded to bf16, to nearest even, and returns it so. NaN stays NaN. */
static inline vf vf_store_bf16(uint16_t *p, vf v)
{
#if defined(SIMD_DOT) && !defined(USE_SIMDE)
    __m256i h = (__m256i)_mm512_cvtneps_pbh(v);
#else
    const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);
    __m512i u = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, half));
    __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    __m256i h = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, quiet), 16));
#endif

    _mm256_storeu_si256((__m256i *)(void *)p, h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

#endif
