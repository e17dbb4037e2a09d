/* attention_c.c - attention in plain C. On f32 pages it is the reference profile; on bf16 pages
 * keys and values are what was rounded, and everything else is f32. */
#include "kernels/attention_impl.h"

#include <math.h>
#include <string.h>

static void load_query(void *dst, const float *q, int width)
{
    memcpy(dst, q, (size_t)width * sizeof(float));
}

static void scores_f32(float *s, const void *q, int n_queries, const void *k, const struct block *b)
{
    int width = b->width;

    for (int i = 0; i < n_queries; i++, s += ROW_FLOATS) {
        const float *query = (const float *)q + (size_t)i * (size_t)width;

        for (int slot = b->first; slot < b->last; slot++) {
            const float *key = (const float *)k + key_index(KV_F32, width, slot, 0);
            float dot = 0;

            for (int d = 0; d < width; d++)
                dot += query[d] * key[16 * d];
            s[slot] = dot;
        }
    }
}

static void scores_bf16(
    float *s, const void *q, int n_queries, const void *k, const struct block *b)
{
    int width = b->width;

    for (int i = 0; i < n_queries; i++, s += ROW_FLOATS) {
        const float *query = (const float *)q + (size_t)i * (size_t)width;

        for (int slot = b->first; slot < b->last; slot++) {
            const uint16_t *key = (const uint16_t *)k + key_index(KV_BF16, width, slot, 0);
            float dot = 0;

            for (int d = 0; d < width; d += 2) {
                dot += query[d] * bf16_to_f32(key[16 * d]);
                dot += query[d + 1] * bf16_to_f32(key[16 * d + 1]);
            }
            s[slot] = dot;
        }
    }
}

static float softmax(
    const struct attention_spec *spec, float *s, int first, int last, struct part_state *state)
{
    float max = state->max, rescale;

    for (int slot = 0; slot < KV_PAGE; slot++) {
        if (slot < first || slot >= last) {
            s[slot] = 0;
            continue;
        }
        s[slot] *= spec->scale;
        if (spec->softcap > 0)
            s[slot] = spec->softcap * tanhf(s[slot] / spec->softcap);
        max = fmaxf(max, s[slot]);
    }

    rescale = expf(state->max - max);
    state->max = max;
    state->sum *= rescale;
    for (int slot = first; slot < last; slot++) {
        s[slot] = expf(s[slot] - max);
        state->sum += s[slot];
    }
    return rescale;
}

static void accumulate_f32(float *acc, const float *p, const float *rescale, int n_queries,
    const void *v, const struct block *b)
{
    int width = b->width;

    for (int i = 0; i < n_queries; i++, acc += part_stride(width), p += ROW_FLOATS) {
        for (int d = 0; d < width; d++)
            acc[d] *= rescale[i];
        for (int slot = b->first; slot < b->last; slot++) {
            const float *value = (const float *)v + value_index(KV_F32, width, slot, 0);

            for (int d = 0; d < width; d++)
                acc[d] += p[slot] * value[d];
        }
    }
}

static void accumulate_bf16(float *acc, const float *p, const float *rescale, int n_queries,
    const void *v, const struct block *b)
{
    int width = b->width;

    for (int i = 0; i < n_queries; i++, acc += part_stride(width), p += ROW_FLOATS) {
        for (int d = 0; d < width; d++)
            acc[d] *= rescale[i];
        for (int slot = b->first; slot < b->last; slot++) {
            const uint16_t *value = (const uint16_t *)v + value_index(KV_BF16, width, slot, 0);

            for (int d = 0; d < width; d++)
                acc[d] += p[slot] * bf16_to_f32(value[2 * d]);
        }
    }
}

static const struct attention_math math_f32 = {load_query, sizeof(float), scores_f32, softmax,
    accumulate_f32, attention_combine, attention_finish};
static const struct attention_math math_bf16 = {load_query, sizeof(float), scores_bf16, softmax,
    accumulate_bf16, attention_combine, attention_finish};

static const struct attention_math *math_of(const struct attention_task *t)
{
    return t->kv->type == KV_F32 ? &math_f32 : &math_bf16;
}

static void run(const struct attention_task *t)
{
    attention_run(t, math_of(t));
}

static void run_segments(const struct attention_task *t, int first, int last, float *parts)
{
    attention_run_segments(t, math_of(t), first, last, parts);
}

static void kv_write(const struct kv_view *kv, int pos, const float *k, const float *v)
{
    int n = kv->head_dim, width = head_width(n), slot = pos % KV_PAGE;

    for (int h = 0; h < kv->n_kv_heads; h++, k += n, v += n) {
        uint8_t *plane = key_plane(kv, pos, h);

        for (int d = 0; d < n; d += 16) {
            float k_tail[16], v_tail[16];
            const float *kd = row_part(k, n, d, k_tail), *vd = row_part(v, n, d, v_tail);
            uint16_t k16[16], v16[16];

            if (kv->type == KV_F32) {
                store_part_f32((float *)plane, width, slot, d, kd, vd);
                continue;
            }
            for (int i = 0; i < 16; i++) {
                k16[i] = f32_to_bf16(kd[i]);
                v16[i] = f32_to_bf16(vd[i]);
            }
            store_part_bf16((uint16_t *)plane, width, slot, d, k16, v16);
        }
    }
}

static void kv_read(const struct kv_view *kv, int pos, float *k, float *v)
{
    int head_dim = kv->head_dim, width = head_width(head_dim), slot = pos % KV_PAGE;
    size_t values = (size_t)KV_PAGE * (size_t)width;

    for (int h = 0; h < kv->n_kv_heads; h++, k += head_dim, v += head_dim) {
        const uint8_t *plane = key_plane(kv, pos, h);

        for (int d = 0; d < head_dim; d++) {
            size_t at_k = key_index(kv->type, width, slot, d);
            size_t at_v = values + value_index(kv->type, width, slot, d);

            if (kv->type == KV_F32) {
                k[d] = ((const float *)plane)[at_k];
                v[d] = ((const float *)plane)[at_v];
            } else {
                k[d] = bf16_to_f32(((const uint16_t *)plane)[at_k]);
                v[d] = bf16_to_f32(((const uint16_t *)plane)[at_v]);
            }
        }
    }
}

void attention_init_c(struct kernels *k)
{
    k->attention.kv_write = kv_write;
    k->attention.kv_read = kv_read;
    k->attention.run = run;
    k->attention.run_segments = run_segments;
}
