/* attention_page.h - how K and V lie in a page.
 *
 * A kv head's planes, K first, then V, 64 * width values each (width: head_dim rounded up to 16,
 * with zeros behind head_dim): K, f32   [position / 16][dim][position % 16] K, bf16  [position /
 * 16][dim / 2][position % 16][dim % 2] V, f32   [position][dim] V, bf16  [position /
 * 2][dim][position % 2] so that one 64-byte line of K holds the same dimension (bf16: two
 * dimensions) of 16 positions, and a line of V 16 dimensions of one position (bf16: of two), as
 * bf16 dot products want them. */
#ifndef KERNELS_ATTENTION_PAGE_H
#define KERNELS_ATTENTION_PAGE_H

#include <string.h>

#include "kernels/attention.h"

static inline int head_width(int head_dim)
{
    return (head_dim + 15) / 16 * 16;
}

static inline size_t value_bytes(enum kv_type type)
{
    return type == KV_F32 ? sizeof(float) : sizeof(uint16_t);
}

static inline size_t plane_bytes(const struct kv_view *kv)
{
    return KV_PAGE * (size_t)head_width(kv->head_dim) * value_bytes(kv->type);
}

/* The K plane of a kv head in the page that holds position pos; the V plane follows it. */
static inline uint8_t *key_plane(const struct kv_view *kv, int pos, int kv_head)
{
    return kv->base + kv->pages[pos / KV_PAGE] * kv->page_stride + kv->layer_offset +
           (size_t)kv_head * 2 * plane_bytes(kv);
}

/* Where dimension d of a slot lies in its plane, in values. */
static inline size_t key_index(enum kv_type type, int width, int slot, int d)
{
    if (type == KV_F32)
        return ((size_t)(slot / 16) * (size_t)width + (size_t)d) * 16 + (size_t)(slot % 16);
    return ((size_t)(slot / 16) * (size_t)width + (size_t)(d & ~1)) * 16 +
           (size_t)(slot % 16 * 2 + d % 2);
}

static inline size_t value_index(enum kv_type type, int width, int slot, int d)
{
    if (type == KV_F32)
        return (size_t)slot * (size_t)width + (size_t)d;
    return (size_t)(slot / 2 * 2) * (size_t)width + (size_t)(d * 2 + slot % 2);
}

/* 16 values of a row of n from d on, with zeros behind its end; tail is room for them. */
static inline const float *row_part(const float *x, int n, int d, float tail[16])
{
    if (d + 16 <= n)
        return x + d;
    memset(tail, 0, 16 * sizeof(float));
    memcpy(tail, x + d, (size_t)(n - d) * sizeof(float));
    return tail;
}

/* Spreads 16 dimensions from d on of one kv head's K and V over its planes. Only the slot's own
 * values are written: another thread may be writing its neighbours. */
static inline void store_part_f32(
    float *plane, int width, int slot, int d, const float *k, const float *v)
{
    float *kp = plane + key_index(KV_F32, width, slot, d);
    float *vp = plane + (size_t)KV_PAGE * (size_t)width + value_index(KV_F32, width, slot, d);

    for (int i = 0; i < 16; i++) {
        kp[16 * i] = k[i];
        vp[i] = v[i];
    }
}

static inline void store_part_bf16(
    uint16_t *plane, int width, int slot, int d, const uint16_t *k, const uint16_t *v)
{
    uint16_t *kp = plane + key_index(KV_BF16, width, slot, d);
    uint16_t *vp = plane + (size_t)KV_PAGE * (size_t)width + value_index(KV_BF16, width, slot, d);

    for (int i = 0; i < 16; i += 2) {
        kp[16 * i] = k[i];
        kp[16 * i + 1] = k[i + 1];
        vp[2 * i] = v[i];
        vp[2 * i + 2] = v[i + 1];
    }
}

#endif
