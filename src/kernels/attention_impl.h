/* attention_impl.h - what the levels of attention share: how a page is laid out, and the arithmetic
 * on one block of 64 keys that each instruction set brings. attention.c walks the blocks.
 *
 * A kv head's planes in a page, K first, then V, 64 * head_dim values each:
 *   K, f32   [position / 16][dim][position % 16]
 *   K, bf16  [position / 16][dim / 2][position % 16][dim % 2]
 *   V, f32   [position][dim]
 *   V, bf16  [position / 2][dim][position % 2]
 * so that one 64-byte line of K holds the same dimension (bf16: two dimensions) of 16 positions,
 * and a line of V 16 dimensions of one position (bf16: of two), as bf16 dot products want them. */
#ifndef KERNELS_ATTENTION_IMPL_H
#define KERNELS_ATTENTION_IMPL_H

#include "kernels/kernels.h"

/* Queries (rows times heads) computed together. */
enum { MAX_QUERIES = 64 };

/* Scores and probabilities of one query and block: 64 floats, or 64 bf16 in the same room. */
enum { ROW_FLOATS = KV_PAGE };

/* A part (a running or finished sum over keys) of one query: head_dim floats of sum(p * v), then
 * its state. */
struct part_state {
    float max, sum; /* largest score, sum(p); -inf and 0 without any key */
};

static inline size_t part_stride(int head_dim)
{
    return (size_t)head_dim + 16;
}

static inline struct part_state *state_of(float *part, int head_dim)
{
    return (struct part_state *)(void *)(part + head_dim);
}

/* The slots of a block some query of the call sees are among [first, last). */
struct block {
    int head_dim, first, last;
    const uint8_t *next; /* K plane of the block to come, for memory to bring meanwhile */
};

struct attention_math {
    /* Turns a query into the form scores() wants, query_bytes (at most 4) a value. */
    void (*load_query)(void *dst, const float *q, int head_dim);
    size_t query_bytes;

    /* s[i * ROW_FLOATS + slot] = query i . key of slot, at least for slots [first, last). The
     * order of the sum depends on head_dim alone. */
    void (*scores)(float *s, const void *q, int n_queries, const void *k, const struct block *b);

    /* One query that sees slots [first, last): scales and caps its scores, raises max to the
     * largest, puts p = exp(score - max) in their place and 0 in that of all other slots, and
     * brings sum up to date. Returns what the query's earlier sums must be multiplied with. */
    float (*softmax)(
        const struct attention_spec *spec, float *s, int first, int last, struct part_state *state);

    /* acc = acc * rescale + sum of p * v over the slots, ascending; query i's acc at
     * acc + i * part_stride, its p at p + i * ROW_FLOATS. V beyond `last` is never used. */
    void (*accumulate)(float *acc, const float *p, const float *rescale, int n_queries,
        const void *v, const struct block *b);

    /* dst = dst * a + src * b, every operation rounded. */
    void (*combine)(float *dst, float a, const float *src, float b, int n);

    /* out = acc * factor + 0, both rounded: adding 0 makes -0 and 0 the same. */
    void (*finish)(float *out, const float *acc, float factor, int n);
};

void attention_run(const struct attention_task *t, const struct attention_math *math);
void attention_run_segment(
    const struct attention_task *t, const struct attention_math *math, int segment, float *part);

/* The plain C ones. */
void attention_combine(float *dst, float a, const float *src, float b, int n);
void attention_finish(float *out, const float *acc, float factor, int n);

extern const struct attention_math attention_avx512_f32;

void attention_init_c(struct kernels *k);
void attention_init_avx2(struct kernels *k);
void attention_init_avx512(struct kernels *k);
void attention_init_avx512bf16(struct kernels *k);
void attention_init_neon(struct kernels *k);

static inline size_t value_bytes(enum kv_type type)
{
    return type == KV_F32 ? sizeof(float) : sizeof(uint16_t);
}

static inline size_t plane_bytes(const struct kv_view *kv)
{
    return KV_PAGE * (size_t)kv->head_dim * value_bytes(kv->type);
}

/* The K plane of a kv head in the page that holds position pos; the V plane follows it. */
static inline uint8_t *key_plane(const struct kv_view *kv, int pos, int kv_head)
{
    return kv->base + kv->pages[pos / KV_PAGE] * kv->page_stride + kv->layer_offset +
           (size_t)kv_head * 2 * plane_bytes(kv);
}

/* Where dimension d of a slot lies in its plane, in values. */
static inline size_t key_index(enum kv_type type, int head_dim, int slot, int d)
{
    if (type == KV_F32)
        return ((size_t)(slot / 16) * (size_t)head_dim + (size_t)d) * 16 + (size_t)(slot % 16);
    return ((size_t)(slot / 16) * (size_t)head_dim + (size_t)(d & ~1)) * 16 +
           (size_t)(slot % 16 * 2 + d % 2);
}

static inline size_t value_index(enum kv_type type, int head_dim, int slot, int d)
{
    if (type == KV_F32)
        return (size_t)slot * (size_t)head_dim + (size_t)d;
    return (size_t)(slot / 2 * 2) * (size_t)head_dim + (size_t)(d * 2 + slot % 2);
}

/* Spreads one kv head's K and V over its planes. Only the slot's own values are written: another
 * thread may be writing its neighbours. */
static inline void store_slot_f32(
    float *plane, int head_dim, int slot, const float *k, const float *v)
{
    float *kp = plane + key_index(KV_F32, head_dim, slot, 0);
    float *vp = plane + (size_t)KV_PAGE * (size_t)head_dim + value_index(KV_F32, head_dim, slot, 0);

    for (int d = 0; d < head_dim; d++) {
        kp[16 * d] = k[d];
        vp[d] = v[d];
    }
}

/* The same for 16 dimensions from d on, already rounded. */
static inline void store_slot_bf16(
    uint16_t *plane, int head_dim, int slot, int d, const uint16_t *k, const uint16_t *v)
{
    uint16_t *kp = plane + key_index(KV_BF16, head_dim, slot, d);
    uint16_t *vp =
        plane + (size_t)KV_PAGE * (size_t)head_dim + value_index(KV_BF16, head_dim, slot, d);

    for (int i = 0; i < 16; i += 2) {
        kp[16 * i] = k[i];
        kp[16 * i + 1] = k[i + 1];
        vp[2 * i] = v[i];
        vp[2 * i + 2] = v[i + 1];
    }
}

#endif
