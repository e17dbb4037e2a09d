/* attention_simd_widen.h - the level's table for f32 pages and for bf16 pages widened to f32. */
#ifndef KERNELS_ATTENTION_SIMD_WIDEN_H
#define KERNELS_ATTENTION_SIMD_WIDEN_H

#include "kernels/attention_simd.h"

static void scores_f32(float *s, const void *q, int n_queries, const void *k, const struct block *b)
{
    scores(PAGE_F32, s, q, n_queries, k, b);
}

static void scores_widen(
    float *s, const void *q, int n_queries, const void *k, const struct block *b)
{
    scores(PAGE_WIDEN, s, q, n_queries, k, b);
}

static float softmax_f32(
    const struct attention_spec *spec, float *s, int first, int last, struct part_state *state)
{
    return softmax(PAGE_F32, spec, s, first, last, state);
}

static void accumulate_f32(float *acc, const float *p, const float *rescale, int n_queries,
    const void *v, const struct block *b)
{
    accumulate(PAGE_F32, acc, p, rescale, n_queries, v, b);
}

static void accumulate_widen(float *acc, const float *p, const float *rescale, int n_queries,
    const void *v, const struct block *b)
{
    accumulate(PAGE_WIDEN, acc, p, rescale, n_queries, v, b);
}

static const struct attention_math math_f32 = {
    load_query_f32, sizeof(float), scores_f32, softmax_f32, accumulate_f32, combine, finish};
static const struct attention_math math_widen = {
    load_query_f32, sizeof(float), scores_widen, softmax_f32, accumulate_widen, combine, finish};

static const struct attention_math *math_of(const struct attention_task *t)
{
    return t->kv->type == KV_F32 ? &math_f32 : &math_widen;
}

static void run(const struct attention_task *t)
{
    attention_run(t, math_of(t));
}

static void run_segments(const struct attention_task *t, int first, int last, float *parts)
{
    attention_run_segments(t, math_of(t), first, last, parts);
}

static void attention_set(struct kernels *k)
{
    k->attention.kv_write = kv_write;
    k->attention.run = run;
    k->attention.run_segments = run_segments;
}

#endif
