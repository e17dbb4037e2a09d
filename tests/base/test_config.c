/* The table of settings: bounds, words, files, arguments; config/gemmad.conf and the table agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "gemmad/config.h"

static int parse(struct config *c, const char *text, struct err *err)
{
    config_default(c);
    memset(err, 0, sizeof(*err));
    return config_parse(c, "f.conf", text, strlen(text), err);
}

static void defaults_read_back_as_written(void **state)
{
    struct config c;
    char value[CONFIG_PATH_MAX];

    config_default(&c);
    for (size_t i = 0; i < config_n_keys(); i++) {
        config_get(&c, i, value, sizeof(value));
        assert_string_equal(value, config_key_at(i).def);
        assert_true(strlen(config_key_at(i).help) > 10);
    }
    assert_string_equal(c.host, "127.0.0.1");
    assert_int_equal(c.threads, 0);
    assert_true(c.default_temperature < 0);
}

static void a_file_sets_values(void **state)
{
    struct config c;
    struct err err;

    assert_int_equal(parse(&c,
                         "# comment\n\n  port = 9000 \r\nmodel=/a b/c.gguf\nstrict = yes\n"
                         "default-temperature = 0.5\nlog_level = debug\ntop = 1",
                         &err),
        GD_EINVAL);
    assert_string_equal(err.msg, "f.conf:8: unknown setting \"top\"");
    assert_int_equal(c.port, 9000);
    assert_string_equal(c.model, "/a b/c.gguf");
    assert_true(c.strict);
    assert_true(c.default_temperature == 0.5f);
    assert_int_equal(c.log_level, LOG_LEVEL_DEBUG);
}

static void what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *text, *msg;
    } cases[] = {
        {"port = 65536", "f.conf:1: port: \"65536\" is not a whole number from 0 to 65535"},
        {"port = -1", "f.conf:1: port: \"-1\" is not a whole number from 0 to 65535"},
        {"port = 80x", "f.conf:1: port: \"80x\" is not a whole number from 0 to 65535"},
        {"port =", "f.conf:1: port: \"\" is not a whole number from 0 to 65535"},
        {"port = 99999999999999999999",
            "f.conf:1: port: \"99999999999999999999\" is not a whole number from 0 to 65535"},
        {"port = 0x50", "f.conf:1: port: \"0x50\" is not a whole number from 0 to 65535"},
        {"threads = 0", "f.conf:1: threads: \"0\" is not a whole number from 1 to 1024 or auto"},
        {"default_top_p = nan",
            "f.conf:1: default_top_p: \"nan\" is not a number from 0 to 1 or auto"},
        {"default_top_p = 1e0",
            "f.conf:1: default_top_p: \"1e0\" is not a number from 0 to 1 or auto"},
        {"strict = maybe", "f.conf:1: strict: \"maybe\" is not true or false"},
        {"kv_type = q4", "f.conf:1: kv_type: \"q4\" is not one of auto|f32|bf16"},
        {"log_level = loud", "f.conf:1: log_level: \"loud\" is not one of error|warn|info|debug"},
        {"\nprot = 1", "f.conf:2: unknown setting \"prot\"; did you mean port?"},
        {"max_seqences = 1",
            "f.conf:1: unknown setting \"max_seqences\"; did you mean max_sequences?"},
        {"port", "f.conf:1: expected key = value"},
        {"= 3", "f.conf:1: unknown setting \"\""},
        {"port = 1\nport = 2", "f.conf:2: port is set twice"},
        {"model = a\tb", "f.conf:1: model: control characters are not allowed"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config c;
        struct err err;

        assert_int_equal(parse(&c, cases[i].text, &err), GD_EINVAL);
        assert_string_equal(err.msg, cases[i].msg);
    }
}

static void hostile_bytes_are_refused(void **state)
{
    struct config c;
    struct err err;
    char text[8192];

    config_default(&c);
    assert_int_equal(config_parse(&c, "f", "port = 1\0", 9, &err), GD_EINVAL);
    memset(text, 'a', sizeof(text));
    assert_int_equal(config_parse(&c, "f", text, sizeof(text), &err), GD_EINVAL);
    text[snprintf(text, sizeof(text), "model = ")] = 'a';
    assert_int_equal(config_parse(&c, "f", text, 8 + CONFIG_PATH_MAX, &err), GD_EINVAL);
    assert_int_equal(config_parse(&c, "f", text, 8 + CONFIG_PATH_MAX - 1, &err), 0);
    assert_int_equal(config_parse(&c, "f", NULL, 0, &err), 0);
}

static void arguments_go_the_same_way(void **state)
{
    char *good[] = {
        "--port=1", "--max-sequences", "3", "--strict", "--insecure", "false", "--host=::1"};
    char *unknown[] = {"--prt=1"}, *stray[] = {"model.gguf"}, *empty[] = {"--port"};
    char *no_file[] = {"--config", "/nonexistent/gemmad.conf"}, *no_name[] = {"--config"};
    struct config c;
    struct err err;

    config_default(&c);
    assert_int_equal(config_args(&c, 7, good, &err), 0);
    assert_int_equal(c.port, 1);
    assert_int_equal(c.max_sequences, 3);
    assert_true(c.strict);
    assert_false(c.insecure);
    assert_string_equal(c.host, "::1");
    assert_int_equal(config_args(&c, 1, unknown, &err), GD_EINVAL);
    assert_string_equal(err.msg, "unknown setting \"prt\"; did you mean port?");
    assert_int_equal(config_args(&c, 1, stray, &err), GD_EINVAL);
    assert_string_equal(err.msg, "unexpected argument \"model.gguf\"");
    assert_int_equal(config_args(&c, 1, empty, &err), GD_EINVAL);
    assert_int_equal(config_args(&c, 2, no_file, &err), GD_ENOENT);
    assert_int_equal(config_args(&c, 1, no_name, &err), GD_EINVAL);
}

static void the_command_line_wins_over_the_file(void **state)
{
    char path[] = "/tmp/gemmad-config-XXXXXX";
    int fd = mkstemp(path);
    char *args[] = {"--port=7", "--config", path};
    struct config c;
    struct err err;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "port = 5\nmax_n = 2\n", 19), 19);
    close(fd);
    config_default(&c);
    assert_int_equal(config_args(&c, 3, args, &err), 0);
    unlink(path);
    assert_int_equal(c.port, 7);
    assert_int_equal(c.max_n, 2);
}

static void other_options_are_left_to_the_command(void **state)
{
    char *args[] = {"--prompt", "x", "--port", "9"};
    struct config c;
    struct err err;
    int i = 0;

    config_default(&c);
    assert_int_equal(config_arg(&c, 4, args, &i, &err), 0);
    assert_int_equal(i, 0);
    i = 2;
    assert_int_equal(config_arg(&c, 4, args, &i, &err), 1);
    assert_int_equal(i, 3);
    assert_int_equal(c.port, 9);
}

/* The file that is shipped: every "#key = default" line is a row and every row has one. */
static void the_shipped_file_and_the_table_agree(void **state)
{
    FILE *f = fopen(GEMMAD_CONF, "r");
    struct buf active = {0};
    struct config from_file, from_table;
    struct err err;
    char line[512], want[512], want_empty[512];
    size_t n_seen = 0;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        bool known = false;

        assert_true(strlen(line) <= 101);
        if (line[0] != '#' || line[1] == ' ' || line[1] == '\n') {
            assert_true(line[0] == '#' || line[0] == '\n'); /* nothing is set in it */
            continue;
        }
        buf_puts(&active, line + 1);
        for (size_t i = 0; i < config_n_keys(); i++) {
            snprintf(want, sizeof(want), "#%s = %s\n", config_key_at(i).key, config_key_at(i).def);
            snprintf(want_empty, sizeof(want_empty), "#%s =\n", config_key_at(i).key);
            known = known || strcmp(line, want) == 0 ||
                    (!*config_key_at(i).def && strcmp(line, want_empty) == 0);
        }
        if (!known)
            fail_msg("no such setting or not its default: %s", line);
        n_seen++;
    }
    fclose(f);
    assert_int_equal(n_seen, config_n_keys());
    config_default(&from_table);
    config_default(&from_file);
    /* config_parse refuses duplicates, so n_seen distinct rows were set */
    assert_int_equal(config_parse(&from_file, "gemmad.conf", active.data, active.len, &err), 0);
    assert_memory_equal(&from_file, &from_table, sizeof(from_file));
    buf_free(&active);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_read_back_as_written),
        cmocka_unit_test(a_file_sets_values),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(hostile_bytes_are_refused),
        cmocka_unit_test(arguments_go_the_same_way),
        cmocka_unit_test(the_command_line_wins_over_the_file),
        cmocka_unit_test(other_options_are_left_to_the_command),
        cmocka_unit_test(the_shipped_file_and_the_table_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
