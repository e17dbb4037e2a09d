/* bench_guard.c - has gemmad become slower? Speeds as shares of what the machine can do, compared
 * with stored shares.
 *
 * usage: bench_guard [isa [RATIOS]]     isa: auto, avx2, avx512, ...; RATIOS: guard.txt unless
 * named
 *
 * A figure in tokens per second says little on another machine, or on this one an hour later. Its
 * share of a peak that is measured beside it says more: decoding one sequence reads every weight,
 * so its share is of a plain read of memory; prefill and the decoding of eight sequences multiply,
 * so theirs is of int8 dot products in registers. Peaks and figures are taken in turns, and the
 * median of the rounds' shares counts. The model is made here: guard_model.h.
 *
 * Prints `guard.ISA.FIGURE share ratio` with the stored share and ok, regressed, or "not stored".
 * Exit code: 0, or 1 when a share is less than (1 - MARGIN) of the stored one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/plain.h"
#include "guard_model.h"
#include "guard_peaks.h"

/* Machines drift by 10 to 20 % within minutes; most of it goes into the peak too. */
#define MARGIN 0.2

enum { ROUNDS = 11, PROMPT = 512, GEN = 16, BATCH = 8, READ_BYTES = 256 << 20 };
enum figure { PREFILL, DECODE_1, DECODE_8, FIGURES };

static const char *const names[FIGURES] = {"prefill", "decode_1", "decode_8"};

struct guard {
    struct runtime *rt;
    struct plain_kv kv;
    uint8_t *memory; /* READ_BYTES that nobody else uses */
    float *logits;   /* (BATCH, vocab) */
    int32_t ids[PROMPT];
    double head_params, body_params; /* weights multiplied per token */
    double share[FIGURES][ROUNDS];
};

static int open_guard(struct guard *g, const char *isa, struct err *err)
{
    struct runtime_opts o;
    int fd = guard_model(), r;
    char path[64];

    if (fd < 0)
        return err_set(err, GD_ENOMEM, "no memory for the model");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    runtime_opts_default(&o);
    o.model_path = path;
    o.isa = isa;
    o.max_sequences = BATCH;
    o.max_chunk = PROMPT;
    o.ids_only = true;
    r = runtime_open(&g->rt, &o, err);
    close(fd);
    if (r < 0)
        return r;
    g->memory = mem_aligned(READ_BYTES);
    if (!g->memory)
        return err_set(err, GD_ENOMEM, "no memory to read");
    memset(g->memory, 1, READ_BYTES);
    g->logits = xcalloc((size_t)BATCH * (size_t)g->rt->hp.vocab, sizeof(*g->logits));
    for (int i = 0; i < PROMPT; i++)
        g->ids[i] = i * 7919 % g->rt->hp.vocab;
    g->head_params = (double)g->rt->hp.vocab * g->rt->hp.width;
    g->body_params = (double)g->rt->n_params - g->head_params;
    return plain_kv_create(&g->kv, g->rt, BATCH, PROMPT, err);
}

static void close_guard(struct guard *g)
{
    plain_kv_free(&g->kv);
    runtime_close(g->rt);
    free(g->logits);
    if (g->memory)
        mem_aligned_free(g->memory, READ_BYTES);
}

/* Tokens per second. */
static double prefill(struct guard *g)
{
    int64_t start = clock_ns();

    plain_feed(g->rt, &g->kv, 0, 0, g->ids, PROMPT, PROMPT, g->logits);
    return PROMPT * 1e9 / (double)(clock_ns() - start);
}

static double decode(struct guard *g, int batch)
{
    int64_t start = clock_ns();

    for (int n = 0; n < GEN; n++) {
        int past[BATCH];

        for (int s = 0; s < batch; s++)
            past[s] = n;
        plain_decode(g->rt, &g->kv, past, g->ids + n, batch, g->logits);
    }
    return (double)GEN * batch * 1e9 / (double)(clock_ns() - start);
}

static void measure(struct guard *g)
{
    const enum isa isa = g->rt->kernels.isa;

    for (int i = -1; i < ROUNDS; i++) {
        double all = 2 * (g->body_params + g->head_params);
        double read = peak_read(g->rt->pool, g->memory, READ_BYTES);
        double one = decode(g, 1) * (double)g->rt->weight_bytes / read;
        double dot = peak_dot(g->rt->pool, isa);
        double many = decode(g, BATCH) * all / dot;
        double prompt = prefill(g) * 2 * g->body_params / dot;

        if (i < 0)
            continue; /* warm-up */
        g->share[PREFILL][i] = prompt;
        g->share[DECODE_1][i] = one;
        g->share[DECODE_8][i] = many;
        if (i == ROUNDS - 1)
            printf("guard.%s.read %.4g GB/s\nguard.%s.dot %.4g TOPS\n", isa_name(isa), read * 1e-9,
                isa_name(isa), dot * 1e-12);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The stored share, 0 when there is none, -1 for a file that is not one. */
static double stored(const char *path, const char *isa, const char *figure)
{
    char line[256], an_isa[32], a_figure[32];
    double value, found = 0;
    FILE *f = fopen(path, "r");

    if (!f)
        return -1;
    while (found >= 0 && fgets(line, sizeof(line), f)) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        if (sscanf(line, "%31s %31s %lf", an_isa, a_figure, &value) != 3 || value <= 0)
            found = -1;
        else if (strcmp(an_isa, isa) == 0 && strcmp(a_figure, figure) == 0)
            found = value;
    }
    fclose(f);
    return found;
}

/* Exit code. */
static int compare(struct guard *g, const char *path)
{
    const char *isa = isa_name(g->rt->kernels.isa);
    int code = 0;

    for (int f = 0; f < FIGURES; f++) {
        double share, before = stored(path, isa, names[f]);
        bool slow;

        qsort(g->share[f], ROUNDS, sizeof(g->share[f][0]), by_value);
        share = g->share[f][ROUNDS / 2];
        if (before < 0) {
            fprintf(stderr, "bench_guard: %s is no file of ratios\n", path);
            return 2;
        }
        slow = share < before * (1 - MARGIN);
        code |= slow;
        printf("guard.%s.%s %.3f ratio  ", isa, names[f], share);
        if (before > 0)
            printf("stored %.3f  %s\n", before, slow ? "regressed" : "ok");
        else
            puts("not stored");
    }
    return code;
}

int main(int argc, char **argv)
{
    static struct guard g;
    struct err err;
    int code = 2;

    if (argc > 3 || isa_parse(argc > 1 ? argv[1] : "auto") < 0) {
        fprintf(stderr, "usage: bench_guard [isa [RATIOS]]\n");
        return 2;
    }
    if (open_guard(&g, argc > 1 ? argv[1] : "auto", &err) < 0) {
        fprintf(stderr, "bench_guard: %s\n", err.msg);
    } else {
        measure(&g);
        code = compare(&g, argc > 2 ? argv[2] : GUARD_RATIOS);
    }
    close_guard(&g);
    return code;
}
