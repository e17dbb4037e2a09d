/* matmul_simd512.h - codes of a packed panel in AVX-512 registers, for the two files that multiply
 * them. */
#ifndef KERNELS_MATMUL_SIMD512_H
#define KERNELS_MATMUL_SIMD512_H

#define SIMD_X86
#include "kernels/simd.h"

#ifndef F32_LANES
#define F32_LANES 16
#endif
#include "kernels/matmul_impl.h"
#include "kernels/wmat_lane.h"

#include "kernels/matmul_lanes.h"

/* Columns from which on some types are worth unpacking first. */
enum { WIDE_COLS = 25 };

/* False for a type that is not worth it: nothing has been done then. */
bool matmul_wide_avx512(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last);

typedef uint8_t u8x16 __attribute__((vector_size(16)));

ALWAYS_INLINE __m512i broadcast4(const int8_t *p)
{
    int32_t v;

    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

ALWAYS_INLINE __m512i load_nibbles(const uint8_t *codes, int g)
{
    const __m512i v = _mm512_loadu_si512(codes + g % 4 * 64);

    return _mm512_and_si512(g / 4 ? _mm512_srli_epi16(v, 4) : v, _mm512_set1_epi8(15));
}

/* The 16 values of a table type plus its zero point, in each quarter of the register. */
ALWAYS_INLINE __m512i load_table(enum dtype type)
{
    u8x16 table;

    memcpy(&table, wmat_table(type), sizeof(table));
    table += (uint8_t)(1 << zero_log2(type));
    return _mm512_broadcast_i32x4((__m128i)table);
}

/* Codes of group g of 16 rows, as unsigned bytes: wmat_word() for all lanes. */
ALWAYS_INLINE __m512i load_group(enum dtype type, const uint8_t *codes, int g)
{
    const __m512i two_bits = _mm512_set1_epi8(3);
    __m512i v, high;

    if (wmat_table(type))
        return _mm512_shuffle_epi8(load_table(type), load_nibbles(codes, g));
    if (type == DTYPE_Q8_0)
        return _mm512_loadu_si512(codes + 64 * g);
    if (type == DTYPE_Q2_K || type == DTYPE_Q3_K) {
        v = _mm512_loadu_si512(codes + g / 4 * 64);
        v = _mm512_and_si512(g % 4 ? _mm512_srli_epi16(v, g % 4 * 2) : v, two_bits);
    } else {
        v = load_nibbles(codes, g);
    }
    /* v | (bits & mask) is truth table 0xf8 */
    if (type == DTYPE_Q5_0 || type == DTYPE_Q5_1 || type == DTYPE_Q5_K) {
        high = _mm512_loadu_si512(codes + 256);
        high = g < 4 ? _mm512_slli_epi16(high, 4 - g) : _mm512_srli_epi16(high, g - 4);
        v = _mm512_ternarylogic_epi32(v, high, _mm512_set1_epi8(16), 0xf8);
    }
    if (type == DTYPE_Q6_K) {
        high = _mm512_loadu_si512(codes + 256 + g / 4 * 64);
        high = g % 4 < 2 ? _mm512_slli_epi16(high, 4 - g % 4 * 2)
                         : _mm512_srli_epi16(high, g % 4 * 2 - 4);
        v = _mm512_ternarylogic_epi32(v, high, _mm512_set1_epi8(48), 0xf8);
    }
    if (type == DTYPE_Q3_K) {
        high = _mm512_loadu_si512(codes + 128);
        high = g < 2 ? _mm512_slli_epi16(high, 2 - g) : _mm512_srli_epi16(high, g - 2);
        v = _mm512_ternarylogic_epi32(v, high, _mm512_set1_epi8(4), 0xf8);
    }
    return v;
}

/* The same of block j of a tile whose type is in planes: wmat_whole_word(). */
ALWAYS_INLINE __m512i load_halves_group(enum dtype type, const uint8_t *tile, const uint8_t *codes,
    const uint8_t *fine_tile, int j, int g)
{
    const __m512i low_bits = _mm512_set1_epi8(15);
    __m512i upper = _mm512_loadu_si512(codes + g % 4 * 64), lower;
    int shift;

    if (g < 4)
        upper = _mm512_slli_epi16(upper, 4);
    if (!wmat_has_lower(type, g))
        return _mm512_andnot_si512(low_bits, upper);
    lower = _mm512_loadu_si512(wmat_lower(tile, fine_tile, j, g, &shift));
    lower = _mm512_srl_epi16(lower, _mm_cvtsi32_si128(shift));
    /* the mask's bits of the second, the others of the first: truth table 0xca */
    return _mm512_ternarylogic_epi32(low_bits, lower, upper, 0xca);
}

#endif
