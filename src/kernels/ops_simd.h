/* ops_simd.h - the row operations on vectors, written once; ops_avx2.c, ops_avx512.c and ops_neon.c
 * each compile them with their own `vf`. The last values of a row go through the same vector
 * operations as the others, so that a value's result does not depend on where it stands. */
#ifndef KERNELS_OPS_SIMD_H
#define KERNELS_OPS_SIMD_H

#include <math.h>

#include "kernels/ops.h"
#include "kernels/ops_simd_sample.h"
#include "kernels/simd_math.h"

static inline vf load(const float *x, int left)
{
    return left >= LANES ? vf_load(x) : vf_load_n(x, left);
}

static inline void store(float *out, vf v, int left)
{
    if (left >= LANES)
        vf_store(out, v);
    else
        vf_store_n(out, v, left);
}

static void add(float *out, const float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += LANES)
        store(out + i, vf_add(load(x + i, n - i), load(y + i, n - i)), n - i);
}

static void mul(float *out, const float *x, const float *y, int n)
{
    for (int i = 0; i < n; i += LANES)
        store(out + i, vf_mul(load(x + i, n - i), load(y + i, n - i)), n - i);
}

static void scale(float *out, const float *x, float factor, int n)
{
    vf f = vf_set1(factor);

    for (int i = 0; i < n; i += LANES)
        store(out + i, vf_mul(load(x + i, n - i), f), n - i);
}

static void rmsnorm(float *out, const float *x, const float *w, float eps, int n)
{
    vf sum[4] = {vf_set1(0), vf_set1(0), vf_set1(0), vf_set1(0)};
    float mean;
    int i = 0;

    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        for (int j = 0; j < 4; j++) {
            vf v = vf_load(x + i + j * LANES);

            sum[j] = vf_fma(v, v, sum[j]);
        }
    }
    for (; i < n; i += LANES) {
        vf v = load(x + i, n - i);

        sum[0] = vf_fma(v, v, sum[0]);
    }
    mean = vf_sum(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3]))) / (float)(n > 0 ? n : 1);

    vf inv = vf_set1(1.0f / sqrtf(mean + eps));

    for (i = 0; i < n; i += LANES) {
        vf v = vf_mul(load(x + i, n - i), inv);

        store(out + i, w ? vf_mul(v, load(w + i, n - i)) : v, n - i);
    }
}

/* gelu_tanh(x) = x (1 + tanh u) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline vf gelu(vf x)
{
    const vf minus_2_sqrt_2_over_pi = vf_set1(-1.5957691216057308f);
    vf cubic = vf_fma(vf_mul(vf_mul(x, x), x), vf_set1(0.044715f), x);
    vf e = vf_exp(vf_mul(cubic, minus_2_sqrt_2_over_pi));

    return vf_div(x, vf_add(vf_set1(1.0f), e));
}

static void geglu(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += LANES)
        store(out + i, vf_mul(gelu(load(gate + i, n - i)), load(up + i, n - i)), n - i);
}

static void softcap(float *x, float cap, int n)
{
    vf c = vf_set1(cap);

    for (int i = 0; i < n; i += LANES)
        store(x + i, vf_mul(c, vf_tanh(vf_div(load(x + i, n - i), c))), n - i);
}

static void rope(float *x, const float *cos, const float *sin, int n)
{
    int half = n / 2;
    float *y = x + half;

    for (int i = 0; i < half; i += LANES) {
        int left = half - i;
        vf a = load(x + i, left), b = load(y + i, left);
        vf c = load(cos + i, left), s = load(sin + i, left);

        store(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)), left);
        store(y + i, vf_add(vf_mul(b, c), vf_mul(a, s)), left);
    }
}

static inline void ops_set(struct kernels *k)
{
    k->rmsnorm = rmsnorm;
    k->add = add;
    k->mul = mul;
    k->scale = scale;
    k->geglu = geglu;
    k->softcap = softcap;
    k->rope = rope;
    k->argmax = argmax;
    k->sum_exp = sum_exp;
    k->noise_bounds = noise_bounds;
    k->noisy_largest = noisy_largest;
}

#endif
