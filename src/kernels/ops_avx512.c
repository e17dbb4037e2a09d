/* ops_avx512.c - the row operations on 16 floats at a time; the last few under a mask. */
#define SIMD_X86
#include "kernels/simd.h"

#include "kernels/ops.h"

/* The lanes that hold values when `left` of them remain. */
static inline __mmask16 lanes(int left)
{
    return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1u);
}

static void add(float *out, const float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_add_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, y + i));

        _mm512_mask_storeu_ps(out + i, m, v);
    }
}

static void mul(float *out, const float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, y + i));

        _mm512_mask_storeu_ps(out + i, m, v);
    }
}

static void scale(float *out, const float *x, float factor, int n)
{
    __m512 f = _mm512_set1_ps(factor);

    for (int i = 0; i < n; i += 16) {
        __mmask16 m = lanes(n - i);

        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), f));
    }
}

void ops_init_avx512(struct kernels *k)
{
    k->add = add;
    k->mul = mul;
    k->scale = scale;
}
