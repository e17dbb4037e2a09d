#include "api/write.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void same_string(const char *in, size_t n, const char *want)
{
    struct buf b = {0};

    write_string(&b, in, n);
    assert_string_equal(b.data, want);
    buf_free(&b);
}

static void strings_are_escaped(void **state)
{
    same_string("", 0, "\"\"");
    same_string("plain \xc3\xa9 \xf0\x9f\x98\x80", 13, "\"plain \xc3\xa9 \xf0\x9f\x98\x80\"");
    same_string("a\"b\\c\n\r\t", 8, "\"a\\\"b\\\\c\\n\\r\\t\"");
    same_string("\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\\u007f\"");
    same_string("</script>", 9, "\"</script>\"");
}

static void broken_utf8_becomes_replacement_characters(void **state)
{
    same_string("a\xff"
                "b",
        3,
        "\"a\xef\xbf\xbd"
        "b\"");
    same_string("\xf0\x9f\x98", 3, "\"\xef\xbf\xbd\"");
    same_string("\xf0\x9f\x98x", 4, "\"\xef\xbf\xbdx\"");
    same_string("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    same_string("\xc0\x80", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void integers_have_all_their_digits(void **state)
{
    static const struct {
        int64_t v;
        const char *want;
    } cases[] = {{0, "0"}, {7, "7"}, {-1, "-1"}, {1766000000, "1766000000"},
        {INT64_MAX, "9223372036854775807"}, {INT64_MIN, "-9223372036854775808"}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf b = {0};

        write_int(&b, cases[i].v);
        assert_string_equal(b.data, cases[i].want);
        buf_free(&b);
    }
}

static void expect_logprob(float v, const char *want)
{
    struct buf b = {0};

    write_logprob(&b, v);
    assert_string_equal(b.data, want);
    buf_free(&b);
}

static void logprobs_are_json_numbers(void **state)
{
    expect_logprob(0, "0.0");
    expect_logprob(-0.0f, "0.0");
    expect_logprob(-1, "-1.0");
    expect_logprob(-0.25f, "-0.25");
    expect_logprob(-1e-9f, "-1e-09");
    expect_logprob(-9999, "-9999.0");
    expect_logprob(-FLT_MAX, "-9999.0");
    expect_logprob(-INFINITY, "-9999.0");
    expect_logprob(NAN, "-9999.0");
}

static void logprobs_read_back_as_the_same_float(void **state)
{
    uint32_t bits = 0x12345678;

    for (int i = 0; i < 20000; i++) {
        struct buf b = {0};
        float v;

        bits = bits * 1664525 + 1013904223;
        v = -(float)(bits >> 8) / 16777216.0f * (i % 2 ? 1e-3f : 30);
        write_logprob(&b, v);
        assert_true(strtof(b.data, NULL) == v);
        buf_free(&b);
    }
}

static void expect_base64(const char *bytes, const char *want)
{
    struct buf b = {0};

    write_base64(&b, (const unsigned char *)bytes, strlen(bytes));
    assert_string_equal(b.data ? b.data : "", want);
    buf_free(&b);
}

/* RFC 4648 section 10. */
static void base64_is_padded(void **state)
{
    expect_base64("", "");
    expect_base64("f", "Zg==");
    expect_base64("fo", "Zm8=");
    expect_base64("foo", "Zm9v");
    expect_base64("foob", "Zm9vYg==");
    expect_base64("\xfb\xff\xbf", "+/+/");
}

static void floats_read_back_or_are_null(void **state)
{
    static const float values[] = {1.0f / 3, -1e-9f, FLT_MAX, FLT_MIN / 8, 0.1f, -0.0f, 16777216};
    struct buf b = {0};

    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        buf_clear(&b);
        write_float(&b, values[i]);
        assert_true(strtof(b.data, NULL) == values[i]);
    }
    buf_clear(&b);
    write_float(&b, NAN);
    write_float(&b, -INFINITY);
    assert_string_equal(b.data, "nullnull");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(broken_utf8_becomes_replacement_characters),
        cmocka_unit_test(integers_have_all_their_digits),
        cmocka_unit_test(logprobs_are_json_numbers),
        cmocka_unit_test(logprobs_read_back_as_the_same_float),
        cmocka_unit_test(base64_is_padded),
        cmocka_unit_test(floats_read_back_or_are_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
