#include "gemmad/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

static char captured[4096];

/* Runs log_write with stderr going to a pipe, and keeps what arrived in captured[]. */
#define CAPTURE(call)                                                   \
    do {                                                                \
        int ends_[2], saved_ = dup(STDERR_FILENO);                      \
        ssize_t n_;                                                     \
        assert_int_equal(pipe2(ends_, O_NONBLOCK | O_CLOEXEC), 0);      \
        assert_int_equal(dup2(ends_[1], STDERR_FILENO), STDERR_FILENO); \
        call;                                                           \
        dup2(saved_, STDERR_FILENO);                                    \
        close(saved_);                                                  \
        close(ends_[1]);                                                \
        n_ = read(ends_[0], captured, sizeof(captured) - 1);            \
        close(ends_[0]);                                                \
        captured[n_ > 0 ? n_ : 0] = 0;                                  \
    } while (0)

static void a_line_carries_the_journal_priority(void **state)
{
    CAPTURE(log_info("listening port=%d", 8080));
    assert_string_equal(captured, "<6>listening port=8080\n");
    CAPTURE(log_error("gone"));
    assert_string_equal(captured, "<3>gone\n");
    CAPTURE(log_warn("hm"));
    assert_string_equal(captured, "<4>hm\n");
}

static void the_level_decides(void **state)
{
    CAPTURE(log_debug("hidden"));
    assert_string_equal(captured, "");
    log_set_level(LOG_LEVEL_DEBUG);
    CAPTURE(log_debug("seen"));
    assert_string_equal(captured, "<7>seen\n");
    log_set_level(LOG_LEVEL_ERROR);
    CAPTURE(log_warn("hidden"));
    assert_string_equal(captured, "");
    log_set_level(LOG_LEVEL_INFO);
}

static void a_long_line_is_cut_and_still_ends(void **state)
{
    char text[3000];
    size_t n;

    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    CAPTURE(log_info("%s", text));
    n = strlen(captured);
    assert_in_range(n, 1000, 1024);
    assert_int_equal(captured[n - 1], '\n');
    assert_null(memchr(captured, '\n', n - 1));
}

static void level_names_are_read_back(void **state)
{
    enum log_level level;

    assert_int_equal(log_level_parse("error", &level), 0);
    assert_int_equal(level, LOG_LEVEL_ERROR);
    assert_int_equal(log_level_parse("warn", &level), 0);
    assert_int_equal(level, LOG_LEVEL_WARN);
    assert_int_equal(log_level_parse("info", &level), 0);
    assert_int_equal(level, LOG_LEVEL_INFO);
    assert_int_equal(log_level_parse("debug", &level), 0);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_int_equal(log_level_parse("loud", &level), -1);
    assert_int_equal(log_level_parse("", &level), -1);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_carries_the_journal_priority),
        cmocka_unit_test(the_level_decides),
        cmocka_unit_test(a_long_line_is_cut_and_still_ends),
        cmocka_unit_test(level_names_are_read_back),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
