#include "base/utf8.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static void every_scalar_value_survives_a_round_trip(void **state)
{
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        char text[4];
        uint32_t back = 0;
        size_t n, bad;

        if (cp >= 0xd800 && cp <= 0xdfff)
            continue;
        n = utf8_encode(cp, text);
        if (n != 1u + (cp >= 0x80) + (cp >= 0x800) + (cp >= 0x10000))
            fail_msg("U+%04X takes %zu bytes", cp, n);
        if (utf8_decode(text, n, &back, &bad) != n || back != cp)
            fail_msg("U+%04X came back as U+%04X", cp, back);
        for (size_t cut = 0; cut < n; cut++) {
            if (utf8_decode(text, cut, &back, &bad) != 0 || bad != 0)
                fail_msg("U+%04X cut to %zu bytes is no beginning", cp, cut);
        }
    }
}

/* The maximal invalid subpart of each text, from the Unicode standard's chapter 3.9 and the
 * WHATWG decoder. */
static void invalid_subparts_have_the_standard_length(void **state)
{
    static const struct {
        const char *text;
        size_t bad;
    } cases[] = {
        {"\x80", 1},             /* a continuation byte alone */
        {"\xbf\xbf", 1},         /* each is its own subpart */
        {"\xc0\x80", 1},         /* overlong lead bytes are never valid */
        {"\xc1\xbf", 1},         /* */
        {"\xc2 ", 1},            /* a lead byte, then something else */
        {"\xe0\x80\x80", 1},     /* overlong: the second byte is already wrong */
        {"\xe0\xa0 ", 2},        /* two good bytes, then something else */
        {"\xed\xa0\x80", 1},     /* a surrogate */
        {"\xed\x9f ", 2},        /* */
        {"\xf0\x80\x80\x80", 1}, /* overlong */
        {"\xf0\x90\x80 ", 3},    /* three good bytes, then something else */
        {"\xf4\x90\x80\x80", 1}, /* above U+10FFFF */
        {"\xf5\x80", 1},         /* no lead byte */
        {"\xff", 1},             /* */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint32_t cp;
        size_t bad = 99;

        assert_int_equal(utf8_decode(cases[i].text, strlen(cases[i].text), &cp, &bad), 0);
        if (bad != cases[i].bad)
            fail_msg("case %zu: %zu bytes are bad, expected %zu", i, bad, cases[i].bad);
        assert_false(utf8_valid(cases[i].text, strlen(cases[i].text)));
    }
}

static void whole_texts_are_judged(void **state)
{
    assert_true(utf8_valid("", 0));
    assert_true(utf8_valid("a\0b", 3));
    assert_true(utf8_valid("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", 15));
    assert_false(utf8_valid("gr\xc3\xbc\xc3", 5)); /* cut in the middle */
    assert_false(utf8_valid("ok\xff", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_value_survives_a_round_trip),
        cmocka_unit_test(invalid_subparts_have_the_standard_length),
        cmocka_unit_test(whole_texts_are_judged),
    };

    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
