/* matmul_data.h - random matrices of every type in GGUF bytes, and columns, for the matmul tests.
 * A fixed seed: a failure must reproduce. */
#ifndef TESTS_MATMUL_DATA_H
#define TESTS_MATMUL_DATA_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/kernels.h"

static const enum dtype all_types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0,
    DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K,
    DTYPE_IQ4_NL, DTYPE_IQ4_XS, DTYPE_MXFP4};
enum { N_TYPES = sizeof(all_types) / sizeof(all_types[0]) };

static uint32_t random_state = 12345;

static inline uint32_t random_u32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

/* -1 .. 1 */
static inline float random_float(void)
{
    return (float)(int32_t)random_u32() * 0x1p-31f;
}

/* Where a block keeps its f16 scales: up to two offsets, -1 = none. */
static inline void scale_offsets(enum dtype type, int at[2])
{
    at[0] = 0;
    at[1] = -1;
    switch (type) {
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
    case DTYPE_Q4_K:
    case DTYPE_Q5_K: at[1] = 2; break;
    case DTYPE_Q2_K: at[0] = 80, at[1] = 82; break;
    case DTYPE_Q3_K: at[0] = 108; break;
    case DTYPE_Q6_K: at[0] = 208; break;
    case DTYPE_MXFP4: at[0] = -1; break;
    default: break;
    }
}

/* What the codes and scales of a random matrix look like. */
enum flavour { ORDINARY, CODES_80, CODES_7F, CODES_00, CODES_FF, SCALE_ZERO, SCALE_HUGE, FLAVOURS };

static inline void random_block(enum dtype type, int bytes, enum flavour flavour, uint8_t *p)
{
    static const uint8_t fixed[] = {[CODES_80] = 0x80, [CODES_7F] = 0x7f, [CODES_FF] = 0xff};
    uint16_t half = f32_to_f16(random_float() * 0.1f);
    float f;
    int at[2];

    if (type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16) {
        f = random_float() * (flavour == SCALE_HUGE ? 60000.0f : flavour == SCALE_ZERO ? 0 : 1);
        half = type == DTYPE_F16 ? f32_to_f16(f) : f32_to_bf16(f);
        if (type == DTYPE_F32)
            memcpy(p, &f, 4);
        else
            memcpy(p, &half, 2);
        return;
    }
    for (int i = 0; i < bytes; i++)
        p[i] = flavour >= CODES_80 && flavour <= CODES_FF ? fixed[flavour]
                                                          : (uint8_t)(random_u32() >> 8);
    if (type == DTYPE_MXFP4)
        p[0] = flavour == SCALE_ZERO ? 0 : flavour == SCALE_HUGE ? 200 : 120 + p[0] % 10;
    scale_offsets(type, at);
    for (int i = 0; i < 2; i++)
        if (at[i] >= 0) {
            half = f32_to_f16(random_float() * 0.1f);
            if (flavour == SCALE_ZERO)
                half = i ? half : 0x8000;
            if (flavour == SCALE_HUGE)
                half = random_u32() & 1 ? 0x7bff : 0xfbff;
            memcpy(p + at[i], &half, 2);
        }
}

/* A packed matrix with the GGUF rows it came from. */
struct matrix {
    struct wmat w;
    uint8_t *rows, *packed;
    size_t row_bytes;
};

static inline struct matrix matrix_random(enum dtype type, int rows, int k, enum flavour flavour)
{
    const struct dtype_info *t = dtype_find(type);
    struct matrix m = {.row_bytes = (size_t)k / t->block * t->bytes};
    const size_t n_blocks = (size_t)rows * k / t->block;

    m.rows = malloc(n_blocks * t->bytes);
    for (size_t i = 0; m.rows && i < n_blocks; i++)
        random_block(type, t->bytes, flavour, m.rows + i * t->bytes);
    m.w = wmat_init(t, rows, k, NULL);
    m.packed = mem_aligned(wmat_bytes(&m.w));
    if (!m.rows || !m.packed)
        abort();
    memset(m.packed, 0xa5, wmat_bytes(&m.w)); /* packing must write every byte that is read */
    wmat_pack(&m.w, m.packed, m.rows, 0, m.w.n_panels);
    m.w.data = m.packed;
    return m;
}

static inline void matrix_free(struct matrix *m)
{
    free(m->rows);
    mem_aligned_free(m->packed, wmat_bytes(&m->w));
}

/* n_cols columns of k floats with blocks of very different size, some of them zero. */
static inline float *random_columns(int n_cols, int k)
{
    float *x = malloc((size_t)n_cols * k * sizeof(float));

    if (!x)
        abort();
    for (size_t i = 0; i < (size_t)n_cols * k; i++)
        x[i] = random_float() * (i / 32 % 7 == 3 ? 0 : i / 32 % 5 == 1 ? 100.0f : 1.0f);
    return x;
}

static inline struct act prepare(
    const struct kernels *k, enum act_kind kind, const float *x, int n_cols, int n)
{
    struct act a = act_init(kind, n_cols, n, NULL);

    a.data = mem_aligned(a.col_bytes * (size_t)n_cols);
    if (!a.data)
        abort();
    for (int c = 0; c < n_cols; c++)
        k->matmul.act_fill(&a, c, x + (size_t)c * n);
    return a;
}

static inline void act_free(struct act *a)
{
    mem_aligned_free(a->data, a->col_bytes * (size_t)a->n_cols);
}

#endif
