/* ops_neon.c - the row operations on 4 floats at a time; what is left over runs in plain C with the
 * same operations. */
#define SIMD_NEON
#include "kernels/simd.h"

#include "kernels/ops.h"

static void add(float *out, const float *x, const float *y, int n)
{
    int i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
    for (; i < n; i++)
        out[i] = x[i] + y[i];
}

static void mul(float *out, const float *x, const float *y, int n)
{
    int i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vmulq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
    for (; i < n; i++)
        out[i] = x[i] * y[i];
}

static void scale(float *out, const float *x, float factor, int n)
{
    float32x4_t f = vdupq_n_f32(factor);
    int i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vmulq_f32(vld1q_f32(x + i), f));
    for (; i < n; i++)
        out[i] = x[i] * factor;
}

void ops_init_neon(struct kernels *k)
{
    k->add = add;
    k->mul = mul;
    k->scale = scale;
}
