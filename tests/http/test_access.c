/* Who may come in: addresses, keys, hosts, the connection limit. */
#include "client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

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

static void keys_are_asked_for(void **state)
{
    char file[160];
    const char *args[] = {file, "--metrics_open=no", NULL};
    struct daemon d;

    snprintf(file, sizeof(file), "--api_key_file=%s",
        test_file("keys", "# keys\nalice:first-key-0123456789\n\nsecond-key-0123456789\n"));
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
    test_file("keys", "bob:third-key-0123456789\n");
    kill(d.pid, SIGHUP);
    for (int64_t until = test_ms() + PATIENCE_MS;
         status_with_key(&d, "/v1/models", "Bearer third-key-0123456789") != 200;) {
        assert_true(test_ms() < until);
        sleep_ms(10);
    }
    assert_int_equal(status_with_key(&d, "/v1/models", "Bearer first-key-0123456789"), 401);
    test_file("keys", "bad name:x\n");
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
        snprintf(file, sizeof(file), "--api_key_file=%s", test_file("keys", cases[i].text));
        assert_int_equal(daemon_fails(args, out, sizeof(out)), 2);
        assert_non_null(strstr(out, cases[i].says));
        assert_null(strstr(out, "0123456789"));
    }
    snprintf(file, sizeof(file), "--api_key_file=%s.absent", test_file("keys", ""));
    assert_int_equal(daemon_fails(args, out, sizeof(out)), 2);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_public_address_needs_keys),
        cmocka_unit_test(ipv6_is_spoken),
        cmocka_unit_test(keys_are_asked_for),
        cmocka_unit_test(bad_key_files_are_refused),
        cmocka_unit_test(a_passed_socket_is_used),
        cmocka_unit_test(the_connection_limit_is_no_dead_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
