/* Framing, routes, limits and errors, as raw bytes on a socket. */
#include "client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct daemon d;

static int start(void **state)
{
    static const char *const args[] = {"--max_body_kib=64", "--header_timeout_s=1",
        "--body_timeout_s=1", "--idle_timeout_s=3", "--log_level=debug", NULL};

    daemon_start(&d, args);
    daemon_wait_ready(&d);
    return 0;
}

static int stop(void **state)
{
    return daemon_stop(&d, SIGTERM);
}

static void expect(const char *method, const char *path, int status, const char *in_body)
{
    struct answer a;

    ask(&d, &a, method, path);
    assert_int_equal(a.status, status);
    assert_non_null(strstr(a.body.data, in_body));
    answer_free(&a);
}

static void every_path_answers_its_method(void **state)
{
    struct answer a;

    expect("GET", "/health", 200, "{\"status\":\"ok\"}");
    expect("GET", "/livez", 200, "ok");
    expect("GET", "/readyz", 200, "ok");
    expect("GET", "/v1/models", 200, "\"id\":\"fake\"");
    expect("GET", "/v1/models/fake", 200, "\"id\":\"fake\"");
    expect("GET", "/v1/models/%66ake?x=1", 200, "\"id\":\"fake\"");
    expect("GET", "http://localhost/health", 200, "ok");
    expect("GET", "/v1/models/other", 404, "\"code\":\"model_not_found\"");
    expect("GET", "/v1/models/%00fake", 404, "model_not_found");
    expect("GET", "/v1/models/%6", 404, "model_not_found");
    expect("GET", "/v1/models/", 404, "\"code\":\"not_found\"");
    expect("GET", "/", 404, "\"param\":null");
    expect("GET", "/health/", 404, "not_found");
    expect("GET", "/health%00", 404, "not_found");
    expect("POST", "/health", 405, "method_not_allowed");
    expect("DELETE", "/v1/models", 405, "method_not_allowed");
    expect("GET", "/v1/chat/completions", 405, "method_not_allowed");
    expect("GET", "/v1/embeddings", 405, "method_not_allowed");
    ask(&d, &a, "GET", "/v1/chat/completions");
    assert_string_equal(answer_header(&a, "Allow"), "POST, OPTIONS");
    answer_free(&a);
    ask(&d, &a, "OPTIONS", "/health");
    assert_int_equal(a.status, 204);
    assert_string_equal(answer_header(&a, "Allow"), "GET, HEAD, OPTIONS");
    answer_free(&a);
    ask(&d, &a, "OPTIONS", "*");
    assert_int_equal(a.status, 204);
    answer_free(&a);
    ask(&d, &a, "HEAD", "/health");
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Content-Length"), "15");
    answer_free(&a);
}

static void text_endpoints_answer(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/tokenize", "{\"content\":\"ab\"}");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.data, "{\"tokens\":[97,98]}");
    answer_free(&a);
    ask_post(&d, &a, "/detokenize", "{\"tokens\":[97,98]}");
    assert_string_equal(a.body.data, "{\"content\":\"ab\"}");
    answer_free(&a);
    ask_post(&d, &a, "/apply-template", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    assert_string_equal(a.body.data, "{\"prompt\":\"[x]\"}");
    answer_free(&a);
}

static void a_request_id_is_echoed_or_made(void **state)
{
    struct answer a;
    int fd = dial(&d);

    say(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: my-id.7\r\n\r\n");
    hear(fd, &a);
    assert_string_equal(answer_header(&a, "X-Request-Id"), "my-id.7");
    answer_free(&a);
    say(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a b\r\n\r\n");
    hear(fd, &a);
    assert_memory_equal(answer_header(&a, "X-Request-Id"), "req_", 4);
    answer_free(&a);
    hang_up(fd);
}

static void unknown_parameters_are_named(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"tokens=1\",\"zeta\":1,\"alpha\":[2]}");
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_header(&a, "X-Ignored-Params"), "zeta"));
    assert_non_null(strstr(answer_header(&a, "X-Ignored-Params"), "alpha"));
    answer_free(&a);
}

static void a_connection_serves_many_requests(void **state)
{
    struct answer a;
    int fd = dial(&d);

    for (int i = 0; i < 3; i++) {
        say(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        hear(fd, &a);
        assert_int_equal(a.status, 200);
        answer_free(&a);
        post(fd, "/v1/chat/completions", CHAT("tokens=2"));
        hear(fd, &a);
        assert_int_equal(a.status, 200);
        assert_non_null(strstr(a.body.data, "c0.0 c0.1 "));
        answer_free(&a);
        post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=2"));
        hear(fd, &a);
        assert_true(a.complete);
        assert_string_equal(answer_header(&a, "Content-Type"), "text/event-stream; charset=utf-8");
        assert_string_equal(a.body.data + a.body.len - 14, "data: [DONE]\n\n");
        answer_free(&a);
        post(fd, "/nowhere", "{}");
        hear(fd, &a);
        assert_int_equal(a.status, 404);
        answer_free(&a);
    }
    hang_up(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct answer a;
    int fd = dial(&d);

    /* a slow stream first: what stands behind it waits for it */
    post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=3 step=20"));
    say(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nowhere HTTP/1.1\r\n"
            "Host: localhost\r\n\r\n");
    post(fd, "/tokenize", "{\"content\":\"a\"}");
    hear(fd, &a);
    assert_non_null(strstr(a.body.data, "[DONE]"));
    answer_free(&a);
    hear(fd, &a);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    hear(fd, &a);
    assert_int_equal(a.status, 404);
    answer_free(&a);
    hear(fd, &a);
    assert_string_equal(a.body.data, "{\"tokens\":[97]}");
    answer_free(&a);
    hang_up(fd);
}

static void http_1_0_gets_a_body_that_ends_with_the_connection(void **state)
{
    struct answer a;
    const char *body = CHAT_STREAM("tokens=3");
    int fd = dial(&d);

    say(fd,
        "POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    hear(fd, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Transfer-Encoding"), "");
    assert_non_null(strstr(a.body.data, "data: [DONE]\n\n"));
    answer_free(&a);
    hang_up(fd);
}

static void a_chunked_body_is_read(void **state)
{
    struct answer a;
    int fd = dial(&d);

    say(fd, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"con\r\n");
    say(fd, "a\r\ntent\":\"a\"}\r\n0\r\n\r\n");
    hear(fd, &a);
    assert_string_equal(a.body.data, "{\"tokens\":[97]}");
    answer_free(&a);
    hang_up(fd);
}

static void expect_100_is_served(void **state)
{
    const char *body = "{\"content\":\"a\"}";
    struct answer a;
    int fd = dial(&d);

    say(fd,
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Expect: 100-continue\r\nContent-Length: %zu\r\n\r\n",
        strlen(body));
    sleep_ms(20);
    say(fd, "%s", body);
    hear(fd, &a);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    /* a refusal comes at once, without asking for the body */
    say(fd, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
            "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    hear(fd, &a);
    assert_int_equal(a.status, 415);
    answer_free(&a);
    assert_true(is_closed(fd, PATIENCE_MS));
    hang_up(fd);
}

__attribute__((format(printf, 1, 2))) static int status_of(const char *fmt, ...)
{
    struct answer a;
    va_list ap;
    char text[2048];
    int fd = dial(&d), status;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    say(fd, "%s", text);
    hear(fd, &a);
    status = a.status;
    if (status >= 400) { /* every error is OpenAI's object */
        assert_non_null(strstr(a.body.data, "{\"error\":{\"message\":\""));
        assert_non_null(strstr(a.body.data, "\"param\":"));
        assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
    }
    answer_free(&a);
    hang_up(fd);
    return status;
}

#define POST_HEAD "POST /tokenize HTTP/1.1\r\nHost: localhost\r\n"
#define JSON "Content-Type: application/json\r\n"

static void bodies_are_checked(void **state)
{
    struct answer a;
    char *big = malloc(1 << 20);
    int fd;

    assert_int_equal(status_of(POST_HEAD JSON "\r\n"), 411);
    assert_int_equal(status_of(POST_HEAD "Content-Length: 2\r\n\r\n{}"), 415);
    assert_int_equal(
        status_of(POST_HEAD "Content-Type: text/json\r\nContent-Length: 2\r\n\r\n{}"), 415);
    assert_int_equal(status_of(POST_HEAD JSON "Content-Length: 0\r\n\r\n"), 400);
    assert_int_equal(status_of(POST_HEAD JSON "Content-Length: 1\r\n\r\n{"), 400);
    assert_int_equal(status_of(POST_HEAD JSON "Content-Length: 70000\r\n\r\n"), 413);
    fd = dial(&d); /* the library's own refusal: the status is right, the body its own */
    say(fd, POST_HEAD JSON "Content-Length: 99999999999999999999999\r\n\r\n");
    hear(fd, &a);
    assert_int_equal(a.status, 413);
    answer_free(&a);
    hang_up(fd);
    /* chunked and too long: the answer comes at its end when it is not endless */
    memset(big, 'x', 1 << 20);
    fd = dial(&d);
    say(fd, POST_HEAD JSON "Transfer-Encoding: chunked\r\n\r\n11170\r\n");
    say_bytes(fd, big, 0x11170);
    say(fd, "\r\n0\r\n\r\n");
    hear(fd, &a);
    assert_int_equal(a.status, 413);
    answer_free(&a);
    hang_up(fd);
    fd = dial(&d);
    say(fd, POST_HEAD JSON "Transfer-Encoding: chunked\r\n\r\n100000\r\n");
    say_bytes(fd, big, 1 << 20);
    assert_true(is_closed(fd, PATIENCE_MS));
    hang_up(fd);
    free(big);
}

static void headers_have_limits(void **state)
{
    struct answer a;
    char *big = malloc(100000);
    int fd;

    memset(big, 'a', 99999);
    big[99999] = 0;
    for (int size = 40000; size <= 99999; size += 59999) { /* ours, then the library's limit */
        fd = dial(&d);
        say(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Big: %.*s\r\n\r\n", size, big);
        hear(fd, &a);
        assert_int_equal(a.status, 431);
        answer_free(&a);
        hang_up(fd);
    }
    fd = dial(&d);
    say(fd, "GET /%.*s HTTP/1.1\r\nHost: localhost\r\n\r\n", 9000, big);
    hear(fd, &a);
    assert_int_equal(a.status, 414);
    answer_free(&a);
    hang_up(fd);
    free(big);
}

static void what_smuggles_is_refused(void **state)
{
    static const struct {
        const char *head;
        int status;
    } cases[] = {
        {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400},
        {"Content-Length: 0\r\nContent-Length: 5\r\n", 400},
        {"Content-Length: 5\r\nContent-Length: 5\r\n", 400},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding: xchunked\r\n", 400},
        {"Transfer-Encoding: gzip, chunked\r\n", 400},
        {"Content-Length : 5\r\n", 400},
        {"Content-Length: 0x5\r\n", 400},
        {"Content-Length: 5,5\r\n", 400},
        {"Content-Length: +5\r\n", 400},
        {"Content-Length: -5\r\n", 400},
        {"Host: evil\r\nContent-Length: 5\r\n", 400},
        {"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 5\r\n", 400},
        {"Content-Type: text/plain\r\nContent-Length: 5\r\n", 400},
        {"Expect: wonders\r\nContent-Length: 5\r\n", 417},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer a;
        int fd = dial(&d);

        say(fd, POST_HEAD JSON "%s\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
            cases[i].head);
        hear(fd, &a);
        if (a.status != cases[i].status)
            fail_msg("status %d for %s", a.status, cases[i].head);
        answer_free(&a);
        hear(fd, &a); /* and whatever was behind it is never looked at */
        assert_int_equal(a.status, 0);
        answer_free(&a);
        hang_up(fd);
    }
}

static void odd_requests_are_refused(void **state)
{
    assert_int_equal(status_of("GET /livez HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(status_of("G@T /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
    assert_int_equal(status_of("get /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
    assert_int_equal(status_of("GET /livez HTTP/1.2\r\nHost: localhost\r\n\r\n"), 505);
    assert_int_equal(status_of("GET /livez HTTP/1.1\r\nHost: localhost\r\nX y: 1\r\n\r\n"), 400);
    assert_int_equal(
        status_of("POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
    /* DNS rebinding: without keys only loopback names are served */
    assert_int_equal(status_of("GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 403);
    assert_int_equal(status_of("GET /livez HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n"), 403);
    assert_int_equal(status_of("GET /livez HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"), 200);
    assert_int_equal(status_of("GET /livez HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"), 200);
}

static void api_errors_keep_their_status(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/v1/chat/completions", "{\"messages\":[],\"temperature\":9}");
    assert_int_equal(a.status, 400);
    answer_free(&a);
    ask_post(&d, &a, "/v1/chat/completions", CHAT("fail=0"));
    assert_int_equal(a.status, 500);
    assert_non_null(strstr(a.body.data, "told to fail"));
    answer_free(&a);
    /* once a stream has begun, the error is an event in it */
    ask_post(&d, &a, "/v1/chat/completions", CHAT_STREAM("fail=2"));
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body.data, "c0.1"));
    assert_non_null(strstr(a.body.data, "data: {\"error\":{"));
    assert_true(a.complete);
    answer_free(&a);
}

static void large_bodies_are_worked_on_elsewhere(void **state)
{
    char body[60000];
    struct answer a;

    memset(body, ' ', sizeof(body));
    body[snprintf(body, sizeof(body), "{\"prompt\":\"tokens=2")] = ' ';
    snprintf(body + sizeof(body) - 3, 3, "\"}");
    ask_post(&d, &a, "/v1/completions", body);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body.data, "c0.0 c0.1 "));
    answer_free(&a);
    body[sizeof(body) - 2] = '!';
    ask_post(&d, &a, "/v1/completions", body);
    assert_int_equal(a.status, 400);
    answer_free(&a);
}

static void metrics_are_counted(void **state)
{
    double before = metric(&d, "gemmad_http_requests_total{route=\"/tokenize\",status=\"200\"}");
    struct answer a;

    ask_post(&d, &a, "/tokenize", "{\"content\":\"ab\"}");
    answer_free(&a);
    assert_true(
        metric(&d, "gemmad_http_requests_total{route=\"/tokenize\",status=\"200\"}") == before + 1);
    assert_true(metric(&d, "gemmad_ready") == 1);
    assert_true(metric(&d, "process_resident_memory_bytes") > 1e6);
    assert_true(metric(&d, "process_open_fds") > 5);
    assert_true(metric(&d, "vllm:num_requests_running") == 0);
    assert_true(metric(&d, "gemmad_time_to_first_token_seconds_count") >= 0);
}

/* What Prometheus asks of the text: HELP and TYPE once before a family's samples, families in one
 * piece, buckets that do not fall, a line feed at the end. */
static void metrics_are_well_formed(void **state)
{
    struct answer a;
    char family[128] = "", seen[8192] = "", name[128], type[32] = "";
    double last_bucket = 0, v;

    ask(&d, &a, "GET", "/metrics");
    assert_string_equal(
        answer_header(&a, "Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_int_equal(a.body.data[a.body.len - 1], '\n');
    for (char *line = strtok(a.body.data, "\n"); line; line = strtok(NULL, "\n")) {
        if (sscanf(line, "# HELP %127s", family) == 1) {
            snprintf(name, sizeof(name), "|%.120s|", family);
            assert_null(strstr(seen, name));
            snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s", name);
            last_bucket = 0;
        } else if (sscanf(line, "# TYPE %127s %31s", name, type) == 2) {
            assert_string_equal(name, family);
            assert_true(strcmp(type, "counter") != 0 || strstr(name, "_total"));
        } else {
            assert_memory_equal(line, family, strlen(family));
            assert_int_equal(sscanf(strrchr(line, ' '), "%lf", &v), 1);
            if (strstr(line, "_bucket{")) {
                assert_true(v >= last_bucket);
                last_bucket = v;
            } else if (strstr(line, "_count ") && strcmp(type, "histogram") == 0) {
                assert_true(v == last_bucket);
            }
        }
    }
    assert_non_null(strstr(seen, "|gemmad_inter_token_latency_seconds|"));
    answer_free(&a);
}

static void prompts_are_not_in_the_log(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/v1/chat/completions", CHAT("xyzzy-secret tokens=2"));
    answer_free(&a);
    ask_post(&d, &a, "/v1/chat/completions", CHAT("xyzzy-secret") "}");
    answer_free(&a);
    assert_true(daemon_log_has(&d, "path=/v1/chat/completions status=200"));
    assert_false(daemon_log_has(&d, "xyzzy"));
    assert_false(daemon_log_has(&d, "c0.0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_path_answers_its_method),
        cmocka_unit_test(text_endpoints_answer),
        cmocka_unit_test(a_request_id_is_echoed_or_made),
        cmocka_unit_test(unknown_parameters_are_named),
        cmocka_unit_test(a_connection_serves_many_requests),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(http_1_0_gets_a_body_that_ends_with_the_connection),
        cmocka_unit_test(a_chunked_body_is_read),
        cmocka_unit_test(expect_100_is_served),
        cmocka_unit_test(bodies_are_checked),
        cmocka_unit_test(headers_have_limits),
        cmocka_unit_test(what_smuggles_is_refused),
        cmocka_unit_test(odd_requests_are_refused),
        cmocka_unit_test(api_errors_keep_their_status),
        cmocka_unit_test(large_bodies_are_worked_on_elsewhere),
        cmocka_unit_test(metrics_are_counted),
        cmocka_unit_test(metrics_are_well_formed),
        cmocka_unit_test(prompts_are_not_in_the_log),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
