/* bench_attention.c - attention on one core: `name value unit` lines for every instruction set and
 * page type. Decode is one token of Gemma 3 1B at a depth of 4096 over its 26 layers' pages (so
 * that K and V come from memory); prefill is 512 tokens of one layer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "kernels/kernels.h"

enum { DEPTH = 4096, PROMPT = 512, LAYERS = 26 };

static const struct attention_spec spec = {
    .n_heads = 4, .n_kv_heads = 1, .head_dim = 256, .scale = 0.0625f};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float random_float(void)
{
    static uint32_t state = 1;

    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1.0f;
}

struct bench {
    struct kernels k;
    struct kv_view kv;
    uint32_t pages[DEPTH / KV_PAGE];
    float *q, *out;
    size_t bytes;
    void *scratch;
};

static void open_bench(struct bench *b, enum isa isa, enum kv_type type)
{
    size_t layer = kv_layer_bytes(type, 1, spec.head_dim);
    size_t rows = (size_t)PROMPT * (size_t)(spec.n_heads * spec.head_dim);
    float row[256];

    kernels_init(&b->k, isa);
    b->bytes = layer * LAYERS * (DEPTH / KV_PAGE);
    b->kv = (struct kv_view){.type = type,
        .n_kv_heads = 1,
        .head_dim = spec.head_dim,
        .base = mem_aligned(b->bytes),
        .page_stride = layer * LAYERS,
        .pages = b->pages};
    b->q = xcalloc(rows, sizeof(float));
    b->out = xcalloc(rows, sizeof(float));
    b->scratch = mem_aligned(attention_scratch(&spec));
    if (!b->kv.base || !b->scratch)
        exit(1);
    for (uint32_t i = 0; i < DEPTH / KV_PAGE; i++)
        b->pages[i] = i * 37 % (DEPTH / KV_PAGE);
    for (size_t i = 0; i < rows; i++)
        b->q[i] = random_float();
    for (int pos = 0; pos < DEPTH; pos++) {
        for (int i = 0; i < spec.head_dim; i++)
            row[i] = random_float();
        for (int l = 0; l < LAYERS; l++) {
            b->kv.layer_offset = layer * (size_t)l;
            b->k.attention.kv_write(&b->kv, pos, row, row);
        }
    }
}

static void run(struct bench *b, int pos, int n_rows)
{
    struct attention_task t = {.spec = &spec,
        .kv = &b->kv,
        .q = b->q,
        .out = b->out,
        .ld = (size_t)(spec.n_heads * spec.head_dim),
        .pos = pos,
        .n_rows = n_rows,
        .n_heads = spec.n_heads,
        .scratch = b->scratch};

    b->k.attention.run(&t);
}

static double decode(struct bench *b)
{
    double start = now();

    for (int l = 0; l < LAYERS; l++) {
        b->kv.layer_offset = kv_layer_bytes(b->kv.type, 1, spec.head_dim) * (size_t)l;
        run(b, DEPTH - 1, 1);
    }
    return now() - start;
}

static double prefill(struct bench *b)
{
    double start = now();

    for (int pos = 0; pos < PROMPT; pos += ATTENTION_ROWS)
        run(b, pos, ATTENTION_ROWS);
    return now() - start;
}

static double writes(struct bench *b)
{
    double start = now();

    for (int pos = 0; pos < PROMPT; pos++)
        b->k.attention.kv_write(&b->kv, pos, b->q, b->q);
    return now() - start;
}

static double best(double (*f)(struct bench *), struct bench *b, int times)
{
    double least = f(b);

    for (int i = 1; i < times; i++) {
        double t = f(b);

        least = t < least ? t : least;
    }
    return least;
}

int main(void)
{
    static const char *const types[] = {"f32", "bf16"};

    for (int isa = 0; isa < ISA_COUNT; isa++) {
        for (int type = 0; type < 2 && kernels_has((enum isa)isa); type++) {
            static struct bench b;
            int times = isa == ISA_C ? 2 : 20;

            open_bench(&b, (enum isa)isa, (enum kv_type)type);

            const char *level = isa_name((enum isa)isa), *name = types[type];
            double pairs = PROMPT * (PROMPT + 1.0) / 2, flop = pairs * 4 * 4 * spec.head_dim;
            double d = best(decode, &b, times);

            printf("decode_4096_%s_%s %.2f ms\n", level, name, d * 1e3);
            printf("decode_4096_read_%s_%s %.1f GB/s\n", level, name, (double)b.bytes / d * 1e-9);
            printf("prefill_512_%s_%s %.1f GFLOP/s\n", level, name,
                flop / best(prefill, &b, times) * 1e-9);
            printf("kv_write_%s_%s %.0f ns\n", level, name, best(writes, &b, times) / PROMPT * 1e9);
            mem_aligned_free(b.kv.base, b.bytes);
            mem_aligned_free(b.scratch, attention_scratch(&spec));
            free(b.q);
            free(b.out);
        }
    }
    return 0;
}
