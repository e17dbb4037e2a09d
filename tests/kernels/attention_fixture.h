/* attention_fixture.h - one sequence for the attention tests: random K, V and queries, a pool of
 * pages that starts as NaN, and a page table whose unused entries would fault. */
#ifndef TESTS_ATTENTION_FIXTURE_H
#define TESTS_ATTENTION_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "kernels/kernels.h"
#include "levels.h"

enum { NO_PAGE = 0x7fffffff };

struct fixture {
    struct attention_spec spec;
    struct kv_view kv;
    int n_pos, n_pages;
    int n_keys; /* 0: causal */
    size_t pool_bytes;
    uint32_t *pages;
    float *k, *v; /* (n_pos, n_kv_heads, head_dim) */
    float *q;     /* (n_pos, n_heads, head_dim) */
    void *scratch;
};

static inline float random_float(void)
{
    static uint32_t state = 2463534242u;

    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1.0f;
}

static inline float *random_floats(size_t n, float range)
{
    float *x = xcalloc(n, sizeof(float));

    for (size_t i = 0; i < n; i++)
        x[i] = random_float() * range;
    return x;
}

/* A page's planes start `pad` bytes into it, as the second layer of a group would. */
static inline void fixture_open(
    struct fixture *f, const struct attention_spec *spec, enum kv_type type, int n_pos)
{
    size_t values = (size_t)n_pos * (size_t)spec->head_dim, pad = 192;

    *f =
        (struct fixture){.spec = *spec, .n_pos = n_pos, .n_pages = (n_pos + KV_PAGE - 1) / KV_PAGE};
    f->kv = (struct kv_view){.type = type,
        .n_kv_heads = spec->n_kv_heads,
        .head_dim = spec->head_dim,
        .layer_offset = pad,
        .page_stride = kv_layer_bytes(type, spec->n_kv_heads, spec->head_dim) + 2 * pad};
    f->pool_bytes = f->kv.page_stride * (size_t)f->n_pages;
    f->kv.base = mem_aligned(f->pool_bytes);
    f->pages = xcalloc((size_t)f->n_pages, sizeof(uint32_t));
    f->kv.pages = f->pages;
    /* Scores about +-8 where softmax has something to choose from. */
    f->k = random_floats(values * (size_t)spec->n_kv_heads, 2);
    f->v = random_floats(values * (size_t)spec->n_kv_heads, 3);
    f->q = random_floats(values * (size_t)spec->n_heads, 2);
    f->scratch = mem_aligned(attention_scratch(spec));
    assert_non_null(f->kv.base);
    assert_non_null(f->scratch);
}

/* Forgets everything written; physical pages in order of `step` (coprime to their number). */
static inline void fixture_clear(struct fixture *f, int step)
{
    memset(f->kv.base, 0xff, f->pool_bytes);
    for (int i = 0; i < f->n_pages; i++)
        f->pages[i] = (uint32_t)((i * step + 1) % f->n_pages);
}

static inline void fixture_close(struct fixture *f)
{
    mem_aligned_free(f->kv.base, f->pool_bytes);
    mem_aligned_free(f->scratch, attention_scratch(&f->spec));
    free(f->pages);
    free(f->k);
    free(f->v);
    free(f->q);
}

/* Writes positions [first, last). */
static inline void fixture_write(struct fixture *f, const struct kernels *k, int first, int last)
{
    size_t row = (size_t)f->spec.n_kv_heads * (size_t)f->spec.head_dim;

    for (int pos = first; pos < last; pos++)
        k->attention.kv_write(&f->kv, pos, f->k + (size_t)pos * row, f->v + (size_t)pos * row);
}

/* What a caller may do to a sliding group: pages below the first query's window are gone. */
static inline void fixture_drop_below(struct fixture *f, int pos)
{
    for (int i = 0; f->spec.window > 0 && (i + 1) * KV_PAGE <= pos - f->spec.window + 1; i++)
        f->pages[i] = NO_PAGE;
}

/* Rows [pos, pos + n) of f->q, heads [head, head + n_heads), into out (n_pos, n_heads, head_dim).
 */
static inline struct attention_task fixture_task(
    const struct fixture *f, float *out, int pos, int n, int head, int n_heads)
{
    size_t ld = (size_t)f->spec.n_heads * (size_t)f->spec.head_dim;

    return (struct attention_task){.spec = &f->spec,
        .n_keys = f->n_keys,
        .kv = &f->kv,
        .q = f->q + (size_t)pos * ld,
        .out = out + (size_t)pos * ld,
        .ld = ld,
        .pos = pos,
        .n_rows = n,
        .head = head,
        .n_heads = n_heads,
        .scratch = f->scratch};
}

/* All heads of rows [pos, pos + n), one task per kv head. */
static inline void fixture_run(
    const struct fixture *f, const struct kernels *k, float *out, int pos, int n)
{
    int group = f->spec.n_heads / f->spec.n_kv_heads;

    for (int h = 0; h < f->spec.n_heads; h += group) {
        struct attention_task t = fixture_task(f, out, pos, n, h, group);

        k->attention.run(&t);
    }
}

#endif
