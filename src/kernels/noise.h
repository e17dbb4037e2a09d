/* noise.h - Gumbel noise, by which a draw is an arg-max: with independent standard Gumbel numbers
 * G_i, the i of the largest scale * x_i + G_i is distributed as softmax(scale * x) (the Gumbel-max
 * trick). So a draw from all logits needs no sum of them, and rows that cannot be the largest can
 * be left out.
 *
 * The noise of a row depends on (key, row) alone. Of 16 rows, a panel, the largest noise is made
 * first: it is a Gumbel number moved by ln 16, at a place all 16 are equally likely to be. The
 * other rows have Gumbel numbers that are not above it (Maddison, Tarlow, Minka: A* sampling,
 * 2014):
 *
 *   g       = ln 16 - ln(-ln(1 - w))              w uniform in (0, 1), of the panel
 *   g_row   = -ln(exp(-g) - ln u)                 u uniform in (0, 1), of the row
 *
 * g is at most ln 16 - ln w, which is cheap: most panels need no more than this bound. */
#ifndef KERNELS_NOISE_H
#define KERNELS_NOISE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { NOISE_ROWS = 16 };

/* 32 bits of (key, i): murmur3's finaliser, once with each half of the key. */
static inline uint32_t noise_bits(uint64_t key, uint32_t i)
{
    uint32_t x = i * 0x9e3779b1u + (uint32_t)key;

    for (int half = 0; half < 2; half++) {
        x ^= x >> 16;
        x *= 0x85ebca6bu;
        x ^= x >> 13;
        x *= 0xc2b2ae35u;
        x ^= x >> 16;
        x += half ? 0 : (uint32_t)(key >> 32);
    }
    return x;
}

/* No less than the noise of any row of a panel. The bits of a float, as a number, are its logarithm
 * but for less than 0.09 of a factor of two; a thousandth covers what is rounded. */
static inline float noise_bound(uint64_t key, uint32_t panel)
{
    const float ln_2 = 0.69314718f, ln_16 = 2.7725887f;
    const float w = (float)(int32_t)(noise_bits(key, panel) >> 1); /* times 2^31 */
    int32_t bits;

    memcpy(&bits, &w, sizeof(bits));
    return ln_16 + 0.001f + ln_2 * (31 + 127 - 0x1p-23f * (float)bits);
}

/* Of panels first .. first + n - 1: each level compiles it, and the compiler makes vectors of it.
 */
static inline void noise_bounds(float *bounds, uint64_t key, int first, int n)
{
    for (int i = 0; i < n; i++)
        bounds[i] = noise_bound(key, (uint32_t)(first + i));
}

/* The largest noise of a panel. */
static inline double noise_panel(uint64_t key, uint32_t panel)
{
    return log(16) - log(-log1p(-((noise_bits(key, panel) >> 1) + 0.5) * 0x1p-31));
}

/* The noise of a row, given that of its panel. */
static inline double noise_row(uint64_t key, uint32_t row, double panel)
{
    const uint64_t places = key * 0xd1342543de82ef95u + 1,
                   others = places * 0xd1342543de82ef95u + 1;

    if (noise_bits(places, row / NOISE_ROWS) % NOISE_ROWS == row % NOISE_ROWS)
        return panel;
    return -log(exp(-panel) - log((noise_bits(others, row) + 0.5) * 0x1p-32));
}

#endif
