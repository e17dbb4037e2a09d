/* bench_matmul.c - speed of the matrix products on one thread, one `name value unit` line each.
 *
 * usage: bench_matmul [isa [type [precise]]]     isa: c, avx2, avxvnni, avx512, neon or auto; type:
 * as Q4_K
 *
 * Per type: 512 columns on weights that stay in cache (GOPS, a multiplication and an addition are
 * two), a few columns on weights that do not, the time of one column relative to a plain read of
 * the same memory taken beside it, and the speed of packing. Each figure is the best of some
 * repetitions within a fixed time. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../kernels/matmul_data.h"

enum { K = 1024, FEW_ROWS = 2048, MANY_ROWS = 65536, MANY_COLS = 512 };

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* others may share the machine */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct job {
    const struct kernels *k;
    const struct matrix *m;
    struct act a;
    float *y;
    uint8_t *packed;
};

static void multiply(struct job *j)
{
    j->k->matmul.run(&j->m->w, &j->a, j->y, (size_t)j->m->w.rows, 0, j->m->w.n_panels);
}

static void multiply_blas(struct job *j)
{
    static void *scratch;

    if (!scratch)
        scratch = mem_aligned(matmul_blas_scratch(K));
    if (scratch)
        matmul_blas(&j->m->w, &j->a, j->y, (size_t)j->m->w.rows, 0, j->m->w.n_panels, scratch);
}

static void pack(struct job *j)
{
    wmat_pack(&j->m->w, j->packed, j->m->rows, 0, j->m->w.n_panels);
}

/* Reads the packed matrix once, eight lines at a time. */
static void plain_read(struct job *j)
{
    typedef uint64_t line __attribute__((vector_size(64)));
    const line *p = (const line *)j->m->packed;
    const size_t n = wmat_bytes(&j->m->w) / sizeof(line);
    line sum[8] = {0};
    volatile uint64_t sink;

    for (size_t i = 0; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            sum[l] ^= p[i + l];
    for (int l = 1; l < 8; l++)
        sum[0] ^= sum[l];
    sink = sum[0][0];
    (void)sink;
}

/* Best times of one or two functions, taken in turns so that both see the same machine. */
static void best(struct job *j, void (*f)(struct job *), void (*g)(struct job *), double out[2])
{
    const double start = now();

    out[0] = out[1] = 1e9;
    do {
        double t0 = now(), t1, t2;

        f(j);
        t1 = now();
        if (g)
            g(j);
        t2 = now();
        out[0] = t1 - t0 < out[0] ? t1 - t0 : out[0];
        out[1] = t2 - t1 < out[1] ? t2 - t1 : out[1];
    } while (now() - start < 0.15);
}

static void line(const struct job *j, const char *what, double value, const char *unit)
{
    printf("matmul.%s.%s.%s %.4g %s\n", isa_name(j->k->isa), j->m->w.type->name, what, value, unit);
    fflush(stdout);
}

static void set_columns(struct job *j, enum act_kind kind, int n_cols)
{
    float *x = random_columns(n_cols, K);

    j->a = prepare(j->k, kind, x, n_cols, K);
    free(x);
    j->y = malloc((size_t)n_cols * (size_t)j->m->w.rows * sizeof(float));
    if (!j->y)
        abort();
}

static void drop_columns(struct job *j)
{
    act_free(&j->a);
    free(j->y);
}

static void bench_type(const struct kernels *k, enum dtype type, enum precision precision)
{
    static const int few[] = {2, 4, 8, 16};
    const enum act_kind kind = matmul_act(k, dtype_find(type), precision);
    struct matrix m = matrix_random(type, FEW_ROWS, K, ORDINARY);
    struct job j = {.k = k, .m = &m};
    const double ops = 2.0 * FEW_ROWS * K * MANY_COLS;
    double t[2], one;
    char name[32];

    set_columns(&j, kind, MANY_COLS);
    best(&j, multiply, NULL, t);
    line(&j, "cols512", ops / t[0] * 1e-9, "GOPS");
    drop_columns(&j);
    set_columns(&j, ACT_F32, MANY_COLS);
    if (kind != ACT_F32) {
        best(&j, multiply, NULL, t);
        line(&j, "f32_cols512", ops / t[0] * 1e-9, "GOPS");
    }
    best(&j, multiply_blas, NULL, t);
    line(&j, "blas_cols512", ops / t[0] * 1e-9, "GOPS");
    drop_columns(&j);
    matrix_free(&m);

    m = matrix_random(type, MANY_ROWS, K, ORDINARY);
    set_columns(&j, kind, 1);
    best(&j, multiply, plain_read, t);
    one = t[0];
    line(&j, "cols1", (double)wmat_bytes(&m.w) / t[0] * 1e-9, "GB/s");
    line(&j, "cols1_over_read", t[0] / t[1], "ratio");
    drop_columns(&j);
    for (int i = 0; i < 4; i++) {
        set_columns(&j, kind, few[i]);
        best(&j, multiply, NULL, t);
        snprintf(name, sizeof(name), "cols%d_over_cols1", few[i]);
        line(&j, name, t[0] / one, "ratio");
        drop_columns(&j);
    }
    j.packed = mem_aligned(wmat_bytes(&m.w));
    if (!j.packed)
        abort();
    memset(j.packed, 1, wmat_bytes(&m.w));
    best(&j, pack, NULL, t);
    line(&j, "pack", (double)wmat_bytes(&m.w) / t[0] * 1e-9, "GB/s");
    mem_aligned_free(j.packed, wmat_bytes(&m.w));
    matrix_free(&m);
}

/* Preparing one column of every kind. */
static void bench_fill(const struct kernels *k)
{
    static const char *const names[] = {"f32", "q8", "q16", "bf16", "bf16x2"};
    enum { N = 1 << 16 };
    float *x = random_columns(1, N);

    for (int kind = 0; kind < ACT_KINDS; kind++) {
        struct act a = prepare(k, kind, x, 1, N);
        const double start = now();
        int n = 0;

        for (; now() - start < 0.05; n++)
            k->matmul.act_fill(&a, 0, x);
        printf("act_fill.%s.%s %.4g Gvalues/s\n", isa_name(k->isa), names[kind],
            (double)N * n / (now() - start) * 1e-9);
        act_free(&a);
    }
    free(x);
}

int main(int argc, char **argv)
{
    const int isa = isa_parse(argc > 1 ? argv[1] : "auto");
    struct kernels k;

    if (isa < 0 || !kernels_has(isa)) {
        fprintf(stderr, "usage: bench_matmul [isa [type [precise]]]\n");
        return 2;
    }
    kernels_init(&k, isa);
    bench_fill(&k);
    for (int t = 0; t < N_TYPES; t++)
        if (argc < 3 || strcmp(argv[2], dtype_find(all_types[t])->name) == 0)
            bench_type(&k, all_types[t], argc > 3 ? PRECISION_PRECISE : PRECISION_DEFAULT);
    return 0;
}
