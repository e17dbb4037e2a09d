/* matmul_simd256.h - codes of a packed panel in AVX2 registers, half a panel in each, for the two
 * files that multiply them. */
#ifndef KERNELS_MATMUL_SIMD256_H
#define KERNELS_MATMUL_SIMD256_H

#define SIMD_X86
#include "kernels/simd.h"

#ifndef F32_LANES
#define F32_LANES 8
#endif
#include "kernels/matmul_impl.h"
#include "kernels/wmat_lane.h"

#include "kernels/matmul_lanes.h"

/* For 3 columns or more. */
void matmul_wide_avx2(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last);
/* For any, and any kind the AVX2 level takes. */
void matmul_run_avx2(
    const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last);

/* Stops gcc from collecting all products of a block in memory and adding them later. */
#if defined(USE_SIMDE)
#define KEEP_IN_REGISTER(v)
#else
#define KEEP_IN_REGISTER(v) __asm__("" : "+x"(v))
#endif

ALWAYS_INLINE __m256i broadcast4(const int8_t *p)
{
    int32_t v;

    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

ALWAYS_INLINE __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

ALWAYS_INLINE __m256i shift_right(__m256i v, int n)
{
    return n > 0 ? _mm256_srli_epi16(v, n) : n < 0 ? _mm256_slli_epi16(v, -n) : v;
}

/* Codes of group g of 8 rows, as unsigned bytes: wmat_word() for all lanes. */
ALWAYS_INLINE __m256i load_group(enum dtype type, const uint8_t *codes, int g)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i v, high;

    if (type == DTYPE_Q8_0)
        return load256(codes + 64 * g);
    if (type == DTYPE_Q2_K || type == DTYPE_Q3_K)
        v = _mm256_and_si256(
            shift_right(load256(codes + g / 4 * 64), g % 4 * 2), _mm256_set1_epi8(3));
    else
        v = _mm256_and_si256(shift_right(load256(codes + g % 4 * 64), g / 4 * 4), nibble);
    if (wmat_table(type)) {
        __m128i table;

        memcpy(&table, wmat_table(type), sizeof(table));
        table = _mm_add_epi8(table, _mm_set1_epi8((char)(1 << zero_log2(type))));
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), v);
    }
    if (type == DTYPE_Q5_0 || type == DTYPE_Q5_1 || type == DTYPE_Q5_K) {
        high = shift_right(load256(codes + 256), g - 4);
        v = _mm256_or_si256(v, _mm256_and_si256(high, _mm256_set1_epi8(16)));
    }
    if (type == DTYPE_Q6_K) {
        high = shift_right(load256(codes + 256 + g / 4 * 64), g % 4 * 2 - 4);
        v = _mm256_or_si256(v, _mm256_and_si256(high, _mm256_set1_epi8(48)));
    }
    if (type == DTYPE_Q3_K) {
        high = shift_right(load256(codes + 128), g - 2);
        v = _mm256_or_si256(v, _mm256_and_si256(high, _mm256_set1_epi8(4)));
    }
    return v;
}

/* The lower halves of the codes of group g of block j of a tile in planes, 8 rows from where the
 * pointers into it stand. */
ALWAYS_INLINE __m256i load_lower(const uint8_t *coarse_tile, const uint8_t *fine_tile, int j, int g)
{
    int shift;
    const uint8_t *line = wmat_lower(coarse_tile, fine_tile, j, g, &shift);

    return _mm256_and_si256(
        _mm256_srl_epi16(load256(line), _mm_cvtsi32_si128(shift)), _mm256_set1_epi8(15));
}

#endif
