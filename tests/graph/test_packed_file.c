/* test_packed_file.c - files of packed weights as bytes: whatever is not exactly what was written,
 * for exactly this model and these settings, is refused. */
#include "graph/packed_file.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "graph/pack.h"
#include "kernels/kernels.h"
#include "kernels/planes.h"

/* The layout, told a second time. */
enum { HEADER = 56, ENTRY = 112, N = 4, DIRECTORY_END = HEADER + N * ENTRY };
enum { ORDER = 8, FORMAT = 12, SUM = 16, BYTES = 24, MODEL = 32, QUANTIZE = 40, HEAD = 44 };
enum { IN_PLANES = 48, N_ENTRIES = 52 };
enum { E_TYPE = 64, E_IN_PLANES = 80, E_MAX_SCALE = 84, E_OFFSET = 88, E_BYTES = 96, E_SUM = 104 };

static const struct packed_key key = {0x123456789abcdefu, DTYPE_Q8_0, DTYPE_Q6_K, 1};
static const size_t sizes[N] = {3 << 20, 64, 100, (1 << 20) + 1};
static const char *const names[N] = {"b.weight", "d", "a", "c.longer"}; /* not in order */

struct good {
    struct packed_matrix m[N];
    uint8_t *data[N], *bytes; /* the file */
    size_t size;
};

static char folder[64];
static atomic_bool go_on;

static int n_files(void)
{
    DIR *d = opendir(folder);
    int n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static uint8_t *read_file(const char *path, size_t *size)
{
    struct file_map map;
    struct err err;
    uint8_t *copy;

    assert_int_equal(file_map(&map, path, path, &err), 0);
    copy = xcalloc(map.size, 1);
    memcpy(copy, map.data, map.size);
    *size = map.size;
    file_unmap(&map);
    return copy;
}

static int set_up(void **state)
{
    struct good *g = xcalloc(1, sizeof(*g));
    uint32_t x = 1;
    struct err err;

    strcpy(folder, "/tmp/gemmad-packed-XXXXXX");
    if (!mkdtemp(folder) || chdir(folder))
        return -1;
    for (int i = 0; i < N; i++) {
        g->data[i] = xcalloc(sizes[i], 1);
        for (size_t k = 0; k < sizes[i]; k++)
            g->data[i][k] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
        g->m[i] = (struct packed_matrix){.name = names[i],
            .type = DTYPE_Q4_0 + (uint32_t)i,
            .rows = 5 + i,
            .k = 32,
            .n = 1 + i,
            .in_planes = i == 2,
            .max_scale = (float)i,
            .bytes = sizes[i],
            .data = g->data[i]};
    }
    assert_int_equal(packed_file_write("file", false, &key, g->m, N, &go_on, &err), 0);
    g->bytes = read_file("file", &g->size);
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct good *g = *state;
    char command[96];

    for (int i = 0; i < N; i++)
        free(g->data[i]);
    free(g->bytes);
    free(g);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    return chdir("/") || system(command);
}

static void put(uint8_t *at, uint64_t value, size_t n)
{
    memcpy(at, &value, n);
}

static void sign(uint8_t *bytes, uint32_t n)
{
    put(bytes + SUM,
        hash_bytes(hash_bytes(0, bytes + BYTES, HEADER - BYTES), bytes + HEADER, n * ENTRY), 8);
}

static int open_bytes(const uint8_t *bytes, size_t size, struct err *err)
{
    struct packed_file *f = NULL;
    int r = packed_file_open(&f, bytes, size, &key, NULL, err);

    assert_true((r == 0) == (f != NULL));
    packed_file_close(f);
    return r;
}

static void refused(const uint8_t *bytes, size_t size, const char *why)
{
    struct err err = {0};

    assert_int_equal(open_bytes(bytes, size, &err), GD_EFORMAT);
    if (why && !strstr(err.msg, why))
        fail_msg("\"%s\", not \"%s\"", err.msg, why);
}

static void what_was_written_is_found(void **state)
{
    struct good *g = *state;
    struct packed_file *f;
    struct pool *pool;
    struct err err;

    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
        assert_int_equal(pool_create(&pool, n_threads, &err), 0);
        if (packed_file_open(&f, g->bytes, g->size, &key, pool, &err) < 0)
            fail_msg("%s", err.msg);
        for (int i = 0; i < N; i++) {
            struct packed_matrix m = g->m[i], other = m;

            m.data = NULL;
            m.max_scale = -1;
            assert_true(packed_file_find(f, &m));
            assert_ptr_not_equal(m.data, g->m[i].data);
            assert_int_equal((m.data - g->bytes) % 64, 0);
            assert_memory_equal(m.data, g->m[i].data, m.bytes);
            assert_true(m.max_scale == g->m[i].max_scale);
            other.rows++;
            assert_false(packed_file_find(f, &other));
            other = m, other.k += 32;
            assert_false(packed_file_find(f, &other));
            other = m, other.n++;
            assert_false(packed_file_find(f, &other));
            other = m, other.type++;
            assert_false(packed_file_find(f, &other));
            other = m, other.in_planes = !m.in_planes;
            assert_false(packed_file_find(f, &other));
            other = m, other.bytes--;
            assert_false(packed_file_find(f, &other));
            other = m, other.name = "b.weigh";
            assert_false(packed_file_find(f, &other));
        }
        packed_file_close(f);
        pool_destroy(pool);
    }
}

static void a_part_of_it_is_refused(void **state)
{
    struct good *g = *state;

    for (size_t n = 0; n < g->size; n += n < DIRECTORY_END + 64 ? 1 : 99991) {
        uint8_t *part = xcalloc(n, 1); /* its end is where the sanitizer watches */

        memcpy(part, g->bytes, n);
        refused(part, n, n < 8 ? "no file of packed" : "not complete");
        free(part);
    }
}

static void every_byte_of_the_directory_counts(void **state)
{
    struct good *g = *state;

    for (size_t i = 0; i < DIRECTORY_END; i++) {
        g->bytes[i] ^= 1 << i % 8;
        refused(g->bytes, g->size, NULL);
        g->bytes[i] ^= 1 << i % 8;
    }
    assert_int_equal(open_bytes(g->bytes, g->size, NULL), 0);
}

static void damaged_weights_are_refused(void **state)
{
    struct good *g = *state;

    for (uint32_t e = 0; e < N; e++) {
        uint64_t offset, bytes;
        char why[64];

        memcpy(&offset, g->bytes + HEADER + e * ENTRY + E_OFFSET, 8);
        memcpy(&bytes, g->bytes + HEADER + e * ENTRY + E_BYTES, 8);
        snprintf(why, sizeof(why), "the weights of entry %u in it are damaged", e);
        for (uint64_t i = 0; i <= 4; i++) { /* from the first to the last */
            uint8_t *at = g->bytes + offset + (bytes - 1) * i / 4;

            *at ^= 0x80;
            refused(g->bytes, g->size, why);
            *at ^= 0x80;
        }
    }
}

static void another_model_or_setting_is_refused(void **state)
{
    static const struct {
        int at;
        const char *why;
    } cases[] = {{0, "no file of packed weights"}, {7, "no file of packed weights"},
        {ORDER, "another version"}, {FORMAT, "another version"}, {MODEL, "another model"},
        {MODEL + 7, "another model"}, {QUANTIZE, "other settings"}, {HEAD, "other settings"},
        {IN_PLANES, "other settings"}};
    struct good *g = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        g->bytes[cases[i].at] ^= 1;
        sign(g->bytes, N);
        refused(g->bytes, g->size, cases[i].why);
        g->bytes[cases[i].at] ^= 1;
    }
}

/* A directory with a checksum that fits: what somebody could make by hand. */
static void a_directory_without_sense_is_refused(void **state)
{
    static const struct {
        int at;
        uint64_t value;
        size_t n;
        int entry;
    } cases[] = {{E_OFFSET, 0, 8, 0}, {E_OFFSET, HEADER, 8, 0}, {E_OFFSET, 1, 8, 1},
        {E_OFFSET, (uint64_t)1 << 63, 8, 1}, {E_OFFSET, UINT64_MAX - 63, 8, 3},
        {E_OFFSET, 5 << 20, 8, 2}, {E_BYTES, UINT64_MAX, 8, 0}, {E_BYTES, 0, 8, 0},
        {E_BYTES, 5 << 20, 8, 1}, {E_IN_PLANES, 2, 4, 3}, {E_MAX_SCALE, 0xbf800000, 4, 2},
        {E_MAX_SCALE, 0x7fc00000, 4, 2}, {0, 0, 1, 0}, {0, 'z', 1, 0}, {0, 'a', 2, 1}};
    struct good *g = *state;
    uint8_t saved[DIRECTORY_END];

    memcpy(saved, g->bytes, sizeof(saved));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        put(g->bytes + HEADER + cases[i].entry * ENTRY + cases[i].at, cases[i].value, cases[i].n);
        sign(g->bytes, N);
        refused(g->bytes, g->size, "makes no sense at entry");
        memcpy(g->bytes, saved, sizeof(saved));
    }
    memset(g->bytes + HEADER, 'a', 64); /* a name without an end */
    sign(g->bytes, N);
    refused(g->bytes, g->size, "makes no sense at entry 0");
    memcpy(g->bytes, saved, sizeof(saved));
    put(g->bytes + N_ENTRIES, UINT32_MAX, 4);
    refused(g->bytes, g->size, "not complete");
    put(g->bytes + N_ENTRIES, 65536, 4); /* allowed, but then they are not all there */
    refused(g->bytes, HEADER + 100, "not complete");
}

/* Many entries over the same bytes would take for ever to check. */
static void entries_cannot_be_more_than_the_file(void **state)
{
    enum { MANY = 1000, SIZE = HEADER + MANY * ENTRY + (1 << 20) };
    uint8_t *bytes = xcalloc(SIZE, 1);
    struct good *g = *state;

    memcpy(bytes, g->bytes, HEADER);
    put(bytes + BYTES, SIZE, 8);
    put(bytes + N_ENTRIES, MANY, 4);
    for (int i = 0; i < MANY; i++) {
        uint8_t *e = bytes + HEADER + i * ENTRY;

        snprintf((char *)e, 64, "%04d", i);
        put(e + E_OFFSET, mem_round_up(HEADER + MANY * ENTRY, 64), 8);
        put(e + E_BYTES, 1 << 19, 8);
    }
    sign(bytes, MANY);
    refused(bytes, SIZE, "makes no sense at entry 2");
    free(bytes);
}

static void only_such_files_may_be_replaced(void **state)
{
    struct good *g = *state;

    assert_true(packed_file_is_one(NULL, 0));
    assert_true(packed_file_is_one(g->bytes, 8));
    assert_false(packed_file_is_one(g->bytes, 7));
    assert_false(packed_file_is_one((const uint8_t *)"GGUF\3\0\0\0", 8));
}

static void a_write_that_ends_early_leaves_nothing(void **state)
{
    struct rlimit before, small = {.rlim_cur = 1 << 20};
    struct good *g = *state;
    atomic_bool stop = true;
    struct err err;
    size_t size;
    uint8_t *now;

    assert_int_equal(packed_file_write("file", false, &key, g->m, N, &stop, &err), GD_ECANCELED);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(packed_file_write("file", false, &key, g->m, N, &go_on, &err), GD_EIO);
    assert_non_null(strstr(err.msg, "its 4.0 MiB do not fit"));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(n_files(), 1);
    now = read_file("file", &size);
    assert_int_equal(size, g->size);
    assert_memory_equal(now, g->bytes, size);
    free(now);
}

/* ---- the format ---- */

/* Packs the same numbers each time, and hashes what comes out. */
static uint64_t packed_hash(enum dtype from, enum dtype to, bool in_planes)
{
    enum { ROWS = 40, K = 512 };
    const struct dtype_info *type = dtype_find(from);
    size_t bytes = (size_t)ROWS * (size_t)(K / type->block) * (size_t)type->bytes;
    uint8_t *data = xcalloc(bytes, 1), *out;
    struct tensor t = {.name = "t",
        .type = from,
        .n_dims = 2,
        .ne = {K, ROWS, 1, 1},
        .data = data,
        .bytes = bytes,
        .in_memory = true};
    struct wmat w;
    uint8_t strong[K / 32 * STRONG];
    uint32_t x = 7;
    uint64_t h;
    struct err err;

    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    for (size_t i = 0; from == DTYPE_F32 && i < bytes / 4; i++)
        ((float *)(void *)data)[i] = (float)(int32_t)(x = x * 1664525 + 1013904223) * 0x1p-33f;
    w = wmat_init(dtype_find(to), ROWS, K, NULL);
    out = mem_aligned(wmat_bytes(&w));
    assert_non_null(out);
    planes_order(strong, K, NULL);
    if (in_planes)
        w = planes_init(ROWS, K, out, strong);
    w.data = out;
    assert_int_equal(pack_matrices(NULL, &t, &w, 1, out, &err), 0);
    h = hash_bytes(0, out, wmat_bytes(&w));
    mem_aligned_free(out, wmat_bytes(&w));
    free(data);
    return h;
}

/* A file from before a change of the layout must not be taken for one from after it. */
static void a_changed_layout_has_a_new_format(void **state)
{
    const int of_format = 2; /* the hashes below are what this format gives */
    static const struct {
        enum dtype from, to;
        bool in_planes;
        uint64_t hash;
    } cases[] = {
        {DTYPE_F32, DTYPE_F32, false, 0x4d709a45470d1dd6},
        {DTYPE_F16, DTYPE_F16, false, 0x3f7fc21e4fa2c778},
        {DTYPE_BF16, DTYPE_BF16, false, 0x3f7fc21e4fa2c778},
        {DTYPE_Q4_0, DTYPE_Q4_0, false, 0x6d66c254b651949a},
        {DTYPE_Q4_1, DTYPE_Q4_1, false, 0x961757408fb4422e},
        {DTYPE_Q5_0, DTYPE_Q5_0, false, 0xa5f2634781424fdc},
        {DTYPE_Q5_1, DTYPE_Q5_1, false, 0x79c1f1ff91a8f85a},
        {DTYPE_Q8_0, DTYPE_Q8_0, false, 0x67af1e30a825811f},
        {DTYPE_Q2_K, DTYPE_Q2_K, false, 0x0352337b48187b44},
        {DTYPE_Q3_K, DTYPE_Q3_K, false, 0x19d65bae3e0c6ddf},
        {DTYPE_Q4_K, DTYPE_Q4_K, false, 0x2b1a482a15492fe9},
        {DTYPE_Q5_K, DTYPE_Q5_K, false, 0x7ad4d66522a1e82b},
        {DTYPE_Q6_K, DTYPE_Q6_K, false, 0xea5e33bf07e259b7},
        {DTYPE_IQ4_NL, DTYPE_IQ4_NL, false, 0x6d66c254b651949a},
        {DTYPE_IQ4_XS, DTYPE_IQ4_XS, false, 0x55c0f458f4a65ee9},
        {DTYPE_MXFP4, DTYPE_MXFP4, false, 0x1f11716825cb8b81},
        {DTYPE_F32, DTYPE_Q8_0, false, 0xce8df21a9967548d},
        {DTYPE_F32, DTYPE_Q6_K, false, 0x9c7115c195940728},
        {DTYPE_F32, DTYPE_Q4_0, false, 0x6525febcd24958f7},
        {DTYPE_Q8_0, DTYPE_Q8_0, true, 0x4581733a7e98c56d},
        {DTYPE_F32, DTYPE_Q8_0, true, 0xe8e000863e630fee},
    };
    bool same = true;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint64_t h = packed_hash(cases[i].from, cases[i].to, cases[i].in_planes);

        if (h != cases[i].hash)
            print_message("%s as %s%s is 0x%016llx now\n", dtype_name(cases[i].from),
                dtype_name(cases[i].to), cases[i].in_planes ? " in planes" : "",
                (unsigned long long)h);
        same &= h == cases[i].hash;
    }
    if (!same || of_format != PACKED_FORMAT)
        fail_msg("packed bytes have changed: raise PACKED_FORMAT (graph/packed_file.h) and "
                 "of_format, and put the hashes above into the table");
}

int main(void)
{
#define WITH_A_FILE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_A_FILE(what_was_written_is_found),
        WITH_A_FILE(a_part_of_it_is_refused),
        WITH_A_FILE(every_byte_of_the_directory_counts),
        WITH_A_FILE(damaged_weights_are_refused),
        WITH_A_FILE(another_model_or_setting_is_refused),
        WITH_A_FILE(a_directory_without_sense_is_refused),
        WITH_A_FILE(entries_cannot_be_more_than_the_file),
        WITH_A_FILE(only_such_files_may_be_replaced),
        WITH_A_FILE(a_write_that_ends_early_leaves_nothing),
        cmocka_unit_test(a_changed_layout_has_a_new_format),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
