/* attention_avx512bf16.c - attention where the CPU has bf16 dot products: on bf16 pages queries and
 * probabilities are rounded to bf16 too, sums stay f32. */
#define SIMD_DOT
#include "kernels/simd_avx512.h"

/* acc + the dot products of bf16 pairs with the pair at x */
static inline vf vf_dot_pairs(vf acc, vf pairs, const void *x)
{
    int pair;

    memcpy(&pair, x, sizeof(pair));
    return _mm512_dpbf16_ps(
        acc, (__m512bh)_mm512_castps_si512(pairs), (__m512bh)_mm512_set1_epi32(pair));
}

static inline vf vf_first_of_pairs(vf pairs)
{
    __m512i first = _mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(0xffff));

    return _mm512_castsi512_ps(first);
}

#include "kernels/attention_simd.h"

static void load_query_bf16(void *dst, const float *q, int width)
{
    for (int d = 0; d < width; d += LANES)
        vf_store_bf16((uint16_t *)dst + d, vf_load(q + d));
}

static void scores_dot(float *s, const void *q, int n_queries, const void *k, const struct block *b)
{
    scores(PAGE_DOT, s, q, n_queries, k, b);
}

static float softmax_dot(
    const struct attention_spec *spec, float *s, int first, int last, struct part_state *state)
{
    return softmax(PAGE_DOT, spec, s, first, last, state);
}

static void accumulate_dot(float *acc, const float *p, const float *rescale, int n_queries,
    const void *v, const struct block *b)
{
    accumulate(PAGE_DOT, acc, p, rescale, n_queries, v, b);
}

static const struct attention_math math_dot = {
    load_query_bf16, sizeof(uint16_t), scores_dot, softmax_dot, accumulate_dot, combine, finish};

static const struct attention_math *math_of(const struct attention_task *t)
{
    return t->kv->type == KV_F32 ? &attention_avx512_f32 : &math_dot;
}

static void run(const struct attention_task *t)
{
    attention_run(t, math_of(t));
}

static void run_segments(const struct attention_task *t, int first, int last, float *parts)
{
    attention_run_segments(t, math_of(t), first, last, parts);
}

void attention_init_avx512bf16(struct kernels *k)
{
    k->attention.kv_write = kv_write;
    k->attention.run = run;
    k->attention.run_segments = run_segments;
}
