#include "kernels/planes.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/matmul_impl.h"

struct wmat planes_init(int rows, int k, const void *data)
{
    struct wmat w = wmat_init(dtype_find(DTYPE_Q8_0), rows, k, data);

    w.panel_bytes = planes_coarse_bytes(k);
    w.fine = w.data + (size_t)w.n_panels * w.panel_bytes;
    return w;
}

struct wmat planes_coarse(const struct wmat *w)
{
    return wmat_init(dtype_find(DTYPE_Q4_0), w->rows, w->k, w->data);
}

/* ---- packing ---- */

/* Splits a packed Q8_0 panel; returns the largest of its scales' bits. Those of a negative one and
 * of what is no number are larger than infinity's. */
static uint16_t split(const uint8_t *from, uint8_t *coarse, uint8_t *fine, int k)
{
    const struct wmat_format f = wmat_format(DTYPE_Q8_0);
    uint16_t largest = 0;

    for (int b = 0; b < k / BLOCK_K; b++) {
        if (b % f.tile_blocks == 0) {
            for (int i = 0; i < f.header_bytes; i += 2) {
                const uint16_t bits = load_u16(from + i);

                largest = bits > largest ? bits : largest;
            }
            memcpy(coarse, from, (size_t)f.header_bytes);
            from += f.header_bytes;
            coarse += f.header_bytes;
        }
        for (int i = 0; i < 256; i++) {
            coarse[i] = (uint8_t)(from[i] >> 4 | (from[256 + i] & 0xf0));
            fine[i] = (uint8_t)((from[i] & 15) | from[256 + i] << 4);
        }
        from += 512;
        coarse += 256;
        fine += 256;
    }
    return largest;
}

float planes_store(const struct wmat *w, uint8_t *dst, int i, const uint8_t *packed)
{
    uint8_t *fine = dst + (size_t)w->n_panels * w->panel_bytes;
    const uint16_t largest = split(
        packed, dst + (size_t)i * w->panel_bytes, fine + (size_t)i * planes_fine_bytes(w->k), w->k);

    return largest < 0x7c00 ? f16_to_f32(largest) : INFINITY;
}

static void fetch(const uint8_t *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(from + i);
}

void planes_fetch(const struct wmat *w, int i)
{
    fetch(w->data + (size_t)i * w->panel_bytes, w->panel_bytes);
    fetch(wmat_fine(w, i), planes_fine_bytes(w->k));
}

/* ---- the bound ---- */

/* The Q4_0 product of a block is scale * (sum of u x + offset / 16). Wanted is 16 times the scale
 * and sum of u x - 8 (sum of x) + 15/16 (sum of the positive x), rounded up. Returns the sum of
 * |x|. */
static int32_t bound_block(const struct act_block *x, struct act_block *out, int planes)
{
    int32_t positive = 0, sum = 0;

    for (int i = 0; i < BLOCK_K; i++) {
        const int32_t code = planes == 2 ? 256 * x->q[0][i] + x->q[1][i] : x->q[0][i];

        sum += code;
        positive += code > 0 ? code : 0;
    }
    memcpy(out, x, act_block_bytes(planes));
    out->scale = 16 * x->scale;
    out->offset = 16 * (-8 * sum + (15 * positive + 15) / 16);
    return 2 * positive - sum;
}

/* A product of nb blocks rounds each term at most nb + 3 times, by 2^-24 of it; a term is at most
 * 144
 * * scale * x_scale * (sum of |x|), in the bound as well as in the product itself. */
float planes_bound(const struct wmat *w, const struct act *x, const struct act *bound, int col)
{
    const uint8_t *from = act_col(x, col);
    uint8_t *out = bound->data + (size_t)col * bound->col_bytes;
    const int n_blocks = x->k / BLOCK_K, planes = act_planes(x->kind);
    double magnitude = 0, slack;

    for (int b = 0; b < n_blocks; b++) {
        const size_t at = (size_t)b * act_block_bytes(planes);
        const struct act_block *block = (const struct act_block *)(from + at);

        magnitude +=
            (double)block->scale * bound_block(block, (struct act_block *)(out + at), planes);
    }
    slack = 2 * 144 * (double)w->max_scale * magnitude * (n_blocks + 4) * 0x1p-24;
    return slack < 1e20 ? (float)slack : INFINITY;
}
