/* Streams: when the head goes out, comments in silence, many at once, time limits. */
#include "client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct daemon d;

static int start(void **state)
{
    static const char *const args[] = {"--keepalive_s=1", "--max_sequences=4", "--queue_max=8",
        "--request_timeout_s=4", "--max_n=4", "--strict", "--served_model_name=gemma-test", NULL};

    daemon_start(&d, args);
    daemon_wait_ready(&d);
    return 0;
}

static int stop(void **state)
{
    return daemon_stop(&d, SIGTERM);
}

static void tokens_come_one_by_one(void **state)
{
    struct answer a;
    int fd = dial(&d);
    int64_t first = 0;

    post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=20 step=50"));
    hear_head(fd, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "X-Accel-Buffering"), "no");
    while (hear_chunk(fd, &a)) {
        if (!first && strstr(a.body.data, "c0.0"))
            first = test_ms();
    }
    assert_true(a.complete);
    assert_true(a.n_chunks >= 8);
    assert_true(first && test_ms() - first > 250); /* the first was not held back for the last */
    answer_free(&a);
    hang_up(fd);
}

static void streams_interleave(void **state)
{
    struct answer a[3];
    int fd[3], n[3] = {0}, lead = 0;

    for (int i = 0; i < 3; i++) {
        fd[i] = dial(&d);
        post(fd[i], "/v1/chat/completions", CHAT_STREAM("tokens=20 step=20"));
        hear_head(fd[i], &a[i]);
    }
    for (bool open = true; open;) {
        open = false;
        for (int i = 0; i < 3; i++) {
            if (!a[i].complete && hear_chunk(fd[i], &a[i])) {
                n[i]++;
                open = true;
            }
        }
        lead = abs(n[0] - n[2]) > lead ? abs(n[0] - n[2]) : lead;
    }
    for (int i = 0; i < 3; i++) {
        assert_true(a[i].complete);
        assert_non_null(strstr(a[i].body.data, "c0.19 "));
        answer_free(&a[i]);
        hang_up(fd[i]);
    }
    assert_true(lead < 18); /* not one after the other */
}

static size_t comments(const struct answer *a)
{
    size_t n = 0;

    for (const char *p = a->body.data; p && (p = strstr(p, ":\n\n")); p++)
        n += p == a->body.data || p[-1] == '\n';
    return n;
}

static void silence_is_filled_with_comments(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/v1/chat/completions", CHAT_STREAM("prefill=2600 tokens=2"));
    assert_int_equal(a.status, 200);
    assert_in_range(comments(&a), 1, 3);
    assert_non_null(strstr(a.body.data, "c0.1"));
    assert_true(a.complete);
    answer_free(&a);
}

/* A stream that waits in the queue longer than keepalive_s gets its head and comments there. */
static void the_queue_is_no_silence_either(void **state)
{
    struct answer a;
    int busy = dial(&d), fd = dial(&d);

    post(busy, "/v1/chat/completions",
        "{\"n\":4,\"messages\":[{\"role\":\"user\",\"content\":\"prefill=2000 tokens=1\"}]}");
    wait_metric(&d, "gemmad_requests_running", 4);
    post(fd, "/v1/chat/completions", CHAT_STREAM("tokens=1"));
    hear(fd, &a);
    assert_int_equal(a.status, 200);
    assert_in_range(comments(&a), 1, 3);
    assert_non_null(strstr(a.body.data, "[DONE]"));
    answer_free(&a);
    hear(busy, &a);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    hang_up(busy);
    hang_up(fd);
}

static void an_answer_out_of_time_ends_as_it_is(void **state)
{
    struct answer a;
    int64_t began = test_ms();

    ask_post(&d, &a, "/v1/chat/completions", CHAT_STREAM("tokens=1000 step=50"));
    assert_int_equal(a.status, 200);
    assert_true(a.complete);
    assert_non_null(strstr(a.body.data, "[DONE]"));
    assert_true(test_ms() - began < 8000);
    answer_free(&a);
}

static void one_that_waits_in_vain_gets_a_503(void **state)
{
    struct answer a;
    int busy = dial(&d);

    post(busy, "/v1/chat/completions",
        "{\"n\":4,\"messages\":[{\"role\":\"user\",\"content\":\"prefill=2000 tokens=1\"}]}");
    wait_metric(&d, "gemmad_requests_running", 4);
    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"x\",\"timeout_ms\":200}");
    assert_int_equal(a.status, 503);
    assert_true(atoi(answer_header(&a, "Retry-After")) >= 1);
    answer_free(&a);
    hang_up(busy);
    wait_metric(&d, "gemmad_requests_running", 0);
}

static void settings_reach_the_api(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"x\",\"zeta\":1}"); /* strict */
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body.data, "zeta"));
    answer_free(&a);
    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"x\",\"n\":5}"); /* max_n */
    assert_int_equal(a.status, 400);
    answer_free(&a);
    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"x\",\"model\":\"gemma-test\"}");
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body.data, "\"model\":\"gemma-test\""));
    answer_free(&a);
    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"x\",\"model\":\"gpt-4\"}");
    assert_int_equal(a.status, 404);
    answer_free(&a);
}

static void several_prompts_are_one_answer(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/v1/completions", "{\"prompt\":[\"tokens=1\",\"tokens=2\"],\"n\":2}");
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body.data, "\"index\":3"));
    assert_non_null(strstr(a.body.data, "\"completion_tokens\":6"));
    answer_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_come_one_by_one),
        cmocka_unit_test(streams_interleave),
        cmocka_unit_test(silence_is_filled_with_comments),
        cmocka_unit_test(the_queue_is_no_silence_either),
        cmocka_unit_test(an_answer_out_of_time_ends_as_it_is),
        cmocka_unit_test(one_that_waits_in_vain_gets_a_503),
        cmocka_unit_test(settings_reach_the_api),
        cmocka_unit_test(several_prompts_are_one_answer),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
