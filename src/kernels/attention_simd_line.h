/* attention_simd_line.h - a line is LANES positions of K or LANES dimensions of V, for the `vf` of
 * the including file. What a line holds, and how it is folded: PAGE_F32    one dimension (position)
 * of f32; multiply-add PAGE_WIDEN  two of bf16, widened to f32; two multiply-adds PAGE_DOT    two
 * of bf16; a bf16 dot product (SIMD_DOT), factors rounded to bf16 too `page` is a constant wherever
 * these functions are called. */
#ifndef KERNELS_ATTENTION_SIMD_LINE_H
#define KERNELS_ATTENTION_SIMD_LINE_H

#include "kernels/attention_impl.h"

enum page { PAGE_F32, PAGE_WIDEN, PAGE_DOT };

#define INLINE static inline __attribute__((always_inline))

/* Dimensions or positions in a line. */
#define LINE_STEP(page) ((page) == PAGE_F32 ? 1 : 2)
/* Bytes of a value in a page, and of a query's value or a probability. */
#define PAGE_BYTES(page) ((page) == PAGE_F32 ? sizeof(float) : sizeof(uint16_t))
#define FACTOR_BYTES(page) ((page) == PAGE_DOT ? sizeof(uint16_t) : sizeof(float))

struct line {
    vf a, b; /* the first and the second of each pair; f32 and bf16 as it is: a alone */
};

INLINE struct line load_line(enum page page, const uint8_t *p)
{
    struct line l;

    l.a = vf_load((const float *)(const void *)p);
    l.b = l.a;
    if (page == PAGE_WIDEN)
        vf_load_pairs((const uint16_t *)(const void *)p, &l.a, &l.b);
    return l;
}

/* A line without the second of each pair, which may be anything in memory. */
INLINE struct line load_half_line(enum page page, const uint8_t *p)
{
    struct line l = load_line(page, p);

    l.b = vf_set1(0);
#ifdef SIMD_DOT
    if (page == PAGE_DOT)
        l.a = vf_first_of_pairs(l.a);
#endif
    return l;
}

/* acc + line * the one or two factors at x */
INLINE vf fold(enum page page, vf acc, struct line l, const uint8_t *x)
{
    const float *f = (const float *)(const void *)x;

#ifdef SIMD_DOT
    if (page == PAGE_DOT)
        return vf_dot_pairs(acc, l.a, x);
#endif
    acc = vf_fma(vf_set1(f[0]), l.a, acc);
    return page == PAGE_WIDEN ? vf_fma(vf_set1(f[1]), l.b, acc) : acc;
}

#endif
