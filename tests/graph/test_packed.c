/* test_packed.c - a runtime with a file of packed weights gives the bits of one without, whether it
 * packs or maps; what is wrong with the file is told and mended, or left alone, and the model runs
 * in every case. */
#include "models.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "engine/packed.h"

enum { N_PROMPT = 70, N_DECODE = 4 };

struct wish {
    const char *model, *quantize, *head, *profile;
    bool whole_head;
    const char *packed_file;
};

struct run {
    struct runtime *rt;
    float *logits; /* (N_DECODE + 1, vocab) */
    size_t n;
    int n_matrices, n_packed;
};

static char folder[64];

static int set_up(void **state)
{
    strcpy(folder, "/tmp/gemmad-packed-XXXXXX");
    umask(022);
    return mkdtemp(folder) ? chdir(folder) : -1;
}

static int tear_down(void **state)
{
    char command[192];

    snprintf(command, sizeof(command), "chmod -R u+w %s && rm -r %s", folder, folder);
    return chdir("/") || system(command);
}

/* Opens a model and lets it speak. */
static struct run start(struct wish w)
{
    struct run run = {0};
    struct runtime_opts o;
    int32_t ids[N_PROMPT];
    struct plain_kv kv;
    char path[1024];
    struct err err;

    snprintf(path, sizeof(path), "%s/%s", w.model[0] == '.' ? "." : SOURCE_ROOT, w.model);
    runtime_opts_default(&o);
    o.model_path = path;
    o.quantize = w.quantize ? w.quantize : o.quantize;
    o.head = w.head ? w.head : o.head;
    o.profile = w.profile ? w.profile : o.profile;
    o.screen_head = !w.whole_head;
    o.packed_file = w.packed_file ? w.packed_file : "";
    o.n_threads = 2;
    o.max_sequences = 1;
    o.max_chunk = TEST_CHUNK;
    o.ids_only = true;
    if (runtime_open(&run.rt, &o, &err) < 0)
        fail_msg("%s: %s", w.model, err.msg);
    weight_store_count(run.rt->weights, &run.n_matrices, &run.n_packed);
    run.n = (size_t)run.rt->hp.vocab;
    run.logits = xcalloc((N_DECODE + 1) * run.n, sizeof(float));
    fill_ids(ids, N_PROMPT, 3, run.rt->hp.vocab);
    assert_int_equal(plain_kv_create(&kv, run.rt, 1, N_PROMPT + N_DECODE, &err), 0);
    plain_feed(run.rt, &kv, 0, 0, ids, N_PROMPT, 40, run.logits);
    for (int i = 0, past = N_PROMPT; i < N_DECODE; i++, past++)
        plain_decode(run.rt, &kv, &past, &ids[i], 1, run.logits + (size_t)(i + 1) * run.n);
    plain_kv_free(&kv);
    return run;
}

static void stop(struct run *run)
{
    runtime_close(run->rt);
    free(run->logits);
}

static void assert_same(const struct run *a, const struct run *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->rt->weight_bytes, b->rt->weight_bytes);
    assert_int_equal(a->n_matrices, b->n_matrices);
    assert_memory_equal(a->logits, b->logits, (N_DECODE + 1) * a->n * sizeof(float));
}

/* The file's number, which changes when another is put in its place; 0: none is there. */
static ino_t number_of(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? st.st_ino : 0;
}

/* The writer of a runtime that has just been started is done when its draft is gone. */
static void wait_written(ino_t before)
{
    for (int64_t until = clock_ns() + 20000000000;
         number_of("packed") == before || number_of("packed.tmp");) {
        assert_true(clock_ns() < until);
        usleep(1000);
    }
}

/* Starts, and waits for the file that this must write. */
static void must_pack(struct wish w, const struct run *want)
{
    ino_t before = number_of("packed");
    struct run run;

    w.packed_file = "packed";
    /* Its number could be given to the next file again. */
    if (before)
        assert_int_equal(link("packed", "before"), 0);
    run = start(w);
    assert_true(run.n_matrices > 0);
    assert_int_equal(run.n_packed, run.n_matrices);
    assert_same(&run, want);
    wait_written(before);
    stop(&run);
    if (before)
        assert_int_equal(unlink("before"), 0);
}

/* Starts, and nothing may be packed or written. */
static void must_map(struct wish w, const struct run *want)
{
    ino_t before = number_of("packed");
    struct run run;

    w.packed_file = "packed";
    run = start(w);
    assert_int_equal(run.n_packed, 0);
    assert_same(&run, want);
    stop(&run);
    assert_int_equal(number_of("packed"), before);
    assert_int_equal(number_of("packed.tmp"), 0);
}

static void check(struct wish w)
{
    struct run plain = start(w);

    assert_int_equal(plain.n_packed, plain.n_matrices);
    must_pack(w, &plain);
    must_map(w, &plain);
    must_map(w, &plain);
    stop(&plain);
}

/* Every family, and every way to pack. The file of the one before is always there: of another
 * model, or of other settings. */
static void mapped_weights_give_the_same_bits(void **state)
{
    static const struct wish more[] = {
        {"data/gemmad-demo-q8_0.gguf"},
        {"data/gemmad-demo-q8_0.gguf", .whole_head = true},
        {"data/gemmad-demo-q8_0.gguf"},
        {"data/gemmad-demo-q8_0.gguf", .profile = "reference"},
        {"data/gemmad-demo-q8_0.gguf", .profile = "precise"},
        {"tests/golden/families/gemma3/model-bf16.gguf", .quantize = "q8_0"},
        {"tests/golden/families/gemma3/model-bf16.gguf", .quantize = "q4_0"},
        {"tests/golden/families/gemma3/model-bf16.gguf", .head = "q8_0"},
        {"tests/golden/families/gemma3/model-bf16.gguf", .quantize = "q4_0", .head = "q4_0"},
        {"tests/golden/families/gemma4-moe/model-bf16.gguf", .quantize = "q8_0"},
        {"tests/golden/families/gemma3"},
        {"tests/golden/families/gemma3n"},
    };

    for (int i = 0; i < N_TEST_MODELS; i++)
        check((struct wish){test_models[i]});
    for (size_t i = 0; i < sizeof(more) / sizeof(*more); i++)
        check(more[i]);
}

static void copy(const char *to)
{
    char command[1200];

    snprintf(command, sizeof(command), "cp %s/%s %s", SOURCE_ROOT, test_models[3], to);
    assert_int_equal(system(command), 0);
}

static void change_byte(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* The same path, size, names and shapes. */
static void a_changed_model_is_packed_anew(void **state)
{
    struct wish w = {"./model.gguf"};
    struct timespec times[2];
    struct stat st;
    struct run plain;

    copy("model.gguf");
    plain = start(w);
    must_pack(w, &plain);
    must_map(w, &plain);
    assert_int_equal(stat("model.gguf", &st), 0);
    times[0] = times[1] = st.st_mtim;
    times[1].tv_nsec = (times[1].tv_nsec + 1) % 1000000000;
    assert_int_equal(utimensat(AT_FDCWD, "model.gguf", times, 0), 0);
    must_pack(w, &plain);
    must_map(w, &plain);
    stop(&plain);
    change_byte("model.gguf", st.st_size - 1); /* and the time put back */
    assert_int_equal(utimensat(AT_FDCWD, "model.gguf", times, 0), 0);
    plain = start(w);
    must_pack(w, &plain);
    must_map(w, &plain);
    stop(&plain);
}

/* What a file is replaced for, by a start that packs. */
static void a_broken_file_is_mended(void **state)
{
    struct wish w = {test_models[3]};
    struct run plain = start(w);
    struct stat st;

    must_pack(w, &plain);
    assert_int_equal(stat("packed", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    change_byte("packed", 30);
    must_pack(w, &plain);
    change_byte("packed", st.st_size - 1);
    must_pack(w, &plain);
    assert_int_equal(truncate("packed", st.st_size - 1), 0);
    must_pack(w, &plain);
    assert_int_equal(truncate("packed", 0), 0);
    must_pack(w, &plain);
    assert_int_equal(chmod("packed", 0666), 0);
    must_pack(w, &plain);
    if (geteuid() == 0) { /* another user's */
        assert_int_equal(chown("packed", 12345, 12345), 0);
        must_pack(w, &plain);
    }
    must_map(w, &plain);
    stop(&plain);
}

/* A private model is not given to everybody by way of its packed weights. */
static void it_is_as_private_as_the_model(void **state)
{
    struct wish w = {"./model.gguf"};
    struct run plain;
    struct stat st;

    copy("model.gguf");
    assert_int_equal(chmod("model.gguf", 0640), 0);
    plain = start(w);
    must_pack(w, &plain);
    stop(&plain);
    assert_int_equal(stat("packed", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void must_stay(const struct run *want, const char *path)
{
    struct wish w = {test_models[3], .packed_file = path};
    struct stat before, after;
    struct run run;

    assert_int_equal(lstat(path, &before), 0);
    run = start(w);
    assert_int_equal(run.n_packed, run.n_matrices);
    assert_same(&run, want);
    usleep(50000); /* for a writer, which there must not be: closing would stop it */
    stop(&run);
    assert_int_equal(lstat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    assert_int_equal(before.st_size, after.st_size);
}

/* A mistyped setting must not cost somebody his model. */
static void what_is_something_else_stays(void **state)
{
    struct run plain = start((struct wish){test_models[3]}), run;

    copy("model.gguf");
    must_stay(&plain, "model.gguf");
    assert_int_equal(mkdir("sub", 0755), 0);
    must_stay(&plain, "sub");
    assert_int_equal(mkfifo("fifo", 0600), 0);
    must_stay(&plain, "fifo");
    must_stay(&plain, "/dev/null");
    run = start((struct wish){test_models[3], .packed_file = "no/such/folder"});
    assert_same(&run, &plain);
    stop(&run);
    stop(&plain);
}

int main(void)
{
#define IN_A_FOLDER(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(mapped_weights_give_the_same_bits),
        IN_A_FOLDER(a_changed_model_is_packed_anew),
        IN_A_FOLDER(a_broken_file_is_mended),
        IN_A_FOLDER(it_is_as_private_as_the_model),
        IN_A_FOLDER(what_is_something_else_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
