/* bench.c - gemmad bench: prefill, decode and batched decode in tokens per second. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "api/write.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/tool.h"
#include "engine/plain.h"
#include "engine/sampler.h"
#include "kernels/dtype.h"

static const char usage[] =
    "usage: gemmad bench [options] MODEL\n\n"
    "Measures prefill, decode and batched decode in tokens per second: minimum, median and "
    "maximum\n"
    "of the repeats, after one that is not counted. Decode draws each token as a request with "
    "these\n"
    "settings does.\n\n"
    "  --prompt N         tokens of the prompt, 0 = no prefill test (512)\n"
    "  --gen N            tokens decoded per repeat, 0 = no decode test (64)\n"
    "  --depth N          tokens already in the cache when decoding starts (0)\n"
    "  --batch LIST       sequences decoded together, e.g. 1,8 (1)\n"
    "  --repeat N         counted repeats (5)\n"
    "  --temperature T    0 = the most likely token (1)\n"
    "  --top_k K          of the K most likely ones, 0 = of all (0)\n"
    "  --top_p P          of the most likely ones that have the share P together (1)\n"
    "  --packed_file FILE keep the packed weights in FILE, or take them from it\n"
    "  --json             one JSON object instead of a table, with the file's tensor types (bytes\n"
    "                     of each), the settings and the peak of resident memory\n" TOOL_OPTIONS
    "\nExit codes: 0 done, 1 failed, 2 bad arguments or model.";

enum { MAX_BATCHES = 16, MAX_REPEAT = 1000, CHUNK = 512 };

struct bench {
    struct runtime_opts ro;
    int prompt, gen, depth, repeat, batches[MAX_BATCHES], n_batches;
    struct sampling sampling;
    bool json;
};

struct figure {
    double *values;
    int n;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(
    const struct bench *b, const char *name, int n_tokens, int batch, struct figure *f, bool first)
{
    double median;

    qsort(f->values, (size_t)f->n, sizeof(*f->values), by_value);
    median = f->n % 2 ? f->values[f->n / 2] : (f->values[f->n / 2 - 1] + f->values[f->n / 2]) / 2;
    if (b->json)
        printf("%s\n    {\"test\": \"%s\", \"tokens\": %d, \"depth\": %d, \"batch\": %d, \"min\": "
               "%.2f, \"median\": %.2f, "
               "\"max\": %.2f}",
            first ? "" : ",", name, n_tokens, strcmp(name, "decode") ? 0 : b->depth, batch,
            f->values[0], median, f->values[f->n - 1]);
    else
        printf("%-8s %5d tokens  batch %2d  %9.1f t/s median  %9.1f min  %9.1f max\n", name,
            n_tokens, batch, median, f->values[0], f->values[f->n - 1]);
    fflush(stdout);
}

/* A run of ids that looks like text to nobody, the same each time. */
static int32_t *some_ids(const struct runtime *rt, int n)
{
    int32_t *ids = xcalloc((size_t)n + 1, sizeof(*ids));
    uint32_t x = 1;

    for (int i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        ids[i] = (int32_t)(x >> 8) % rt->hp.vocab;
    }
    return ids;
}

static int bench_prefill(
    const struct bench *b, struct runtime *rt, struct figure *f, struct err *err)
{
    int32_t *ids = some_ids(rt, b->prompt);
    float *logits = xcalloc((size_t)rt->hp.vocab, sizeof(*logits));
    int chunk = rt->decode ? CHUNK : b->prompt; /* an embedding is of a whole sequence */
    struct plain_kv kv;
    int r = plain_kv_create(&kv, rt, 1, b->prompt, err);

    for (int i = -1; r == 0 && i < b->repeat; i++) {
        int64_t t = clock_ns();

        plain_feed(rt, &kv, 0, 0, ids, b->prompt, chunk, logits);
        if (i >= 0)
            f->values[i] = b->prompt * 1e9 / (double)(clock_ns() - t);
    }
    if (r == 0)
        plain_kv_free(&kv);
    free(logits);
    free(ids);
    return r;
}

/* What runs give of each sequence's logits. */
struct wanted {
    struct shortlist *lists;
    struct logit *best;
    float *rows;
    struct sampler *sampler;
};

static struct wanted wanted_create(const struct runtime *rt, int batch)
{
    const size_t n = (size_t)batch;
    struct wanted w = {
        .lists = xcalloc(n, sizeof(*w.lists)),
        .best = xcalloc(n * SHORTLIST_MAX, sizeof(*w.best)),
        .rows = xcalloc(n * (size_t)rt->hp.vocab, sizeof(*w.rows)),
        .sampler = sampler_create(&rt->kernels, rt->hp.vocab),
    };

    for (size_t i = 0; i < n; i++)
        w.lists[i].best = w.best + i * SHORTLIST_MAX;
    return w;
}

static void wanted_free(struct wanted *w)
{
    sampler_destroy(w->sampler);
    free(w->rows);
    free(w->best);
    free(w->lists);
}

static void decode_once(const struct bench *b, struct runtime *rt, struct plain_kv *kv,
    const struct wanted *w, int batch, int *past, int32_t *next)
{
    struct sampler_input in = {.params = &b->sampling};
    struct shortlist *lists = w->lists;

    for (int i = 0; i < batch; i++) {
        past[i] = b->depth;
        next[i] = i + 2;
    }
    for (in.n_tokens = 0; in.n_tokens < b->gen; in.n_tokens++) {
        for (in.choice = 0; in.choice < batch; in.choice++)
            if (!sampler_shortlist(&in, rt->hp.vocab, &w->lists[in.choice]))
                lists = NULL; /* the same for all */
        plain_decode_best(rt, kv, past, next, batch, w->rows, lists);
        for (in.choice = 0; in.choice < batch; in.choice++) {
            float *row = w->rows + (size_t)in.choice * (size_t)rt->hp.vocab;

            next[in.choice] = lists && lists[in.choice].n
                                  ? sampler_pick_from(w->sampler, &lists[in.choice], &in)
                                  : sampler_pick(w->sampler, row, &in);
            past[in.choice]++;
        }
    }
}

static int bench_decode(
    const struct bench *b, struct runtime *rt, int batch, struct figure *f, struct err *err)
{
    int32_t *ids = some_ids(rt, b->depth), *next = xcalloc((size_t)batch, sizeof(*next));
    int *past = xcalloc((size_t)batch, sizeof(*past));
    struct wanted w = wanted_create(rt, batch);
    struct plain_kv kv;
    int r = plain_kv_create(&kv, rt, batch, b->depth + b->gen, err);

    for (int s = 0; r == 0 && s < batch; s++)
        plain_feed(rt, &kv, s, 0, ids, b->depth, CHUNK, NULL);
    for (int i = -1; r == 0 && i < b->repeat; i++) {
        int64_t t = clock_ns();

        decode_once(b, rt, &kv, &w, batch, past, next);
        if (i >= 0)
            f->values[i] = (double)b->gen * batch * 1e9 / (double)(clock_ns() - t);
    }
    if (r == 0)
        plain_kv_free(&kv);
    wanted_free(&w);
    free(past);
    free(next);
    free(ids);
    return r;
}

/* Bytes of the file by type of tensor: {"F32": 1024, "Q8_0": 4096}. */
static void write_types(struct buf *out, const struct source *src)
{
    enum { TYPES = 64 };
    size_t bytes[TYPES] = {0};
    const char *comma = "";

    for (size_t i = 0; i < source_n_tensors(src); i++) {
        const struct tensor *t = source_tensor_at(src, i);

        if (t->type < TYPES)
            bytes[t->type] += t->bytes;
    }
    for (uint32_t type = 0; type < TYPES; type++) {
        if (!bytes[type] || !dtype_name(type))
            continue;
        buf_printf(out, "%s\"%s\": %zu", comma, dtype_name(type), bytes[type]);
        comma = ", ";
    }
}

static void print_opened(const struct bench *b, const struct runtime *rt, double load_ms)
{
    struct buf out = {0};

    if (!b->json) {
        printf("%s, %d layers, %.0f MiB of weights, %s, %d threads, loaded in %.0f ms\n",
            rt->hp.name, rt->hp.n_layers, (double)rt->weight_bytes / (1 << 20),
            isa_name(rt->kernels.isa), pool_threads(rt->pool), load_ms);
        return;
    }
    buf_printf(&out, "{\"model\": \"%s\", \"name\": ", rt->hp.arch_name);
    write_string(&out, rt->hp.name, strlen(rt->hp.name));
    buf_puts(&out, ", \"path\": ");
    write_string(&out, b->ro.model_path, strlen(b->ro.model_path));
    buf_puts(&out, ", \"types\": {");
    write_types(&out, rt->src);
    buf_printf(&out,
        "}, \"parameters\": %lld, \"weight_bytes\": %zu,\n  \"isa\": \"%s\", \"threads\": %d, "
        "\"profile\": \"%s\", \"kv_type\": \"%s\", \"load_ms\": %.1f, \"repeat\": %d,\n"
        "  \"results\": [",
        (long long)rt->n_params, rt->weight_bytes, isa_name(rt->kernels.isa),
        pool_threads(rt->pool), rt->profile, rt->kv.type == KV_BF16 ? "bf16" : "f32", load_ms,
        b->repeat);
    fputs(out.data, stdout);
    buf_free(&out);
}

/* How much of the head was read, and how much memory all of it took. */
static void print_end(const struct bench *b, const struct runtime *rt)
{
    int64_t read = 0, whole = 0;
    struct rusage use = {0};

    if (rt->decode)
        graph_head_bytes(rt->decode, &read, &whole);
    getrusage(RUSAGE_SELF, &use);
    if (b->json)
        printf("\n  ], \"temperature\": %g, \"top_k\": %d, \"top_p\": %g, \"head_read\": %.4f, "
               "\"peak_resident_bytes\": %lld}\n",
            b->sampling.temperature, b->sampling.top_k, b->sampling.top_p,
            whole ? (double)read / (double)whole : 1, (long long)use.ru_maxrss * 1024);
    else if (read < whole)
        printf("of the head %.1f %% was read\n", 100 * (double)read / (double)whole);
}

static int run(const struct bench *b, struct err *err)
{
    struct figure f = {.values = xcalloc((size_t)b->repeat, sizeof(double)), .n = b->repeat};
    struct runtime *rt = NULL;
    int64_t t = clock_ns();
    bool first = true;
    int r = runtime_open(&rt, &b->ro, err);

    if (r == 0)
        print_opened(b, rt, (double)(clock_ns() - t) / 1e6);
    if (r == 0 && !rt->decode && b->prompt > graph_max_tokens(rt->prefill))
        r = err_set(err, GD_EINVAL, "an embedding model takes at most %d tokens at once",
            graph_max_tokens(rt->prefill));
    if (r == 0 && b->prompt) {
        r = bench_prefill(b, rt, &f, err);
        if (r == 0)
            print(b, "prefill", b->prompt, 1, &f, first);
        first = false;
    }
    for (int i = 0; r == 0 && rt->decode && b->gen && i < b->n_batches; i++, first = false) {
        r = bench_decode(b, rt, b->batches[i], &f, err);
        if (r == 0)
            print(b, "decode", b->gen, b->batches[i], &f, first);
    }
    if (r == 0)
        print_end(b, rt);
    runtime_close(rt);
    free(f.values);
    return r;
}

/* "1,8,16" */
static int parse_batches(struct bench *b, const char *text)
{
    char *end;

    b->n_batches = 0;
    do {
        long v = strtol(text, &end, 10);

        if (end == text || v < 1 || v > 512 || b->n_batches == MAX_BATCHES)
            return -1;
        b->batches[b->n_batches++] = (int)v;
        if (v > b->ro.max_sequences)
            b->ro.max_sequences = (int)v;
        text = end + 1;
    } while (*end == ',');
    return *end ? -1 : 1;
}

/* 1 taken, 0 another word, -1 wrong (said so). */
static int option(struct bench *b, int argc, char **argv, int *i)
{
    const char *v;

    if (cmd_option(argc, argv, i, "prompt", &v))
        return cmd_int("prompt", v, 0, 1 << 20, &b->prompt) ? 1 : -1;
    if (cmd_option(argc, argv, i, "gen", &v))
        return cmd_int("gen", v, 0, 1 << 20, &b->gen) ? 1 : -1;
    if (cmd_option(argc, argv, i, "depth", &v))
        return cmd_int("depth", v, 0, 1 << 20, &b->depth) ? 1 : -1;
    if (cmd_option(argc, argv, i, "repeat", &v))
        return cmd_int("repeat", v, 1, MAX_REPEAT, &b->repeat) ? 1 : -1;
    if (cmd_option(argc, argv, i, "temperature", &v))
        return cmd_float("temperature", v, 0, 2, &b->sampling.temperature) ? 1 : -1;
    if (cmd_option(argc, argv, i, "top_k", &v))
        return cmd_int("top_k", v, 0, 1 << 20, &b->sampling.top_k) ? 1 : -1;
    if (cmd_option(argc, argv, i, "top_p", &v))
        return cmd_float("top_p", v, 0, 1, &b->sampling.top_p) ? 1 : -1;
    if (cmd_option(argc, argv, i, "packed_file", &v))
        return v ? (b->ro.packed_file = v, 1)
                 : (cmd_usage_error("bench", "--packed_file wants a name"), -1);
    if (cmd_flag(argv[*i], "json"))
        return b->json = true, 1;
    if (cmd_option(argc, argv, i, "batch", &v)) {
        if (v && parse_batches(b, v) > 0)
            return 1;
        cmd_usage_error("bench", "--batch wants numbers from 1 to 512 with commas between");
        return -1;
    }
    return tool_option(argc, argv, i, &b->ro);
}

int cmd_bench(int argc, char **argv)
{
    struct bench b = {.prompt = 512, .gen = 64, .repeat = 5, .batches = {1}, .n_batches = 1};
    struct err err;

    if (cmd_wants_help(argc, argv))
        return puts(usage), EXIT_OK;
    runtime_opts_default(&b.ro);
    sampling_default(&b.sampling);
    b.ro.max_sequences = 1;
    b.ro.max_chunk = CHUNK;
    for (int i = 0; i < argc; i++) {
        int r = option(&b, argc, argv, &i);

        if (r < 0)
            return EXIT_USAGE;
        if (r == 0 && (argv[i][0] == '-' || b.ro.model_path))
            return cmd_usage_error("bench", "unexpected \"%.60s\"", argv[i]);
        if (r == 0)
            b.ro.model_path = argv[i];
    }
    if (!b.ro.model_path)
        return cmd_usage_error("bench", "which model?");
    return run(&b, &err) < 0 ? cmd_fail("bench", &err) : EXIT_OK;
}
