/* test_matmul.c - packing, and the plain C products that define all others, against straight
 * loops over the rows as dtype.h decodes them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "matmul_data.h"

/* Smallest k, an odd number of blocks, several tiles; dense types also take any other. */
static const int block_ks[] = {1, 2, 3, 5, 8};
static const int dense_ks[] = {1, 2, 7, 56, 300};
enum { N_KS = 5 };

static int some_k(enum dtype type, int i)
{
    const int block = dtype_find(type)->block;

    return block == 1 ? dense_ks[i] : block_ks[i] * block;
}

static float *row_floats(const struct matrix *m, int row)
{
    float *out = malloc((size_t)m->w.k * sizeof(float));

    assert_non_null(out);
    m->w.type->to_float(m->rows + (size_t)row * m->row_bytes, out, (size_t)m->w.k);
    return out;
}

static void rows_come_back_bit_for_bit(void **state)
{
    static const int row_counts[] = {1, 16, 19};
    float got[8 * 256];

    for (int t = 0; t < N_TYPES; t++)
        for (int i = 0; i < N_KS * FLAVOURS; i++) {
            const int k = some_k(all_types[t], i % N_KS), rows = row_counts[i % 3];
            struct matrix m = matrix_random(all_types[t], rows, k, i / N_KS);

            for (int r = 0; r < rows; r++) {
                float *want = row_floats(&m, r);

                wmat_read_row(&m.w, r, got);
                if (memcmp(got, want, (size_t)k * sizeof(float)) != 0)
                    fail_msg("%s: row %d of %d, k %d", m.w.type->name, r, rows, k);
                free(want);
            }
            matrix_free(&m);
        }
}

static void packing_costs_no_memory(void **state)
{
    for (int t = 0; t < N_TYPES; t++) {
        const struct dtype_info *type = dtype_find(all_types[t]);
        const struct wmat w = wmat_init(type, 640, 2048, NULL);
        const size_t gguf = (size_t)640 * 2048 / type->block * type->bytes;

        assert_true(wmat_bytes(&w) >= gguf);
        assert_true(wmat_bytes(&w) <= gguf + gguf / 50); /* Q3_K has the largest padding */
        assert_int_equal(w.panel_bytes % 64, 0);
    }
}

static void packing_in_parts_gives_the_same(void **state)
{
    for (int t = 0; t < N_TYPES; t++) {
        struct matrix m = matrix_random(all_types[t], 70, some_k(all_types[t], 2), ORDINARY);
        const size_t bytes = wmat_bytes(&m.w);
        uint8_t *parts = mem_aligned(bytes);

        assert_non_null(parts);
        for (int p = m.w.n_panels - 1; p >= 0; p--)
            wmat_pack(&m.w, parts, m.rows, p, p + 1);
        assert_memory_equal(parts, m.packed, bytes);
        mem_aligned_free(parts, bytes);
        matrix_free(&m);
    }
}

static void padding_rows_are_zero(void **state)
{
    float got[256];

    for (int t = 0; t < N_TYPES; t++) {
        const int k = dtype_find(all_types[t])->block == 1 ? 33 : 256;
        struct matrix m = matrix_random(all_types[t], 17, k, ORDINARY);

        for (int r = 17; r < 32; r++) {
            wmat_read_row(&m.w, r, got);
            for (int i = 0; i < k; i++)
                assert_true(got[i] == 0);
        }
        matrix_free(&m);
    }
}

static void f32_products_are_the_straight_loop(void **state)
{
    struct kernels kernels;

    kernels_init(&kernels, ISA_C);
    for (int t = 0; t < N_TYPES; t++)
        for (int i = 0; i < N_KS; i++) {
            const int k = some_k(all_types[t], i), rows = 5 + 9 * i, n_cols = 1 + 2 * i;
            struct matrix m = matrix_random(all_types[t], rows, k, ORDINARY);
            float *x = random_columns(n_cols, k), *y = calloc((size_t)n_cols * rows, sizeof(float));
            struct act a = prepare(&kernels, ACT_F32, x, n_cols, k);

            assert_non_null(y);
            kernels.matmul.run(&m.w, &a, y, (size_t)rows, 0, m.w.n_panels);
            for (int r = 0; r < rows; r++) {
                float *w = row_floats(&m, r);

                for (int c = 0; c < n_cols; c++) {
                    float sum = 0;

                    for (int j = 0; j < k; j++)
                        sum = sum + w[j] * x[(size_t)c * k + j];
                    assert_memory_equal(&sum, &y[(size_t)c * rows + r], sizeof(sum));
                }
                free(w);
            }
            act_free(&a);
            free(x);
            free(y);
            matrix_free(&m);
        }
}

/* What preparing codes of -most .. most makes of a column, told independently of the code under
 * test. */
static void quantised(const float *x, int k, float most, float *out)
{
    for (int b = 0; b < k; b += 32) {
        float peak = 0;

        for (int i = b; i < b + 32; i++)
            peak = fmaxf(peak, fabsf(x[i]));
        for (int i = b; i < b + 32; i++)
            out[i] = peak > 0 ? (float)lrintf(x[i] * (most / peak)) * (peak / most) : 0;
    }
}

static void code_products_are_those_of_the_rounded_columns(enum act_kind kind, float most)
{
    struct kernels kernels;

    kernels_init(&kernels, ISA_C);
    for (int t = 3; t < N_TYPES; t++)
        for (int i = 0; i < FLAVOURS; i++) {
            const int k = some_k(all_types[t], i % N_KS), rows = 21, n_cols = 1 + 3 * i;
            struct matrix m = matrix_random(all_types[t], rows, k, i);
            float *x = random_columns(n_cols, k), *y = calloc((size_t)n_cols * rows, sizeof(float));
            float *rounded = malloc((size_t)k * sizeof(float));
            struct act a = prepare(&kernels, kind, x, n_cols, k);

            assert_non_null(y);
            assert_non_null(rounded);
            kernels.matmul.run(&m.w, &a, y, (size_t)rows, 0, m.w.n_panels);
            for (int r = 0; r < rows; r++) {
                float *w = row_floats(&m, r);

                for (int c = 0; c < n_cols; c++) {
                    double want = 0, size = 0, got = y[(size_t)c * rows + r];

                    quantised(x + (size_t)c * k, k, most, rounded);
                    for (int j = 0; j < k; j++) {
                        want += (double)w[j] * rounded[j];
                        size += fabs((double)w[j] * rounded[j]);
                    }
                    /* a base is added to its whole block, so its size counts too */
                    if (!(fabs(got - want) <= 2e-6 * size + 1e-5 * fabs(want) + 1e-30))
                        fail_msg("%s k %d row %d: %g, want %g (%g)", m.w.type->name, k, r, got,
                            want, size);
                }
                free(w);
            }
            act_free(&a);
            free(rounded);
            free(x);
            free(y);
            matrix_free(&m);
        }
}

static void int8_products_are_those_of_the_rounded_columns(void **state)
{
    code_products_are_those_of_the_rounded_columns(ACT_Q8, 127);
}

static void int16_products_are_those_of_the_rounded_columns(void **state)
{
    code_products_are_those_of_the_rounded_columns(ACT_Q16, 32639);
}

/* Every part of a code, at the ends and where the lower byte changes its sign. */
static void all_codes_come_out_exactly(void **state)
{
    enum { N = 2 * 32639 + 1, K = (N + 30) / 31 * 32 };
    float *x = calloc(K, sizeof(float));
    struct kernels kernels;
    struct act a;

    assert_non_null(x);
    for (int i = 0; i < N; i++) /* the peak of each block makes its scale 1 */
        x[i / 31 * 32 + i % 31] = (float)(i - 32639);
    for (int b = 0; b < K; b += 32)
        x[b + 31] = b % 64 ? 32639 : -32639;
    kernels_init(&kernels, kernels_best());
    a = prepare(&kernels, ACT_Q16, x, 1, K);
    for (int i = 0; i < K; i++) {
        const uint8_t *block = a.data + (size_t)(i / 32) * (16 + 64);
        const int8_t high = (int8_t)block[16 + i % 32], low = (int8_t)block[48 + i % 32];

        if (high == -128 || 256 * high + low != (int)x[i])
            fail_msg("%g became %d, %d", (double)x[i], high, low);
    }
    act_free(&a);
    free(x);
}

static void a_column_that_is_no_number_gives_no_number_as(enum act_kind kind)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    struct kernels kernels;

    kernels_init(&kernels, ISA_C);
    for (int i = 0; i < 3; i++) {
        struct matrix m = matrix_random(DTYPE_Q8_0, 16, 64, ORDINARY);
        float *x = random_columns(2, 64), y[32];
        struct act a;

        x[64 + 40] = bad[i];
        a = prepare(&kernels, kind, x, 2, 64);
        kernels.matmul.run(&m.w, &a, y, 16, 0, 1);
        for (int r = 0; r < 16; r++) {
            assert_true(isfinite(y[r]));
            assert_true(isnan(y[16 + r]));
        }
        act_free(&a);
        free(x);
        matrix_free(&m);
    }
}

static void a_column_that_is_no_number_gives_no_number(void **state)
{
    a_column_that_is_no_number_gives_no_number_as(ACT_Q8);
    a_column_that_is_no_number_gives_no_number_as(ACT_Q16);
}

static void tiny_columns_count_as_zero(void **state)
{
    struct kernels kernels;
    struct matrix m = matrix_random(DTYPE_Q4_1, 16, 32, ORDINARY);
    float x[32], y[16];
    struct act a;

    kernels_init(&kernels, ISA_C);
    for (int i = 0; i < 32; i++)
        x[i] = 1e-42f;
    for (int i = 0; i < 2; i++) {
        a = prepare(&kernels, i ? ACT_Q16 : ACT_Q8, x, 1, 32);
        kernels.matmul.run(&m.w, &a, y, 16, 0, 1);
        for (int r = 0; r < 16; r++)
            assert_true(y[r] == 0);
        act_free(&a);
    }
    matrix_free(&m);
}

static void types_choose_their_columns_and_backend(void **state)
{
    struct kernels c, best;

    kernels_init(&c, ISA_C);
    kernels_init(&best, kernels_best());
    for (int t = 0; t < N_TYPES; t++) {
        const struct dtype_info *type = dtype_find(all_types[t]);
        const bool coded = type->block > 1, bf16 = type->type == DTYPE_BF16 && best.bf16;

        assert_int_equal(matmul_act(&best, type, PRECISION_REFERENCE), ACT_F32);
        assert_int_equal(matmul_act(&best, type, PRECISION_DEFAULT), coded  ? ACT_Q8
                                                                     : bf16 ? ACT_BF16
                                                                            : ACT_F32);
        assert_int_equal(matmul_act(&best, type, PRECISION_PRECISE), coded  ? ACT_Q16
                                                                     : bf16 ? ACT_BF16X2
                                                                            : ACT_F32);
        for (int p = PRECISION_DEFAULT; p <= PRECISION_REFERENCE; p++) {
            assert_int_equal(matmul_auto(&best, type, PHASE_DECODE, p), MATMUL_NATIVE);
            assert_int_equal(matmul_auto(&c, type, PHASE_DECODE, p), MATMUL_NATIVE);
            if (best.isa != ISA_C || p == PRECISION_REFERENCE)
                assert_int_equal(matmul_auto(&best, type, PHASE_PREFILL, p), MATMUL_NATIVE);
        }
        assert_int_equal(matmul_auto(&c, type, PHASE_PREFILL, PRECISION_REFERENCE), MATMUL_NATIVE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back_bit_for_bit),
        cmocka_unit_test(packing_costs_no_memory),
        cmocka_unit_test(packing_in_parts_gives_the_same),
        cmocka_unit_test(padding_rows_are_zero),
        cmocka_unit_test(f32_products_are_the_straight_loop),
        cmocka_unit_test(int8_products_are_those_of_the_rounded_columns),
        cmocka_unit_test(int16_products_are_those_of_the_rounded_columns),
        cmocka_unit_test(all_codes_come_out_exactly),
        cmocka_unit_test(a_column_that_is_no_number_gives_no_number),
        cmocka_unit_test(tiny_columns_count_as_zero),
        cmocka_unit_test(types_choose_their_columns_and_backend),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
