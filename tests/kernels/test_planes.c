/* test_planes.c - a matrix in two planes is the matrix it was, on every level, and the bound holds
 * and is as tight as it can be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernels/matmul_impl.h"
#include "kernels/planes.h"
#include "levels.h"
#include "matmul_data.h"

static const int ks[] = {64, 128, 640};
static const int row_counts[] = {1, 16, 19, 70};

/* m again, in planes, its columns ordered by a norm; the memory is the caller's. */
static struct wmat ordered_planes(const struct matrix *m, const float *norm)
{
    const size_t bytes = wmat_bytes(&m->w);
    uint8_t *data = mem_aligned(bytes), *packed = mem_aligned(bytes);
    uint8_t *strong = calloc(640 / 32, STRONG);
    struct wmat w = planes_init(m->w.rows, m->w.k, data, strong);

    assert_int_equal(wmat_bytes(&w), bytes);
    memset(data, 0xa5, bytes);
    planes_order(strong, w.k, norm);
    memcpy(packed, m->packed, bytes);
    for (int i = w.n_panels - 1; i >= 0; i--) {
        const float scale = planes_store(&w, data, i, packed + (size_t)i * m->w.panel_bytes);

        w.max_scale = scale > w.max_scale ? scale : w.max_scale;
    }
    mem_aligned_free(packed, bytes);
    return w;
}

/* By a random one. */
static struct wmat in_planes(const struct matrix *m)
{
    float *norm = random_columns(1, m->w.k);
    struct wmat w = ordered_planes(m, norm);

    free(norm);
    return w;
}

static void free_planes(struct wmat *w)
{
    mem_aligned_free((void *)w->data, wmat_bytes(w));
    free((void *)w->strong);
}

static void the_largest_of_the_norm_come_first(void **state)
{
    struct matrix m = matrix_random(DTYPE_Q8_0, 1, 64, ORDINARY);
    float norm[64], first[64] = {0};
    struct wmat w;
    struct act a;
    struct kernels k;

    for (int i = 0; i < 64; i++)
        norm[i] = (float)(i % 7) / 8;
    norm[2] = -3; /* in its place already */
    norm[31] = 5, norm[9] = -2, norm[17] = 1;
    norm[63] = norm[62] = norm[61] = norm[60] = 2;
    w = ordered_planes(&m, norm);
    kernels_init(&k, ISA_C);
    for (int i = 0; i < 64; i++)
        first[i] = (float)i;
    a = prepare(&k, ACT_Q8, first, 1, 64);
    planes_arrange(&w, &a, 0);
    for (int i = 0; i < 4; i++) {
        static const float want[2][4] = {{9, 17, 2, 31}, {60, 61, 62, 63}};

        for (int b = 0; b < 2; b++) {
            const struct act_block *block =
                (const struct act_block *)(a.data + (size_t)b * act_block_bytes(1));

            assert_float_equal(block->q[0][i] * block->scale, want[b][i], block->scale);
        }
    }
    act_free(&a);
    free_planes(&w);
    w = ordered_planes(&m, NULL);
    for (int i = 0; i < 8; i++)
        assert_int_equal(w.strong[i], i % 4);
    free_planes(&w);
    matrix_free(&m);
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
    for (int c = 0; kind != ACT_F32 && c < n_cols; c++)
        planes_arrange(w, &a, c);
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
    float *four = calloc(4 * (size_t)w.k, sizeof(*four)), bounds[4][80] = {{0}};
    struct act columns = prepare(k, kind, four, 4, w.k);

    k->matmul.run(&m->w, &a, b->y, 80, 0, w.n_panels);
    planes_arrange(&w, &a, 0);
    b->slack = planes_bound(&w, &a, &column, 0);
    k->matmul.run(&coarse, &column, b->bound, 80, 0, w.n_panels);
    for (int c = 0; c < 4; c++) /* together as alone */
        memcpy(columns.data + (size_t)c * columns.col_bytes, column.data, column.col_bytes);
    k->matmul.run(&coarse, &columns, bounds[0], 80, 0, w.n_panels);
    for (int c = 0; c < 4; c++)
        assert_memory_equal(bounds[c], b->bound, (size_t)w.rows * sizeof(float));
    act_free(&columns);
    free(four);
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
                /* 15 x the sum of |x| in steps of the scale */
                assert_true(b.bound[r] - b.slack <= b.y[r] + 0.1f * 15 * sum * 1.02f);
            }
            free(x);
            matrix_free(&m);
        }
    }
}

/* The lower halves are as bad as can be, all ones under positive x and zero under negative: then
 * the bound is the product. */
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
    for (int r = 0; r < 70; r++)
        assert_true(fabsf(b.bound[r] - b.y[r]) <= b.slack);
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
        cmocka_unit_test(the_largest_of_the_norm_come_first),
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(products_are_the_same_on_every_level),
        cmocka_unit_test(bound_holds_on_every_level),
        cmocka_unit_test(bound_is_tight),
        cmocka_unit_test(no_bound_from_numbers_that_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
