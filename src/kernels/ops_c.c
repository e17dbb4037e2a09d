/* ops_c.c - the row operations in plain C: the reference profile, and the row every instruction
 * set is compared with. Long sums run in double, so that their order does not matter here. */
#include "kernels/ops.h"

#include <math.h>

#include "kernels/noise.h"

static void rmsnorm(float *out, const float *x, const float *w, float eps, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];

    float inv = 1.0f / sqrtf((float)(sum / (n > 0 ? n : 1)) + eps);

    for (int i = 0; i < n; i++)
        out[i] = w ? x[i] * inv * w[i] : x[i] * inv;
}

static void add(float *out, const float *x, const float *y, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = x[i] + y[i];
}

static void mul(float *out, const float *x, const float *y, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = x[i] * y[i];
}

static void scale(float *out, const float *x, float factor, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = x[i] * factor;
}

static float gelu(float x)
{
    const float sqrt_2_over_pi = 0.79788456080286535588f;

    return 0.5f * x * (1.0f + tanhf(sqrt_2_over_pi * (x + 0.044715f * x * x * x)));
}

static void geglu(float *out, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = gelu(gate[i]) * up[i];
}

static void softcap(float *x, float cap, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}

static void rope(float *x, const float *cos, const float *sin, int n)
{
    int half = n / 2;

    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];

        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

static int argmax(const float *x, int n)
{
    float best = -INFINITY;
    int at = 0;

    for (int i = 0; i < n; i++) {
        if (x[i] > best) {
            best = x[i];
            at = i;
        }
    }
    return at;
}

static float sum_exp(const float *x, float max, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += expf(x[i] - max);
    return (float)sum;
}

static float noisy_largest(const float *x, const float *bounds, float scale, int n)
{
    float best = -INFINITY;

    for (int i = 0; i < n; i++) {
        const float noisy = scale * x[i] + bounds[i / NOISE_ROWS];

        best = noisy > best ? noisy : best;
    }
    return best;
}

void ops_init_c(struct kernels *k)
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
