/* From the first line of output to the exit code: loading, signals, reloads, sd_notify. */
#include "client.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void it_listens_while_the_model_loads(void **state)
{
    struct daemon d;
    struct answer a;

    setenv("FAKE_LOAD_MS", "400", 1);
    daemon_start(&d, NULL);
    unsetenv("FAKE_LOAD_MS");
    ask(&d, &a, "GET", "/health");
    assert_int_equal(a.status, 503);
    answer_free(&a);
    ask(&d, &a, "GET", "/livez");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    ask_post(&d, &a, "/v1/chat/completions", CHAT("x"));
    assert_int_equal(a.status, 503);
    assert_true(atoi(answer_header(&a, "Retry-After")) >= 1);
    answer_free(&a);
    ask(&d, &a, "GET", "/v1/models");
    assert_int_equal(a.status, 503);
    answer_free(&a);
    assert_true(metric(&d, "gemmad_ready") == 0);
    daemon_wait_ready(&d);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

static void a_model_that_does_not_load_ends_it(void **state)
{
    static const char *const args[] = {"--port=0", "--model=/nowhere/broken.gguf", NULL};
    char out[512];

    assert_int_equal(daemon_fails(args, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "the fake model is broken"));
}

static void a_signal_while_loading_ends_it(void **state)
{
    struct daemon d;

    setenv("FAKE_LOAD_MS", "60000", 1);
    daemon_start(&d, NULL);
    unsetenv("FAKE_LOAD_MS");
    assert_int_equal(daemon_stop(&d, SIGINT), 0);
}

static void bad_settings_are_named(void **state)
{
    char file[160], out[512];
    const char *args[] = {file, NULL};

    snprintf(file, sizeof(file), "--config=%s", test_file("bad.conf", "port = 1\n\nprot = 2\n"));
    assert_int_equal(daemon_fails(args, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "bad.conf:3: unknown setting \"prot\"; did you mean port?"));
}

static void the_log_level_is_reloaded(void **state)
{
    char file[160];
    const char *args[] = {file, NULL};
    struct daemon d;
    struct answer a;

    snprintf(file, sizeof(file), "--config=%s", test_file("level.conf", "log_level = info\n"));
    daemon_start(&d, args);
    daemon_wait_ready(&d);
    assert_false(daemon_log_has(&d, "path=/health"));
    test_file("level.conf", "log_level = debug\n");
    kill(d.pid, SIGHUP);
    for (int64_t until = test_ms() + PATIENCE_MS; !daemon_log_has(&d, "path=/health");) {
        assert_true(test_ms() < until);
        ask(&d, &a, "GET", "/health");
        answer_free(&a);
        sleep_ms(10);
    }
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

static void limits_are_reloaded(void **state)
{
    char file[160];
    const char *args[] = {file, NULL};
    struct daemon d;
    struct answer a;

    snprintf(file, sizeof(file), "--config=%s", test_file("limits.conf", "max_n = 4\n"));
    daemon_start(&d, args);
    daemon_wait_ready(&d);
    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"tokens=1\",\"n\":3,\"zeta\":1}");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    test_file("limits.conf", "max_n = 2\nstrict = true\nport = 1\n");
    kill(d.pid, SIGHUP);
    for (int64_t until = test_ms() + PATIENCE_MS;;) {
        ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"tokens=1\",\"n\":3}");
        if (a.status == 400)
            break;
        assert_true(test_ms() < until);
        answer_free(&a);
        sleep_ms(10);
    }
    answer_free(&a);
    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"tokens=1\",\"zeta\":1}");
    assert_int_equal(a.status, 400);
    answer_free(&a);
    test_file("limits.conf", "max_n = none\n"); /* a broken file changes nothing */
    kill(d.pid, SIGHUP);
    for (int64_t until = test_ms() + PATIENCE_MS; !daemon_log_has(&d, "settings not reloaded");) {
        assert_true(test_ms() < until);
        sleep_ms(10);
    }
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

/* Alive is not ready: an engine that makes no progress takes no new clients, and systemd hears
 * nothing that would keep it from a restart. */
static void a_stuck_engine_is_seen(void **state)
{
    struct daemon d;
    struct answer a;

    setenv("FAKE_STUCK", "1", 1);
    daemon_start(&d, NULL);
    unsetenv("FAKE_STUCK");
    for (int64_t until = test_ms() + PATIENCE_MS;;) {
        ask(&d, &a, "GET", "/readyz");
        assert_int_equal(a.status, 503);
        if (strstr(a.body.data, "makes no progress"))
            break;
        assert_true(test_ms() < until);
        answer_free(&a);
        sleep_ms(10);
    }
    answer_free(&a);
    ask(&d, &a, "GET", "/livez");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

static void draining_lets_running_answers_finish(void **state)
{
    struct daemon d;
    struct answer a, b, r;
    int fd, waits, idle;

    daemon_start(&d, NULL);
    daemon_wait_ready(&d);
    idle = dial(&d);
    fd = dial(&d);
    waits = dial(&d);
    post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=20 step=40"));
    post(waits, "/v1/chat/completions", CHAT("tokens=20 step=40"));
    hear_head(fd, &a);
    wait_metric(&d, "gemmad_requests_running", 2);
    kill(d.pid, SIGTERM);
    do
        ask(&d, &r, "GET", "/readyz");
    while (r.status == 200 && (answer_free(&r), true));
    assert_int_equal(r.status, 503);
    answer_free(&r);
    ask(&d, &r, "GET", "/livez");
    assert_int_equal(r.status, 200);
    answer_free(&r);
    ask_post(&d, &r, "/v1/chat/completions", CHAT("x"));
    assert_int_equal(r.status, 503);
    assert_string_equal(answer_header(&r, "Connection"), "close");
    assert_true(*answer_header(&r, "Retry-After"));
    answer_free(&r);
    while (hear_chunk(fd, &a))
        ;
    assert_true(a.complete);
    assert_non_null(strstr(a.body.data, "c0.19 "));
    assert_non_null(strstr(a.body.data, "[DONE]"));
    hear(waits, &b);
    assert_int_equal(b.status, 200);
    assert_non_null(strstr(b.body.data, "c0.19 "));
    assert_true(is_closed(idle, PATIENCE_MS));
    answer_free(&a);
    answer_free(&b);
    hang_up(fd);
    hang_up(waits);
    hang_up(idle);
    assert_int_equal(daemon_stop(&d, 0), 0);
}

/* Drain time over, or a second signal: streams get a last event, whoever has no answer a 503. */
static void cut_short(const char *drain, bool second_signal)
{
    const char *args[] = {drain, "--max_sequences=2", NULL};
    struct daemon d;
    struct answer a;
    int64_t began;
    int streamed, waits, queued;

    daemon_start(&d, args);
    daemon_wait_ready(&d);
    streamed = dial(&d);
    waits = dial(&d);
    queued = dial(&d);
    post(streamed, "/v1/chat/completions", CHAT_STREAM("tokens=100000 step=20"));
    post(waits, "/v1/chat/completions", CHAT("tokens=100000 step=20"));
    wait_metric(&d, "gemmad_requests_running", 2);
    post(queued, "/v1/chat/completions", CHAT_STREAM("tokens=1"));
    wait_metric(&d, "gemmad_requests_waiting", 1);
    began = test_ms();
    kill(d.pid, SIGTERM);
    if (second_signal) {
        sleep_ms(100);
        kill(d.pid, SIGTERM);
    }
    hear(streamed, &a);
    assert_int_equal(a.status, 200);
    assert_true(a.complete); /* the last chunk is there: no cut in the middle */
    assert_non_null(strstr(a.body.data, "[DONE]"));
    answer_free(&a);
    hear(waits, &a);
    assert_true(a.complete);
    assert_int_equal(a.status, 503);
    answer_free(&a);
    hear(queued, &a);
    assert_int_equal(a.status, 503);
    answer_free(&a);
    assert_int_equal(daemon_stop(&d, 0), 0);
    assert_true(test_ms() - began < 10000);
    hang_up(streamed);
    hang_up(waits);
    hang_up(queued);
}

static void what_runs_longer_is_ended_properly(void **state)
{
    cut_short("--drain_s=1", false);
}

static void a_second_signal_hurries(void **state)
{
    cut_short("--drain_s=600", true);
}

static void sockets_of_every_kind_do_not_hold_up_the_end(void **state)
{
    struct daemon d;
    struct answer a;
    int half, body, idle;

    daemon_start(&d, NULL);
    daemon_wait_ready(&d);
    half = dial(&d);
    say(half, "GET /livez HT");
    body = dial(&d);
    say(body, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              "Content-Length: 100\r\n\r\n{");
    idle = dial(&d);
    say(idle, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hear(idle, &a);
    answer_free(&a);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
    hang_up(half);
    hang_up(body);
    hang_up(idle);
}

static void expect_note(int fd, const char *text)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char note[512];

    for (;;) {
        ssize_t n;

        if (poll(&p, 1, PATIENCE_MS) <= 0)
            fail_msg("no %s came", text);
        n = recv(fd, note, sizeof(note) - 1, 0);
        note[n > 0 ? n : 0] = 0;
        if (strstr(note, text))
            return;
    }
}

/* name "@..." is an abstract socket. */
static void notify_to(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct daemon d;

    memcpy(a.sun_path, name, strlen(name));
    if (*name == '@')
        a.sun_path[0] = 0;
    assert_int_equal(bind(fd, (struct sockaddr *)&a,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
        0);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "100000", 1);
    daemon_start(&d, NULL);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    expect_note(fd, "READY=1");
    expect_note(fd, "WATCHDOG=1");
    kill(d.pid, SIGHUP);
    expect_note(fd, "RELOADING=1");
    expect_note(fd, "READY=1");
    kill(d.pid, SIGTERM);
    expect_note(fd, "STOPPING=1");
    assert_int_equal(daemon_stop(&d, 0), 0);
    close(fd);
}

static void the_service_manager_is_told(void **state)
{
    char path[128];

    snprintf(path, sizeof(path), "%s", test_file("notify", ""));
    unlink(path); /* only its place was wanted */
    notify_to(path);
    snprintf(path, sizeof(path), "@gemmad-test-%d", (int)getpid());
    notify_to(path);
}

static void an_idle_daemon_uses_no_cpu(void **state)
{
    struct daemon d;
    double before;

    daemon_start(&d, NULL);
    daemon_wait_ready(&d);
    before = metric(&d, "process_cpu_seconds_total");
    sleep_ms(1500);
    assert_true(metric(&d, "process_cpu_seconds_total") - before < 0.02);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_listens_while_the_model_loads),
        cmocka_unit_test(a_model_that_does_not_load_ends_it),
        cmocka_unit_test(a_signal_while_loading_ends_it),
        cmocka_unit_test(bad_settings_are_named),
        cmocka_unit_test(the_log_level_is_reloaded),
        cmocka_unit_test(limits_are_reloaded),
        cmocka_unit_test(a_stuck_engine_is_seen),
        cmocka_unit_test(draining_lets_running_answers_finish),
        cmocka_unit_test(what_runs_longer_is_ended_properly),
        cmocka_unit_test(a_second_signal_hurries),
        cmocka_unit_test(sockets_of_every_kind_do_not_hold_up_the_end),
        cmocka_unit_test(the_service_manager_is_told),
        cmocka_unit_test(an_idle_daemon_uses_no_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
