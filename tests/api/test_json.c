/* The validator accepts RFC 8259 and nothing else, and the getters explain themselves. */
#include "api/json.h"

#include "api_test.h"

enum { BYTES_MAX = 1 << 20, VALUES_MAX = 1000 };

static int parse(struct json *json, const char *text, size_t n, struct err *err)
{
    /* a copy of just these bytes: reading past them is for the sanitizer to see */
    char *copy = malloc(n ? n : 1);
    int r;

    assert_non_null(copy);
    memcpy(copy, text, n);
    r = json_parse(json, copy, n, BYTES_MAX, VALUES_MAX, err);
    free(copy);
    return r;
}

static void good_json_is_accepted(void **state)
{
    static const char *const good[] = {
        "{}",
        "[]",
        " [ ] ",
        "\t{\r\n}\n",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "0.5",
        "-1.5e-3",
        "1E+10",
        "12345678901234567890",
        "1e308",
        "1e-400",
        "\"\"",
        "\"a\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0001\\u007f\\u00e9\\uffff\"",
        "\"\\ud83d\\ude00\"",
        "\"\\uDBFF\\uDFFF\"",
        "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
        "\"\x7f\"",
        "{\"a\":1,\"b\":[1,2,{\"a\":3}],\"A\":2}",
        "{\"\":1,\" \":2}",
        "[[],{},null,true,false,\"x\",-1.0]",
    };

    for (size_t i = 0; i < COUNT(good); i++) {
        struct json json;
        struct err err = {0};

        if (parse(&json, good[i], strlen(good[i]), &err) != 0)
            fail_msg("%s: %s", good[i], err.msg);
        cJSON_Delete(json.root);
    }
}

static const struct bad_body bad_json[] = {
    {"", GD_EINVAL, "", "empty"},
    {" \n", GD_EINVAL, "", "empty"},
    {"{", GD_EINVAL, "", "a member without a quoted name at byte 1"},
    {"[", GD_EINVAL, "", "no value at byte 1"},
    {"}", GD_EINVAL, "", "an unexpected character at byte 0"},
    {"[1", GD_EINVAL, "", "an array without , or ]"},
    {"[1,", GD_EINVAL, "", "no value at byte 3"},
    {"[1,]", GD_EINVAL, "", "an unexpected character at byte 3"},
    {"[,1]", GD_EINVAL, "", "an unexpected character at byte 1"},
    {"[1 2]", GD_EINVAL, "", "an array without , or ] at byte 3"},
    {"{\"a\"}", GD_EINVAL, "", "a member without a colon"},
    {"{\"a\":}", GD_EINVAL, "", "an unexpected character"},
    {"{\"a\":1,}", GD_EINVAL, "", "a member without a quoted name"},
    {"{\"a\" 1}", GD_EINVAL, "", "a member without a colon"},
    {"{\"a\":1 \"b\":2}", GD_EINVAL, "", "an object without , or }"},
    {"{a:1}", GD_EINVAL, "", "a member without a quoted name"},
    {"{'a':1}", GD_EINVAL, "", "a member without a quoted name"},
    {"{1:1}", GD_EINVAL, "", "a member without a quoted name"},
    {"{\"a\":1]", GD_EINVAL, "", "an object without , or }"},
    {"[1}", GD_EINVAL, "", "an array without , or ]"},
    {"{} {}", GD_EINVAL, "", "something after the value at byte 3"},
    {"{}x", GD_EINVAL, "", "something after the value at byte 2"},
    {"\xef\xbb\xbf{}", GD_EINVAL, "", "an unexpected character at byte 0"},
    {"/* c */ {}", GD_EINVAL, "", "an unexpected character"},
    {"{} // c", GD_EINVAL, "", "something after the value"},
    {"\f{}", GD_EINVAL, "", "an unexpected character"},
    {"NaN", GD_EINVAL, "", "an unexpected character"},
    {"nan", GD_EINVAL, "", "an unknown word"},
    {"Infinity", GD_EINVAL, "", "an unexpected character"},
    {"-Infinity", GD_EINVAL, "", "a number without digits"},
    {"inf", GD_EINVAL, "", "an unexpected character"},
    {"True", GD_EINVAL, "", "an unexpected character"},
    {"tru", GD_EINVAL, "", "an unknown word"},
    {"nulll", GD_EINVAL, "", "something after the value"},
    {"-", GD_EINVAL, "", "a number without digits"},
    {"+1", GD_EINVAL, "", "an unexpected character"},
    {".5", GD_EINVAL, "", "an unexpected character"},
    {"5.", GD_EINVAL, "", "a number without digits after the point"},
    {"01", GD_EINVAL, "", "a number with a leading zero"},
    {"-01", GD_EINVAL, "", "a number with a leading zero"},
    {"1e", GD_EINVAL, "", "a number without digits in its exponent"},
    {"1e+", GD_EINVAL, "", "a number without digits in its exponent"},
    {"0x10", GD_EINVAL, "", "something after the value"},
    {"1_000", GD_EINVAL, "", "something after the value"},
    {"1e400", GD_EINVAL, "", "a number that is too large"},
    {"-1e400", GD_EINVAL, "", "a number that is too large"},
    {"1111111111111111111111111111111111111111111111111111111111111", GD_EINVAL, "",
        "more than 60 characters"},
    {"\"a", GD_EINVAL, "", "a string without an end"},
    {"\"a\\", GD_EINVAL, "", "an unknown escape"},
    {"\"a\\\"", GD_EINVAL, "", "a string without an end"},
    {"\"a\nb\"", GD_EINVAL, "", "a control character in a string at byte 2"},
    {"\"\t\"", GD_EINVAL, "", "a control character"},
    {"\"\\x41\"", GD_EINVAL, "", "an unknown escape"},
    {"\"\\'\"", GD_EINVAL, "", "an unknown escape"},
    {"\"\\u12\"", GD_EINVAL, "", "\\u without four hex digits"},
    {"\"\\u12g4\"", GD_EINVAL, "", "\\u without four hex digits"},
    {"\"\\u", GD_EINVAL, "", "\\u without four hex digits"},
    {"\"\\u0000\"", GD_EINVAL, "", "\\u0000"},
    {"\"\\ud83d\"", GD_EINVAL, "", "a lone surrogate"},
    {"\"\\ud83dx\"", GD_EINVAL, "", "a lone surrogate"},
    {"\"\\ud83d\\u0041\"", GD_EINVAL, "", "a lone surrogate"},
    {"\"\\ud83d\\ud83d\"", GD_EINVAL, "", "a lone surrogate"},
    {"\"\\ude00\"", GD_EINVAL, "", "a lone surrogate"},
    {"\"\\ud83d\\u", GD_EINVAL, "", "a lone surrogate"},
    {"\"\x80\"", GD_EINVAL, "", "invalid UTF-8 in a string at byte 1"},
    {"\"\xc0\x80\"", GD_EINVAL, "", "invalid UTF-8"},
    {"\"\xc3\"", GD_EINVAL, "", "invalid UTF-8"},
    {"\"\xed\xa0\x80\"", GD_EINVAL, "", "invalid UTF-8"},
    {"\"\xf4\x90\x80\x80\"", GD_EINVAL, "", "invalid UTF-8"},
    {"\"\xff\"", GD_EINVAL, "", "invalid UTF-8"},
    {"\"\xf0\x9f\x98", GD_EINVAL, "", "invalid UTF-8"},
    {"{\"a\":1,\"a\":2}", GD_EINVAL, "a", "\"a\" is given twice"},
    {"{\"a\":1,\"\\u0061\":2}", GD_EINVAL, "a", "\"a\" is given twice"},
    {"{\"x\":[{\"b\":1,\"c\":2,\"b\":1}]}", GD_EINVAL, "b", "\"b\" is given twice"},
    {"{\"a\\nb\":1,\"a\\nb\":2}", GD_EINVAL, "a?b", "\"a?b\" is given twice"},
    {"{\"\":1,\"\":2}", GD_EINVAL, "?", "is given twice"},
};

static void bad_json_is_refused_with_its_place(void **state)
{
    for (size_t i = 0; i < COUNT(bad_json); i++) {
        struct json json = {0};
        struct err err = {0};
        int r = parse(&json, bad_json[i].body, strlen(bad_json[i].body), &err);

        check_refusal(&bad_json[i], r, &err);
        assert_null(json.root);
    }
}

static void a_nul_byte_is_no_space_and_no_text(void **state)
{
    struct json json;
    struct err err = {0};

    assert_int_equal(parse(&json, "{}\0", 3, &err), GD_EINVAL);
    assert_int_equal(parse(&json, "\0{}", 3, &err), GD_EINVAL);
    assert_int_equal(parse(&json, "\"a\0b\"", 5, &err), GD_EINVAL);
    assert_int_equal(parse(&json, "{\"a\0\":1}", 8, &err), GD_EINVAL);
}

static int nest(int depth, const char *open, const char *close, struct err *err)
{
    struct buf b = {0};
    struct json json = {0};
    int r;

    for (int i = 0; i < depth; i++)
        buf_puts(&b, open);
    buf_puts(&b, "1");
    for (int i = 0; i < depth; i++)
        buf_puts(&b, close);
    r = parse(&json, b.data, b.len, err);
    cJSON_Delete(json.root);
    buf_free(&b);
    return r;
}

static void depth_is_limited(void **state)
{
    struct err err = {0};

    assert_int_equal(nest(64, "[", "]", &err), 0);
    assert_int_equal(nest(65, "[", "]", &err), GD_EINVAL);
    assert_non_null(strstr(err.msg, "deeper than 64"));
    assert_int_equal(nest(64, "{\"a\":", "}", &err), 0);
    assert_int_equal(nest(65, "{\"a\":", "}", &err), GD_EINVAL);
    assert_int_equal(nest(100000, "[", "", &err), GD_EINVAL);
    assert_int_equal(nest(100000, "{\"a\":[", "", &err), GD_EINVAL);
}

static void values_and_bytes_are_limited(void **state)
{
    struct buf b = {0};
    struct json json = {0};
    struct err err = {0};

    buf_puts(&b, "[0");
    for (int i = 0; i < VALUES_MAX - 2; i++)
        buf_puts(&b, ",0");
    buf_puts(&b, "]");
    assert_int_equal(parse(&json, b.data, b.len, &err), 0);
    cJSON_Delete(json.root);
    b.data[b.len - 1] = ',';
    buf_puts(&b, "0]");
    assert_int_equal(parse(&json, b.data, b.len, &err), GD_ETOOBIG);
    assert_int_equal(json_parse(&json, b.data, b.len, b.len - 1, 1 << 20, &err), GD_ETOOBIG);
    buf_free(&b);
}

static void many_members_are_compared_in_no_time(void **state)
{
    struct buf b = {0};
    struct json json = {0};
    struct err err = {0};

    buf_puts(&b, "{\"x\":0");
    for (int i = 0; i < 150000; i++)
        buf_printf(&b, ",\"%d\":0", i);
    buf_puts(&b, "}");
    assert_int_equal(json_parse(&json, b.data, b.len, b.len, 200000, &err), 0);
    cJSON_Delete(json.root);
    buf_free(&b);
}

static void getters_match_names_exactly(void **state)
{
    const char text[] = "{\"A\":1,\"b\":null,\"c\":2.5,\"d\":\"x\",\"e\":[1,2],\"f\":true}";
    struct json json;
    struct json_object o;
    struct err err = {0};
    const cJSON *array;
    const char *s;
    int64_t i = 7;
    double d;
    bool yes = false;
    size_t at = 0;
    int n;

    assert_int_equal(parse(&json, text, sizeof(text) - 1, &err), 0);
    assert_int_equal(json_open(&o, json.root, "outer", &err), 0);
    assert_int_equal(json_int(&o, "a", 0, 9, &i, &err), 0);
    assert_int_equal(json_int(&o, "b", 0, 9, &i, &err), 0);
    assert_int_equal(i, 7);
    assert_int_equal(json_int(&o, "c", 0, 9, &i, &err), GD_EINVAL);
    assert_string_equal(err.msg, "outer.c: want an integer in 0..9, got 2.5");
    assert_string_equal(err.param, "outer.c");
    assert_int_equal(json_number(&o, "c", 0, 2, &d, &err), GD_EINVAL);
    assert_string_equal(err.msg, "outer.c: want a number in 0..2, got 2.5");
    assert_int_equal(json_number(&o, "c", 0, 2.5, &d, &err), 1);
    assert_int_equal(json_string(&o, "d", &s, &err), 1);
    assert_string_equal(s, "x");
    assert_int_equal(json_bool(&o, "d", &yes, &err), GD_EINVAL);
    assert_string_equal(err.msg, "outer.d: want true or false, got a string");
    assert_int_equal(json_array(&o, "e", 1, &array, &n, &err), GD_EINVAL);
    assert_string_equal(err.msg, "outer.e: want at most 1 entries, got 2");
    assert_int_equal(json_array(&o, "e", 2, &array, &n, &err), 1);
    assert_int_equal(n, 2);
    assert_string_equal(json_left(&o, &at)->string, "A");
    assert_string_equal(json_left(&o, &at)->string, "f");
    assert_null(json_left(&o, &at));
    assert_int_equal(json_bool(&o, "f", &yes, &err), 1);
    assert_true(yes);
    cJSON_Delete(json.root);
}

static void integers_beyond_a_double_s_53_bits_are_refused(void **state)
{
    cJSON number = {.type = cJSON_Number};
    struct err err = {0};
    int64_t v = 0;

    number.valuedouble = 9007199254740992.0;
    assert_int_equal(json_integer(&number, "x", INT64_MIN, INT64_MAX, &v, &err), 1);
    assert_true(v == INT64_C(1) << 53);
    number.valuedouble = 9007199254740994.0;
    assert_int_equal(json_integer(&number, "x", INT64_MIN, INT64_MAX, &v, &err), GD_EINVAL);
    number.valuedouble = 9223372036854775808.0; /* one more than INT64_MAX */
    assert_int_equal(json_integer(&number, "x", INT64_MIN, INT64_MAX, &v, &err), GD_EINVAL);
}

static void the_seed_is_kept_as_written(void **state)
{
    const char text[] = "{\"x\":{\"seed\":1}, \"seed\" : 18446744073709551615 }";
    struct json json;
    struct err err = {0};

    assert_int_equal(json_parse(&json, text, sizeof(text) - 1, BYTES_MAX, VALUES_MAX, &err), 0);
    assert_int_equal(json.seed_len, 20);
    assert_memory_equal(json.seed, "18446744073709551615", 20);
    cJSON_Delete(json.root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_json_is_accepted),
        cmocka_unit_test(bad_json_is_refused_with_its_place),
        cmocka_unit_test(a_nul_byte_is_no_space_and_no_text),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(values_and_bytes_are_limited),
        cmocka_unit_test(many_members_are_compared_in_no_time),
        cmocka_unit_test(getters_match_names_exactly),
        cmocka_unit_test(integers_beyond_a_double_s_53_bits_are_refused),
        cmocka_unit_test(the_seed_is_kept_as_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
