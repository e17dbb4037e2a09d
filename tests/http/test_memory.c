/* test_memory.c - a per-layer embedding table stays in the file: models whose table has been blown
 * up to 400 MB compute what they did and keep to weights + K/V + 64 MB.
 *
 * A copy of the golden file gets a table of two million rows: its own 512 in front, then a hole in
 * a sparse file, which no id reaches. Reading a hole through a mapping makes pages resident like
 * any other (the last test sees it), so whoever read, copied or repacked the table would be caught.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "client.h"
#include "engine/plain.h"
#include "graph/weights.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif
#else
static const bool sanitized = false;
#endif

enum { N_PROMPT = 90, N_DECODE = 6, CHUNK = 64, GGUF_HEAD = 24, ALIGNMENT = 32 };
static const size_t table_bytes = 400u << 20, allowance = 64u << 20;
static const char table_name[] = "per_layer_token_embd.weight";

static const char *const models[] = {"gemma3n/model-bf16.gguf", "gemma4-e2b/model-bf16.gguf"};
enum { N_MODELS = sizeof(models) / sizeof(models[0]) };
static char big[N_MODELS][64]; /* the copies; "" before they are made */

/* ---- the files ---- */

static void put(FILE *f, const void *p, size_t n)
{
    assert_int_equal(fwrite(p, 1, n, f), n);
}

static void put_u64(FILE *f, uint64_t v)
{
    put(f, &v, sizeof(v));
}

static void pad(FILE *f)
{
    while (ftell(f) % ALIGNMENT)
        fputc(0, f);
}

/* Where the list of tensors begins: at the length in front of the first one's name. */
static size_t end_of_keys(const uint8_t *bytes, size_t n, const char *first)
{
    uint64_t len = strlen(first);

    for (size_t i = GGUF_HEAD; i + sizeof(len) + len < n; i++)
        if (memcmp(bytes + i, &len, sizeof(len)) == 0 &&
            memcmp(bytes + i + sizeof(len), first, len) == 0)
            return i;
    fail_msg("no tensor %s", first);
    return 0;
}

static int64_t blown_up_rows(const struct tensor *t)
{
    return (int64_t)(table_bytes / (t->bytes / (size_t)t->ne[1]));
}

/* The list again, the table with more rows and behind all others. */
static void put_tensors(FILE *f, const struct source *src)
{
    const struct tensor *table = source_tensor(src, table_name);
    uint64_t at = 0;

    for (int big_one = 0; big_one < 2; big_one++)
        for (size_t i = 0; i < source_n_tensors(src); i++) {
            const struct tensor *t = source_tensor_at(src, i);
            uint32_t n_dims = (uint32_t)t->n_dims;

            if ((t == table) != big_one)
                continue;
            put_u64(f, strlen(t->name));
            put(f, t->name, strlen(t->name));
            put(f, &n_dims, sizeof(n_dims));
            for (uint32_t d = 0; d < n_dims; d++)
                put_u64(f, (uint64_t)(big_one && d == 1 ? blown_up_rows(t) : t->ne[d]));
            put(f, &t->type, sizeof(t->type));
            put_u64(f, at);
            at += mem_round_up(t->bytes, ALIGNMENT);
        }
    pad(f);
    for (size_t i = 0; i < source_n_tensors(src); i++) {
        const struct tensor *t = source_tensor_at(src, i);

        if (t == table)
            continue;
        put(f, t->data, t->bytes);
        pad(f);
    }
    put(f, table->data, table->bytes);
}

static void blow_up(const char *model, char path[64])
{
    struct source *src;
    struct stat st;
    uint8_t *bytes;
    FILE *in, *out;
    const struct tensor *table;
    struct err err;
    char from[1024];
    off_t size;

    snprintf(from, sizeof(from), "%s/%s", GOLDEN_FAMILIES, model);
    assert_int_equal(source_open(&src, from, &err), 0);
    table = source_tensor(src, table_name);
    assert_non_null(table);
    in = fopen(from, "rb");
    assert_true(in && fstat(fileno(in), &st) == 0);
    bytes = xcalloc((size_t)st.st_size, 1);
    assert_int_equal(fread(bytes, 1, (size_t)st.st_size, in), st.st_size);
    fclose(in);
    snprintf(path, 64, "/tmp/gemmad-table-XXXXXX");
    out = fdopen(mkstemp(path), "wb");
    assert_non_null(out);
    put(out, bytes, end_of_keys(bytes, (size_t)st.st_size, source_tensor_at(src, 0)->name));
    put_tensors(out, src);
    size =
        ftell(out) + (off_t)((size_t)blown_up_rows(table) * (table->bytes / (size_t)table->ne[1]) -
                             table->bytes);
    assert_int_equal(fflush(out), 0);
    assert_int_equal(ftruncate(fileno(out), size), 0);
    assert_true(fstat(fileno(out), &st) == 0 && (size_t)st.st_size > table_bytes - 4096);
    fclose(out);
    free(bytes);
    source_close(src);
}

static int make_files(void **state)
{
    for (int i = 0; i < N_MODELS; i++)
        blow_up(models[i], big[i]);
    return 0;
}

static int remove_files(void **state)
{
    for (int i = 0; i < N_MODELS; i++)
        unlink(big[i]);
    return 0;
}

/* ---- what is resident ---- */

/* A line of /proc/PID/status in bytes. VmRSS counts pages of memory and of file mappings, VmHWM is
 * the most that VmRSS ever was. */
static size_t status_bytes(pid_t pid, const char *field)
{
    char path[64], line[256];
    size_t kib = 0, n = strlen(field);
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (strncmp(line, field, n) == 0 && line[n] == ':')
            kib = strtoul(line + n + 1, NULL, 10);
    fclose(f);
    assert_true(kib > 0);
    return kib << 10;
}

static void skip_where_nothing_can_be_seen(void)
{
    if (!sanitized)
        return;
    print_message("# SKIPPED: a sanitizer's own memory counts as resident: it is NOT measured\n");
    skip();
}

/* ---- the loader and the graphs ---- */

struct run {
    float *logits; /* (N_DECODE + 1, vocab) */
    size_t vocab, weights, kv;
    size_t resident, most;
};

static void compute(struct run *r, const char *path, const char *quantize)
{
    struct runtime_opts o;
    struct runtime *rt;
    struct plain_kv kv;
    int32_t ids[N_PROMPT];
    struct err err;

    runtime_opts_default(&o);
    o.model_path = path;
    o.quantize = quantize;
    o.n_threads = 2;
    o.max_chunk = CHUNK;
    if (runtime_open(&rt, &o, &err) < 0)
        fail_msg("%s: %s", path, err.msg);
    r->vocab = (size_t)rt->hp.vocab;
    r->logits = xcalloc((N_DECODE + 1) * r->vocab, sizeof(*r->logits));
    for (int i = 0; i < N_PROMPT; i++) /* every row of the table in use */
        ids[i] = i == 0 ? 2 : i * 509 % rt->hp.vocab;
    assert_int_equal(plain_kv_create(&kv, rt, 1, N_PROMPT + N_DECODE, &err), 0);
    plain_feed(rt, &kv, 0, 0, ids, N_PROMPT, CHUNK, r->logits);
    for (int i = 0; i < N_DECODE; i++) {
        int past = N_PROMPT + i;
        int32_t next = rt->kernels.argmax(r->logits + (size_t)i * r->vocab, rt->hp.vocab);

        plain_decode(rt, &kv, &past, &next, 1, r->logits + (size_t)(i + 1) * r->vocab);
    }
    r->weights = rt->weight_bytes;
    r->kv = kv.bytes[0] + kv.bytes[1];
    r->resident = status_bytes(getpid(), "VmRSS");
    r->most = status_bytes(getpid(), "VmHWM");
    plain_kv_free(&kv);
    runtime_close(rt);
}

static void the_numbers_are_those_of_the_small_table(void **state)
{
    static const char *const types[] = {"none", "q8_0"};

    for (int i = 0; i < N_MODELS; i++)
        for (int t = 0; t < 2; t++) {
            struct run small, large;
            char path[1024];

            snprintf(path, sizeof(path), "%s/%s", GOLDEN_FAMILIES, models[i]);
            compute(&small, path, types[t]);
            compute(&large, big[i], types[t]);
            assert_int_equal(small.vocab, large.vocab);
            if (memcmp(small.logits, large.logits,
                    (N_DECODE + 1) * small.vocab * sizeof(*small.logits)) != 0)
                fail_msg("%s: other logits with the large table", models[i]);
            assert_int_equal(small.weights, large.weights); /* it is no packed weight */
            free(small.logits);
            free(large.logits);
        }
}

static void the_table_is_not_resident(void **state)
{
    skip_where_nothing_can_be_seen();
    for (int i = 0; i < N_MODELS; i++) {
        struct run r;
        size_t bound;

        compute(&r, big[i], "none");
        free(r.logits);
        bound = r.weights + r.kv + allowance;
        print_message("# %s: %zu KiB resident, at most %zu, of weights %zu, K/V %zu\n", models[i],
            r.resident >> 10, r.most >> 10, r.weights >> 10, r.kv >> 10);
        assert_true(bound < table_bytes / 4);
        if (r.resident > bound || r.most > bound)
            fail_msg("%s: %zu bytes are resident, %zu at most; the bound is %zu", models[i],
                r.resident, r.most, bound);
    }
}

/* ---- the daemon ---- */

static void a_daemon_does_not_keep_the_table_either(void **state)
{
    enum { KV_MIB = 16 };

    skip_where_nothing_can_be_seen();
    for (int i = 0; i < N_MODELS; i++) {
        struct run small;
        struct daemon d;
        struct answer a;
        char path[1024], model[160], kv[32];
        const char *argv[] = {GEMMAD, "serve", "--port=0", model, kv, NULL};
        size_t most;

        snprintf(path, sizeof(path), "%s/%s", GOLDEN_FAMILIES, models[i]);
        compute(&small, path, "none");
        free(small.logits);
        snprintf(model, sizeof(model), "--model=%s", big[i]);
        snprintf(kv, sizeof(kv), "--kv_mib=%d", KV_MIB);
        daemon_start_command(&d, argv, -1);
        daemon_wait_ready(&d);
        ask_post(&d, &a, "/v1/completions",
            "{\"prompt\":\"The quick brown fox\",\"max_tokens\":40,\"temperature\":0}");
        assert_int_equal(a.status, 200);
        answer_free(&a);
        most = status_bytes(d.pid, "VmHWM");
        print_message("# %s: the daemon had at most %zu KiB\n", models[i], most >> 10);
        assert_true(most <= small.weights + ((size_t)KV_MIB << 20) + allowance);
        assert_int_equal(daemon_stop(&d, SIGTERM), 0);
    }
}

/* ---- the measure ---- */

/* Reads a byte of every page of a part of the hole. Comes last: VmHWM never falls. */
static void reading_the_table_would_be_seen(void **state)
{
    const size_t part = 128u << 20;
    struct statvfs fs = {0};
    size_t before, after;
    const uint8_t *p;
    int fd, sum = 0;

    skip_where_nothing_can_be_seen();
    fd = open(big[0], O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstatvfs(fd, &fs) == 0);
    if ((size_t)fs.f_bavail * fs.f_frsize < 2 * part) {
        close(fd);
        print_message("# SKIPPED: /tmp has no room for the pages of a hole: measure NOT checked\n");
        skip();
    }
    p = mmap(NULL, part, PROT_READ, MAP_PRIVATE, fd, 256 << 20);
    assert_true(p != MAP_FAILED);
    before = status_bytes(getpid(), "VmRSS");
    for (size_t i = 0; i < part; i += 4096)
        sum |= ((const volatile uint8_t *)p)[i];
    after = status_bytes(getpid(), "VmRSS");
    assert_int_equal(sum, 0);
    assert_true(after > before + part / 8 * 7);
    assert_true(status_bytes(getpid(), "VmHWM") >= after);
    munmap((void *)p, part);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_not_resident),
        cmocka_unit_test(a_daemon_does_not_keep_the_table_either),
        cmocka_unit_test(the_numbers_are_those_of_the_small_table),
        cmocka_unit_test(reading_the_table_would_be_seen),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
