/* Row operations: plain C against formulas in double, and every instruction set against plain C,
 * over all lengths to 257 and some of a model's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/kernels.h"
#include "kernels/noise.h"
#include "levels.h"

enum { MAX_N = 6912, GUARD = 16 };

static const int lengths_beyond[] = {640, 1152, 2048, 2560, MAX_N};
enum { N_LENGTHS = 258 + sizeof(lengths_beyond) / sizeof(lengths_beyond[0]) };

static int length(int i)
{
    return i < 258 ? i : lengths_beyond[i - 258];
}

static float random_float(void)
{
    static uint32_t state = 12345;

    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1.0f;
}

/* Every other value is small, so that both ends of a curve are seen. */
static void fill(float *x, int n, float range)
{
    for (int i = 0; i < n; i++)
        x[i] = random_float() * (i % 2 ? range : range * 0.01f);
}

/* |got - want| <= bound * (|want| + floor) for all, and the guard behind row `got` is untouched. */
static void check(const float *got, const float *want, int n, float bound, float floor)
{
    for (int i = 0; i < n; i++) {
        if (!(fabsf(got[i] - want[i]) <= bound * (fabsf(want[i]) + floor)))
            fail_msg("n=%d i=%d: %.9g, want %.9g", n, i, (double)got[i], (double)want[i]);
    }
    for (int i = n; i < n + GUARD; i++) {
        if (got[i] != 77.0f)
            fail_msg("n=%d: wrote behind the row at %d", n, i);
    }
}

static void put_guard(float *x, int n)
{
    for (int i = n; i < n + GUARD; i++)
        x[i] = 77.0f;
}

static float a[MAX_N + GUARD], b[MAX_N + GUARD], c[MAX_N + GUARD], d[MAX_N + GUARD];

static void elementwise_equals_c_bit_for_bit(void **state)
{
    struct kernels ref, k;

    kernels_init(&ref, ISA_C);
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int l = 0; l < N_LENGTHS; l++) {
            int n = length(l);

            fill(a, n, 3);
            fill(b, n, 3);
            put_guard(c, n);
            ref.add(d, a, b, n);
            k.add(c, a, b, n);
            check(c, d, n, 0, 0);
            ref.mul(d, a, b, n);
            k.mul(c, a, b, n);
            check(c, d, n, 0, 0);
            ref.scale(d, a, 1.7f, n);
            k.scale(c, a, 1.7f, n);
            check(c, d, n, 0, 0);
            k.scale(c, c, 1.0f, n); /* in place */
            check(c, d, n, 0, 0);
        }
    }
}

static void rmsnorm_equals_the_formula(void **state)
{
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int l = 0; l < N_LENGTHS; l++) {
            int n = length(l);
            double sum = 0;

            fill(a, n, 20);
            fill(b, n, 2);
            for (int i = 0; i < n; i++)
                sum += (double)a[i] * a[i];
            for (int i = 0; i < n; i++) {
                d[i] = (float)(a[i] / sqrt(sum / n + 1e-6));
                c[i] = 0;
            }
            put_guard(c, n);
            k.rmsnorm(c, a, NULL, 1e-6f, n);
            check(c, d, n, 1e-6f, 0);
            for (int i = 0; i < n; i++)
                d[i] *= b[i];
            put_guard(a, n);
            k.rmsnorm(a, a, b, 1e-6f, n);
            check(a, d, n, 1e-6f, 0);
        }
    }
}

static void geglu_equals_the_formula(void **state)
{
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int l = 0; l < N_LENGTHS; l++) {
            int n = length(l);

            fill(a, n, l % 2 ? 9 : 300);
            fill(b, n, 2);
            for (int i = 0; i < n; i++) {
                double x = a[i], u = 0.79788456080286536 * (x + 0.044715 * x * x * x);

                d[i] = (float)(0.5 * x * (1 + tanh(u)) * b[i]);
            }
            put_guard(c, n);
            k.geglu(c, a, b, n);
            /* The tail left of -3 is what is left of 1 - 1 in float: bounded against |x|. */
            for (int i = 0; i < n; i++) {
                float bound = 1e-6f * (fabsf(a[i] * b[i]) * 0.5f + fabsf(d[i]));

                if (!(fabsf(c[i] - d[i]) <= bound))
                    fail_msg(
                        "isa=%d x=%g: %g, want %g", isa, (double)a[i], (double)c[i], (double)d[i]);
            }
            check(c, c, n, 0, 0);
            memcpy(d, c, sizeof(d));
            put_guard(a, n);
            k.geglu(a, a, b, n); /* in place */
            check(a, d, n, 0, 0);
        }
    }
}

static void softcap_equals_the_formula(void **state)
{
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int l = 0; l < N_LENGTHS; l++) {
            int n = length(l);
            float cap = l % 2 ? 30.0f : 50.0f;

            fill(a, n, l % 3 ? 100 : 5000);
            for (int i = 0; i < n; i++)
                d[i] = (float)(cap * tanh((double)a[i] / cap));
            put_guard(a, n);
            k.softcap(a, cap, n);
            check(a, d, n, 6e-7f, 0);
        }
    }
}

static void rope_equals_the_formula(void **state)
{
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int half = 0; half <= 256; half++) {
            int n = 2 * half;

            fill(a, n, 4);
            fill(b, n, 1); /* cosines, then sines */
            for (int i = 0; i < half; i++) {
                double x = a[i], y = a[i + half];

                d[i] = (float)(x * b[i] - y * b[half + i]);
                d[i + half] = (float)(y * b[i] + x * b[half + i]);
            }
            put_guard(a, n);
            k.rope(a, b, b + half, n);
            check(a, d, n, 3e-7f, 4);
        }
    }
}

static void argmax_takes_the_first_largest(void **state)
{
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int l = 1; l < N_LENGTHS; l++) {
            int n = length(l), at = (int)(fabsf(random_float()) * (float)n) % n;

            fill(a, n, 5);
            a[at] = 9;
            assert_int_equal(k.argmax(a, n), at);
            a[n - 1] = 9; /* a tie, or the same place */
            assert_int_equal(k.argmax(a, n), at);
            a[n / 2] = 9;
            assert_int_equal(k.argmax(a, n), at < n / 2 ? at : n / 2);
            for (int i = 0; i < n; i++)
                a[i] = -INFINITY;
            assert_int_equal(k.argmax(a, n), 0);
            a[at] = -3e38f;
            assert_int_equal(k.argmax(a, n), at);
            for (int i = 0; i < at; i++)
                a[i] = NAN; /* never the largest */
            assert_int_equal(k.argmax(a, n), at);
        }
        assert_int_equal(k.argmax(a, 0), 0);
    }
}

static void sum_exp_equals_the_formula(void **state)
{
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int l = 0; l < N_LENGTHS; l++) {
            int n = length(l);
            double sum = 0;
            float max = -INFINITY, got;

            fill(a, n, l % 2 ? 10 : 100);
            if (n > 3)
                a[2] = -INFINITY; /* a token a grammar forbids */
            for (int i = 0; i < n; i++)
                max = fmaxf(max, a[i]);
            for (int i = 0; i < n; i++)
                sum += exp((double)a[i] - (double)max);
            got = k.sum_exp(a, max, n);
            if (!(fabs(got - sum) <= 1e-6 * sum))
                fail_msg("isa=%d n=%d: %.9g, want %.9g", isa, n, (double)got, sum);
        }
    }
}

/* What a draw leaves rows out by must never be too small. */
static void noise_stays_below_its_bounds(void **state)
{
    enum { N_PANELS = 100 };
    float bounds[N_PANELS];
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (uint64_t key = 1; key < 200; key++) {
            const uint64_t seed = key * 0x9e3779b97f4a7c15u;

            k.noise_bounds(bounds, seed, 5, N_PANELS);
            for (uint32_t p = 0; p < N_PANELS; p++) {
                const double panel = noise_panel(seed, p + 5);
                int at_most = 0;

                assert_true(panel <= (double)bounds[p]);
                /* w stands for -ln(1 - w), which is near where it matters */
                assert_true(bounds[p] < 4 || panel >= (double)bounds[p] - 0.3);
                for (uint32_t row = 0; row < NOISE_ROWS; row++) {
                    const double noise = noise_row(seed, (p + 5) * NOISE_ROWS + row, panel);

                    assert_true(noise <= panel);
                    at_most += noise == panel;
                }
                assert_int_equal(at_most, 1);
            }
        }
    }
}

/* Gumbel numbers: P(G <= x) = exp(-exp(-x)), in each of a panel's places. */
static void noise_is_distributed_as_it_should_be(void **state)
{
    enum { KEYS = 2000 };
    static const double at[] = {-1.5, -1, 0, 1, 2, 4};

    for (uint32_t row = 0; row < NOISE_ROWS; row++) {
        int below[6] = {0};

        for (uint64_t key = 0; key < KEYS; key++) {
            const uint64_t seed = key * 0xd1342543de82ef95u;
            const double noise = noise_row(seed, 160 + row, noise_panel(seed, 10));

            for (int i = 0; i < 6; i++)
                below[i] += noise <= at[i];
        }
        for (int i = 0; i < 6; i++) {
            const double p = exp(-exp(-at[i])), sigma = sqrt(p * (1 - p) * KEYS);

            if (!(fabs(below[i] - p * KEYS) <= 4.5 * sigma))
                fail_msg("row %u: %d of %d are at most %g, want %.0f +- %.0f", row, below[i], KEYS,
                    at[i], p * KEYS, sigma);
        }
    }
}

static void noisy_largest_equals_the_formula(void **state)
{
    float bounds[MAX_N / NOISE_ROWS + 1];
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (int l = 0; l < N_LENGTHS; l++) {
            int n = length(l);
            float want = -INFINITY;

            fill(a, n, 10);
            fill(bounds, n / NOISE_ROWS + 1, 5);
            if (n > 3)
                a[2] = NAN; /* never the largest */
            for (int i = 0; i < n; i++)
                want = fmaxf(want, 1.25f * a[i] + bounds[i / NOISE_ROWS]);
            assert_true(k.noisy_largest(a, bounds, 1.25f, n) == want);
        }
    }
}

/* exp itself, seen through a sum of one term. */
static void exp_is_good_to_22_bits(void **state)
{
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        for (float x = -87.2f; x < 0; x += 0.0037f) {
            double want = exp((double)x);

            if (!(fabs(k.sum_exp(&x, 0, 1) - want) <= 0x1p-22 * want))
                fail_msg("isa=%d exp(%.9g): %.9g, want %.9g", isa, (double)x,
                    (double)k.sum_exp(&x, 0, 1), want);
        }
        assert_true(k.sum_exp(&(float){0}, 0, 1) == 1.0f);
        assert_true(k.sum_exp(&(float){-200}, 0, 1) == 0);
        assert_true(k.sum_exp(&(float){-INFINITY}, 3, 1) == 0);
        assert_true(isnan(k.sum_exp(&(float){NAN}, 3, 1)));
    }
}

/* Threads cut a row where they like: the bits stay the same. */
static void a_row_may_be_cut_anywhere(void **state)
{
    enum { N = 257 };
    struct kernels k;

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (!level_init(&k, isa))
            continue;
        fill(a, N, 6);
        fill(b, N, 2);
        for (int cut = 0; cut <= N; cut++) {
            k.geglu(c, a, b, N);
            k.geglu(d, a, b, cut);
            k.geglu(d + cut, a + cut, b + cut, N - cut);
            assert_memory_equal(c, d, N * sizeof(float));
            memcpy(c, a, sizeof(c));
            memcpy(d, a, sizeof(d));
            k.softcap(c, 5, N);
            k.softcap(d, 5, cut);
            k.softcap(d + cut, 5, N - cut);
            assert_memory_equal(c, d, N * sizeof(float));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise_equals_c_bit_for_bit),
        cmocka_unit_test(rmsnorm_equals_the_formula),
        cmocka_unit_test(geglu_equals_the_formula),
        cmocka_unit_test(softcap_equals_the_formula),
        cmocka_unit_test(rope_equals_the_formula),
        cmocka_unit_test(argmax_takes_the_first_largest),
        cmocka_unit_test(sum_exp_equals_the_formula),
        cmocka_unit_test(noise_stays_below_its_bounds),
        cmocka_unit_test(noise_is_distributed_as_it_should_be),
        cmocka_unit_test(noisy_largest_equals_the_formula),
        cmocka_unit_test(exp_is_good_to_22_bits),
        cmocka_unit_test(a_row_may_be_cut_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
