/* attention.h - K/V pages and attention over them.
 *
 * Keys and values of one layer of one sequence live in pages of 64 positions. A page holds, for
 * each kv head, a K plane and a V plane laid out for the dot product of the page's type; only these
 * functions know how. Positions are absolute: page i of a sequence covers [64 i, 64 i + 64).
 *
 * The result for a query depends on its position and its keys alone: keys are folded in blocks of
 * 64 in ascending position order inside segments of ATTENTION_SEGMENT positions, and segments are
 * merged in ascending order, whatever rows, heads or sequences are computed together. */
#ifndef KERNELS_ATTENTION_H
#define KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_PAGE = 64, ATTENTION_SEGMENT = 512 };

enum kv_type { KV_F32, KV_BF16 };

/* K and V of one layer of one sequence. */
struct kv_view {
    enum kv_type type;
    int n_kv_heads, head_dim;
    uint8_t *base;       /* pool memory of this layer's group */
    size_t page_stride;  /* bytes from one physical page to the next */
    size_t layer_offset; /* bytes from a page's start to this layer's planes */
    const uint32_t
        *pages; /* physical page of each logical page; entries below a window may be stale */
};

/* Bytes of one layer's planes in one page: 2 * n_kv_heads * 64 * head_dim values. */
size_t kv_layer_bytes(enum kv_type type, int n_kv_heads, int head_dim);

struct attention_spec {
    int n_heads, n_kv_heads, head_dim;
    int window;    /* keys a query sees, itself included; 0 = all (causal) */
    float scale;   /* applied to q.k */
    float softcap; /* cap * tanh(s / cap) on scores; 0 = none */
};

struct attention_kernels {
    /* Writes one position's K and V, each (n_kv_heads, head_dim) after norm and RoPE. */
    void (*kv_write)(const struct kv_view *kv, int pos, const float *k, const float *v);

    /* Reads them back (tests, export_kv). */
    void (*kv_read)(const struct kv_view *kv, int pos, float *k, float *v);

    /* Causal attention of n_rows consecutive queries at positions pos .. pos + n_rows - 1 for the
     * query heads [head, head + n_heads) of one kv head. q and out: row r, head h at q + r * ld + h
     * * head_dim with h counted from query head 0. scratch: attention_scratch() bytes of this
     * thread, 64-byte aligned. */
    void (*run)(const struct attention_spec *spec, const struct kv_view *kv, const float *q,
        float *out, size_t ld, int pos, int n_rows, int head, int n_heads, void *scratch);
};

/* Rows per call that `run` handles best; callers cut prefill into such pieces. */
enum { ATTENTION_ROWS = 16 };
size_t attention_scratch(const struct attention_spec *spec);

#endif
