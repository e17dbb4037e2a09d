#include "base/mem.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static void aligned_memory_is_zero_aligned_and_writable(void **state)
{
    const size_t sizes[] = {0, 1, 63, 64, 65, 4096, (2u << 20) - 1, 2u << 20, (6u << 20) + 5};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        unsigned char *p = mem_aligned(sizes[i]);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t k = 0; k < sizes[i]; k += 61)
            assert_int_equal(p[k], 0);
        if (sizes[i] > 0)
            memset(p, 0xa5, sizes[i]);
        mem_aligned_free(p, sizes[i]);
    }
}

static void an_impossible_size_is_null(void **state)
{
    volatile size_t bytes = (size_t)1 << 62; /* volatile: gcc knows that this cannot work */

    assert_null(mem_aligned(bytes));
    mem_aligned_free(NULL, bytes);
    mem_aligned_free(NULL, 1);
}

static void size_arithmetic_sees_overflow(void **state)
{
    size_t out = 77;

    assert_false(mem_mul(SIZE_MAX / 2 + 1, 2, &out));
    assert_false(mem_add(SIZE_MAX, 1, &out));
    assert_true(mem_mul(SIZE_MAX / 2, 2, &out));
    assert_int_equal(out, SIZE_MAX - 1);
    assert_true(mem_add(3, 4, &out));
    assert_int_equal(out, 7);
    assert_int_equal(mem_round_up(0, 64), 0);
    assert_int_equal(mem_round_up(1, 64), 64);
    assert_int_equal(mem_round_up(64, 64), 64);
    assert_int_equal(mem_round_up(7, 3), 9);
}

static void small_allocations_never_return_null(void **state)
{
    char *s = xstrdup("text"), *p = xcalloc(0, 0);

    assert_non_null(p);
    assert_string_equal(s, "text");
    s = xrealloc(s, 100);
    assert_string_equal(s, "text");
    p = xrealloc(p, 0);
    assert_non_null(p);
    free(s);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_memory_is_zero_aligned_and_writable),
        cmocka_unit_test(an_impossible_size_is_null),
        cmocka_unit_test(size_arithmetic_sees_overflow),
        cmocka_unit_test(small_allocations_never_return_null),
    };

    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
