/* random_rows.h - rows of random logits, the same in each run. */
#ifndef TESTS_RANDOM_ROWS_H
#define TESTS_RANDOM_ROWS_H

#include <stdint.h>

static inline float uniform(void)
{
    static uint32_t lcg = 1;

    lcg = lcg * 1664525u + 1013904223u;
    return (float)(lcg >> 8) / (1 << 24);
}

static inline void fill(float *row, int n, float spread)
{
    for (int i = 0; i < n; i++)
        row[i] = spread * (uniform() + uniform() + uniform() - 1.5f);
}

#endif
