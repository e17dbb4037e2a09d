/* test_file.c - files mapped, and files replaced. */
#include "base/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[64];

static int set_up(void **state)
{
    strcpy(folder, "/tmp/gemmad-file-XXXXXX");
    umask(022);
    return mkdtemp(folder) ? chdir(folder) : -1;
}

static int n_files(void)
{
    DIR *d = opendir(".");
    int n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static int tear_down(void **state)
{
    char command[96];

    snprintf(command, sizeof(command), "rm -r %s", folder);
    return chdir("/") || system(command);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
}

static void assert_text(const char *path, const char *text)
{
    struct file_map m;
    struct err err;

    assert_int_equal(file_map(&m, path, path, &err), 0);
    assert_int_equal(m.size, strlen(text));
    assert_memory_equal(m.data, text, m.size);
    file_unmap(&m);
}

static void only_regular_files_are_mapped(void **state)
{
    struct file_map m;
    struct err err;

    assert_int_equal(file_map(&m, "none", "that", &err), GD_ENOENT);
    assert_string_equal(err.msg, "that cannot be opened: No such file or directory.");
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(file_map(&m, "fifo", "that", &err), GD_EIO);
    assert_string_equal(err.msg, "that is not a regular file.");
    assert_int_equal(file_map(&m, "/dev/null", "that", &err), GD_EIO);
    assert_int_equal(file_map(&m, ".", "that", &err), GD_EIO);
    put("empty", "");
    assert_int_equal(file_map(&m, "empty", "that", &err), 0);
    assert_null(m.data);
    file_unmap(&m);
}

static void a_change_is_seen(void **state)
{
    struct file_map m;
    struct err err;

    put("file", "one");
    assert_int_equal(file_map(&m, "file", "that", &err), 0);
    assert_int_equal(file_unchanged(&m, "that", &err), 0);
    put("other", "two"); /* renamed over it: what is mapped stays */
    assert_int_equal(rename("other", "file"), 0);
    assert_int_equal(file_unchanged(&m, "that", &err), 0);
    assert_memory_equal(m.data, "one", 3);
    file_unmap(&m);
    assert_int_equal(file_map(&m, "file", "that", &err), 0);
    put("file", "three");
    assert_int_equal(file_unchanged(&m, "that", &err), GD_EIO);
    assert_string_equal(err.msg, "that was changed while it was being read.");
    file_unmap(&m);
}

static void a_draft_replaces_at_once(void **state)
{
    struct file_draft d;
    struct stat st;
    struct err err;

    put("file", "old");
    assert_int_equal(file_draft_open(&d, "file", 0644, 6, &err), 0);
    assert_int_equal(file_draft_write(&d, 3, "def", 3, &err), 0);
    assert_int_equal(file_draft_write(&d, 0, "abc", 3, &err), 0);
    assert_text("file", "old");
    assert_int_equal(file_draft_commit(&d, &err), 0);
    assert_text("file", "abcdef");
    assert_int_equal(stat("file", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(n_files(), 1);
    file_draft_abandon(&d); /* closed */
    umask(077);
    assert_int_equal(file_draft_open(&d, "file", 0644, 1, &err), 0);
    assert_int_equal(fstat(d.fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    file_draft_abandon(&d);
    assert_text("file", "abcdef");
    assert_int_equal(n_files(), 1);
}

static void one_writes_at_a_time(void **state)
{
    struct file_draft a, b;
    struct err err;

    assert_int_equal(file_draft_open(&a, "file", 0644, 3, &err), 0);
    assert_int_equal(file_draft_open(&b, "file", 0644, 3, &err), GD_EBUSY);
    assert_string_equal(err.msg, "another process is writing it");
    assert_int_equal(file_draft_write(&a, 0, "one", 3, &err), 0);
    assert_int_equal(file_draft_commit(&a, &err), 0);
    assert_int_equal(file_draft_open(&b, "file", 0644, 3, &err), 0);
    /* Somebody removes it: the name is no longer ours to rename. */
    assert_int_equal(unlink("file.tmp"), 0);
    assert_int_equal(file_draft_commit(&b, &err), GD_EIO);
    assert_text("file", "one");
}

static void what_a_dead_one_left_is_removed(void **state)
{
    struct file_draft d;
    struct stat st;
    struct err err;

    put("file.tmp", "half of someth");
    assert_int_equal(chmod("file.tmp", 0666), 0);
    assert_int_equal(file_draft_open(&d, "file", 0600, 3, &err), 0);
    assert_int_equal(fstat(d.fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(file_draft_write(&d, 0, "new", 3, &err), 0);
    assert_int_equal(file_draft_commit(&d, &err), 0);
    assert_text("file", "new");
    assert_int_equal(n_files(), 1);
}

static void what_is_in_the_way_stays(void **state)
{
    struct file_draft d;
    struct err err;

    put("precious", "gold");
    assert_int_equal(symlink("precious", "a.tmp"), 0);
    assert_int_equal(file_draft_open(&d, "a", 0644, 3, &err), GD_EIO);
    assert_string_equal(err.msg, "a.tmp is in the way: Too many levels of symbolic links");
    assert_text("precious", "gold");
    assert_int_equal(mkdir("b.tmp", 0755), 0);
    assert_int_equal(file_draft_open(&d, "b", 0644, 3, &err), GD_EIO);
    assert_string_equal(err.msg, "b.tmp is in the way: Is a directory");
    assert_int_equal(file_draft_open(&d, "no/where", 0644, 3, &err), GD_EIO);
    assert_string_equal(err.msg, "no/where.tmp cannot be made: No such file or directory");
    assert_int_equal(mkdir("c", 0755), 0); /* where the file should go */
    assert_int_equal(file_draft_open(&d, "c", 0644, 3, &err), 0);
    assert_int_equal(file_draft_commit(&d, &err), GD_EIO);
    assert_int_equal(n_files(), 4);
}

/* A limit stands in for a full disk. */
static void no_room_leaves_nothing(void **state)
{
    struct rlimit before, small = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    static const char zeros[8192];
    struct file_draft d;
    struct err err;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(file_draft_open(&d, "file", 0644, 1 << 20, &err), GD_EIO);
    assert_non_null(strstr(err.msg, "its 1.0 MiB do not fit"));
    assert_int_equal(file_draft_open(&d, "file", 0644, 1, &err), 0); /* too little asked for */
    assert_int_equal(file_draft_write(&d, 0, zeros, sizeof(zeros), &err), GD_EIO);
    assert_string_equal(err.msg, "it cannot be written: File too large");
    file_draft_abandon(&d);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(n_files(), 0);
}

int main(void)
{
#define IN_A_FOLDER(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(only_regular_files_are_mapped),
        IN_A_FOLDER(a_change_is_seen),
        IN_A_FOLDER(a_draft_replaces_at_once),
        IN_A_FOLDER(one_writes_at_a_time),
        IN_A_FOLDER(what_a_dead_one_left_is_removed),
        IN_A_FOLDER(what_is_in_the_way_stays),
        IN_A_FOLDER(no_room_leaves_nothing),
    };

    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
