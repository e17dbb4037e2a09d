/* wmat_floats.h - pieces of a panel as floats, in plain C that vectorises over the 16 rows for
 * whatever instruction set the including file is compiled for. The bits are to_float's. */
#ifndef KERNELS_WMAT_FLOATS_H
#define KERNELS_WMAT_FLOATS_H

#include "kernels/wmat_planes.h"

/* One block of 32 k: out[i * ld + row]. */
ALWAYS_INLINE void block_floats(enum dtype type, const uint8_t *panel, const uint8_t *fine, int b,
    float *restrict out, size_t ld)
{
    const uint8_t *tile = wmat_tile(type, panel, b);
    const int j = b % wmat_format(type).tile_blocks;
    float scale[2][PANEL_ROWS], base[2][PANEL_ROWS];

    for (int half = 0; half < 2; half++)
        for (int r = 0; r < PANEL_ROWS; r++)
            scale[half][r] = wmat_scale(type, tile, j, half, r, &base[half][r]);
    for (int g = 0; g < 8; g++) {
        uint32_t words[PANEL_ROWS];

        for (int r = 0; r < PANEL_ROWS; r++)
            words[r] = wmat_whole_word(type, panel, fine, b, r, g);
        for (int i = 0; i < 4; i++, out += ld)
            for (int r = 0; r < PANEL_ROWS; r++)
                out[r] = wmat_decode(
                    type, scale[g / 4][r], base[g / 4][r], wmat_value(type, words[r], i));
    }
}

/* k0 .. k0 + n - 1 of F32, F16 and BF16; k0 is even. */
ALWAYS_INLINE void dense_floats(
    enum dtype type, const uint8_t *panel, int k0, int n, float *restrict out, size_t ld)
{
    if (type == DTYPE_F32) {
        for (int i = 0; i < n; i++)
            memcpy(out + i * ld, panel + (size_t)(k0 + i) * 64, 64);
        return;
    }
    for (int i = 0; i < n; i += 2) {
        const uint8_t *line = panel + (size_t)(k0 + i) / 2 * 64;
        float odd[PANEL_ROWS];

        for (int r = 0; r < PANEL_ROWS; r++) {
            const uint32_t pair = load_u32(line + 4 * r);

            if (type == DTYPE_BF16) {
                out[i * ld + r] = f32_of_bits(pair << 16);
                odd[r] = f32_of_bits(pair & 0xffff0000);
            } else {
                out[i * ld + r] = f16_value(pair & 0xffff);
                odd[r] = f16_value(pair >> 16);
            }
        }
        if (i + 1 < n)
            memcpy(out + (i + 1) * ld, odd, sizeof(odd));
    }
}

/* Brings a block's strong columns back to where they belong. */
ALWAYS_INLINE void swap_rows(const uint8_t *strong, float *out, size_t ld)
{
    for (int i = 0; i < STRONG; i++) {
        float rows[PANEL_ROWS];

        memcpy(rows, out + i * ld, sizeof(rows));
        memmove(out + i * ld, out + strong[i] * ld, sizeof(rows));
        memcpy(out + strong[i] * ld, rows, sizeof(rows));
    }
}

/* The contract of wmat_panel_floats(), for one panel. */
ALWAYS_INLINE void panel_floats(
    const struct wmat *w, int panel_index, int k0, int n, float *restrict out, size_t ld)
{
    const uint8_t *panel = w->data + (size_t)panel_index * w->panel_bytes;
    const uint8_t *fine = wmat_fine(w, panel_index);

    switch (w->layout) {
#define FLOATS(t)                                                               \
    case t:                                                                     \
        for (int i = 0; i < n; i += BLOCK_K)                                    \
            block_floats(t, panel, fine, (k0 + i) / BLOCK_K, out + i * ld, ld); \
        break;
        WMAT_QUANTISED(FLOATS)
        FLOATS(DTYPE_Q8_0_PLANES)
#undef FLOATS
    case DTYPE_Q8_0_COARSE: break; /* none are asked for */
    case DTYPE_F32: dense_floats(DTYPE_F32, panel, k0, n, out, ld); break;
    case DTYPE_F16: dense_floats(DTYPE_F16, panel, k0, n, out, ld); break;
    case DTYPE_BF16: dense_floats(DTYPE_BF16, panel, k0, n, out, ld); break;
    }
    for (int i = 0; w->strong && i < n; i += BLOCK_K)
        swap_rows(w->strong + (k0 + i) / BLOCK_K * STRONG, out + i * ld, ld);
}

#endif
