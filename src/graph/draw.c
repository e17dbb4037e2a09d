#include "graph/draw.h"

#include <math.h>

#include "graph/best.h"
#include "kernels/noise.h"

enum { PANELS = 16 }; /* looked at with one branch */

/* Of one panel, whose noise is at most bound. */
static void take_panel(
    const struct draw *d, int row, const float *logits, int n, float bound, struct logit *best)
{
    double noise = NAN;

    for (int i = 0; i < n; i++) {
        const float scaled = d->scale * logits[i];
        struct logit noisy = {row + i, 0};

        if (!(scaled + bound >= best->value))
            continue;
        if (isnan(noise)) {
            noise = noise_panel(d->key, (uint32_t)row / NOISE_ROWS);
            bound = (float)noise;
        }
        noisy.value = scaled + (float)noise_row(d->key, (uint32_t)noisy.id, noise);
        if (best_before(&noisy, best))
            *best = noisy;
    }
}

void draw_take_one(const struct draw *d, int row, float logit, struct logit *best)
{
    const int panel = row - row % NOISE_ROWS;
    float x[NOISE_ROWS];

    for (int i = 0; i < NOISE_ROWS; i++)
        x[i] = NAN;
    x[row - panel] = logit;
    take_panel(d, panel, x, NOISE_ROWS, noise_bound(d->key, (uint32_t)(panel / NOISE_ROWS)), best);
}

void draw_take(const struct kernels *k, const struct draw *d, int row, const float *logits, int n,
    struct logit *best)
{
    float bounds[PANELS];

    for (int at = 0; at < n; at += PANELS * NOISE_ROWS) {
        const int m = n - at < PANELS * NOISE_ROWS ? n - at : PANELS * NOISE_ROWS;

        k->noise_bounds(bounds, d->key, (row + at) / NOISE_ROWS, (m + NOISE_ROWS - 1) / NOISE_ROWS);
        if (k->noisy_largest(logits + at, bounds, d->scale, m) < best->value)
            continue;
        for (int i = 0; i < m; i += NOISE_ROWS)
            take_panel(d, row + at + i, logits + at + i, m - i < NOISE_ROWS ? m - i : NOISE_ROWS,
                bounds[i / NOISE_ROWS], best);
    }
}
