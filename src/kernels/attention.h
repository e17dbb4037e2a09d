/* attention.h - K/V pages and attention over them.
 *
 * Keys and values of one layer of one sequence live in pages of 64 positions. A page holds, for
 * each kv head, a K plane and a V plane laid out for the dot product of the page's type; only these
 * functions know how. Positions are absolute: page i of a sequence covers [64 i, 64 i + 64).
 *
 * The result for a query depends on its position and its keys alone: keys are folded in blocks of
 * 64 in ascending position order inside segments of ATTENTION_SEGMENT positions, and segments are
 * merged in ascending order, whatever rows, heads or sequences are computed together.
 *
 * Everything is computed in f32; only where the CPU has bf16 dot products, and pages are bf16, are
 * queries and probabilities rounded to bf16 as well. */
#ifndef KERNELS_ATTENTION_H
#define KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_PAGE = 64, ATTENTION_SEGMENT = 256 };

enum kv_type { KV_F32, KV_BF16 };

/* K and V of one layer of one sequence. */
struct kv_view {
    enum kv_type type;
    int n_kv_heads, head_dim;
    uint8_t *base;       /* pool memory of this layer's group, 64-byte aligned like all below */
    size_t page_stride;  /* bytes from one physical page to the next */
    size_t layer_offset; /* bytes from a page's start to this layer's planes */
    const uint32_t
        *pages; /* physical page of each logical page; entries below a window may be stale */
};

/* Bytes of one layer's planes in one page: 2 * n_kv_heads * 64 * head_dim values, head_dim rounded
 * up to 16. */
size_t kv_layer_bytes(enum kv_type type, int n_kv_heads, int head_dim);

struct attention_spec {
    int n_heads, n_kv_heads, head_dim; /* head_dim: any even number */
    int window;                        /* keys a query sees, itself included; 0 = all (causal) */
    float scale;                       /* applied to q.k */
    float softcap;                     /* cap * tanh(s / cap) on scores; 0 = none */
};

/* Attention of consecutive queries of one sequence, for heads that share one kv head. The
 * keys and values of positions up to pos + n_rows - 1 are written already. */
struct attention_task {
    const struct attention_spec *spec;
    const struct kv_view *kv;
    const float *q; /* row r, head h (counted from query head 0) at q + r * ld + h * head_dim */
    float *out;     /* laid out like q; may be q */
    size_t ld;
    int pos, n_rows; /* query positions [pos, pos + n_rows) */
    int n_keys; /* 0: a query sees the keys before it and its own; else it sees both ways among the
                   keys [0, n_keys), all written already: |query - key| < window */
    int head, n_heads; /* query heads [head, head + n_heads), all of one kv head; at most 64 */
    void *scratch;     /* attention_scratch() bytes of this thread, 64-byte aligned */
};

struct attention_kernels {
    /* Writes one position's K and V, each (n_kv_heads, head_dim) after norm and RoPE. Threads may
     * write different positions of one page at a time; 16 of them share cache lines, so runs of
     * positions for each thread are best. */
    void (*kv_write)(const struct kv_view *kv, int pos, const float *k, const float *v);

    /* Reads them back (tests, export_kv). */
    void (*kv_read)(const struct kv_view *kv, int pos, float *k, float *v);

    void (*run)(const struct attention_task *t);

    /* The same in parts, to spread one long context over threads: run_segments computes what each
     * of the segments [first, last) adds to the task's queries, one part after the other at
     * `parts`, attention_merge() puts the parts of all together. Exactly the bits of run(), and K
     * and V are read once, where a task per head would read them each time. t->out is not touched.
     */
    void (*run_segments)(const struct attention_task *t, int first, int last, float *parts);
};

/* Rows per call that `run` handles best; callers cut prefill into such pieces. */
enum { ATTENTION_ROWS = 16 };
size_t attention_scratch(const struct attention_spec *spec);

/* The segments [*first, *last) the task's queries see. */
void attention_segments(const struct attention_task *t, int *first, int *last);

/* Bytes of one segment's part: a multiple of 64. */
size_t attention_part_bytes(const struct attention_task *t);

/* Writes t->out from the parts of all segments [first, last) in ascending order, one part after the
 * other at `parts`; overwrites the first part. t->scratch is not used. */
void attention_merge(const struct attention_task *t, float *parts);

#endif
