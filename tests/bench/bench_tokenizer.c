/* bench_tokenizer.c [MODEL.gguf] - one `name value unit` line for each measurement: processor time
 * of one core, the best of a few runs. Without an argument GEMMAD_TEST_REAL_GGUF, else the demo
 * model. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../model/golden_text.h"
#include "base/utf8.h"
#include "model/source.h"

enum { RUNS = 7 };

static int64_t cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void bench_open(const char *path)
{
    struct source *src;
    struct err err;
    double best = 1e9;

    if (source_open(&src, path, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    for (int run = 0; run < RUNS; run++) {
        struct tokenizer *t;
        int64_t start = cpu_ns();
        double ms;

        if (tokenizer_open(&t, src, &err) < 0) {
            fprintf(stderr, "%s\n", err.msg);
            exit(1);
        }
        ms = (double)(cpu_ns() - start) / 1e6;
        best = ms < best ? ms : best;
        tokenizer_close(t);
    }
    source_close(src);
    printf("tokenizer_open %.1f ms\n", best);
}

static void bench_encode(const struct tokenizer *t, const char *name, const struct buf *text)
{
    struct token_list ids = {0};
    struct err err;
    int64_t best = INT64_MAX;

    for (int run = 0; run < RUNS; run++) {
        int64_t start = cpu_ns(), took;

        ids.n = 0;
        if (tokenizer_encode(t, text->data, text->len, true, &ids, &err) < 0) {
            fprintf(stderr, "%s\n", err.msg);
            exit(1);
        }
        took = cpu_ns() - start;
        best = took < best ? took : best;
    }
    printf("encode_%s %.1f MB/s\n", name, (double)text->len * 1e3 / (double)best);
    token_list_free(&ids);
}

static void bench_decode(const struct tokenizer *t, const struct buf *text)
{
    struct token_list ids = {0};
    struct utf8_stream s = {0};
    struct err err;
    char out[4096];
    size_t bytes = 0;
    int64_t start;

    if (tokenizer_encode(t, text->data, text->len, true, &ids, &err) < 0)
        exit(1);
    start = cpu_ns();
    for (size_t i = 0; i < ids.n; i++) {
        size_t len;
        const char *piece = tokenizer_piece(t, ids.ids[i], &len);

        bytes += utf8_stream_push(&s, piece, len, out);
    }
    printf("decode_mixed %.1f MB/s\n", (double)bytes * 1e3 / (double)(cpu_ns() - start));
    token_list_free(&ids);
}

/* Words that do not come again: what the memory of units met cannot help with. */
static void fresh_words(struct buf *out)
{
    static const char *const syllables[] = {"ba", "con", "der", "est", "ing", "ly", "mo", "ter",
        "pre", "si", "tion", "un", "ver", "wor", "al", "ne"};
    uint32_t x = 1;

    while (out->len < 1 << 20) {
        buf_putc(out, ' ');
        for (int i = 0; i < 4; i++) {
            x = x * 1664525u + 1013904223u;
            buf_puts(out, syllables[x >> 28]);
        }
    }
}

static void repeat(struct buf *out, const char *unit)
{
    buf_clear(out);
    while (out->len < 1 << 20)
        buf_puts(out, unit);
}

static void one_word(struct buf *out)
{
    uint32_t x = 1;

    buf_clear(out);
    while (out->len < 1 << 20) {
        x = x * 1664525u + 1013904223u;
        buf_putc(out, (char)('a' + (x >> 24) % 26));
    }
}

int main(int argc, char **argv)
{
    const char *real = getenv("GEMMAD_TEST_REAL_GGUF");
    const char *path = argc > 1 ? argv[1] : real && *real ? real : DEMO_MODEL;
    cJSON *mixed = golden_load("tokenizer/mixed.json");
    struct tokenizer *t;
    struct buf text = {0};

    bench_open(path);
    t = open_tokenizer(path);
    golden_mixed(mixed, &text);
    bench_encode(t, "mixed", &text);
    bench_decode(t, &text);
    text.len = 600; /* a short prompt */
    bench_encode(t, "short", &text);
    buf_clear(&text);
    fresh_words(&text);
    bench_encode(t, "fresh_words", &text);
    one_word(&text);
    bench_encode(t, "one_word", &text);
    repeat(&text, "a");
    bench_encode(t, "one_letter", &text);
    repeat(&text, " ");
    bench_encode(t, "blanks", &text);
    buf_free(&text);
    cJSON_Delete(mixed);
    tokenizer_close(t);
    return 0;
}
