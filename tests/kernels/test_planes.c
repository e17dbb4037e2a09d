/* test_planes.c - a matrix in two planes is the matrix it was, on every level, and the bound holds
 * and is as tight as it can be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernels/planes.h"
#include "levels.h"
#include "matmul_data.h"

static const int ks[] = {32, 96, 640};
static const int row_counts[] = {1, 16, 19, 70};

/* m again, in planes; the memory is the caller's. */
static struct wmat in_planes(const struct matrix *m)
{
    uint8_t *data = mem_aligned(wmat_bytes(&m->w));
    struct wmat w = planes_init(m->w.rows, m->w.k, data);

    assert_int_equal(wmat_bytes(&w), wmat_bytes(&m->w));
    memset(data, 0xa5, wmat_bytes(&w));
    for (int i = w.n_panels - 1; i >= 0; i--) {
        const float scale = planes_store(&w, data, i, m->packed + (size_t)i * m->w.panel_bytes);

        w.max_scale = scale > w.max_scale ? scale : w.max_scale;
    }
    return w;
}

static void free_planes(struct wmat *w)
{
    mem_aligned_free((void *)w->data, wmat_bytes(w));
}

/* A random matrix whose scales are as in a model: not negative. */
static struct matrix ordinary(int rows, int k)
{
    struct matrix m = matrix_random(DTYPE_Q8_0, rows, k, ORDINARY);

    for (size_t i = 0; i < (size_t)rows * (size_t)k / 32; i++)
        m.rows[34 * i + 1] &= 0x7f;
    wmat_pack(&m.w, m.packed, m.rows, 0, m.w.n_panels);
    return m;
}

static void rows_come_back(void **state)
{
    float want[640], got[640];

    for (int i = 0; i < 3 * 4; i++) {
        struct matrix m = matrix_random(DTYPE_Q8_0, row_counts[i / 3], ks[i % 3], ORDINARY);
        struct wmat w = in_planes(&m);

        for (int r = 0; r < w.rows; r++) {
            wmat_read_row(&m.w, r, want);
            wmat_read_row(&w, r, got);
            assert_memory_equal(got, want, (size_t)w.k * sizeof(float));
        }
        free_planes(&w);
        matrix_free(&m);
    }
}

/* Both products of the same columns; only rows of the panels [first, last) are written. */
static void compare(const struct kernels *k, enum act_kind kind, const struct matrix *m,
    const struct wmat *w, int n_cols, int first)
{
    const size_t ld = (size_t)w->n_panels * PANEL_ROWS, n = ld * (size_t)n_cols;
    float *x = random_columns(n_cols, w->k), *want = calloc(n, sizeof(float));
    float *got = calloc(n, sizeof(float));
    struct act a = prepare(k, kind, x, n_cols, w->k);

    k->matmul.run(&m->w, &a, want, ld, first, w->n_panels);
    k->matmul.run(w, &a, got, ld, first, w->n_panels);
    if (memcmp(got, want, n * sizeof(float)) != 0)
        fail_msg("%s, %d rows, k %d, %d columns", isa_name(k->isa), w->rows, w->k, n_cols);
    act_free(&a);
    free(x);
    free(want);
    free(got);
}

static void products_are_the_same_on_every_level(void **state)
{
    static const int col_counts[] = {1, 2, 7, 30};
    struct kernels k;

    for (int level = 0; level < N_LEVELS; level++) {
        if (!level_init(&k, level))
            continue;
        for (int i = 0; i < 3 * 4; i++) {
            struct matrix m = matrix_random(DTYPE_Q8_0, row_counts[i / 3], ks[i % 3], ORDINARY);
            struct wmat w = in_planes(&m);

            for (int c = 0; c < 4; c++) {
                compare(&k, ACT_Q8, &m, &w, col_counts[c], 0);
                compare(&k, ACT_Q16, &m, &w, col_counts[c], 0);
            }
            compare(&k, ACT_Q8, &m, &w, 3, w.n_panels / 2);
            compare(&k, ACT_F32, &m, &w, 3, 0);
            free_planes(&w);
            matrix_free(&m);
        }
    }
}

/* Product and bound of one column of m. */
struct both {
    float y[80], bound[80], slack;
};

static void compute(const struct kernels *k, enum act_kind kind, const struct matrix *m,
    const float *x, struct both *b)
{
    struct wmat w = in_planes(m), coarse = planes_coarse(&w);
    struct act a = prepare(k, kind, x, 1, w.k), column = prepare(k, kind, x, 1, w.k);

    k->matmul.run(&m->w, &a, b->y, 80, 0, w.n_panels);
    b->slack = planes_bound(&w, &a, &column, 0);
    k->matmul.run(&coarse, &column, b->bound, 80, 0, w.n_panels);
    act_free(&a);
    act_free(&column);
    free_planes(&w);
}

static void bound_holds_on_every_level(void **state)
{
    struct kernels k;
    struct both b;

    for (int level = 0; level < N_LEVELS; level++) {
        if (!level_init(&k, level))
            continue;
        for (int i = 0; i < 40; i++) {
            struct matrix m = ordinary(70, ks[i % 3]);
            float *x = random_columns(1, m.w.k), sum = 0;

            compute(&k, i % 2 ? ACT_Q8 : ACT_Q16, &m, x, &b);
            for (int j = 0; j < m.w.k; j++)
                sum += fabsf(x[j]);
            assert_true(b.slack >= 0 && b.slack < 1e-3f * sum);
            for (int r = 0; r < m.w.rows; r++) {
                assert_true(b.bound[r] + b.slack >= b.y[r]);
                /* 15 x the sum of |x| in steps of the scale, plus what rounding up gives */
                assert_true(b.bound[r] - b.slack <= b.y[r] + 0.1f * (15 * sum * 1.02f + 16 * 20));
            }
            free(x);
            matrix_free(&m);
        }
    }
}

/* The lower halves are as bad as can be, all ones under positive x and zero under negative: then
 * the bound is the product, but for rounding 15/16 of a sum up to a whole number. */
static void bound_is_tight(void **state)
{
    const int k = 640;
    struct kernels kernels;
    struct matrix m = ordinary(70, k);
    float *x = random_columns(1, k);
    struct both b;

    for (int r = 0; r < 70; r++)
        for (int i = 0; i < k; i++) {
            uint8_t *code = m.rows + (size_t)r * m.row_bytes + (size_t)(i / 32 * 34 + 2 + i % 32);

            *code = (uint8_t)((*code & 0xf0) | (x[i] > 0 ? 15 : 0));
        }
    wmat_pack(&m.w, m.packed, m.rows, 0, m.w.n_panels);
    kernels_init(&kernels, ISA_C);
    compute(&kernels, ACT_Q8, &m, x, &b);
    for (int r = 0; r < 70; r++) {
        float most = b.slack;

        for (int i = 0; i < k / 32; i++) {
            float peak = 0;

            for (int j = 0; j < 32; j++)
                peak = fmaxf(peak, fabsf(x[32 * i + j]));
            most += 0.1f * 16 * peak / 127;
        }
        assert_true(b.bound[r] + b.slack >= b.y[r]);
        assert_true(b.bound[r] <= b.y[r] + most);
    }
    free(x);
    matrix_free(&m);
}

static void no_bound_from_numbers_that_are_none(void **state)
{
    static const uint16_t bad[] = {0x8001, 0xbc00, 0x7c00, 0x7e00, 0xfc00};
    struct kernels k;
    struct both b;
    float x[64] = {1, 2, 3};

    kernels_init(&k, ISA_C);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct matrix m = ordinary(19, 64);
        struct wmat w;

        memcpy(m.rows + 18 * m.row_bytes + 34, &bad[i], 2); /* the last scale */
        wmat_pack(&m.w, m.packed, m.rows, 0, m.w.n_panels);
        w = in_planes(&m);
        assert_true(w.max_scale == INFINITY);
        free_planes(&w);
        matrix_free(&m);
    }
    for (int i = 0; i < 3; i++) {
        struct matrix m = ordinary(19, 64);

        x[40] = i == 0 ? NAN : i == 1 ? INFINITY : 1e30f;
        compute(&k, ACT_Q8, &m, x, &b);
        assert_false(isfinite(b.slack));
        matrix_free(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(products_are_the_same_on_every_level),
        cmocka_unit_test(bound_holds_on_every_level),
        cmocka_unit_test(bound_is_tight),
        cmocka_unit_test(no_bound_from_numbers_that_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
