/* test_matmul_levels.c - every level this machine has against plain C, bit for bit where the
 * contract promises bits, and the promise that a column's result depends on nothing around it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "matmul_data.h"

enum { GAP = 5 }; /* floats between columns of y, and around it, that nobody may write */

static const float canary = 12345.678f;

/* Equal bits, or both no number. */
static int same(float a, float b)
{
    uint32_t u, v;

    memcpy(&u, &a, sizeof(u));
    memcpy(&v, &b, sizeof(v));
    return u == v || (isnan(a) && isnan(b));
}

/* y of `rows` x n_cols with gaps, computed in pieces of `step` panels; caller frees. */
static float *multiply(const struct kernels *k, const struct wmat *w, const struct act *a, int step)
{
    const size_t ld = (size_t)w->rows + GAP, n = GAP + ld * (size_t)a->n_cols;
    float *y = malloc(n * sizeof(float));

    assert_non_null(y);
    for (size_t i = 0; i < n; i++)
        y[i] = canary;
    for (int p = 0; p < w->n_panels; p += step) {
        const int last = p + step < w->n_panels ? p + step : w->n_panels;

        k->matmul.run(w, a, y + GAP, ld, p, last);
    }
    for (size_t i = 0; i < n; i++)
        if (i < GAP || (i - GAP) % ld >= (size_t)w->rows)
            if (y[i] != canary)
                fail_msg("%s %s: wrote %zu floats behind row %d", isa_name(k->isa), w->type->name,
                    (i - GAP) % ld - (size_t)w->rows, w->rows);
    return y;
}

static void same_bits(
    const struct kernels *k, const struct wmat *w, const float *got, const float *want, int n_cols)
{
    const size_t ld = (size_t)w->rows + GAP;

    for (int c = 0; c < n_cols; c++)
        for (int r = 0; r < w->rows; r++) {
            const float g = got[GAP + c * ld + r], e = want[GAP + c * ld + r];

            if (!same(g, e))
                fail_msg("%s %s k %d: row %d of %d, column %d of %d: %.9g, want %.9g",
                    isa_name(k->isa), w->type->name, w->k, r, w->rows, c, n_cols, (double)g,
                    (double)e);
        }
}

/* Runs check(level's kernels, C kernels) for every level above plain C. */
static void each_level(void (*check)(const struct kernels *k, const struct kernels *c))
{
    struct kernels c;

    kernels_init(&c, ISA_C);
    for (int isa = ISA_C + 1; isa < ISA_COUNT; isa++) {
        struct kernels k;

        if (!kernels_has(isa))
            continue;
        kernels_init(&k, isa);
        assert_int_equal(k.isa, isa);
        check(&k, &c);
    }
}

static void check_fill_as(
    const struct kernels *k, const struct kernels *c, enum act_kind kind, float most)
{
    static const float odd[] = {0, -0.0f, 1e-45f, 1e-38f, 1e-31f, 7.8e-31f, 8e-31f, 1e30f, 3.4e38f,
        -3.4e38f, INFINITY, -INFINITY, NAN};
    enum { K = 2048 };
    float *x = random_columns(1, K);
    struct act a, b;

    for (int i = 0; i < K / 2; i += 32) /* a special value among ordinary or small ones */
        for (int j = 0; j < 32; j++)
            x[i + j] = j == i / 32 ? odd[i / 32 % 13] : i % 64 ? x[i + j] * 1e-33f : x[i + j];
    for (int i = K / 2; i < K; i++) /* halves, where rounding to even shows */
        x[i] = i % 32 == 31 ? most : (float)(int)(x[i] * most * 0.75f) + 0.5f;
    a = prepare(k, kind, x, 1, K);
    b = prepare(c, kind, x, 1, K);
    for (size_t i = 0; i < a.col_bytes; i += 4) {
        float f, g;

        memcpy(&f, a.data + i, 4);
        memcpy(&g, b.data + i, 4);
        if (!same(f, g))
            fail_msg("%s: byte %zu of %zu differs", isa_name(k->isa), i, a.col_bytes);
    }
    act_free(&a);
    act_free(&b);
    free(x);
}

static void check_fill(const struct kernels *k, const struct kernels *c)
{
    check_fill_as(k, c, ACT_Q8, 127);
    check_fill_as(k, c, ACT_Q16, 32639);
}

static void columns_are_prepared_alike(void **state)
{
    each_level(check_fill);
}

static void check_columns(const struct kernels *k, const struct kernels *c, enum act_kind kind,
    const struct matrix *m, const float *x, int n_cols)
{
    float *got, *want;
    struct act a = prepare(c, kind, x, n_cols, m->w.k);

    want = multiply(c, &m->w, &a, m->w.n_panels);
    got = multiply(k, &m->w, &a, 1 + n_cols % 3);
    same_bits(k, &m->w, got, want, n_cols);
    free(got);
    free(want);
    act_free(&a);
}

/* One shape of one type in one kind of activation. */
static void check_shape(const struct kernels *k, const struct kernels *c, enum act_kind kind,
    const struct matrix *m, int n_cols)
{
    float *x = random_columns(n_cols, m->w.k);

    check_columns(k, c, kind, m, x, n_cols);
    free(x);
}

static void check_products(const struct kernels *k, const struct kernels *c)
{
    static const int col_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
        19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 100};
    static const int blocks[] = {1, 2, 3, 4, 5, 7, 8, 20};

    for (int t = 0; t < N_TYPES; t++)
        for (int i = 0; i < 30; i++) {
            const int block = dtype_find(all_types[t])->block;
            const int n_blocks = block == 256 ? 1 + i % 3 : blocks[i % 8];
            const int k_size = block == 1 ? 9 * i + 1 : block * n_blocks;
            const int rows = 1 + (i * 37 + t * 11) % 70;
            struct matrix m = matrix_random(all_types[t], rows, k_size, i % FLAVOURS);

            check_shape(k, c, ACT_F32, &m, i < 29 ? col_counts[(i * 7 + t) % 29] : 40);
            if (block > 1) {
                check_shape(k, c, ACT_Q8, &m, col_counts[i]);
                check_shape(k, c, ACT_Q16, &m, col_counts[(i + 4 * t) % 30]);
            }
            matrix_free(&m);
        }
}

static void products_are_those_of_plain_c(void **state)
{
    each_level(check_products);
}

/* Shapes of real models: long k, many rows, more columns than a chunk. */
static void check_long(const struct kernels *k, const struct kernels *c)
{
    for (int t = 0; t < N_TYPES; t++) {
        const int block = dtype_find(all_types[t])->block;
        struct matrix m = matrix_random(all_types[t], 40, 2048, ORDINARY);

        check_shape(k, c, block > 1 ? ACT_Q8 : ACT_F32, &m, 9);
        if (block > 1)
            check_shape(k, c, ACT_Q16, &m, 7);
        matrix_free(&m);
    }
    for (int n = 24; n <= 64; n += n < 32 ? 1 : 8) { /* around the first count of a wide product */
        struct matrix m = matrix_random(n % 2 ? DTYPE_Q6_K : DTYPE_Q5_0, 47, 1280, ORDINARY);

        check_shape(k, c, ACT_Q8, &m, n);
        check_shape(k, c, ACT_Q16, &m, n);
        matrix_free(&m);
    }
    struct matrix m = matrix_random(DTYPE_Q8_0, 512, 96, ORDINARY);

    check_shape(k, c, ACT_Q8, &m, 7);
    check_shape(k, c, ACT_Q16, &m, 7);
    matrix_free(&m);
    m = matrix_random(DTYPE_Q4_K, 33, 1024, ORDINARY);
    check_shape(k, c, ACT_Q8, &m, 301);
    check_shape(k, c, ACT_Q16, &m, 191);
    matrix_free(&m);
}

static void long_products_too(void **state)
{
    each_level(check_long);
}

/* Bytes of the planes that are as far from zero as they get, against weights that are so, too: what
 * an instruction that saturates would show. Columns: lower bytes -128 under positive and negative
 * upper ones, upper bytes 127, then -127, then alternating. */
static void check_extremes(const struct kernels *k, const struct kernels *c)
{
    enum { PATTERNS = 5, COLS = 2 * PATTERNS, K = 512 };
    static const float pairs[PATTERNS][2] = {
        {32384, 32384}, {-32384, -32384}, {32639, 32639}, {-32639, -32639}, {32384, -32639}};
    float x[COLS * K];

    for (int i = 0; i < COLS * K; i++) /* the first of each block makes its scale 1 */
        x[i] = i % 32 == 0 ? 32639 : pairs[i / K % PATTERNS][i % 2];
    for (int t = 0; t < N_TYPES; t++)
        for (int flavour = 0; flavour < FLAVOURS && dtype_find(all_types[t])->block > 1;
             flavour++) {
            struct matrix m = matrix_random(all_types[t], 33, K, (enum flavour)flavour);

            for (int n = PATTERNS; n <= COLS; n += PATTERNS) { /* few and many */
                check_columns(k, c, ACT_Q8, &m, x, n);
                check_columns(k, c, ACT_Q16, &m, x, n);
            }
            check_columns(k, c, ACT_Q16, &m, x + K, 1);
            matrix_free(&m);
        }
}

static void extreme_codes_do_not_saturate(void **state)
{
    each_level(check_extremes);
}

static void invariant(const struct kernels *k, enum act_kind kind, enum dtype type)
{
    enum { COLS = 31 };
    const int k_size = dtype_find(type)->block == 1 ? 299 : 768;
    struct matrix m = matrix_random(type, 75, k_size, ORDINARY);
    float *x = random_columns(COLS, k_size);
    struct act all = prepare(k, kind, x, COLS, k_size);
    float *want = multiply(k, &m.w, &all, m.w.n_panels);
    const size_t ld = (size_t)m.w.rows + GAP;

    for (int first = 0; first < COLS; first++)
        for (int n = 1; first + n <= COLS; n += 1 + first % 4) {
            struct act some = all;
            float *got;

            some.n_cols = n;
            some.data = all.data + (size_t)first * all.col_bytes;
            got = multiply(k, &m.w, &some, 1 + (first + n) % 5);
            same_bits(k, &m.w, got, want + first * ld, n);
            free(got);
        }
    free(want);
    free(x);
    act_free(&all);
    matrix_free(&m);
}

static void a_column_does_not_see_its_neighbours(void **state)
{
    for (int isa = ISA_C; isa < ISA_COUNT; isa++) {
        struct kernels k;

        if (!kernels_has(isa))
            continue;
        kernels_init(&k, isa);
        for (int t = 0; t < N_TYPES; t++) {
            const struct dtype_info *type = dtype_find(all_types[t]);
            const enum act_kind kind = matmul_act(&k, type, PRECISION_DEFAULT);
            const enum act_kind precise = matmul_act(&k, type, PRECISION_PRECISE);

            invariant(&k, kind, all_types[t]);
            if (precise != kind)
                invariant(&k, precise, all_types[t]);
            if (t % 4 == 0 && kind != ACT_F32)
                invariant(&k, ACT_F32, all_types[t]);
        }
    }
}

/* bf16 dot products round in their own way, and flush denormals: compared with doubles. */
static void check_bf16(
    const struct kernels *k, enum act_kind kind, int rows, int k_size, int n_cols)
{
    struct matrix m = matrix_random(DTYPE_BF16, rows, k_size, ORDINARY);
    float *x = random_columns(n_cols, k_size), *y, *w = malloc((size_t)k_size * sizeof(float));
    struct act a = prepare(k, kind, x, n_cols, k_size);

    assert_non_null(w);
    y = multiply(k, &m.w, &a, 1 + n_cols % 5);
    for (int r = 0; r < rows; r++) {
        wmat_read_row(&m.w, r, w);
        for (int c = 0; c < n_cols; c++) {
            const float got = y[GAP + (size_t)c * (size_t)(rows + GAP) + r];
            double want = 0, size = 0;

            for (int i = 0; i < k_size; i++) {
                const float v = x[(size_t)c * k_size + i];
                float rounded = bf16_to_f32(f32_to_bf16(v));

                if (kind == ACT_BF16X2)
                    rounded += bf16_to_f32(f32_to_bf16(v - rounded));
                want += (double)w[i] * rounded;
                size += fabs((double)w[i] * rounded);
            }
            if (!(fabs(got - want) <= 1e-6 * size + 1e-30))
                fail_msg("k %d, row %d, column %d: %g, want %g", k_size, r, c, (double)got, want);
        }
    }
    free(w);
    free(y);
    free(x);
    act_free(&a);
    matrix_free(&m);
}

static void bf16_products_are_close(void **state)
{
    struct kernels k;

    kernels_init(&k, kernels_best());
    if (!k.bf16) {
        fputs("no bf16 hardware here: nothing compared\n", stderr);
        return;
    }
    for (int i = 1; i < 30; i++)
        check_bf16(&k, i % 3 ? ACT_BF16 : ACT_BF16X2, 1 + i * 31 % 140, i * i, i);
    check_bf16(&k, ACT_BF16, 65, 2048, 6);
    check_bf16(&k, ACT_BF16X2, 65, 2048, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_prepared_alike),
        cmocka_unit_test(products_are_those_of_plain_c),
        cmocka_unit_test(long_products_too),
        cmocka_unit_test(extreme_codes_do_not_saturate),
        cmocka_unit_test(bf16_products_are_close),
        cmocka_unit_test(a_column_does_not_see_its_neighbours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
