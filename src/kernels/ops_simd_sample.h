/* ops_simd_sample.h - what sampling asks of a row of logits, on vectors; see ops_simd.h. */
#ifndef KERNELS_OPS_SIMD_SAMPLE_H
#define KERNELS_OPS_SIMD_SAMPLE_H

#include <math.h>

#include "kernels/noise.h"
#include "kernels/simd_math.h"

/* Values looked at together: the largest of each part first, then its place in one part alone. */
enum { PART = 1024 };

static float largest(const float *x, int n)
{
    vf best = vf_set1(-INFINITY);
    int i = 0;

    for (; i + LANES <= n; i += LANES)
        best = vf_max(vf_load(x + i), best);

    float max = vf_max_of(best);

    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static int argmax(const float *x, int n)
{
    float best = -INFINITY;
    int at = 0;

    for (int i = 0; i < n; i += PART) {
        float max = largest(x + i, n - i < PART ? n - i : PART);

        if (max > best) {
            best = max;
            at = i;
        }
    }
    while (best > -INFINITY && x[at] != best)
        at++;
    return at;
}

static float sum_exp(const float *x, float max, int n)
{
    vf m = vf_set1(max);
    double total = 0;

    for (int i = 0; i < n; i += PART) {
        int end = n - i < PART ? n : i + PART, j = i;
        vf sum = vf_set1(0);

        for (; j + LANES <= end; j += LANES)
            sum = vf_add(sum, vf_exp(vf_sub(vf_load(x + j), m)));
        total += vf_sum(sum);
        if (j < end) {
            float rest[LANES];

            vf_store(rest, vf_exp(vf_sub(vf_load_n(x + j, end - j), m)));
            for (int k = 0; k < end - j; k++)
                total += rest[k];
        }
    }
    return (float)total;
}

static float noisy_largest(const float *x, const float *bounds, float scale, int n)
{
    const vf factor = vf_set1(scale);
    vf best = vf_set1(-INFINITY);
    int i = 0;

    for (; i + LANES <= n; i += LANES) {
        vf noise = vf_set1(bounds[i / NOISE_ROWS]);

        best = vf_max(vf_add(vf_mul(vf_load(x + i), factor), noise), best);
    }

    float max = vf_max_of(best);

    for (; i < n; i++) {
        const float noisy = scale * x[i] + bounds[i / NOISE_ROWS];

        max = noisy > max ? noisy : max;
    }
    return max;
}

#endif
