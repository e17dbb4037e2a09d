/* ops_avx2.c - the row operations on 8 floats at a time; what is left over runs in plain C with the
 * same operations. */
#define SIMD_X86
#include "kernels/simd.h"

#include "kernels/ops.h"

static void add(float *out, const float *x, const float *y, int n)
{
    int i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < n; i++)
        out[i] = x[i] + y[i];
}

static void mul(float *out, const float *x, const float *y, int n)
{
    int i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < n; i++)
        out[i] = x[i] * y[i];
}

static void scale(float *out, const float *x, float factor, int n)
{
    __m256 f = _mm256_set1_ps(factor);
    int i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), f));
    for (; i < n; i++)
        out[i] = x[i] * factor;
}

void ops_init_avx2(struct kernels *k)
{
    k->add = add;
    k->mul = mul;
    k->scale = scale;
}
