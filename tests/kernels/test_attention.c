/* Attention against the formula in double precision, on every instruction set and page type; and
 * what the pages give back. */
#include "attention_fixture.h"

static double as(enum kv_type type, float x)
{
    return type == KV_BF16 ? (double)bf16_to_f32(f32_to_bf16(x)) : (double)x;
}

/* bf16 dot products take queries and probabilities rounded to bf16. */
static bool rounds_factors(const struct fixture *f, const struct kernels *k)
{
    return f->kv.type == KV_BF16 && k->bf16;
}

static void round_all(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = bf16_to_f32(f32_to_bf16(x[i]));
}

/* One query, its head at pos. Returns the largest sum of |q * k| * scale, which the rounding of a
 * score grows with. */
static double formula(const struct fixture *f, const float *q, int pos, int head, double *out)
{
    const struct attention_spec *s = &f->spec;
    int kv_head = head / (s->n_heads / s->n_kv_heads), n = s->head_dim;
    int first = s->window > 0 && pos >= s->window ? pos - s->window + 1 : 0;
    int last = pos;

    if (f->n_keys > 0)
        last = s->window > 0 && pos + s->window < f->n_keys ? pos + s->window - 1 : f->n_keys - 1;

    double *p = xcalloc((size_t)last + 1, sizeof(double)), max = -INFINITY, sum = 0, size = 0;

    for (int i = first; i <= last; i++) {
        size_t at = ((size_t)i * (size_t)s->n_kv_heads + (size_t)kv_head) * (size_t)n;
        double absolute = 0;

        for (int d = 0; d < n; d++) {
            double product = (double)q[d] * f->k[at + (size_t)d] * s->scale;

            p[i] += product;
            absolute += fabs(product);
        }
        size = fmax(size, absolute);
        if (s->softcap > 0)
            p[i] = s->softcap * tanh(p[i] / s->softcap);
        max = fmax(max, p[i]);
    }
    memset(out, 0, (size_t)n * sizeof(double));
    for (int i = first; i <= last; i++) {
        size_t at = ((size_t)i * (size_t)s->n_kv_heads + (size_t)kv_head) * (size_t)n;

        p[i] = exp(p[i] - max);
        sum += p[i];
        for (int d = 0; d < n; d++)
            out[d] += p[i] * f->v[at + (size_t)d];
    }
    for (int d = 0; d < n; d++)
        out[d] /= sum;
    free(p);
    return size;
}

static void check_row(const struct fixture *f, const struct kernels *k, const float *out, int pos)
{
    int n = f->spec.head_dim;
    double want[512];
    float q[512];

    for (int h = 0; h < f->spec.n_heads; h++) {
        size_t at = ((size_t)pos * (size_t)f->spec.n_heads + (size_t)h) * (size_t)n;
        const float *got = out + at;

        /* Values reach 3; 2^-22 of a score's terms for its sum, 1e-6 for exp and sum over keys;
         * bf16 probabilities are off by 2^-9, some up, some down. */
        memcpy(q, f->q + at, (size_t)n * sizeof(float));
        if (rounds_factors(f, k))
            round_all(q, (size_t)n);

        double size = formula(f, q, pos, h, want);
        double bound = 3 * (1e-6 + 0x1p-22 * size + (rounds_factors(f, k) ? 0x1p-9 : 0));

        for (int d = 0; d < n; d++) {
            if (!(fabs(got[d] - want[d]) <= bound))
                fail_msg("%s pages %d heads %d/%d dim %d window %d cap %g pos %d head %d [%d]: "
                         "%.9g, want %.9g",
                    isa_name(k->isa), f->kv.type, f->spec.n_heads, f->spec.n_kv_heads, n,
                    f->spec.window, (double)f->spec.softcap, pos, h, d, (double)got[d], want[d]);
        }
    }
}

static const int pasts[] = {0, 1, 15, 16, 30, 63, 64, 65, 127, 200, 511, 512, 513, 700, 1087, 1300};
enum { N_PASTS = sizeof(pasts) / sizeof(pasts[0]) };

/* A decode step at each past, then rows of a chunk, then queries that see both ways. */
static void check_level(
    const struct attention_spec *spec, enum kv_type type, const struct kernels *k)
{
    int n_pos = pasts[N_PASTS - 1] + 1;
    struct fixture f;

    fixture_open(&f, spec, type, n_pos);

    if (type == KV_BF16) { /* what pages keep exactly */
        size_t n = (size_t)n_pos * (size_t)spec->n_kv_heads * (size_t)spec->head_dim;

        round_all(f.k, n);
        round_all(f.v, n);
    }

    float *out = xcalloc((size_t)n_pos * (size_t)spec->n_heads * (size_t)spec->head_dim, 4);

    fixture_clear(&f, 1);
    for (int i = 0; i < N_PASTS; i++) {
        fixture_write(&f, k, i == 0 ? 0 : pasts[i - 1] + 1, pasts[i] + 1);
        fixture_drop_below(&f, pasts[i]);
        fixture_run(&f, k, out, pasts[i], 1);
        check_row(&f, k, out, pasts[i]);
    }
    fixture_clear(&f, 1);
    fixture_write(&f, k, 0, 80);
    fixture_run(&f, k, out, 3, 77);
    check_row(&f, k, out, 3);
    check_row(&f, k, out, 40);
    check_row(&f, k, out, 79);

    f.n_keys = 600; /* both ways, over a segment's end */
    fixture_clear(&f, 1);
    fixture_write(&f, k, 0, f.n_keys);
    for (int pos = 0; pos < f.n_keys; pos += 75)
        fixture_run(&f, k, out, pos, 75);
    for (int pos = 0; pos < f.n_keys; pos += 41)
        check_row(&f, k, out, pos);
    check_row(&f, k, out, f.n_keys - 1);
    fixture_close(&f);
    free(out);
}

static void check_spec(const struct attention_spec *spec)
{
    struct kernels k;

    for (int level = 0; level < N_LEVELS; level++) {
        if (!level_init(&k, level))
            continue;
        check_level(spec, KV_F32, &k);
        check_level(spec, KV_BF16, &k);
    }
}

static void every_head_size_equals_the_formula(void **state)
{
    static const int dims[] = {2, 8, 16, 32, 48, 64, 74, 80, 96, 128, 256, 512};

    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
        float scale = 1.0f / sqrtf((float)dims[i]);

        check_spec(&(struct attention_spec){1, 1, dims[i], 0, scale, 0});
    }
}

static void every_group_equals_the_formula(void **state)
{
    check_spec(&(struct attention_spec){2, 2, 32, 0, 0.2f, 0});
    check_spec(&(struct attention_spec){2, 1, 32, 0, 0.2f, 0});
    check_spec(&(struct attention_spec){3, 1, 32, 0, 0.2f, 0});
    check_spec(&(struct attention_spec){8, 2, 32, 0, 0.2f, 0});
    check_spec(&(struct attention_spec){8, 1, 32, 0, 0.2f, 0});
    check_spec(&(struct attention_spec){4, 1, 256, 0, 0.0625f, 0});
}

static void windows_and_caps_equal_the_formula(void **state)
{
    check_spec(&(struct attention_spec){2, 1, 32, 1, 0.2f, 0});
    check_spec(&(struct attention_spec){2, 1, 32, 16, 0.2f, 0});
    check_spec(&(struct attention_spec){2, 1, 32, 512, 0.2f, 0});
    check_spec(&(struct attention_spec){2, 1, 32, 0, 0.2f, 50});
    check_spec(&(struct attention_spec){2, 1, 32, 100, 2.0f, 50});
    check_spec(&(struct attention_spec){4, 1, 256, 512, 0.0625f, 0});
}

/* Large scores: one key takes all, and earlier sums vanish without a NaN. */
static void far_apart_scores_do_not_break(void **state)
{
    check_spec(&(struct attention_spec){2, 1, 32, 0, 40.0f, 0});
    check_spec(&(struct attention_spec){2, 1, 32, 0, 0.0f, 0});
}

static void pages_give_back_what_was_written(void **state)
{
    static const enum kv_type types[] = {KV_F32, KV_BF16};
    enum { D = 38 };
    const struct attention_spec spec = {3, 3, D, 0, 1, 0};
    struct kernels k, reader;
    struct fixture f;
    float got_k[3 * D], got_v[3 * D];

    kernels_init(&reader, ISA_C);
    for (int level = 0; level < N_LEVELS; level++) {
        for (int t = 0; t < 2 && level_init(&k, level); t++) {
            fixture_open(&f, &spec, types[t], 130);
            fixture_clear(&f, 2);
            for (int pos = 129; pos >= 0; pos--) /* no order is asked for */
                fixture_write(&f, &k, pos, pos + 1);
            for (int pos = 0; pos < 130; pos++) {
                (pos % 2 ? reader : k).attention.kv_read(&f.kv, pos, got_k, got_v);
                for (int i = 0; i < 3 * D; i++) {
                    size_t at = (size_t)pos * 3 * D + (size_t)i;

                    assert_true((double)got_k[i] == as(types[t], f.k[at]));
                    assert_true((double)got_v[i] == as(types[t], f.v[at]));
                }
            }
            fixture_close(&f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_give_back_what_was_written),
        cmocka_unit_test(every_head_size_equals_the_formula),
        cmocka_unit_test(every_group_equals_the_formula),
        cmocka_unit_test(windows_and_caps_equal_the_formula),
        cmocka_unit_test(far_apart_scores_do_not_break),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
