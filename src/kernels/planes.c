#include "kernels/planes.h"

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/matmul_impl.h"

bool planes_fit(enum dtype type, int k)
{
    return type == DTYPE_Q8_0 && k % PLANES_K == 0;
}

struct wmat planes_init(int rows, int k, const void *data, const uint8_t *strong)
{
    struct wmat w = wmat_init(dtype_find(DTYPE_Q8_0), rows, k, data);

    w.layout = DTYPE_Q8_0_PLANES;
    w.panel_bytes -= planes_fine_bytes(k);
    w.fine = w.data + (size_t)w.n_panels * w.panel_bytes;
    w.strong = strong;
    return w;
}

struct wmat planes_coarse(const struct wmat *w)
{
    struct wmat coarse = *w;

    coarse.layout = DTYPE_Q8_0_COARSE;
    coarse.fine = coarse.strong = NULL;
    return coarse;
}

/* ---- the order of columns ---- */

/* Place i of each block's first 4 trades with column strong[i]. A strong column that is among them
 * already stays, so that each column trades once and trading again undoes it. */
static void choose(const float *norm, uint8_t strong[STRONG])
{
    bool is_strong[BLOCK_K] = {false};
    int at = 0;

    for (int n = 0; n < STRONG; n++) {
        int best = -1;

        for (int i = 0; i < BLOCK_K; i++)
            if (!is_strong[i] && (best < 0 || fabsf(norm[i]) > fabsf(norm[best])))
                best = i;
        is_strong[best] = true;
    }
    for (int i = 0; i < STRONG; i++)
        strong[i] = (uint8_t)i;
    for (int i = STRONG; i < BLOCK_K; i++) {
        if (!is_strong[i])
            continue;
        while (is_strong[at])
            at++;
        strong[at++] = (uint8_t)i;
    }
}

void planes_order(uint8_t *strong, int k, const float *norm)
{
    const float none[BLOCK_K] = {0};

    for (int b = 0; b < k / BLOCK_K; b++)
        choose(norm ? norm + (size_t)b * BLOCK_K : none, strong + (size_t)b * STRONG);
}

void planes_arrange(const struct wmat *w, const struct act *x, int col)
{
    const int planes = act_planes(x->kind);
    uint8_t *at = x->data + (size_t)col * x->col_bytes;

    for (int b = 0; b < x->k / BLOCK_K; b++, at += act_block_bytes(planes))
        for (int p = 0; p < planes; p++)
            for (int i = 0; i < STRONG; i++) {
                int8_t *q = ((struct act_block *)at)->q[p];
                const int from = w->strong[b * STRONG + i];
                const int8_t code = q[i];

                q[i] = q[from];
                q[from] = code;
            }
}

/* ---- packing ---- */

/* The same in a block of a packed panel, whose lines hold 4 columns of 16 rows. */
static void arrange_block(uint8_t *codes, const uint8_t strong[STRONG])
{
    for (int i = 0; i < STRONG; i++) {
        uint8_t *line = codes + strong[i] / 4 * 64;
        const int shift = strong[i] % 4 * 8;

        for (int r = 0; strong[i] >= STRONG && r < PANEL_ROWS; r++) {
            uint32_t a = load_u32(codes + 4 * r), b = load_u32(line + 4 * r);
            const uint32_t differ = (a >> 8 * i ^ b >> shift) & 0xff;

            a ^= differ << 8 * i;
            b ^= differ << shift;
            memcpy(codes + 4 * r, &a, sizeof(a));
            memcpy(line + 4 * r, &b, sizeof(b));
        }
    }
}

/* The upper halves of two lines of codes. */
static void join_upper(uint8_t *restrict to, const uint8_t *low, const uint8_t *high)
{
    for (int i = 0; i < 64; i++)
        to[i] = (uint8_t)(low[i] >> 4 | (high[i] & 0xf0));
}

static void join_lower(uint8_t *restrict to, const uint8_t *low, const uint8_t *high)
{
    for (int i = 0; i < 64; i++)
        to[i] = (uint8_t)((low[i] & 15) | high[i] << 4);
}

/* Two blocks, arranged; the lines are drawn in wmat_planes.h. */
static void split_tile(const uint8_t *codes, uint8_t *coarse, uint8_t *fine)
{
    const uint8_t *second = codes + 512;

    join_lower(coarse + 64, codes, second);
    join_lower(fine, codes + 4 * 64, second + 4 * 64);
    for (int j = 0; j < 2; j++)
        for (int g = 0; g < 4; g++) {
            const uint8_t *low = codes + (8 * j + g) * 64, *high = low + 4 * 64;

            join_upper(coarse + 128 + (4 * j + g) * 64, low, high);
            if (g > 0)
                join_lower(fine + (3 * j + g) * 64, low, high);
        }
}

float planes_store(const struct wmat *w, uint8_t *dst, int i, uint8_t *packed)
{
    const struct wmat_format f = wmat_format(DTYPE_Q8_0), to = wmat_format(DTYPE_Q8_0_PLANES);
    uint8_t *coarse = dst + (size_t)i * w->panel_bytes;
    uint8_t *fine = dst + (w->fine - w->data) + (size_t)i * planes_fine_bytes(w->k);
    uint16_t largest = 0; /* of the scales' bits; those of a negative one and of what is no number
                             are larger than infinity's */

    for (int b = 0; b < w->k / BLOCK_K; b += 2) {
        uint8_t *codes = packed + f.header_bytes;

        for (int s = 0; s < f.header_bytes; s += 2) {
            const uint16_t bits = load_u16(packed + s);

            largest = bits > largest ? bits : largest;
        }
        memcpy(coarse, packed, (size_t)f.header_bytes);
        arrange_block(codes, w->strong + (size_t)b * STRONG);
        arrange_block(codes + f.code_bytes, w->strong + (size_t)(b + 1) * STRONG);
        split_tile(codes, coarse, fine);
        packed = codes + 2 * f.code_bytes;
        coarse += to.header_bytes + 2 * to.code_bytes;
        fine += FINE_TILE;
    }
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

/* The start of the block's sums that makes them a bound. Kernels that take codes as signed bytes
 * have the zero point's part in them and look at offset_high, which Q8_0 has no other use for.
 * Returns the sum of |x|. */
static int32_t bound_block(const struct act_block *x, struct act_block *out, int planes)
{
    int32_t all = 0, most = 0, sum = 0;

    for (int i = 0; i < BLOCK_K; i++) {
        const int32_t code = planes == 2 ? 256 * x->q[0][i] + x->q[1][i] : x->q[0][i];

        sum += code;
        all += code < 0 ? -code : code;
        most += i >= STRONG && code > 0 ? 15 * code : 0;
    }
    memcpy(out, x, act_block_bytes(planes));
    out->offset = -128 * sum + most;
    out->offset_high = most;
    return all;
}

/* A product of nb blocks rounds each term at most nb + 3 times, by 2^-24 of it; a term is at most
 * 144 * scale * x_scale * (sum of |x|), in the bound as well as in the product itself. */
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
