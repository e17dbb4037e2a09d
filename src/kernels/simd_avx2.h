/* simd_avx2.h - `vf`, 8 floats of AVX2; see simd_avx512.h. */
#ifndef KERNELS_SIMD_AVX2_H
#define KERNELS_SIMD_AVX2_H

#define SIMD_X86
#include "kernels/simd.h"

#include <stdint.h>
#include <string.h>

typedef __m256 vf;
enum { LANES = 8, TILE_VECTORS = 2 };

static inline vf vf_set1(float x)
{
    return _mm256_set1_ps(x);
}

static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}

static inline __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n < LANES lanes; the others are 0. */
static inline vf vf_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, first_lanes(n));
}

static inline void vf_store_n(float *p, vf v, int n)
{
    _mm256_maskstore_ps(p, first_lanes(n), v);
}

static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

/* a * b + c, rounded once */
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* c - a * b, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

/* y where x is NaN */
static inline vf vf_max(vf x, vf y)
{
    return _mm256_max_ps(x, y);
}

/* a < b ? yes : no; `no` where either is NaN */
static inline vf vf_if_less(vf a, vf b, vf yes, vf no)
{
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}

static inline vf vf_abs(vf x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* p * 2^n for integral n, where p and the result are ordinary numbers */
static inline vf vf_times_2n(vf p, vf n)
{
    __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);

    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), shift));
}

static inline float vf_sum(vf v)
{
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline float vf_max_of(vf v)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* LANES pairs of bf16: the first and the second of each. */
static inline void vf_load_pairs(const uint16_t *p, vf *first, vf *second)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);

    *first = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    *second = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xffff0000)));
}

/* Stores v rounded to bf16, to nearest even, and returns it so. NaN stays NaN. */
static inline vf vf_store_bf16(uint16_t *p, vf v)
{
    const __m256i one = _mm256_set1_epi32(1), half = _mm256_set1_epi32(0x7fff);
    __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), one);
    __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, half));
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    __m256i h = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));

    _mm_storeu_si128((__m128i *)(void *)p, packed);
    return _mm256_castsi256_ps(_mm256_slli_epi32(h, 16));
}

#endif
