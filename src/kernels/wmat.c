/* wmat.c - packs GGUF rows into panels and reads rows back. The layout is told in wmat_impl.h.
 *
 * Codes move as words of four: a block of 32 k is eight words, word g holding k = 4g .. 4g + 3 one
 * per byte, whatever their width was. Each format says how to read those words from a GGUF block
 * and how to lay them into a panel. */
#include "kernels/matmul.h"

#include <string.h>

#include "kernels/wmat_planes.h"

enum { WORDS = BLOCK_K / 4 };

struct wmat wmat_init(const struct dtype_info *type, int rows, int k, const void *data)
{
    const struct wmat_format f = wmat_format(type->type);
    struct wmat w = {.type = type, .rows = rows, .k = k, .data = data, .layout = type->type};
    const size_t n_blocks = (size_t)k / BLOCK_K;

    w.n_panels = (int)(((size_t)rows + PANEL_ROWS - 1) / PANEL_ROWS);
    if (type->type == DTYPE_F32)
        w.panel_bytes = (size_t)k * 64;
    else if (wmat_dense(type->type))
        w.panel_bytes = ((size_t)k + 1) / 2 * 64;
    else
        w.panel_bytes = n_blocks * f.code_bytes +
                        (n_blocks + f.tile_blocks - 1) / f.tile_blocks * f.header_bytes;
    return w;
}

size_t wmat_packed_bytes(const struct wmat *w)
{
    return w->panel_bytes + (w->fine ? planes_fine_bytes(w->k) : 0);
}

size_t wmat_bytes(const struct wmat *w)
{
    return (size_t)w->n_panels * wmat_packed_bytes(w);
}

static inline void store_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

/* 16 bytes of nibbles in GGUF order: low ones k = 0..15, high ones k = 16..31. */
ALWAYS_INLINE void read_nibbles(const uint8_t *qs, uint32_t w[WORDS])
{
    for (int g = 0; g < 4; g++) {
        w[g] = load_u32(qs + 4 * g) & 0x0f0f0f0f;
        w[g + 4] = load_u32(qs + 4 * g) >> 4 & 0x0f0f0f0f;
    }
}

/* Adds bit 4 from 32 bits in k order: the multiplication spreads four bits over four bytes. */
ALWAYS_INLINE void add_bits(uint32_t bits, uint32_t w[WORDS])
{
    for (int g = 0; g < WORDS; g++)
        w[g] |= ((bits >> 4 * g & 15) * 0x00204081 & 0x01010101) << 4;
}

/* Sub-block s (32 values) of the K type's super-block at p. */
ALWAYS_INLINE void read_k_codes(enum dtype type, const uint8_t *p, int s, uint32_t w[WORDS])
{
    const int half = s / 4, quarter = s % 4;

    for (int g = 0; g < WORDS; g++) {
        const uint8_t *at = p + 4 * g;

        switch (type) {
        case DTYPE_Q2_K: w[g] = load_u32(at + 16 + 32 * half) >> 2 * quarter & 0x03030303; break;
        case DTYPE_Q3_K:
            w[g] = (load_u32(at + 32 + 32 * half) >> 2 * quarter & 0x03030303) |
                   (load_u32(at) >> s & 0x01010101) << 2;
            break;
        case DTYPE_Q4_K: w[g] = load_u32(at + 16 + s / 2 * 32) >> s % 2 * 4 & 0x0f0f0f0f; break;
        case DTYPE_Q5_K:
            w[g] = (load_u32(at + 48 + s / 2 * 32) >> s % 2 * 4 & 0x0f0f0f0f) |
                   (load_u32(at + 16) >> s & 0x01010101) << 4;
            break;
        default: /* Q6_K */
            w[g] = (load_u32(at + 64 * half + quarter % 2 * 32) >> quarter / 2 * 4 & 0x0f0f0f0f) |
                   (load_u32(at + 128 + 32 * half) >> 2 * quarter & 0x03030303) << 4;
        }
    }
}

ALWAYS_INLINE void read_codes(enum dtype type, const uint8_t *p, int s, uint32_t w[WORDS])
{
    switch (type) {
    case DTYPE_Q8_0:
        for (int g = 0; g < WORDS; g++)
            w[g] = load_u32(p + 2 + 4 * g) ^ 0x80808080;
        break;
    case DTYPE_Q4_0:
    case DTYPE_IQ4_NL: read_nibbles(p + 2, w); break;
    case DTYPE_Q4_1: read_nibbles(p + 4, w); break;
    case DTYPE_MXFP4: read_nibbles(p + 1, w); break;
    case DTYPE_IQ4_XS: read_nibbles(p + 8 + 16 * s, w); break;
    case DTYPE_Q5_0:
        read_nibbles(p + 6, w);
        add_bits(load_u32(p + 2), w);
        break;
    case DTYPE_Q5_1:
        read_nibbles(p + 8, w);
        add_bits(load_u32(p + 4), w);
        break;
    default: read_k_codes(type, p, s, w);
    }
}

/* The inverse of wmat_word() for all groups of a lane. */
ALWAYS_INLINE void write_codes(enum dtype type, uint8_t *codes, int r, const uint32_t w[WORDS])
{
    uint8_t *lane = codes + 4 * r;
    uint32_t low[2] = {0, 0}, high[2] = {0, 0}, bits = 0;

    if (type == DTYPE_Q8_0) {
        for (int g = 0; g < WORDS; g++)
            store_u32(lane + 64 * g, w[g]);
        return;
    }
    for (int g = 0; g < WORDS; g++) {
        low[g / 4] |= (w[g] & 0x03030303) << g % 4 * 2;
        high[g / 4] |= (w[g] >> 4 & 0x03030303) << g % 4 * 2;
        bits |= (w[g] >> (type == DTYPE_Q3_K ? 2 : 4) & 0x01010101) << g;
    }
    if (wmat_nibbles(type))
        for (int g = 0; g < 4; g++)
            store_u32(lane + 64 * g, (w[g] & 0x0f0f0f0f) | (w[g + 4] & 0x0f0f0f0f) << 4);
    switch (type) {
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K: store_u32(lane + 256, bits); break;
    case DTYPE_Q6_K:
        store_u32(lane + 256, high[0]);
        store_u32(lane + 320, high[1]);
        break;
    case DTYPE_Q3_K: store_u32(lane + 128, bits); break;
    default: break;
    }
    if (!wmat_nibbles(type)) { /* Q2_K, Q3_K */
        store_u32(lane, low[0]);
        store_u32(lane + 64, low[1]);
    }
}

static void write_pairs(uint8_t *pairs, int r, const uint8_t a[8], const uint8_t b[8])
{
    uint32_t high = 0;

    for (int j = 0; j < 8; j++) {
        pairs[16 * j + r] = (uint8_t)((a[j] & 15) | b[j] << 4);
        high |= (uint32_t)(a[j] >> 4) << 4 * j | (uint32_t)(b[j] >> 4) << (4 * j + 2);
    }
    store_u32(pairs + 128 + 4 * r, high);
}

/* All scales of lane r of a tile whose first GGUF block is at p. */
static void write_k_header(enum dtype type, uint8_t *tile, int r, const uint8_t *p)
{
    uint8_t a[8], b[8];
    int8_t signed_scales[16];
    uint32_t low = 0;

    switch (type) {
    case DTYPE_Q2_K:
        memcpy(tile + 2 * r, p + 80, 2);
        memcpy(tile + 32 + 2 * r, p + 82, 2);
        for (int s = 0; s < 16; s++)
            tile[64 + 16 * s + r] = p[s];
        break;
    case DTYPE_Q3_K:
        memcpy(tile + 2 * r, p + 108, 2);
        q3_k_scales(p + 96, signed_scales);
        for (int j = 0; j < 8; j++) {
            a[j] = (uint8_t)(signed_scales[2 * j] + 32);
            b[j] = (uint8_t)(signed_scales[2 * j + 1] + 32);
        }
        write_pairs(tile + 64, r, a, b);
        break;
    case DTYPE_Q6_K:
        memcpy(tile + 2 * r, p + 208, 2);
        for (int s = 0; s < 16; s++)
            tile[64 + 16 * s + r] = p[192 + s];
        break;
    case DTYPE_IQ4_XS:
        memcpy(tile + 2 * r, p, 2);
        memcpy(tile + 32 + 2 * r, p + 2, 2);
        low = load_u32(p + 4);
        for (int j = 0; j < 4; j++)
            tile[64 + 16 * j + r] = (uint8_t)(low >> 8 * j);
        break;
    default: /* Q4_K, Q5_K */
        memcpy(tile + 2 * r, p, 2);
        memcpy(tile + 32 + 2 * r, p + 2, 2);
        q4_k_scales(p + 4, a, b);
        write_pairs(tile + 64, r, a, b);
    }
}

ALWAYS_INLINE void write_header(enum dtype type, uint8_t *tile, int j, int r, const uint8_t *p)
{
    switch (type) {
    case DTYPE_MXFP4: tile[16 * j + r] = p[0]; break;
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
        memcpy(tile + 2 * r, p, 2);
        memcpy(tile + 32 + 2 * r, p + 2, 2);
        break;
    case DTYPE_Q8_0:
    case DTYPE_Q4_0:
    case DTYPE_Q5_0:
    case DTYPE_IQ4_NL: memcpy(tile + 32 * j + 2 * r, p, 2); break;
    default:
        if (j == 0)
            write_k_header(type, tile, r, p);
    }
}

/* One panel of n_rows rows, `stride` bytes apart. Tile by tile, so that what is written stays in L1
 * until all rows have filled it. */
ALWAYS_INLINE void pack_panel(enum dtype type, const struct wmat *w, uint8_t *panel,
    const uint8_t *src, size_t stride, int n_rows)
{
    const struct wmat_format f = wmat_format(type);
    const int n_blocks = w->k / BLOCK_K, per_super = w->type->block / BLOCK_K;

    for (int b = 0; b < n_blocks; b += f.tile_blocks) {
        uint8_t *tile = panel + (wmat_tile(type, panel, b) - panel);
        const int n = n_blocks - b < f.tile_blocks ? n_blocks - b : f.tile_blocks;

        memset(tile, 0, (size_t)f.header_bytes);
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = src + (size_t)r * stride + (size_t)(b / per_super) * w->type->bytes;

            for (int j = 0; j < n; j++) {
                uint32_t words[WORDS];

                write_header(type, tile, j, r, p);
                read_codes(type, p, j, words);
                write_codes(type, tile + f.header_bytes + j * f.code_bytes, r, words);
                if (per_super == 1)
                    p += w->type->bytes;
            }
        }
    }
}

/* Plain floats: 4 bytes of 16 rows side by side, a line at a time per row would touch every line of
 * the panel 16 times, so in pieces of 32 lines. */
static void pack_dense(const struct wmat *w, uint8_t *panel, const uint8_t *src, int n_rows)
{
    const size_t stride = (size_t)w->k * w->type->bytes, n_lines = stride / 4;

    for (size_t first = 0; first < n_lines; first += 32) {
        const size_t last = first + 32 < n_lines ? first + 32 : n_lines;

        for (int r = 0; r < n_rows; r++)
            for (size_t i = first; i < last; i++)
                memcpy(panel + 64 * i + 4 * r, src + (size_t)r * stride + 4 * i, 4);
    }
    for (int r = 0; r < n_rows && stride % 4 != 0; r++) {
        store_u32(panel + 64 * n_lines + 4 * r, 0);
        memcpy(panel + 64 * n_lines + 4 * r, src + (size_t)r * stride + 4 * n_lines, 2);
    }
}

void wmat_pack(const struct wmat *w, uint8_t *dst, const void *src, int first, int last)
{
    const size_t stride = (size_t)w->k / w->type->block * w->type->bytes;

    for (int i = first; i < last; i++) {
        uint8_t *panel = dst + (size_t)i * w->panel_bytes;
        const uint8_t *rows = (const uint8_t *)src + (size_t)i * PANEL_ROWS * stride;
        const int left = w->rows - i * PANEL_ROWS, n = left < PANEL_ROWS ? left : PANEL_ROWS;

        if (n < PANEL_ROWS)
            memset(panel, 0, w->panel_bytes);
        switch (w->type->type) {
#define PACK(t) \
    case t: pack_panel(t, w, panel, rows, stride, n); break;
            WMAT_QUANTISED(PACK)
#undef PACK
        default: pack_dense(w, panel, rows, n);
        }
    }
}

/* Lane r of a panel as k floats. */
ALWAYS_INLINE void read_lane(
    enum dtype type, const uint8_t *panel, const uint8_t *fine, int r, int k, float *out)
{
    for (int b = 0; b < k / BLOCK_K; b++) {
        const uint8_t *tile = wmat_tile(type, panel, b);
        const int j = b % wmat_format(type).tile_blocks;

        for (int half = 0; half < 2; half++) {
            float base;
            const float scale = wmat_scale(type, tile, j, half, r, &base);

            for (int g = 4 * half; g < 4 * half + 4; g++) {
                const uint32_t word = wmat_whole_word(type, panel, fine, b, r, g);

                for (int i = 0; i < 4; i++)
                    *out++ = wmat_decode(type, scale, base, wmat_value(type, word, i));
            }
        }
    }
}

static void read_dense(const struct wmat *w, const uint8_t *panel, int r, float *out)
{
    const size_t step = w->type->type == DTYPE_F32 ? 1 : 2; /* k per line */

    for (size_t i = 0; i < (size_t)w->k; i += step) {
        const size_t n = (size_t)w->k - i < step ? (size_t)w->k - i : step;

        w->type->to_float(panel + i / step * 64 + 4 * r, out + i, n);
    }
}

void wmat_read_row(const struct wmat *w, int row, float *out)
{
    const uint8_t *panel = w->data + (size_t)(row / PANEL_ROWS) * w->panel_bytes;
    const int r = row % PANEL_ROWS;

    switch (w->layout) {
#define READ(t) \
    case t: read_lane(t, panel, wmat_fine(w, row / PANEL_ROWS), r, w->k, out); break;
        WMAT_QUANTISED(READ)
        READ(DTYPE_Q8_0_PLANES)
#undef READ
    default: read_dense(w, panel, r, out);
    }
    for (int b = 0; w->strong && b < w->k / BLOCK_K; b++)
        for (int i = 0; i < STRONG; i++) {
            const int from = w->strong[b * STRONG + i];
            const float value = out[b * BLOCK_K + i];

            out[b * BLOCK_K + i] = out[b * BLOCK_K + from];
            out[b * BLOCK_K + from] = value;
        }
}
