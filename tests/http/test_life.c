/* From the first line of output to the exit code: loading, binding, keys, signals, sd_notify. */
#include "client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char dir[] = "/tmp/gemmad-life-XXXXXX";

static int make_dir(void **state)
{
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

static const char *write_file(const char *name, const char *text)
{
    static char path[2][128];
    static int turn;
    char *p = path[turn ^= 1];
    FILE *f;

    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    f = fopen(p, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return p;
}

static int status_with_key(const struct daemon *d, const char *path, const char *authorization)
{
    struct answer a;
    int fd = dial(d), status;

    say(fd, "GET %s HTTP/1.1\r\nHost: any.example\r\n%s%s%s\r\n", path,
        *authorization ? "Authorization: " : "", authorization, *authorization ? "\r\n" : "");
    hear(fd, &a);
    status = a.status;
    if (status == 401) {
        assert_string_equal(answer_header(&a, "WWW-Authenticate"), "Bearer realm=\"gemmad\"");
        assert_non_null(strstr(a.body.data, "\"code\":\"invalid_api_key\""));
    }
    answer_free(&a);
    hang_up(fd);
    return status;
}

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

static void a_public_address_needs_keys(void **state)
{
    static const char *const open[] = {"--port=0", "--host=0.0.0.0", NULL};
    static const char *const open6[] = {"--port=0", "--host=::", NULL};
    static const char *const name[] = {"--port=0", "--host=example.org", NULL};
    static const char *const insecure[] = {"--host=0.0.0.0", "--insecure", NULL};
    struct daemon d;
    char out[512];

    assert_int_equal(daemon_fails(open, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "api_key_file"));
    assert_non_null(strstr(out, "insecure = true"));
    assert_int_equal(daemon_fails(open6, out, sizeof(out)), 2);
    assert_int_equal(daemon_fails(name, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "neither an IP address nor localhost"));
    daemon_start(&d, insecure);
    daemon_wait_ready(&d);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

static void ipv6_is_spoken(void **state)
{
    static const char *const args[] = {"--host=[::1]", NULL};
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct daemon d;
    struct answer r;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        print_message("no IPv6 on this machine: skipped\n");
        close(fd);
        skip();
    }
    close(fd);
    daemon_start(&d, args);
    assert_memory_equal(d.url, "http://[::1]:", 13);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    a.sin6_port = htons((uint16_t)d.port);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    say(fd, "GET /livez HTTP/1.1\r\nHost: [::1]:%d\r\n\r\n", d.port);
    hear(fd, &r);
    assert_int_equal(r.status, 200);
    answer_free(&r);
    hang_up(fd);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

static void bad_settings_are_named(void **state)
{
    char file[160], out[512];
    const char *args[] = {file, NULL};

    snprintf(file, sizeof(file), "--config=%s", write_file("bad.conf", "port = 1\n\nprot = 2\n"));
    assert_int_equal(daemon_fails(args, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "bad.conf:3: unknown setting \"prot\"; did you mean port?"));
}

static void keys_are_asked_for(void **state)
{
    char file[160];
    const char *args[] = {file, "--metrics_open=no", NULL};
    struct daemon d;

    snprintf(file, sizeof(file), "--api_key_file=%s",
        write_file("keys", "# keys\nalice:first-key-0123456789\n\nsecond-key-0123456789\n"));
    chmod(file + 15, 0600);
    daemon_start(&d, args);
    daemon_wait_ready(&d); /* /health is open */
    assert_int_equal(status_with_key(&d, "/v1/models", ""), 401);
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer wrong"), 401);
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer first-key-012345678"), 401);
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer alice:first-key-0123456789"), 401);
    assert_int_equal(status_with_key(&d, "/v1/models", "Basic first-key-0123456789"), 401);
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer # keys"), 401);
    assert_int_equal(status_with_key(&d, "/nowhere", ""), 401);
    assert_int_equal(status_with_key(&d, "/metrics", ""), 401);
    assert_int_equal(status_with_key(&d, "/livez", ""), 200);
    assert_int_equal(status_with_key(&d, "/metrics", "Bearer second-key-0123456789"), 200);
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer first-key-0123456789"), 200);
    assert_int_equal(status_with_key(&d, "/v1/models", "bearer second-key-0123456789"), 200);
    assert_true(daemon_log_has(&d, "key=alice"));
    assert_false(daemon_log_has(&d, "first-key"));

    /* SIGHUP: new keys at once; a broken file leaves the old ones */
    write_file("keys", "bob:third-key-0123456789\n");
    kill(d.pid, SIGHUP);
    for (int64_t until = test_ms() + PATIENCE_MS;
         status_with_key(&d, "/v1/models", "Bearer third-key-0123456789") != 200;) {
        assert_true(test_ms() < until);
        sleep_ms(10);
    }
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer first-key-0123456789"), 401);
    write_file("keys", "bad name:x\n");
    kill(d.pid, SIGHUP);
    for (int64_t until = test_ms() + PATIENCE_MS; !daemon_log_has(&d, "the old keys stay");) {
        assert_true(test_ms() < until);
        sleep_ms(10);
    }
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer third-key-0123456789"), 200);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

static void bad_key_files_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {{"", "holds no key"}, {"# only this\n", "holds no key"},
        {"good-key-0123456789\nbad key\n", "keys:2: a key is printable"},
        {":nameless-key-0123456789\n", "keys:1: a key's name"},
        {"name:\n", "keys:1: an empty key"}};
    char file[160], out[512];
    const char *args[] = {"--port=0", file, NULL};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(file, sizeof(file), "--api_key_file=%s", write_file("keys", cases[i].text));
        assert_int_equal(daemon_fails(args, out, sizeof(out)), 2);
        assert_non_null(strstr(out, cases[i].says));
        assert_null(strstr(out, "0123456789"));
    }
    snprintf(file, sizeof(file), "--api_key_file=%s/absent", dir);
    assert_int_equal(daemon_fails(args, out, sizeof(out)), 2);
}

static void the_log_level_is_reloaded(void **state)
{
    char file[160];
    const char *args[] = {file, NULL};
    struct daemon d;
    struct answer a;

    snprintf(file, sizeof(file), "--config=%s", write_file("level.conf", "log_level = info\n"));
    daemon_start(&d, args);
    daemon_wait_ready(&d);
    assert_false(daemon_log_has(&d, "path=/health"));
    write_file("level.conf", "log_level = debug\n");
    kill(d.pid, SIGHUP);
    for (int64_t until = test_ms() + PATIENCE_MS; !daemon_log_has(&d, "path=/health");) {
        assert_true(test_ms() < until);
        ask(&d, &a, "GET", "/health");
        answer_free(&a);
        sleep_ms(10);
    }
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
    assert_true(test_ms() - began < 4000);
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

static void a_passed_socket_is_used(void **state)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *argv[] = {GEMMAD_FAKE, "--model=/nowhere/fake.gguf", "--port=1", NULL};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t n = sizeof(a);
    struct daemon d;

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 16), 0);
    getsockname(fd, (struct sockaddr *)&a, &n);
    daemon_start_command(&d, argv, fd);
    close(fd);
    assert_int_equal(d.port, ntohs(a.sin_port));
    daemon_wait_ready(&d);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

/* At its limit the daemon goes on answering probes, and takes new clients when old ones leave. */
static void the_connection_limit_is_no_dead_end(void **state)
{
    static const char *const args[] = {"--max_connections=4", NULL};
    struct daemon d;
    struct answer a;
    int idle[36], waits[3], more;

    daemon_start(&d, args);
    daemon_wait_ready(&d);
    for (int i = 0; i < 4; i++)
        idle[i] = dial(&d);
    ask(&d, &a, "GET", "/health");
    assert_int_equal(a.status, 200);
    answer_free(&a);
    ask_post(&d, &a, "/v1/chat/completions", CHAT("x"));
    assert_int_equal(a.status, 503);
    assert_string_equal(answer_header(&a, "Connection"), "close");
    answer_free(&a);
    for (int i = 4; i < 36; i++) /* the reserve too */
        idle[i] = dial(&d);
    for (int i = 0; i < 3; i++) { /* beyond everything: these wait in the kernel */
        waits[i] = dial(&d);
        say(waits[i], "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    }
    sleep_ms(100);
    for (int i = 0; i < 3; i++) {
        hang_up(idle[i]);
        hear(waits[i], &a);
        assert_int_equal(a.status, 200);
        answer_free(&a);
        hang_up(waits[i]);
    }
    for (int i = 3; i < 36; i++)
        hang_up(idle[i]);
    wait_metric(&d, "gemmad_http_connections", 1);
    more = dial(&d);
    post(more, "/v1/chat/completions", CHAT("tokens=1"));
    hear(more, &a);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    hang_up(more);
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
}

static void the_service_manager_is_told(void **state)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/notify", dir);
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
        cmocka_unit_test(a_public_address_needs_keys),
        cmocka_unit_test(ipv6_is_spoken),
        cmocka_unit_test(bad_settings_are_named),
        cmocka_unit_test(keys_are_asked_for),
        cmocka_unit_test(bad_key_files_are_refused),
        cmocka_unit_test(the_log_level_is_reloaded),
        cmocka_unit_test(draining_lets_running_answers_finish),
        cmocka_unit_test(what_runs_longer_is_ended_properly),
        cmocka_unit_test(a_second_signal_hurries),
        cmocka_unit_test(sockets_of_every_kind_do_not_hold_up_the_end),
        cmocka_unit_test(a_passed_socket_is_used),
        cmocka_unit_test(the_connection_limit_is_no_dead_end),
        cmocka_unit_test(the_service_manager_is_told),
        cmocka_unit_test(an_idle_daemon_uses_no_cpu),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
