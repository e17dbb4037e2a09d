/* quant.c - the two reference quantisers: what a packer of float weights writes. */
#include "kernels/dtype.h"

#include <math.h>
#include <string.h>

#include "kernels/dtype_impl.h"

/* The stored scale is f16: larger ones saturate, so that no file of floats can plant an infinity.
 */
static float clamp_scale(float d)
{
    const float largest = 65504;

    return d > largest ? largest : d < -largest ? -largest : d;
}

/* 1 / d, or 0 where that is no number: such a tiny d is stored as 0 anyway. */
static float invert(float d)
{
    const float inverse = d != 0 ? 1 / d : 0;

    return isfinite(inverse) ? inverse : 0;
}

/* The code for v, which may be anything: NaN gives 0. */
static int clamp_code(float v, int low, int high)
{
    if (v >= (float)high)
        return high;
    if (v <= (float)low)
        return low;
    return v == v ? (int)v : 0;
}

void dtype_quantize_q8_0(const float *x, void *dst, size_t n)
{
    uint8_t *p = dst;

    for (size_t i = 0; i < n; i += 32, p += 34) {
        float peak = 0;

        for (int j = 0; j < 32; j++)
            peak = fmaxf(peak, fabsf(x[i + j]));

        const float d = clamp_scale(peak / 127), inverse = invert(d);
        const uint16_t half = f32_to_f16(d);

        memcpy(p, &half, sizeof(half));
        for (int j = 0; j < 32; j++)
            p[2 + j] = (uint8_t)clamp_code(roundf(x[i + j] * inverse), -127, 127);
    }
}

void dtype_quantize_q4_0(const float *x, void *dst, size_t n)
{
    uint8_t *p = dst;

    for (size_t i = 0; i < n; i += 32, p += 18) {
        float peak = 0; /* with its sign */

        for (int j = 0; j < 32; j++)
            if (fabsf(x[i + j]) > fabsf(peak))
                peak = x[i + j];

        const float d = clamp_scale(peak / -8), inverse = invert(d);
        const uint16_t half = f32_to_f16(d);

        memcpy(p, &half, sizeof(half));
        for (int j = 0; j < 16; j++) {
            const int low = clamp_code(x[i + j] * inverse + 8.5f, 0, 15);
            const int high = clamp_code(x[i + 16 + j] * inverse + 8.5f, 0, 15);

            p[2 + j] = (uint8_t)(low | high << 4);
        }
    }
}

/* 16 values to codes -32 .. 31 under scale * the block's d: codes[i] + 32. */
static void quantize_16(const float *x, float scale, uint8_t *codes)
{
    const float inverse = invert(scale);

    for (int i = 0; i < 16; i++)
        codes[i] = (uint8_t)(clamp_code(roundf(x[i] * inverse), -32, 31) + 32);
}

void dtype_quantize_q6_k(const float *x, void *dst, size_t n)
{
    uint8_t *p = dst;

    for (size_t b = 0; b < n; b += 256, x += 256, p += 210) {
        float scales[16], largest = 0, d;
        uint8_t codes[256];
        uint16_t half;

        for (int s = 0; s < 16; s++) {
            float peak = 0; /* with its sign: -32 is the code that goes furthest */

            for (int i = 16 * s; i < 16 * s + 16; i++)
                if (fabsf(x[i]) > fabsf(peak))
                    peak = x[i];
            scales[s] = peak / -32;
            largest = fmaxf(largest, fabsf(scales[s]));
        }
        half = f32_to_f16(clamp_scale(largest / 127));
        d = f16_to_f32(half);
        memcpy(p + 208, &half, sizeof(half));
        for (int s = 0; s < 16; s++) {
            const int scale = clamp_code(roundf(scales[s] * invert(d)), -127, 127);

            p[192 + s] = (uint8_t)scale;
            quantize_16(x + 16 * s, d * (float)scale, codes + 16 * s);
        }
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < 32; i++) {
                const uint8_t *c = codes + 128 * h + i;

                p[64 * h + i] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
                p[64 * h + 32 + i] = (uint8_t)((c[32] & 15) | (c[96] & 15) << 4);
                p[128 + 32 * h + i] =
                    (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
            }
    }
}
