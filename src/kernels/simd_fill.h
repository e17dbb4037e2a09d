/* simd_fill.h - for the simde build only: what SIMDe 0.7.4 lacks of AVX-512, and multiply-adds that
 * round once, as the hardware's do (SIMDe's own round twice). Plain loops: right before fast. */
#ifndef KERNELS_SIMD_FILL_H
#define KERNELS_SIMD_FILL_H

#include <math.h>
#include <string.h>

#ifdef SIMD_X86

typedef uint8_t __mmask8;
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;
typedef uint64_t __mmask64;

static inline __m512 fill_maskz_loadu_ps(__mmask16 m, const void *src)
{
    float x[16] = {0};

    for (int i = 0; i < 16; i++) {
        if (m >> i & 1)
            memcpy(&x[i], (const float *)src + i, sizeof(float));
    }
    return _mm512_loadu_ps(x);
}
#define _mm512_maskz_loadu_ps fill_maskz_loadu_ps

static inline void fill_mask_storeu_ps(void *dst, __mmask16 m, __m512 v)
{
    float x[16];

    _mm512_storeu_ps(x, v);
    for (int i = 0; i < 16; i++) {
        if (m >> i & 1)
            memcpy((float *)dst + i, &x[i], sizeof(float));
    }
}
#define _mm512_mask_storeu_ps fill_mask_storeu_ps

static inline __m256 fill_extractf32x8_ps(__m512 v, int i)
{
    float x[16];

    _mm512_storeu_ps(x, v);
    return _mm256_loadu_ps(x + 8 * (i & 1));
}
#define _mm512_extractf32x8_ps fill_extractf32x8_ps

static inline __m256i fill_cvtepi32_epi16(__m512i v)
{
    uint32_t x[16];
    uint16_t y[16];

    memcpy(x, &v, sizeof(x));
    for (int i = 0; i < 16; i++)
        y[i] = (uint16_t)x[i];
    return _mm256_loadu_si256((const __m256i *)(const void *)y);
}
#define _mm512_cvtepi32_epi16 fill_cvtepi32_epi16

static inline __m512i fill_cvtepu16_epi32(__m256i v)
{
    uint16_t x[16];
    uint32_t y[16];

    memcpy(x, &v, sizeof(x));
    for (int i = 0; i < 16; i++)
        y[i] = x[i];
    return _mm512_loadu_si512(y);
}
#define _mm512_cvtepu16_epi32 fill_cvtepu16_epi32

static inline __m512 fill_fmadd512(__m512 a, __m512 b, __m512 c)
{
    float x[16], y[16], z[16];

    _mm512_storeu_ps(x, a);
    _mm512_storeu_ps(y, b);
    _mm512_storeu_ps(z, c);
    for (int i = 0; i < 16; i++)
        z[i] = fmaf(x[i], y[i], z[i]);
    return _mm512_loadu_ps(z);
}
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps fill_fmadd512
#undef _mm512_fnmadd_ps
#define _mm512_fnmadd_ps(a, b, c) fill_fmadd512(_mm512_sub_ps(_mm512_set1_ps(-0.0f), a), b, c)

static inline __m256 fill_fmadd256(__m256 a, __m256 b, __m256 c)
{
    float x[8], y[8], z[8];

    _mm256_storeu_ps(x, a);
    _mm256_storeu_ps(y, b);
    _mm256_storeu_ps(z, c);
    for (int i = 0; i < 8; i++)
        z[i] = fmaf(x[i], y[i], z[i]);
    return _mm256_loadu_ps(z);
}
#undef _mm256_fmadd_ps
#define _mm256_fmadd_ps fill_fmadd256
#undef _mm256_fnmadd_ps
#define _mm256_fnmadd_ps(a, b, c) fill_fmadd256(_mm256_sub_ps(_mm256_set1_ps(-0.0f), a), b, c)

#endif

#if defined(SIMD_NEON) && !defined(__aarch64__)

static inline float32x4_t fill_vfmaq_f32(float32x4_t c, float32x4_t a, float32x4_t b)
{
    float x[4], y[4], z[4];

    vst1q_f32(x, a);
    vst1q_f32(y, b);
    vst1q_f32(z, c);
    for (int i = 0; i < 4; i++)
        z[i] = fmaf(x[i], y[i], z[i]);
    return vld1q_f32(z);
}
static inline float32x4_t fill_vdivq_f32(float32x4_t a, float32x4_t b)
{
    float x[4], y[4];

    vst1q_f32(x, a);
    vst1q_f32(y, b);
    for (int i = 0; i < 4; i++)
        x[i] /= y[i];
    return vld1q_f32(x);
}
#define vdivq_f32 fill_vdivq_f32

static inline float fill_vmaxnmvq_f32(float32x4_t v)
{
    float x[4];

    vst1q_f32(x, v);
    return fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
}
#define vmaxnmvq_f32 fill_vmaxnmvq_f32

#undef vfmaq_f32
#define vfmaq_f32 fill_vfmaq_f32
#undef vfmsq_f32
#define vfmsq_f32(c, a, b) fill_vfmaq_f32(c, vnegq_f32(a), b)

#endif

#endif
