/* wmat_impl.h - how a packed panel is laid out; for the matmul files only.
 *
 * Everything here takes the type as an argument that is constant at every call, so that one generic
 * function, always inlined, serves all types.
 *
 * A panel is 16 rows. Its quantised codes come in blocks of 32 k; `tile_blocks` blocks share a
 * tile:
 *
 *   header   scales of the 16 rows                        (header_bytes)
 *   codes    tile_blocks x code_bytes                     (the last tile may hold fewer blocks)
 *
 * Codes are 64-byte lines of 16 lanes x 4 bytes; lane r belongs to row r, byte i of group g (g =
 * 0..7) is k = 4g + i. Codes are unsigned: value + zero point (wmat_zero). Per block:
 *
 *   8 bits   8 lines, line g = group g
 *   4 bits   4 lines, line g: low nibble group g, high nibble group 4 + g        (of 4, 5, 6 bit
 * types) 2 bits   2 lines, line h: bits 2g of each byte are group 4h + g     (Q2_K, Q3_K; top two
 * of Q6_K) 1 bit    1 line: bit g of each byte is group g                      (top bit of Q5_*,
 * Q3_K)
 *
 * Headers, arrays over the 16 rows:
 *
 *   Q8_0 Q4_0 Q5_0 IQ4_NL  f16 d[2][16]    (Q8_0_PLANES and _COARSE: and more, wmat_planes.h)
 *   Q4_1 Q5_1              f16 d[16], m[16]
 *   MXFP4                  u8 e[4][16]
 *   Q2_K                   f16 d[16], dmin[16]; u8 scale and min nibbles [16][16]
 *   Q3_K                   f16 d[16], unused 32; pairs: the scales of the two halves of a block
 *   Q4_K Q5_K              f16 d[16], dmin[16]; pairs: scale and min of a block
 *   Q6_K                   f16 d[16], unused 32; i8 scales [16][16]
 *   IQ4_XS                 f16 d[16]; u16 high[16] (bits 2b); u8 low nibbles of blocks 2j, 2j+1
 * [4][16]
 *
 * where pairs of 6-bit numbers (a, b) are u8 low[8][16], a's low nibble below b's, then u32
 * high[16] with a's top bits at 4j and b's at 4j + 2 for block j.
 *
 * F16, BF16: lines of two consecutive k of 16 rows (an odd last k is paired with zero). F32: lines
 * of one k. No header. */
#ifndef KERNELS_WMAT_IMPL_H
#define KERNELS_WMAT_IMPL_H

#include "kernels/dtype_impl.h"
#include "kernels/matmul.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { BLOCK_K = 32 };

struct wmat_format {
    int tile_blocks, header_bytes, code_bytes;
};

ALWAYS_INLINE struct wmat_format wmat_format(enum dtype type)
{
    switch (type) {
    case DTYPE_Q8_0: return (struct wmat_format){2, 64, 512};
    case DTYPE_Q8_0_PLANES:
    case DTYPE_Q8_0_COARSE: return (struct wmat_format){2, 128, 256};
    case DTYPE_Q4_0:
    case DTYPE_IQ4_NL: return (struct wmat_format){2, 64, 256};
    case DTYPE_Q5_0: return (struct wmat_format){2, 64, 320};
    case DTYPE_Q4_1: return (struct wmat_format){1, 64, 256};
    case DTYPE_Q5_1: return (struct wmat_format){1, 64, 320};
    case DTYPE_MXFP4: return (struct wmat_format){4, 64, 256};
    case DTYPE_Q2_K: return (struct wmat_format){8, 64 + 256, 128};
    case DTYPE_Q3_K: return (struct wmat_format){8, 64 + 192, 192};
    case DTYPE_Q4_K: return (struct wmat_format){8, 64 + 192, 256};
    case DTYPE_Q5_K: return (struct wmat_format){8, 64 + 192, 320};
    case DTYPE_Q6_K: return (struct wmat_format){8, 64 + 256, 384};
    case DTYPE_IQ4_XS: return (struct wmat_format){8, 32 + 32 + 64, 256};
    case DTYPE_F32: return (struct wmat_format){1, 0, 2048};
    case DTYPE_F16:
    case DTYPE_BF16: break;
    }
    return (struct wmat_format){1, 0, 1024};
}

ALWAYS_INLINE bool wmat_dense(enum dtype type)
{
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

/* value = code - zero; the table types store table index, their values are wmat_value()'s. */
ALWAYS_INLINE int wmat_zero(enum dtype type)
{
    switch (type) {
    case DTYPE_Q8_0:
    case DTYPE_Q8_0_PLANES:
    case DTYPE_Q8_0_COARSE: return 128;
    case DTYPE_Q4_0: return 8;
    case DTYPE_Q5_0: return 16;
    case DTYPE_Q3_K: return 4;
    case DTYPE_Q6_K: return 32;
    default: return 0;
    }
}

/* Every quantised type, for the one switch that turns a type into constants. */
/* clang-format off */
#define WMAT_QUANTISED(X) \
    X(DTYPE_Q8_0) X(DTYPE_Q4_0) X(DTYPE_Q4_1) X(DTYPE_Q5_0) X(DTYPE_Q5_1) \
    X(DTYPE_Q2_K) X(DTYPE_Q3_K) X(DTYPE_Q4_K) X(DTYPE_Q5_K) X(DTYPE_Q6_K) \
    X(DTYPE_IQ4_NL) X(DTYPE_IQ4_XS) X(DTYPE_MXFP4)
/* clang-format on */

/* The type whose codes index a table of values; NULL for all others. */
ALWAYS_INLINE const int8_t *wmat_table(enum dtype type)
{
    return type == DTYPE_IQ4_NL || type == DTYPE_IQ4_XS ? dtype_iq4_values
           : type == DTYPE_MXFP4                        ? dtype_mxfp4_values
                                                        : NULL;
}

/* Values per scale: 16 or 32. */
ALWAYS_INLINE int wmat_sub(enum dtype type)
{
    return type == DTYPE_Q2_K || type == DTYPE_Q3_K || type == DTYPE_Q6_K ? 16 : 32;
}

/* value = scale * code + base, base differing from zero (Q4_1's m, the K types' -dmin*min) */
ALWAYS_INLINE bool wmat_has_base(enum dtype type)
{
    return type == DTYPE_Q4_1 || type == DTYPE_Q5_1 || type == DTYPE_Q2_K || type == DTYPE_Q4_K ||
           type == DTYPE_Q5_K;
}

ALWAYS_INLINE bool wmat_nibbles(enum dtype type)
{
    return !wmat_dense(type) && type != DTYPE_Q8_0 && type != DTYPE_Q2_K && type != DTYPE_Q3_K;
}

/* Where block b of a panel lies. */
ALWAYS_INLINE const uint8_t *wmat_tile(enum dtype type, const uint8_t *panel, int b)
{
    const struct wmat_format f = wmat_format(type);

    return panel + (size_t)(b / f.tile_blocks) * (f.header_bytes + f.tile_blocks * f.code_bytes);
}

ALWAYS_INLINE const uint8_t *wmat_codes(enum dtype type, const uint8_t *panel, int b)
{
    const struct wmat_format f = wmat_format(type);

    return wmat_tile(type, panel, b) + f.header_bytes + b % f.tile_blocks * f.code_bytes;
}

#endif
