/* attention_simd.h - one block of attention on vectors, written once; attention_avx2.c and its
 * siblings compile it with their own `vf`. */
#ifndef KERNELS_ATTENTION_SIMD_H
#define KERNELS_ATTENTION_SIMD_H

#include <math.h>
#include <string.h>

#include "kernels/attention_simd_tiles.h"
#include "kernels/simd_math.h"

INLINE void scores(
    enum page page, float *s, const void *q, int n_queries, const void *k, const struct block *b)
{
    const size_t row = (size_t)b->width * FACTOR_BYTES(page);
    const uint8_t *x = q;

    for (; n_queries >= TILE_QUERIES; n_queries -= TILE_QUERIES) {
        scores_rows(page, TILE_QUERIES, s, x, k, b);
        s += TILE_QUERIES * ROW_FLOATS;
        x += TILE_QUERIES * row;
    }
    switch (n_queries) {
    case 3: scores_rows(page, 3, s, x, k, b); break;
    case 2: scores_rows(page, 2, s, x, k, b); break;
    case 1: scores_rows(page, 1, s, x, k, b); break;
    default: break;
    }
}

INLINE void accumulate(enum page page, float *acc, const float *p, const float *rescale,
    int n_queries, const void *v, const struct block *b)
{
    for (; n_queries >= TILE_QUERIES; n_queries -= TILE_QUERIES) {
        values_rows(page, TILE_QUERIES, acc, p, rescale, v, b);
        acc += TILE_QUERIES * part_stride(b->width);
        p += TILE_QUERIES * ROW_FLOATS;
        rescale += TILE_QUERIES;
    }
    switch (n_queries) {
    case 3: values_rows(page, 3, acc, p, rescale, v, b); break;
    case 2: values_rows(page, 2, acc, p, rescale, v, b); break;
    case 1: values_rows(page, 1, acc, p, rescale, v, b); break;
    default: break;
    }
}

/* Lanes [first, last) of v, -inf in the others. */
INLINE vf keep_lanes(vf v, int first, int last)
{
    static const float index[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vf i = vf_load(index), none = vf_set1(-INFINITY);

    return vf_if_less(i, vf_set1((float)first), none, vf_if_less(i, vf_set1((float)last), v, none));
}

INLINE float exp_of(float x)
{
    float lanes[LANES];

    vf_store(lanes, vf_exp(vf_set1(x)));
    return lanes[0];
}

/* Sums of probabilities are taken over what accumulate() will see: on PAGE_DOT rounded ones. */
INLINE float softmax(enum page page, const struct attention_spec *spec, float *s, int first,
    int last, struct part_state *state)
{
    enum { N = KV_PAGE / LANES };
    const vf scale = vf_set1(spec->scale), cap = vf_set1(spec->softcap);
    vf v[N], top = vf_set1(-INFINITY), sum = vf_set1(0);
    float before = state->max, max, rescale;

    for (int j = 0; j < N; j++) {
        v[j] = vf_mul(vf_load(s + j * LANES), scale);
        if (spec->softcap > 0)
            v[j] = vf_mul(cap, vf_tanh(vf_div(v[j], cap)));
        if (first > j * LANES || last < (j + 1) * LANES)
            v[j] = keep_lanes(v[j], first - j * LANES, last - j * LANES);
        top = vf_max(v[j], top);
    }
    max = vf_max_of(top);
    max = max > before ? max : before;
    for (int j = 0; j < N; j++) {
        v[j] = vf_exp(vf_sub(v[j], vf_set1(max)));
        if (page == PAGE_DOT)
            v[j] = vf_store_bf16((uint16_t *)s + j * LANES, v[j]);
        else
            vf_store(s + j * LANES, v[j]);
        sum = vf_add(sum, v[j]);
    }
    rescale = max > before ? exp_of(before - max) : 1.0f;
    state->max = max;
    state->sum = state->sum * rescale + vf_sum(sum);
    return rescale;
}

static inline void load_query_f32(void *dst, const float *q, int width)
{
    memcpy(dst, q, (size_t)width * sizeof(float));
}

static void combine(float *dst, float a, const float *src, float b, int n)
{
    for (int i = 0; i < n; i += LANES) {
        vf x = vf_mul(vf_load(dst + i), vf_set1(a)), y = vf_mul(vf_load(src + i), vf_set1(b));

        vf_store(dst + i, vf_add(x, y));
    }
}

static void finish(float *out, const float *acc, float factor, int n)
{
    for (int i = 0; i < n; i += LANES) {
        vf x = vf_add(vf_mul(vf_load(acc + i), vf_set1(factor)), vf_set1(0));

        if (i + LANES <= n)
            vf_store(out + i, x);
        else
            vf_store_n(out + i, x, n - i);
    }
}

static void kv_write(const struct kv_view *kv, int pos, const float *k, const float *v)
{
    int n = kv->head_dim, width = head_width(n), slot = pos % KV_PAGE;

    for (int h = 0; h < kv->n_kv_heads; h++, k += n, v += n) {
        void *plane = key_plane(kv, pos, h);

        for (int d = 0; d < n; d += 16) {
            float k_tail[16], v_tail[16];
            const float *kd = row_part(k, n, d, k_tail), *vd = row_part(v, n, d, v_tail);
            uint16_t k16[16], v16[16];

            if (kv->type == KV_F32) {
                store_part_f32(plane, width, slot, d, kd, vd);
                continue;
            }
            for (int i = 0; i < 16; i += LANES) {
                vf_store_bf16(k16 + i, vf_load(kd + i));
                vf_store_bf16(v16 + i, vf_load(vd + i));
            }
            store_part_bf16(plane, width, slot, d, k16, v16);
        }
    }
}

#endif
