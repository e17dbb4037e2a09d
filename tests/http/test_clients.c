/* Clients that leave, stall, drip or sit there: nobody else notices, and their slots are free. */
#include "client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static struct daemon d;

static int start(void **state)
{
    static const char *const args[] = {"--header_timeout_s=1", "--body_timeout_s=1",
        "--idle_timeout_s=3", "--max_sequences=2", "--queue_max=3", "--max_connections=700",
        "--log_level=debug", NULL};

    daemon_start(&d, args);
    daemon_wait_ready(&d);
    return 0;
}

static int stop(void **state)
{
    return daemon_stop(&d, SIGTERM);
}

#define RUNNING "gemmad_requests_running"
#define WAITING "gemmad_requests_waiting"

static double gone(const char *phase)
{
    char name[96];

    snprintf(name, sizeof(name), "gemmad_client_disconnects_total{phase=\"%s\"}", phase);
    return metric(&d, name);
}

static void nothing_is_left(void)
{
    wait_metric(&d, RUNNING, 0);
    wait_metric(&d, WAITING, 0);
    wait_metric(&d, "gemmad_http_requests_in_flight", 0);
}

/* A client that sends the body, waits until `ready` has the value, and leaves in one of three ways:
 * close, reset, half-close. Its slot must be free long before its minute of work is over. */
static void leave(const char *body, const char *ready, double value, const char *phase)
{
    for (int how = 0; how < 3; how++) {
        double before = gone(phase);
        int64_t began;
        int fd = dial(&d);

        post(fd, "/v1/chat/completions", body);
        wait_metric(&d, ready, value);
        sleep_ms(30);
        began = test_ms();
        if (how == 0)
            hang_up(fd);
        else if (how == 1)
            hang_up_hard(fd);
        else
            shutdown(fd, SHUT_WR);
        nothing_is_left();
        assert_true(test_ms() - began < 10000);
        assert_true(gone(phase) == before + 1);
        if (how == 2) {
            assert_true(is_closed(fd, PATIENCE_MS));
            hang_up(fd);
        }
    }
}

static void one_that_leaves_in_prefill_frees_its_slot(void **state)
{
    leave(CHAT("prefill=60000"), RUNNING, 1, "prefill");
    leave(CHAT_STREAM("prefill=60000"), RUNNING, 1, "prefill");
}

static void one_that_leaves_in_decode_frees_its_slot(void **state)
{
    leave(CHAT("tokens=100000 step=5"), RUNNING, 1, "decode");
    leave(CHAT_STREAM("tokens=100000 step=5"), RUNNING, 1, "decode");
    leave(CHAT_STREAM("tokens=100000 step=60000"), RUNNING, 1, "decode");
}

static void one_that_leaves_the_queue_frees_its_place(void **state)
{
    double before = gone("queued");
    int busy[2], fd;

    for (int i = 0; i < 2; i++) {
        busy[i] = dial(&d);
        post(busy[i], "/v1/chat/completions", CHAT_STREAM("prefill=60000"));
    }
    wait_metric(&d, RUNNING, 2);
    fd = dial(&d);
    post(fd, "/v1/chat/completions", CHAT("x"));
    wait_metric(&d, WAITING, 1);
    hang_up(fd);
    wait_metric(&d, WAITING, 0);
    assert_true(gone("queued") == before + 1);
    assert_true(metric(&d, RUNNING) == 2); /* its going has ended nobody else's answer */
    hang_up(busy[0]);
    hang_up(busy[1]);
    nothing_is_left();
}

/* A reader that stops reading: the socket fills up, the stream is blocked in a write. */
static void one_that_leaves_a_blocked_stream_frees_its_slot(void **state)
{
    int fd = dial(&d), small = 4096;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=1000000 burst=10 big=20000"));
    sleep_ms(300);
    assert_true(metric(&d, RUNNING) == 1);
    hang_up(fd);
    nothing_is_left();
}

static void one_that_leaves_in_its_body_is_forgotten(void **state)
{
    int fd = dial(&d);

    say(fd, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"pro");
    sleep_ms(20);
    hang_up_hard(fd);
    nothing_is_left();
}

/* A long body is worked on by a helper thread; its client may be gone before that ends. */
static void one_that_leaves_during_text_work_is_forgotten(void **state)
{
    char body[40000];

    memset(body, ' ', sizeof(body));
    body[snprintf(body, sizeof(body), "{\"prompt\":\"prefill=60000")] = ' ';
    snprintf(body + sizeof(body) - 3, 3, "\"}");
    for (int i = 0; i < 50; i++) {
        int fd = dial(&d);

        post(fd, "/v1/completions", body);
        if (i % 3)
            sleep_ms(i % 3 - 1);
        if (i % 2)
            hang_up_hard(fd);
        else
            hang_up(fd);
    }
    nothing_is_left();
}

/* Its last bytes and its FIN arrive together. The daemon's own timeouts are 1 s and 3 s here, so
 * the wait proves only that it is not for ever; test_garbage.c has the long ones. */
static void one_that_asks_and_leaves_is_not_kept(void **state)
{
    for (int i = 0; i < 20; i++) {
        int fd = dial(&d);

        say(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /li");
        hang_up(fd);
        fd = dial(&d);
        say(fd, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
        hang_up(fd);
    }
    wait_metric(&d, "gemmad_http_connections", 1);
}

static void a_slow_reader_disturbs_nobody(void **state)
{
    struct answer a;
    int slow = dial(&d), small = 4096;
    int64_t began;

    setsockopt(slow, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    post(slow, "/v1/chat/completions", CHAT_STREAM("tokens=1000000 burst=10 big=20000"));
    sleep_ms(200);
    began = test_ms();
    ask_post(&d, &a, "/v1/chat/completions", CHAT_STREAM("tokens=20 step=5"));
    assert_true(a.complete);
    assert_true(test_ms() - began < 5000);
    answer_free(&a);
    hang_up(slow);
    nothing_is_left();
}

/* A client that does not read at all is dropped after idle_timeout_s. */
static void a_reader_that_never_reads_is_dropped(void **state)
{
    int fd = dial(&d), small = 4096;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=1000000 burst=100 big=20000"));
    wait_metric(&d, RUNNING, 1);
    nothing_is_left();
    assert_true(daemon_log_has(&d, "end=stalled"));
    hang_up(fd);
}

/* Sends a byte now and then; the server must close in time all the same. */
static void drip(int fd, const char *text)
{
    int64_t began = test_ms();

    while (!is_closed(fd, 50)) {
        assert_true(test_ms() - began < 5000);
        if (*text)
            say_bytes(fd, text++, 1);
    }
    assert_true(test_ms() - began > 900);
}

static void a_dripping_header_is_cut_off(void **state)
{
    double before = metric(&d, "gemmad_http_timeouts_total");
    struct answer a;
    int fd = dial(&d);

    drip(fd, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    hang_up(fd);
    fd = dial(&d); /* and on a connection that has served a request before */
    say(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hear(fd, &a);
    answer_free(&a);
    drip(fd, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    hang_up(fd);
    fd = dial(&d); /* in the request line */
    drip(fd, "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    hang_up(fd);
    assert_true(metric(&d, "gemmad_http_timeouts_total") == before + 3);
}

static void a_stalled_header_gets_a_408(void **state)
{
    struct answer a;
    int fd = dial(&d);

    say(fd, "GET /v1/models HTTP/1.1\r\nHost: loc");
    hear(fd, &a);
    assert_int_equal(a.status, 408);
    assert_true(a.complete);
    assert_non_null(strstr(a.body.data, "\"code\":\"request_timeout\""));
    answer_free(&a);
    hang_up(fd);
}

static void a_stalled_body_gets_a_408(void **state)
{
    struct answer a;
    int fd = dial(&d);

    say(fd, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"pro");
    hear(fd, &a);
    assert_int_equal(a.status, 408);
    answer_free(&a);
    assert_true(is_closed(fd, PATIENCE_MS));
    hang_up(fd);
}

static void five_hundred_idle_connections_are_nothing(void **state)
{
    static int idle[500];
    struct rlimit r;
    struct answer a;
    double cpu;

    getrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur < 600) {
        r.rlim_cur = r.rlim_max < 1024 ? r.rlim_max : 1024;
        setrlimit(RLIMIT_NOFILE, &r);
    }
    for (int i = 0; i < 500; i++)
        idle[i] = dial(&d);
    wait_metric(&d, "gemmad_http_connections", 501);
    cpu = metric(&d, "process_cpu_seconds_total");
    for (int i = 0; i < 3; i++) {
        int64_t began = test_ms();

        ask_post(&d, &a, "/v1/chat/completions", CHAT_STREAM("tokens=20 step=1"));
        assert_true(a.complete);
        assert_true(test_ms() - began < 5000);
        answer_free(&a);
    }
    sleep_ms(500);
    assert_true(metric(&d, "process_cpu_seconds_total") - cpu < 0.6);
    /* one that wakes up is served */
    say(idle[250], "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hear(idle[250], &a);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    /* and they are closed when their time is over, not kept for ever */
    assert_true(is_closed(idle[0], 6000));
    for (int i = 0; i < 500; i++)
        hang_up(idle[i]);
    wait_metric(&d, "gemmad_http_connections", 1);
}

static void a_full_queue_is_a_503_with_retry_after(void **state)
{
    struct answer a;
    int fds[5];

    for (int i = 0; i < 5; i++) { /* 2 run, 3 wait */
        fds[i] = dial(&d);
        post(fds[i], "/v1/chat/completions", CHAT_STREAM("prefill=60000"));
        wait_metric(&d, i < 2 ? RUNNING : WAITING, i < 2 ? i + 1 : i - 1);
    }
    ask_post(&d, &a, "/v1/chat/completions", CHAT_STREAM("x"));
    assert_int_equal(a.status, 503);
    assert_string_equal(answer_header(&a, "Retry-After"), "7");
    assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
    assert_non_null(strstr(a.body.data, "\"code\":\"server_is_overloaded\""));
    answer_free(&a);
    /* of two prompts one would fit: all or none */
    hang_up(fds[4]);
    wait_metric(&d, WAITING, 2);
    ask_post(&d, &a, "/v1/completions", "{\"prompt\":[\"a\",\"b\"]}");
    assert_int_equal(a.status, 503);
    answer_free(&a);
    wait_metric(&d, WAITING, 2);
    ask(&d, &a, "GET", "/health"); /* a full queue is no illness */
    assert_int_equal(a.status, 200);
    answer_free(&a);
    for (int i = 0; i < 4; i++)
        hang_up(fds[i]);
    nothing_is_left();
}

/* Time in the engine is no idle time of the connection, and costs no CPU here. */
static void waiting_long_is_neither_a_timeout_nor_work(void **state)
{
    struct answer a[2];
    int fd[2];
    double cpu;

    for (int i = 0; i < 2; i++) {
        fd[i] = dial(&d);
        post(fd[i], "/v1/chat/completions",
            i ? CHAT_STREAM("prefill=4500 tokens=1") : CHAT("prefill=4500 tokens=1"));
    }
    wait_metric(&d, RUNNING, 2);
    cpu = metric(&d, "process_cpu_seconds_total");
    sleep_ms(1000);
    assert_true(metric(&d, "process_cpu_seconds_total") - cpu < 0.1);
    for (int i = 0; i < 2; i++) {
        hear(fd[i], &a[i]);
        assert_int_equal(a[i].status, 200);
        assert_true(a[i].complete);
        answer_free(&a[i]);
        hang_up(fd[i]);
    }
}

static void a_blocked_stream_costs_no_cpu(void **state)
{
    int fd = dial(&d), small = 4096;
    double cpu;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=1000000 step=100 burst=1000 big=20000"));
    sleep_ms(1000);
    cpu = metric(&d, "process_cpu_seconds_total");
    sleep_ms(500);
    assert_true(metric(&d, "process_cpu_seconds_total") - cpu < 0.1);
    hang_up(fd);
    nothing_is_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_leaves_in_prefill_frees_its_slot),
        cmocka_unit_test(one_that_leaves_in_decode_frees_its_slot),
        cmocka_unit_test(one_that_leaves_the_queue_frees_its_place),
        cmocka_unit_test(one_that_leaves_a_blocked_stream_frees_its_slot),
        cmocka_unit_test(one_that_leaves_in_its_body_is_forgotten),
        cmocka_unit_test(one_that_leaves_during_text_work_is_forgotten),
        cmocka_unit_test(one_that_asks_and_leaves_is_not_kept),
        cmocka_unit_test(a_slow_reader_disturbs_nobody),
        cmocka_unit_test(a_reader_that_never_reads_is_dropped),
        cmocka_unit_test(a_dripping_header_is_cut_off),
        cmocka_unit_test(a_stalled_header_gets_a_408),
        cmocka_unit_test(a_stalled_body_gets_a_408),
        cmocka_unit_test(five_hundred_idle_connections_are_nothing),
        cmocka_unit_test(a_full_queue_is_a_503_with_retry_after),
        cmocka_unit_test(waiting_long_is_neither_a_timeout_nor_work),
        cmocka_unit_test(a_blocked_stream_costs_no_cpu),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
