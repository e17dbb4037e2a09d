/* guard_peaks.c - a plain read of memory and a chain-free loop of dot products. */
#include "guard_peaks.h"

#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"

enum {
    READS = 4,
    AHEAD = 64 /* lines: a page, beyond which the hardware does not look */,
    DOTS = 1 << 20,
    LANES = 12
};

struct work {
    const uint8_t *data;
    size_t bytes;
    uint64_t (*dots)(void);
    double ops; /* of one dots() */
};

static void keep(uint64_t x)
{
    volatile uint64_t sink = x;

    (void)sink;
}

static void read_share(void *arg, int thread, int n_threads)
{
    typedef uint64_t line __attribute__((vector_size(64)));
    const struct work *w = arg;
    const line *p = (const line *)w->data;
    line sum[8] = {0};
    int first, last;

    pool_share((int)(w->bytes / sizeof(line) / 8), thread, n_threads, &first, &last);
    for (int r = 0; r < READS; r++)
        for (size_t i = (size_t)first * 8; i < (size_t)last * 8; i += 8)
            for (int l = 0; l < 8; l++) {
                __builtin_prefetch(p + i + AHEAD + l);
                sum[l] += p[i + (size_t)l];
            }
    for (int l = 1; l < 8; l++)
        sum[0] += sum[l];
    keep(sum[0][0]);
}

double peak_read(struct pool *p, const void *data, size_t bytes)
{
    struct work w = {.data = data, .bytes = bytes};
    int64_t start = clock_ns();

    pool_run(p, read_share, &w);
    return (double)bytes * READS * 1e9 / (double)(clock_ns() - start);
}

/* LANES sums that do not wait for each other. The empty asm keeps the compiler from computing the
 * same product once. */
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) static uint64_t dots_avx512(void)
{
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5), sum[LANES];

    for (int l = 0; l < LANES; l++)
        sum[l] = _mm512_setzero_si512();
    for (int i = 0; i < DOTS; i++) {
        __asm__ volatile("" : "+v"(a));
        for (int l = 0; l < LANES; l++)
            sum[l] = _mm512_dpbusd_epi32(sum[l], a, b);
    }
    for (int l = 1; l < LANES; l++)
        sum[0] = _mm512_add_epi32(sum[0], sum[l]);
    return (uint64_t)_mm512_reduce_add_epi32(sum[0]);
}

__attribute__((target("avx2,avxvnni"))) static uint64_t dots_avxvnni(void)
{
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5), sum[LANES];

    for (int l = 0; l < LANES; l++)
        sum[l] = _mm256_setzero_si256();
    for (int i = 0; i < DOTS; i++) {
        __asm__ volatile("" : "+x"(a));
        for (int l = 0; l < LANES; l++) {
            sum[l] = _mm256_dpbusd_avx_epi32(sum[l], a, b);
            __asm__ volatile("" : "+x"(sum[l])); /* gcc 12 would copy it to memory */
        }
    }
    for (int l = 1; l < LANES; l++)
        sum[0] = _mm256_add_epi32(sum[0], sum[l]);
    return (uint64_t)_mm256_extract_epi64(sum[0], 0);
}

__attribute__((target("avx2"))) static uint64_t dots_avx2(void)
{
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5), one = _mm256_set1_epi16(1),
            sum[LANES];

    for (int l = 0; l < LANES; l++)
        sum[l] = _mm256_setzero_si256();
    for (int i = 0; i < DOTS; i++)
        for (int l = 0; l < LANES; l++) {
            __asm__ volatile("" : "+x"(a));
            sum[l] = _mm256_add_epi32(sum[l], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), one));
        }
    for (int l = 1; l < LANES; l++)
        sum[0] = _mm256_add_epi32(sum[0], sum[l]);
    return (uint64_t)_mm256_extract_epi64(sum[0], 0);
}
#endif

enum { PLAIN = 4096, PLAIN_ROUNDS = 4096 };

static uint64_t dots_plain(void)
{
    static int8_t x[PLAIN], y[PLAIN];
    int32_t sum = 0;

    for (int r = 0; r < PLAIN_ROUNDS; r++) {
        __asm__ volatile("" : : "r"(x), "r"(y) : "memory");
        for (int i = 0; i < PLAIN; i++)
            sum += x[i] * y[i];
    }
    return (uint64_t)sum;
}

static void dot_share(void *arg, int thread, int n_threads)
{
    const struct work *w = arg;

    keep(w->dots());
}

double peak_dot(struct pool *p, enum isa isa)
{
    struct work w = {.dots = dots_plain, .ops = 2.0 * PLAIN * PLAIN_ROUNDS};
    int64_t start = clock_ns();

#if defined(__x86_64__)
    if (isa == ISA_AVX512)
        w = (struct work){.dots = dots_avx512, .ops = 2.0 * 64 * LANES * DOTS};
    else if (isa == ISA_AVXVNNI)
        w = (struct work){.dots = dots_avxvnni, .ops = 2.0 * 32 * LANES * DOTS};
    else if (isa == ISA_AVX2)
        w = (struct work){.dots = dots_avx2, .ops = 2.0 * 32 * LANES * DOTS};
#endif
    pool_run(p, dot_share, &w);
    return w.ops * pool_threads(p) * 1e9 / (double)(clock_ns() - start);
}
