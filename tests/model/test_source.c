/* What may lie at a path: split sets, things that are no files, large vocabularies. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernels/dtype.h"
#include "model/source.h"
#include "test_gguf_build.h"

static char folder[] = "/tmp/gemmad-source-XXXXXX";

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static const char *in_folder(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int remove_folder(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static void write_file(const char *name, const struct buf *b)
{
    FILE *f = fopen(in_folder(name), "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    fclose(f);
}

/* Part `no` (from 1) with one tensor, or none when tensor is NULL; total goes into part 1. */
static void write_part(
    const char *name, int no, uint32_t key_no, uint32_t count, const char *tensor, int total)
{
    const struct test_key keys[] = {{"split.no", GGUF_U16, key_no},
        {"split.count", GGUF_U16, count}, {"split.tensors.count", GGUF_I32, total},
        {"only.in.part", GGUF_U32, no}};
    const struct test_tensor t = {tensor, DTYPE_F32, 1, {8}, 0};
    struct buf b = {0};

    put_header(&b, 3, tensor ? 1 : 0, 4);
    for (size_t i = 0; i < 4; i++)
        put_key(&b, &keys[i]);
    if (tensor) {
        put_tensor(&b, &t);
        put_padding(&b, 32);
        for (int i = 0; i < 32; i++)
            buf_putc(&b, (char)no);
    }
    write_file(name, &b);
    buf_free(&b);
}

static void write_split(void)
{
    write_part("m-00001-of-00003.gguf", 1, 0, 3, NULL, 2);
    write_part("m-00002-of-00003.gguf", 2, 1, 3, "second", 2);
    write_part("m-00003-of-00003.gguf", 3, 2, 3, "third", 2);
}

static void refuse(const char *name, int code, const char *param, const char *text)
{
    struct source *s = NULL;
    struct err err = {0};

    assert_int_equal(source_open(&s, in_folder(name), &err), code);
    assert_null(s);
    if (strcmp(err.param, param) != 0 || !strstr(err.msg, text))
        fail_msg("param \"%s\": %s", err.param, err.msg);
}

static void any_part_opens_the_whole_set(void **state)
{
    static const char *const names[] = {
        "m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};

    write_split();
    for (int i = 0; i < 3; i++) {
        struct source *s = NULL;
        struct err err = {0};
        uint32_t part;

        if (source_open(&s, in_folder(names[i]), &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(source_n_tensors(s), 2);
        assert_int_equal(source_tensor(s, "second")->data[31], 2);
        assert_int_equal(source_tensor(s, "third")->data[0], 3);
        assert_int_equal(source_u32(s, "only.in.part", &part, &err), 1);
        assert_int_equal(part, 1); /* metadata comes from the first part */
        assert_string_equal(source_path(s), in_folder(names[i]));
        source_close(s);
    }
}

static void broken_sets_are_refused(void **state)
{
    static const char first[] = "m-00001-of-00003.gguf", second[] = "m-00002-of-00003.gguf";

    write_split();
    unlink(in_folder(second));
    refuse(first, GD_ENOENT, second, "Part 2 of 3 of the model is missing: m-00002-of-00003.gguf.");
    write_part(second, 2, 2, 3, "second", 2);
    refuse(
        first, GD_EFORMAT, "split.no", "says in split.no that it is part 3, but its name says 2");
    write_part(second, 2, 1, 4, "second", 2);
    refuse(first, GD_EFORMAT, "split.count", "one of 4 parts, but 3 were expected");
    write_part(second, 2, 1, 3, "third", 2);
    refuse(first, GD_EFORMAT, "third", "m-00003-of-00003.gguf has the tensor third twice.");
    write_split();
    write_part(first, 1, 0, 3, NULL, 3);
    refuse(second, GD_EFORMAT, "split.tensors.count", "says 3, but the parts hold 2 tensors");
    write_part("single.gguf", 1, 0, 3, NULL, 2);
    refuse("single.gguf", GD_EFORMAT, "split.count", "must end in -NNNNN-of-00003.gguf");
    write_part("m-00001-of-00002.gguf", 1, 0, 3, NULL, 2);
    refuse("m-00001-of-00002.gguf", GD_EFORMAT, "split.count", "must end in -NNNNN-of-00003.gguf");
    write_part("m-00001-of-60000.gguf", 1, 0, 60000, NULL, 2);
    refuse("m-00001-of-60000.gguf", GD_EFORMAT, "split.count", "at most 1024");
}

static void one_part_is_a_whole_file(void **state)
{
    struct source *s = NULL;
    struct err err = {0};

    write_part("whole.gguf", 1, 0, 1, "only", 1);
    assert_int_equal(source_open(&s, in_folder("whole.gguf"), &err), 0);
    assert_int_equal(source_n_tensors(s), 1);
    source_close(s);
}

static void what_is_no_file_is_refused(void **state)
{
    struct buf b = {0};

    refuse("absent.gguf", GD_ENOENT, "", "absent.gguf cannot be opened: No such file");
    refuse("absent/model.gguf", GD_ENOENT, "", "model.gguf cannot be opened");
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    refuse("fifo", GD_EIO, "", "fifo is not a regular file."); /* and does not wait for a writer */
    assert_int_equal(symlink("/dev/zero", in_folder("zero")), 0);
    refuse("zero", GD_EIO, "", "zero is not a regular file.");
    assert_int_equal(symlink("loop", in_folder("loop")), 0);
    refuse("loop", GD_EIO, "", "loop cannot be opened");
    buf_reserve(&b, 1);
    write_file("empty", &b);
    refuse("empty", GD_EFORMAT, "magic", "empty is empty.");
    buf_puts(&b, "a line\nof text");
    write_file("a\nb", &b);
    refuse("a\nb", GD_EFORMAT, "magic", "a?b is not a GGUF file");
    buf_clear(&b);
    put_u64(&b, 20);
    buf_puts(&b, "{\"__metadata__\":{}}  ");
    write_file("model.safetensors", &b);
    refuse("model.safetensors", GD_ENOTSUP, "magic", "name the folder it lies in");
    buf_free(&b);
}

static void a_changed_file_is_noticed(void **state)
{
    static const struct timespec long_ago[2] = {{1000000, 0}, {1000000, 0}};
    struct source *s = NULL;
    struct err err = {0};

    write_part("whole.gguf", 1, 0, 1, "only", 1);
    assert_int_equal(source_open(&s, in_folder("whole.gguf"), &err), 0);
    assert_int_equal(source_unchanged(s, &err), 0);
    assert_int_equal(utimensat(AT_FDCWD, in_folder("whole.gguf"), long_ago, 0), 0);
    assert_int_equal(source_unchanged(s, &err), GD_EIO);
    assert_string_equal(err.msg, "whole.gguf was changed while it was being read.");
    source_close(s);
    assert_int_equal(source_open(&s, in_folder("whole.gguf"), &err), 0);
    assert_int_equal(truncate(in_folder("whole.gguf"), 64), 0);
    assert_int_equal(source_unchanged(s, &err), GD_EIO);
    source_close(s);
    write_part("whole.gguf", 1, 0, 1, "only", 1);
    assert_int_equal(source_open(&s, in_folder("whole.gguf"), &err), 0);
    assert_int_equal(
        unlink(in_folder("whole.gguf")), 0); /* a new download replaces the name only */
    assert_int_equal(source_unchanged(s, &err), 0);
    assert_int_equal(source_tensor(s, "only")->data[31], 1);
    source_close(s);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* As large as Gemma 3's. The limit is wide: a quadratic index would take minutes. */
static void a_large_vocabulary_is_indexed_quickly(void **state)
{
    enum { N = 262144 };
    struct buf b = {0};
    struct source *s = NULL;
    struct source_array a;
    struct err err = {0};
    const char *str;
    char word[16];
    size_t len;
    double ms;

    put_header(&b, 3, 0, 1);
    put_string(&b, "tokenizer.ggml.tokens");
    put_u32(&b, GGUF_ARRAY);
    put_u32(&b, GGUF_STRING);
    put_u64(&b, N);
    for (int i = 0; i < N; i++) {
        snprintf(word, sizeof(word), "word %d", i);
        put_string(&b, word);
    }
    write_file("vocabulary.gguf", &b);
    buf_free(&b);

    ms = now_ms();
    assert_int_equal(source_open(&s, in_folder("vocabulary.gguf"), &err), 0);
    ms = now_ms() - ms;
    print_message("# opened in %.1f ms\n", ms);
    assert_true(ms < 1000);
    assert_int_equal(source_array(s, "tokenizer.ggml.tokens", &a, &err), 1);
    assert_int_equal(a.n, N);
    for (uint64_t i = 0; i < N; i++) {
        assert_true(source_array_str(&a, i, &str, &len));
        if (i % 9973 != 0)
            continue;
        snprintf(word, sizeof(word), "word %d", (int)i);
        assert_int_equal(len, strlen(word));
        assert_memory_equal(str, word, len);
    }
    source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_part_opens_the_whole_set),
        cmocka_unit_test(broken_sets_are_refused),
        cmocka_unit_test(one_part_is_a_whole_file),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(a_changed_file_is_noticed),
        cmocka_unit_test(a_large_vocabulary_is_indexed_quickly),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
