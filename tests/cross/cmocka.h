/* cmocka.h - the part of cmocka the unit tests use, for cross builds where no cmocka is packaged.
 *
 * Reports in TAP like the real one; a failed assertion ends its test, the next one runs. */
#ifndef CROSS_CMOCKA_H
#define CROSS_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CMFixtureFunction(void **state);

struct CMUnitTest {
    const char *name;
    void (*test_func)(void **state);
    CMFixtureFunction *setup_func, *teardown_func;
};

static jmp_buf cross_failed;

__attribute__((noreturn, format(printf, 3, 4))) static inline void cross_fail(
    const char *file, int line, const char *format, ...)
{
    va_list args;

    printf("# %s:%d: ", file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    longjmp(cross_failed, 1);
}

static inline void cross_check(int ok, const char *what, const char *file, int line)
{
    if (!ok)
        cross_fail(file, line, "not so: %s", what);
}

#define fail_msg(...) cross_fail(__FILE__, __LINE__, __VA_ARGS__)
#define assert_true(c) cross_check((c) ? 1 : 0, #c, __FILE__, __LINE__)
#define assert_false(c) cross_check((c) ? 0 : 1, "!(" #c ")", __FILE__, __LINE__)
#define assert_non_null(p) cross_check((p) != NULL, #p " != NULL", __FILE__, __LINE__)
#define assert_null(p) cross_check((p) == NULL, #p " == NULL", __FILE__, __LINE__)
#define assert_ptr_equal(a, b) \
    cross_check((const void *)(a) == (const void *)(b), #a " == " #b, __FILE__, __LINE__)
#define assert_int_equal(a, b) \
    cross_check((intmax_t)(a) == (intmax_t)(b), #a " == " #b, __FILE__, __LINE__)
#define assert_int_not_equal(a, b) \
    cross_check((intmax_t)(a) != (intmax_t)(b), #a " != " #b, __FILE__, __LINE__)
#define assert_in_range(v, low, high)                                                      \
    cross_check((uintmax_t)(v) >= (uintmax_t)(low) && (uintmax_t)(v) <= (uintmax_t)(high), \
        #v " in " #low ".." #high, __FILE__, __LINE__)
#define assert_string_equal(a, b) \
    cross_check(strcmp((a), (b)) == 0, #a " == " #b, __FILE__, __LINE__)
#define assert_string_not_equal(a, b) \
    cross_check(strcmp((a), (b)) != 0, #a " != " #b, __FILE__, __LINE__)
#define assert_memory_equal(a, b, n) \
    cross_check(memcmp((a), (b), (n)) == 0, #a " == " #b, __FILE__, __LINE__)

#define cmocka_unit_test(f) \
    {                       \
#f, f, NULL, NULL   \
    }
#define cmocka_unit_test_setup_teardown(f, setup, teardown) \
    {                                                       \
#f, f, setup, teardown                              \
    }
#define cmocka_run_group_tests(tests, setup, teardown) \
    cross_run(tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    cross_run(tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)

static inline int cross_run_one(const struct CMUnitTest *test, void *state)
{
    if (setjmp(cross_failed) != 0)
        return 1;
    if (test->setup_func)
        cross_check(test->setup_func(&state) == 0, "setup", __FILE__, __LINE__);
    test->test_func(&state);
    if (test->teardown_func)
        cross_check(test->teardown_func(&state) == 0, "teardown", __FILE__, __LINE__);
    return 0;
}

static inline int cross_run(
    const struct CMUnitTest *tests, size_t n, CMFixtureFunction *setup, CMFixtureFunction *teardown)
{
    void *state = NULL;
    int failed = 0;

    printf("1..%zu\n", n);
    if (setup && setup(&state) != 0)
        return 1;
    for (size_t i = 0; i < n; i++) {
        int r = cross_run_one(&tests[i], state);

        printf("%s %zu - %s\n", r ? "not ok" : "ok", i + 1, tests[i].name);
        fflush(stdout);
        failed += r;
    }
    if (teardown && teardown(&state) != 0)
        return 1;
    return failed;
}

#endif
