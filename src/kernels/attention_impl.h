/* attention_impl.h - the arithmetic on one block of 64 keys that each instruction set brings.
 * attention.c walks the blocks; attention_page.h says how they lie in memory.
 *
 * `width` is head_dim rounded up to 16: pages, queries and sums are that wide, with zeros behind a
 * head's own values. */
#ifndef KERNELS_ATTENTION_IMPL_H
#define KERNELS_ATTENTION_IMPL_H

#include "kernels/attention_page.h"
#include "kernels/kernels.h"

/* Queries (rows times heads) computed together. */
enum { MAX_QUERIES = 64 };

/* Scores and probabilities of one query and block: 64 floats, or 64 bf16 in the same room. */
enum { ROW_FLOATS = KV_PAGE };

/* A part (a running or finished sum over keys) of one query: width floats of sum(p * v), then its
 * state. */
struct part_state {
    float max, sum; /* largest score, sum(p); -inf and 0 without any key */
};

static inline size_t part_stride(int width)
{
    return (size_t)width + 16;
}

static inline struct part_state *state_of(float *part, int width)
{
    return (struct part_state *)(void *)(part + width);
}

/* The slots of a block some query of the call sees are among [first, last). */
struct block {
    int width, first, last;
    const uint8_t *next; /* K plane of the block to come, for memory to bring meanwhile */
};

struct attention_math {
    /* Turns a query into the form scores() wants, query_bytes (at most 4) a value. */
    void (*load_query)(void *dst, const float *q, int width);
    size_t query_bytes;

    /* s[i * ROW_FLOATS + slot] = query i . key of slot, at least for slots [first, last). The
     * order of the sum depends on width alone. */
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
void attention_run_segments(const struct attention_task *t, const struct attention_math *math,
    int first, int last, float *parts);

/* The plain C ones. */
void attention_combine(float *dst, float a, const float *src, float b, int n);
void attention_finish(float *out, const float *acc, float factor, int n);

extern const struct attention_math attention_avx512_f32;

void attention_init_c(struct kernels *k);
void attention_init_avx2(struct kernels *k);
void attention_init_avx512(struct kernels *k);
void attention_init_avx512bf16(struct kernels *k);
void attention_init_neon(struct kernels *k);

#endif
