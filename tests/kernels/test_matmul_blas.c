/* test_matmul_blas.c - the OpenBLAS backend: close to the straight sums, and every column and row
 * the same bits whatever stands beside it. Runs with whatever core OpenBLAS picks;
 * OPENBLAS_CORETYPE chooses another. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "matmul_data.h"

static const float canary = 12345.678f;

/* rows x n_cols, computed in pieces of `step` panels, with one float behind each column that must
 * stay; caller frees. */
static float *multiply(const struct wmat *w, const struct act *a, int step)
{
    const size_t ld = (size_t)w->rows + 1, n = ld * (size_t)a->n_cols;
    void *scratch = mem_aligned(matmul_blas_scratch(w->k));
    float *y = malloc(n * sizeof(float));

    assert_non_null(y);
    assert_non_null(scratch);
    memset(scratch, 0xff, matmul_blas_scratch(w->k)); /* NaN: what is used must have been set */
    for (size_t i = 0; i < n; i++)
        y[i] = canary;
    for (int p = 0; p < w->n_panels; p += step)
        matmul_blas(w, a, y, ld, p, p + step < w->n_panels ? p + step : w->n_panels, scratch);
    for (int c = 0; c < a->n_cols; c++)
        assert_true(y[(size_t)c * ld + (size_t)w->rows] == canary);
    mem_aligned_free(scratch, matmul_blas_scratch(w->k));
    return y;
}

static void products_are_close_to_the_straight_sums(void **state)
{
    struct kernels c;

    kernels_init(&c, ISA_C);
    for (int t = 0; t < N_TYPES; t++) {
        const int k = dtype_find(all_types[t])->block == 1 ? 57 : 256, rows = 150, n_cols = 3;
        struct matrix m = matrix_random(all_types[t], rows, k, ORDINARY);
        float *x = random_columns(n_cols, k), *w = malloc((size_t)k * sizeof(float));
        struct act a = prepare(&c, ACT_F32, x, n_cols, k);
        float *y = multiply(&m.w, &a, m.w.n_panels);

        assert_non_null(w);
        for (int r = 0; r < rows; r++) {
            wmat_read_row(&m.w, r, w);
            for (int i = 0; i < n_cols; i++) {
                double want = 0, size = 0;

                for (int j = 0; j < k; j++) {
                    want += (double)w[j] * x[i * k + j];
                    size += fabs((double)w[j] * x[i * k + j]);
                }
                assert_true(fabs(y[i * (rows + 1) + r] - want) <= 1e-6 * size);
            }
        }
        free(w);
        free(y);
        free(x);
        act_free(&a);
        matrix_free(&m);
    }
}

static void check_invariance(enum dtype type, int rows, int k)
{
    enum { COLS = 70 };
    const size_t ld = (size_t)rows + 1;
    struct matrix m = matrix_random(type, rows, k, ORDINARY);
    float *x = random_columns(COLS, k), *want;
    struct kernels c;
    struct act all;

    kernels_init(&c, ISA_C);
    all = prepare(&c, ACT_F32, x, COLS, k);
    want = multiply(&m.w, &all, m.w.n_panels);
    for (int n = 1; n <= COLS; n++) {
        const int first = (n * 13) % (COLS - n + 1);
        struct act some = all;
        float *got;

        some.n_cols = n;
        some.data = all.data + (size_t)first * all.col_bytes;
        got = multiply(&m.w, &some, 1 + n % m.w.n_panels);
        for (int i = 0; i < n; i++)
            if (memcmp(got + i * ld, want + (first + i) * ld, (size_t)rows * sizeof(float)) != 0)
                fail_msg("k %d: column %d of %d differs alone", k, first + i, n);
        free(got);
    }
    free(want);
    free(x);
    act_free(&all);
    matrix_free(&m);
}

static void a_column_does_not_see_its_neighbours(void **state)
{
    check_invariance(DTYPE_F32, 70, 57);
    check_invariance(DTYPE_BF16, 200, 400); /* more than one block of k inside OpenBLAS */
    check_invariance(DTYPE_Q8_0, 270, 640);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_close_to_the_straight_sums),
        cmocka_unit_test(a_column_does_not_see_its_neighbours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
