#include "base/buf.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static void pieces_come_out_in_order(void **state)
{
    struct buf b = {0};

    buf_puts(&b, "one");
    buf_putc(&b, ' ');
    buf_printf(&b, "%d %s", 2, "three");
    buf_append(&b, "\0x", 2);
    assert_int_equal(b.len, 13);
    assert_memory_equal(b.data, "one 2 three\0x", 14);
    buf_free(&b);
    assert_null(b.data);
    assert_int_equal(b.cap, 0);
}

static void growth_keeps_what_is_there(void **state)
{
    struct buf b = {0};

    for (int i = 0; i < 100000; i++)
        buf_putc(&b, (char)('a' + i % 26));
    assert_int_equal(b.len, 100000);
    assert_true(b.cap > b.len);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], 'a' + i % 26);
    assert_int_equal(b.data[b.len], 0);
    buf_free(&b);
}

static void a_long_format_fits(void **state)
{
    struct buf b = {0};

    buf_puts(&b, "<");
    buf_printf(&b, "%5000d", 7);
    assert_int_equal(b.len, 5001);
    assert_int_equal(b.data[5000], '7');
    assert_int_equal(b.data[5001], 0);
    buf_printf(&b, "%s", "");
    assert_int_equal(b.len, 5001);
    buf_free(&b);
}

static void clearing_keeps_the_memory(void **state)
{
    struct buf b = {0};
    size_t cap;

    buf_clear(&b);
    assert_null(b.data);
    buf_puts(&b, "something");
    cap = b.cap;
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_int_equal(b.cap, cap);
    assert_string_equal(b.data, "");
    buf_free(&b);
}

static void taking_hands_over_and_empties(void **state)
{
    struct buf b = {0};
    char *text;

    text = buf_take(&b);
    assert_string_equal(text, "");
    free(text);
    buf_puts(&b, "mine");
    text = buf_take(&b);
    assert_string_equal(text, "mine");
    assert_null(b.data);
    assert_int_equal(b.len, 0);
    free(text);
}

static void appending_nothing_from_nowhere_is_fine(void **state)
{
    struct buf b = {0};

    buf_append(&b, NULL, 0);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_come_out_in_order),
        cmocka_unit_test(growth_keeps_what_is_there),
        cmocka_unit_test(a_long_format_fits),
        cmocka_unit_test(clearing_keeps_the_memory),
        cmocka_unit_test(taking_hands_over_and_empties),
        cmocka_unit_test(appending_nothing_from_nowhere_is_fine),
    };

    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
