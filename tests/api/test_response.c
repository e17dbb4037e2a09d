/* Answers, streamed and not, to the byte: clients parse them. */
#include "api_test.h"

enum { BOS, HEL, LO, WORLD, HALF, REST, QUOTED, BYTE, EOS, E_ACUTE, A, A_TOO };

static const char *const pieces[] = {"<bos>", "Hel", "lo", " w", "\xf0\x9f", "\x98\x80", "\"q\"",
    "\xff", "<eos>", "\xc3\xa9", "A", "A"};

static const char *piece(void *ud, int32_t id, size_t *len)
{
    const char *s = id >= 0 && id < (int32_t)COUNT(pieces) ? pieces[id] : "";

    *len = strlen(s);
    return s;
}

static struct api_response *answer(const char *body, bool chat)
{
    struct api_limits l = test_limits();
    struct api_request *r = NULL;
    struct api_response *rsp;
    struct err err = {0};
    int rc;

    rc = chat ? api_parse_chat(&r, body, strlen(body), &l, &err)
              : api_parse_completion(&r, body, strlen(body), &l, &err);
    if (rc != 0)
        fail_msg("%s: %s", body, err.msg);
    rsp = api_response_create(r, "R1", 1766000000, piece, NULL);
    api_request_free(r); /* nothing of it may be needed any more */
    return rsp;
}

/* ---- events */

static struct job_event text_event(int choice, const char *text, const struct event_token *t)
{
    return (struct job_event){.kind = EVENT_TEXT,
        .choice = choice,
        .text = text,
        .text_len = strlen(text),
        .tokens = t,
        .n_tokens = t ? 1 : 0,
        .stop_id = -1};
}

static void text(
    struct api_response *rsp, size_t job, int choice, const char *s, int32_t id, struct buf *out)
{
    struct event_token t = {.id = id, .logprob = -0.5f};
    struct job_event ev = text_event(choice, s, &t);

    api_response_feed(rsp, job, &ev, out);
}

static void finish(
    struct api_response *rsp, size_t job, int choice, enum finish_reason why, struct buf *out)
{
    struct job_event ev = {.kind = EVENT_FINISH,
        .choice = choice,
        .finish = why,
        .stop_id = EOS,
        .usage = {.prompt_tokens = 5, .cached_tokens = choice ? 5 : 3, .completion_tokens = 2}};

    api_response_feed(rsp, job, &ev, out);
}

static void start(struct api_response *rsp, size_t job, struct buf *out)
{
    struct job_event ev = {.kind = EVENT_STARTED};

    api_response_feed(rsp, job, &ev, out);
}

static void expect(struct buf *out, const char *want)
{
    assert_string_equal(out->len ? out->data : "", want);
    buf_clear(out);
}

static void expect_body(struct api_response *rsp, int status, const char *want)
{
    struct buf out = {0};

    assert_true(api_response_done(rsp));
    assert_int_equal(api_response_body(rsp, &out), status);
    assert_string_equal(out.data, want);
    buf_free(&out);
    api_response_free(rsp);
}

#define HEAD                                                                     \
    "{\"id\":\"cmpl-R1\",\"object\":\"text_completion\",\"created\":1766000000," \
    "\"model\":\"gemma-test\",\"system_fingerprint\":\"fp_1\",\"choices\":["
#define CHAT_HEAD(object)                                                       \
    "{\"id\":\"chatcmpl-R1\",\"object\":\"" object "\",\"created\":1766000000," \
    "\"model\":\"gemma-test\",\"system_fingerprint\":\"fp_1\",\"choices\":["
#define CHUNK CHAT_HEAD("chat.completion.chunk")
#define USAGE(prompt, completion, total, cached)                                       \
    "\"usage\":{\"prompt_tokens\":" prompt ",\"completion_tokens\":" completion        \
    ",\"total_tokens\":" total ",\"prompt_tokens_details\":{\"cached_tokens\":" cached \
    "},\"completion_tokens_details\":{\"reasoning_tokens\":0}}"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

/* ---- completions */

static void a_completion_is_one_object(void **state)
{
    struct api_response *rsp = answer("{\"prompt\":\"x\"}", false);
    struct buf out = {0};

    assert_string_equal(api_response_id(rsp), "cmpl-R1");
    start(rsp, 0, &out);
    text(rsp, 0, 0, "Hel", HEL, &out);
    text(rsp, 0, 0, "", HALF, &out);
    text(rsp, 0, 0, "\xf0\x9f\x98\x80\"\n", REST, &out);
    assert_false(api_response_done(rsp));
    finish(rsp, 0, 0, FINISH_STOP, &out);
    assert_int_equal(out.len, 0);
    expect_body(rsp, 200,
        HEAD "{\"text\":\"Hel\xf0\x9f\x98\x80\\\"\\n\",\"index\":0,\"logprobs\":null,"
             "\"finish_reason\":\"stop\",\"stop_reason\":null}]," USAGE("5", "2", "7", "3") "}");
}

static void choices_are_ordered_and_usage_is_summed(void **state)
{
    struct api_response *rsp = answer("{\"prompt\":[\"x\",\"y\"],\"n\":2}", false);
    struct usage u;

    finish(rsp, 1, 1, FINISH_LENGTH, NULL);
    text(rsp, 1, 0, "d", HEL, NULL);
    text(rsp, 0, 1, "b", HEL, NULL);
    finish(rsp, 0, 1, FINISH_LENGTH, NULL);
    text(rsp, 0, 0, "a", HEL, NULL);
    finish(rsp, 0, 0, FINISH_LENGTH, NULL);
    finish(rsp, 0, 0, FINISH_LENGTH, NULL); /* once is enough */
    assert_false(api_response_done(rsp));
    finish(rsp, 1, 0, FINISH_LENGTH, NULL);
    u = api_response_usage(rsp);
    assert_int_equal(u.prompt_tokens, 10);
    expect_body(rsp, 200,
        HEAD "{\"text\":\"a\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"length\","
             "\"stop_reason\":null},"
             "{\"text\":\"b\",\"index\":1,\"logprobs\":null,\"finish_reason\":\"length\","
             "\"stop_reason\":null},"
             "{\"text\":\"d\",\"index\":2,\"logprobs\":null,\"finish_reason\":\"length\","
             "\"stop_reason\":null},"
             "{\"text\":\"\",\"index\":3,\"logprobs\":null,\"finish_reason\":\"length\","
             "\"stop_reason\":null}]," USAGE("10", "8", "18", "6") "}");
}

static void a_stream_of_completions_has_its_chunks(void **state)
{
    struct api_response *rsp = answer("{\"prompt\":\"x\",\"stream\":true}", false);
    struct buf out = {0};

    start(rsp, 0, &out);
    expect(&out, "");
    text(rsp, 0, 0, "Hel", HEL, &out);
    expect(&out, "data: " HEAD "{\"text\":\"Hel\",\"index\":0,\"logprobs\":null,"
                 "\"finish_reason\":null}]}\n\n");
    text(rsp, 0, 0, "", HALF, &out);
    expect(&out, "");
    finish(rsp, 0, 0, FINISH_STOP, &out);
    expect(&out, "data: " HEAD "{\"text\":\"\",\"index\":0,\"logprobs\":null,"
                 "\"finish_reason\":\"stop\",\"stop_reason\":null}]}\n\ndata: [DONE]\n\n");
    assert_true(api_response_done(rsp));
    text(rsp, 0, 0, "late", HEL, &out);
    expect(&out, "");
    api_response_free(rsp);
    buf_free(&out);
}

static void include_usage_adds_a_chunk_and_nulls(void **state)
{
    struct api_response *rsp = answer("{\"prompt\":\"x\",\"n\":2,\"stream\":true,"
                                      "\"stream_options\":{\"include_usage\":true}}",
        false);
    struct buf out = {0};

    text(rsp, 0, 1, "a", HEL, &out);
    expect(&out, "data: " HEAD "{\"text\":\"a\",\"index\":1,\"logprobs\":null,"
                 "\"finish_reason\":null}],\"usage\":null}\n\n");
    finish(rsp, 0, 1, FINISH_LENGTH, &out);
    expect(&out, "data: " HEAD "{\"text\":\"\",\"index\":1,\"logprobs\":null,\"finish_reason\":"
                 "\"length\",\"stop_reason\":null}],\"usage\":null}\n\n");
    finish(rsp, 0, 0, FINISH_STOP, &out);
    expect(&out, "data: " HEAD "{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":"
                 "\"stop\",\"stop_reason\":null}],\"usage\":null}\n\n"
                 "data: " HEAD "]," USAGE("5", "4", "9", "3") "}\n\ndata: [DONE]\n\n");
    api_response_free(rsp);
    buf_free(&out);
}

/* ---- chat */

static void a_chat_completion_is_one_object(void **state)
{
    struct api_response *rsp = answer("{" HI ",\"service_tier\":\"auto\"}", true);

    text(rsp, 0, 0, "Hi\\", HEL, NULL);
    finish(rsp, 0, 0, FINISH_LENGTH, NULL);
    expect_body(rsp, 200,
        "{\"id\":\"chatcmpl-R1\",\"object\":\"chat.completion\",\"created\":1766000000,"
        "\"model\":\"gemma-test\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hi\\\\\","
        "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}]"
        "," USAGE("5", "2", "7", "3") "}");
}

static void each_choice_of_a_chat_stream_begins_with_its_role(void **state)
{
    struct api_response *rsp = answer("{" HI ",\"stream\":true,\"n\":2}", true);
    struct buf out = {0};

    start(rsp, 0, &out);
    expect(&out, "");
    text(rsp, 0, 1, "", HALF, &out);
    expect(&out, "data: " CHUNK "{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                 "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    text(rsp, 0, 1, "\xf0\x9f\x98\x80", REST, &out);
    expect(&out, "data: " CHUNK "{\"index\":1,\"delta\":{\"content\":\"\xf0\x9f\x98\x80\"},"
                 "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    finish(rsp, 0, 1, FINISH_LENGTH, &out);
    expect(&out, "data: " CHUNK "{\"index\":1,\"delta\":{},\"logprobs\":null,"
                 "\"finish_reason\":\"length\",\"stop_reason\":null}]}\n\n");
    finish(rsp, 0, 0, FINISH_STOP, &out);
    expect(&out, "data: " CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                 "\"logprobs\":null,\"finish_reason\":null}]}\n\n"
                 "data: " CHUNK "{\"index\":0,\"delta\":{},\"logprobs\":null,"
                 "\"finish_reason\":\"stop\",\"stop_reason\":null}]}\n\ndata: [DONE]\n\n");
    api_response_free(rsp);
    buf_free(&out);
}

static void chat_logprobs_show_bytes(void **state)
{
    const struct token_alternative top[] = {{WORLD, -0.1f}, {HALF, -2}};
    const struct event_token t = {.id = HALF, .logprob = -2, .top = top, .n_top = 2};
    struct api_response *rsp =
        answer("{" HI ",\"stream\":true,\"logprobs\":true,\"top_logprobs\":2}", true);
    struct job_event ev = text_event(0, "", &t);
    struct buf out = {0};

    api_response_feed(rsp, 0, &ev, &out);
    expect(&out,
        "data: " CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
        "\"logprobs\":null,\"finish_reason\":null}]}\n\n"
        "data: " CHUNK "{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":{\"content\":["
        "{\"token\":\"\\\\xf0\\\\x9f\",\"logprob\":-2.0,\"bytes\":[240,159],\"top_logprobs\":["
        "{\"token\":\" w\",\"logprob\":-0.1,\"bytes\":[32,119]},"
        "{\"token\":\"\\\\xf0\\\\x9f\",\"logprob\":-2.0,\"bytes\":[240,159]}]}],"
        "\"refusal\":null},\"finish_reason\":null}]}\n\n");
    api_response_free(rsp);
    rsp = answer("{" HI ",\"logprobs\":true}", true);
    text(rsp, 0, 0, "\"q\"", QUOTED, NULL);
    text(rsp, 0, 0, "", 77, NULL);
    finish(rsp, 0, 0, FINISH_STOP, NULL);
    expect_body(rsp, 200,
        CHAT_HEAD("chat.completion") "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                                     "\"\\\"q\\\"\",\"refusal\":null},\"logprobs\":{\"content\":["
                                     "{\"token\":\"\\\"q\\\"\",\"logprob\":-0.5,\"bytes\":[34,113,"
                                     "34],\"top_logprobs\":[]},"
                                     "{\"token\":\"\",\"logprob\":-0.5,\"bytes\":null,\"top_"
                                     "logprobs\":[]}],\"refusal\":null},"
                                     "\"finish_reason\":\"stop\",\"stop_reason\":null}]," USAGE(
                                         "5", "2", "7", "3") "}");
    buf_free(&out);
}

/* ---- echo, logprobs, ids */

static void feed_prompt(struct api_response *rsp, const int32_t *ids, size_t n, bool scored)
{
    struct event_token t[8] = {{0}};
    const struct token_alternative top = {WORLD, -0.25f};
    struct job_event ev = {.kind = EVENT_PROMPT, .tokens = t, .n_tokens = n};

    api_response_prompt(rsp, 0, ids, n);
    for (size_t i = 0; i < n; i++)
        t[i] = (struct event_token){.id = ids[i], .logprob = -1, .top = &top, .n_top = i ? 1 : 0};
    if (scored)
        api_response_feed(rsp, 0, &ev, NULL);
}

static void echo_puts_the_prompt_first(void **state)
{
    const int32_t ids[] = {HEL, HALF, REST, BYTE};
    struct api_response *rsp =
        answer("{\"prompt\":[1,4,5,7],\"echo\":true,\"max_tokens\":0}", false);

    feed_prompt(rsp, ids, 4, false);
    finish(rsp, 0, 0, FINISH_LENGTH, NULL);
    expect_body(rsp, 200,
        HEAD "{\"text\":\"Hel\xf0\x9f\x98\x80\xef\xbf\xbd\",\"index\":0,\"logprobs\":null,"
             "\"finish_reason\":\"length\",\"stop_reason\":null}]," USAGE("5", "2", "7", "3") "}");
}

static void echo_with_logprobs_scores_the_prompt(void **state)
{
    const int32_t ids[] = {BOS, E_ACUTE, HALF, REST};
    const struct token_alternative top[] = {{A, -1}, {A_TOO, -1.5f}, {LO, -2}};
    const struct event_token t = {.id = LO, .logprob = -2, .top = top, .n_top = 3};
    struct api_response *rsp = answer(
        "{\"prompt\":\"\\u00e9\\ud83d\\ude00\",\"echo\":true,\"logprobs\":3,\"n\":1}", false);
    struct job_event ev = text_event(0, "lo", &t);

    feed_prompt(rsp, ids, 4, true);
    api_response_feed(rsp, 0, &ev, NULL);
    finish(rsp, 0, 0, FINISH_STOP, NULL);
    expect_body(rsp, 200,
        HEAD "{\"text\":\"\xc3\xa9\xf0\x9f\x98\x80lo\",\"index\":0,\"logprobs\":{"
             "\"tokens\":[\"<bos>\",\"\xc3\xa9\",\"bytes:\\\\xf0\\\\x9f\",\"bytes:\\\\x98\\\\x80\","
             "\"lo\"],"
             "\"token_logprobs\":[null,-1.0,-1.0,-1.0,-2.0],"
             "\"top_logprobs\":[null,{\"\xc3\xa9\":-1.0,\" w\":-0.25},"
             "{\"bytes:\\\\xf0\\\\x9f\":-1.0,\" w\":-0.25},"
             "{\"bytes:\\\\x98\\\\x80\":-1.0,\" w\":-0.25},{\"lo\":-2.0,\"A\":-1.0}],"
             "\"text_offset\":[0,0,1,1,2]},"
             "\"finish_reason\":\"stop\",\"stop_reason\":null}]," USAGE("5", "2", "7", "3") "}");
}

static void echo_in_a_stream_is_the_first_chunk_of_each_choice(void **state)
{
    const int32_t ids[] = {BOS, HEL};
    struct api_response *rsp =
        answer("{\"prompt\":\"Hel\",\"echo\":true,\"stream\":true,\"logprobs\":0,\"n\":2}", false);
    struct buf out = {0};

    feed_prompt(rsp, ids, 2, true);
    text(rsp, 0, 0, "lo", LO, &out);
    expect(&out,
        "data: " HEAD "{\"text\":\"Hel\",\"index\":0,\"logprobs\":{\"tokens\":[\"<bos>\",\"Hel\"],"
        "\"token_logprobs\":[null,-1.0],\"top_logprobs\":[null,{\"Hel\":-1.0,\" w\":-0.25}],"
        "\"text_offset\":[0,0]},\"finish_reason\":null}]}\n\n"
        "data: " HEAD "{\"text\":\"lo\",\"index\":0,\"logprobs\":{\"tokens\":[\"lo\"],"
        "\"token_logprobs\":[-0.5],\"top_logprobs\":[{\"lo\":-0.5}],\"text_offset\":[3]},"
        "\"finish_reason\":null}]}\n\n");
    text(rsp, 0, 0, " w", WORLD, &out);
    assert_non_null(strstr(out.data, "\"text_offset\":[5]"));
    buf_clear(&out);
    finish(rsp, 0, 1, FINISH_LENGTH, &out);
    assert_memory_equal(out.data, "data: " HEAD "{\"text\":\"Hel\",\"index\":1,\"logprobs\":{",
        strlen("data: " HEAD "{\"text\":\"Hel\",\"index\":1,\"logprobs\":{"));
    api_response_free(rsp);
    buf_free(&out);
}

static void token_ids_are_returned_when_asked_for(void **state)
{
    const int32_t ids[] = {BOS, HEL};
    struct api_response *rsp = answer("{" HI ",\"return_token_ids\":true,\"logprobs\":true,"
                                      "\"return_tokens_as_token_ids\":true}",
        true);
    struct buf out = {0};

    feed_prompt(rsp, ids, 2, false);
    text(rsp, 0, 0, "lo", LO, NULL);
    text(rsp, 0, 0, "", BYTE, NULL);
    finish(rsp, 0, 0, FINISH_LENGTH, NULL);
    expect_body(rsp, 200,
        CHAT_HEAD("chat.completion") "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                                     "\"lo\",\"refusal\":null},\"logprobs\":{\"content\":["
                                     "{\"token\":\"token_id:2\",\"logprob\":-0.5,\"bytes\":[108,"
                                     "111],\"top_logprobs\":[]},"
                                     "{\"token\":\"token_id:7\",\"logprob\":-0.5,\"bytes\":[255],"
                                     "\"top_logprobs\":[]}],"
                                     "\"refusal\":null},\"finish_reason\":\"length\",\"stop_"
                                     "reason\":null,"
                                     "\"prompt_token_ids\":[0,1],\"token_ids\":[2,7]}]," USAGE(
                                         "5", "2", "7", "3") "}");
    rsp = answer("{\"prompt\":\"Hel\",\"return_token_ids\":true,\"stream\":true}", false);
    feed_prompt(rsp, ids, 2, false);
    text(rsp, 0, 0, "", HALF, &out);
    expect(&out,
        "data: " HEAD "{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":null,"
        "\"prompt_token_ids\":[0,1],\"token_ids\":[4]}]}\n\n");
    text(rsp, 0, 0, "\xf0\x9f\x98\x80", REST, &out);
    expect(&out, "data: " HEAD "{\"text\":\"\xf0\x9f\x98\x80\",\"index\":0,\"logprobs\":null,"
                 "\"finish_reason\":null,\"token_ids\":[5]}]}\n\n");
    api_response_free(rsp);
    buf_free(&out);
}

/* ---- ends */

static void the_reason_of_a_stop_is_told(void **state)
{
    static const struct {
        struct job_event ev;
        const char *want;
    } rows[] = {
        {{.finish = FINISH_STOP, .stop_id = EOS}, "\"stop\",\"stop_reason\":null"},
        {{.finish = FINISH_STOP, .stop_id = LO}, "\"stop\",\"stop_reason\":2"},
        {{.finish = FINISH_STOP, .stop_id = -1, .stop_string = "\"\n"},
            "\"stop\",\"stop_reason\":\"\\\"\\n\""},
        {{.finish = FINISH_LENGTH, .stop_id = -1}, "\"length\",\"stop_reason\":null"},
        {{.finish = FINISH_TIMEOUT, .stop_id = -1}, "\"length\",\"stop_reason\":\"timeout\""},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct api_response *rsp = answer("{\"prompt\":\"x\",\"stop_token_ids\":[2]}", false);
        struct job_event ev = rows[i].ev;
        struct buf out = {0};

        ev.kind = EVENT_FINISH;
        api_response_feed(rsp, 0, &ev, NULL);
        assert_int_equal(api_response_body(rsp, &out), 200);
        assert_non_null(strstr(out.data, rows[i].want));
        buf_free(&out);
        api_response_free(rsp);
    }
}

static void an_error_ends_a_stream_with_an_event(void **state)
{
    struct api_response *rsp = answer("{\"prompt\":\"x\",\"n\":2,\"stream\":true}", false);
    struct job_event ev = {.kind = EVENT_FINISH, .choice = 1, .finish = FINISH_ERROR};
    struct buf out = {0};

    text(rsp, 0, 0, "Hel", HEL, &out);
    buf_clear(&out);
    err_fill(&ev.err, GD_EINTERNAL, "a page was lost");
    api_response_feed(rsp, 0, &ev, &out);
    expect(&out, "data: {\"error\":{\"message\":\"a page was lost\",\"type\":\"server_error\","
                 "\"param\":null,\"code\":null}}\n\ndata: [DONE]\n\n");
    assert_true(api_response_done(rsp));
    text(rsp, 0, 0, "lo", LO, &out);
    finish(rsp, 0, 0, FINISH_STOP, &out);
    expect(&out, "");
    api_response_free(rsp);
    buf_free(&out);
}

static void an_error_of_one_choice_is_the_status_of_all(void **state)
{
    struct api_response *rsp = answer("{\"prompt\":[\"x\",\"y\"]}", false);
    struct err err = {0};

    finish(rsp, 0, 0, FINISH_STOP, NULL);
    finish(rsp, 1, 0, FINISH_CANCELED, NULL);
    expect_body(rsp, 503,
        "{\"error\":{\"message\":\"the server is shutting down\",\"type\":"
        "\"service_unavailable_error\",\"param\":null,\"code\":\"server_shutting_down\"}}");
    rsp = answer("{\"prompt\":\"x\"}", false);
    err_fill_at(&err, GD_ECONTEXT, "prompt", "too long");
    api_response_fail(rsp, &err, NULL);
    expect_body(rsp, 400,
        "{\"error\":{\"message\":\"too long\",\"type\":\"invalid_request_error\",\"param\":"
        "\"prompt\",\"code\":\"context_length_exceeded\"}}");
}

static void events_that_fit_nowhere_do_nothing(void **state)
{
    struct api_response *rsp = answer("{\"prompt\":\"x\",\"stream\":true}", false);
    struct buf out = {0};

    text(rsp, 1, 0, "a", HEL, &out);
    text(rsp, 0, 1, "a", HEL, &out);
    text(rsp, 0, -1, "a", HEL, &out);
    assert_int_equal(out.len, 0);
    api_response_free(rsp);
    api_response_free(NULL);
    api_request_free(NULL);
    api_text_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_is_one_object),
        cmocka_unit_test(choices_are_ordered_and_usage_is_summed),
        cmocka_unit_test(a_stream_of_completions_has_its_chunks),
        cmocka_unit_test(include_usage_adds_a_chunk_and_nulls),
        cmocka_unit_test(a_chat_completion_is_one_object),
        cmocka_unit_test(each_choice_of_a_chat_stream_begins_with_its_role),
        cmocka_unit_test(chat_logprobs_show_bytes),
        cmocka_unit_test(echo_puts_the_prompt_first),
        cmocka_unit_test(echo_with_logprobs_scores_the_prompt),
        cmocka_unit_test(echo_in_a_stream_is_the_first_chunk_of_each_choice),
        cmocka_unit_test(token_ids_are_returned_when_asked_for),
        cmocka_unit_test(the_reason_of_a_stop_is_told),
        cmocka_unit_test(an_error_ends_a_stream_with_an_event),
        cmocka_unit_test(an_error_of_one_choice_is_the_status_of_all),
        cmocka_unit_test(events_that_fit_nowhere_do_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
