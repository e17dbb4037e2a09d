#include "gemmad/err.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static int fails(struct err *err)
{
    return err_set(err, GD_EBUSY, "the queue holds %d requests", 7);
}

static int fails_at(struct err *err)
{
    return err_set_at(err, GD_EINVAL, "temperature", "temperature must be 0 to 2, got %g", 3.5);
}

static void the_code_and_the_sentence_arrive(void **state)
{
    struct err err;

    memset(&err, 'x', sizeof(err));
    assert_int_equal(fails(&err), GD_EBUSY);
    assert_int_equal(err.code, GD_EBUSY);
    assert_string_equal(err.param, "");
    assert_string_equal(err.msg, "the queue holds 7 requests");
}

static void the_field_arrives(void **state)
{
    struct err err;

    assert_int_equal(fails_at(&err), GD_EINVAL);
    assert_string_equal(err.param, "temperature");
    assert_string_equal(err.msg, "temperature must be 0 to 2, got 3.5");
}

static void long_texts_are_cut_not_overrun(void **state)
{
    char text[1000];
    struct err err;

    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    err_fill_at(&err, GD_EINVAL, text, "%s", text);
    assert_int_equal(strlen(err.param), sizeof(err.param) - 1);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void every_code_is_negative_and_has_its_own_name(void **state)
{
#define X(name, value, text) {name, text},
    const struct {
        int code;
        const char *text;
    } all[] = {GD_ERR_MAP(X)};
#undef X
    size_t n = sizeof(all) / sizeof(*all);

    assert_string_equal(err_name(0), "ok");
    for (size_t i = 0; i < n; i++) {
        assert_true(all[i].code < 0);
        assert_string_equal(err_name(all[i].code), all[i].text);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(all[i].code, all[j].code);
            assert_string_not_equal(all[i].text, all[j].text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_code_and_the_sentence_arrive),
        cmocka_unit_test(the_field_arrives),
        cmocka_unit_test(long_texts_are_cut_not_overrun),
        cmocka_unit_test(every_code_is_negative_and_has_its_own_name),
    };

    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
