/* The gate's pure parts, and the key file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/gate.h"
#include "server/keys.h"

static void json_is_told_by_its_type(void **state)
{
    assert_true(gate_is_json("application/json"));
    assert_true(gate_is_json("Application/JSON; charset=utf-8"));
    assert_true(gate_is_json("application/json ;x=y"));
    assert_false(gate_is_json("application/jsonp"));
    assert_false(gate_is_json("application/json+x"));
    assert_false(gate_is_json("text/plain"));
    assert_false(gate_is_json(""));
    assert_false(gate_is_json(NULL));
}

static void hosts_are_compared_without_their_port(void **state)
{
    static const char *const ours[] = {"localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080",
        "[::1]", "[::1]:8080", "192.168.0.7:80"};
    static const char *const theirs[] = {"", "evil.example", "localhost.evil.example",
        "evil.example:8080", "127.0.0.1.evil.example", "[::1", "[::1]x", "[::2]", ":80",
        "localhost@evil.example", "127.0.0.12"};

    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        assert_true(gate_host_allowed(ours[i], "auto", "192.168.0.7"));
    for (size_t i = 0; i < sizeof(theirs) / sizeof(theirs[0]); i++) {
        if (gate_host_allowed(theirs[i], "auto", "192.168.0.7"))
            fail_msg("%s passed", theirs[i]);
    }
    assert_true(gate_host_allowed("[fe80::1]:80", "auto", "fe80::1"));
    assert_true(gate_host_allowed("anything", "*", ""));
    assert_true(gate_host_allowed(NULL, "auto", ""));
}

static void a_list_of_hosts_is_complete(void **state)
{
    const char *list = "ai.example.org, gemma,[fd00::1]";

    assert_true(gate_host_allowed("ai.example.org", list, "127.0.0.1"));
    assert_true(gate_host_allowed("Gemma:8080", list, "127.0.0.1"));
    assert_true(gate_host_allowed("[fd00::1]", list, "127.0.0.1"));
    assert_false(gate_host_allowed("example.org", list, "127.0.0.1"));
    assert_false(gate_host_allowed("127.0.0.1", list, "127.0.0.1"));
    assert_false(gate_host_allowed("", list, "127.0.0.1"));
    assert_false(gate_host_allowed("gem", list, "127.0.0.1"));
}

static int load(struct keys **k, const char *text, struct err *err)
{
    char path[] = "/tmp/gemmad-keys-XXXXXX";
    int fd = mkstemp(path), r;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    r = keys_load(k, path, err);
    unlink(path);
    return r;
}

static void keys_match_whole_and_with_their_names(void **state)
{
    struct keys *k;
    struct err err;

    assert_int_equal(
        load(&k, "# c\r\n  one-0123456789abcdef  \r\nbob:two-0123456789abcdef", &err), 0);
    assert_int_equal(keys_count(k), 2);
    assert_string_equal(keys_match(k, "one-0123456789abcdef", 20), "");
    assert_string_equal(keys_match(k, "two-0123456789abcdef", 20), "bob");
    assert_null(keys_match(k, "two-0123456789abcdef", 19));
    assert_null(keys_match(k, "bob:two-0123456789abcdef", 24));
    assert_null(keys_match(k, "", 0));
    keys_free(k);
    keys_free(NULL);
}

static void bad_lines_are_named_without_the_key(void **state)
{
    char line[1100], text[2200];
    struct keys *k;
    struct err err;

    memset(line, 'k', sizeof(line) - 1);
    line[sizeof(line) - 1] = 0;
    snprintf(text, sizeof(text), "ok-key-0123456789\n%s\n", line);
    assert_int_equal(load(&k, text, &err), GD_EINVAL);
    assert_non_null(strstr(err.msg, ":2: the line is too long"));
    assert_int_equal(load(&k, "a:b:c-0123456789abcdef\n", &err), 0); /* a named key may hold : */
    assert_string_equal(keys_match(k, "b:c-0123456789abcdef", 20), "a");
    keys_free(k);
    assert_int_equal(load(&k, "secret\x01key\n", &err), GD_EINVAL);
    assert_null(strstr(err.msg, "secret"));
    assert_int_equal(load(&k, "caf\xc3\xa9:key-0123456789abc\n", &err), GD_EINVAL);
    assert_int_equal(load(&k, "name-that-is-longer-than-it-may-be:key\n", &err), GD_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_told_by_its_type),
        cmocka_unit_test(hosts_are_compared_without_their_port),
        cmocka_unit_test(a_list_of_hosts_is_complete),
        cmocka_unit_test(keys_match_whole_and_with_their_names),
        cmocka_unit_test(bad_lines_are_named_without_the_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
