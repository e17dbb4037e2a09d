/* Tools and thinking on /v1/chat/completions: what a request may say, and how the answer shows it.
 */
#include "api_test.h"

static struct api_limits tool_limits(void)
{
    struct api_limits l = test_limits();

    l.tools = l.thinking = true;
    return l;
}

static struct api_request *accept(const char *body)
{
    struct api_limits l = tool_limits();
    struct api_request *r = NULL;
    struct err err = {0};

    if (api_parse_chat(&r, body, strlen(body), &l, &err) != 0)
        fail_msg("%s: %s", body, err.msg);
    return r;
}

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define TOOL(fields) "{\"type\":\"function\",\"function\":{" fields "}}"
#define F TOOL("\"name\":\"f\"")
#define CALL(id) \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"
#define RESULT(id) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"r\"}"

static void tools_reach_the_prompt(void **state)
{
    struct api_request *r = accept(
        "{" HI ",\"tools\":[" F "," TOOL("\"name\":\"get_w.x-1\",\"description\":\"D\\u00e9\","
                                         "\"parameters\":{\"type\":\"object\",\"x\":[1,2.5]},"
                                         "\"response\":{},\"strict\":true") "]}");
    const struct job_params *j = api_request_job(r, 0);

    assert_int_equal(j->prompt.n_tools, 2);
    assert_string_equal(j->prompt.tools[0].name, "f");
    assert_null(j->prompt.tools[0].description);
    assert_null(j->prompt.tools[0].parameters);
    assert_string_equal(j->prompt.tools[1].description, "D\xc3\xa9");
    assert_string_equal(j->prompt.tools[1].parameters, "{\"type\":\"object\",\"x\":[1,2.5]}");
    assert_string_equal(j->prompt.tools[1].response, "{}");
    assert_false(j->one_call);
    assert_false(j->prompt.enable_thinking);
    assert_string_equal(api_request_ignored(r), "tools[].function.strict");
    api_request_free(r);
}

static void choices_of_tools(void **state)
{
    static const struct {
        const char *fields;
        size_t n_tools;
        bool one_call;
    } rows[] = {
        {"\"tools\":[]", 0, false},
        {"\"tools\":null,\"tool_choice\":\"auto\"", 0, false},
        {"\"tools\":[" F "],\"tool_choice\":\"auto\"", 1, false},
        {"\"tools\":[" F "],\"tool_choice\":\"none\"", 0, false},
        {"\"tools\":[" F "],\"parallel_tool_calls\":true", 1, false},
        {"\"tools\":[" F "],\"parallel_tool_calls\":false", 1, true},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char body[512];
        struct api_request *r;

        snprintf(body, sizeof(body), "{" HI ",%s}", rows[i].fields);
        r = accept(body);
        assert_int_equal(api_request_job(r, 0)->prompt.n_tools, rows[i].n_tools);
        assert_int_equal(api_request_job(r, 0)->one_call, rows[i].one_call);
        assert_string_equal(api_request_ignored(r), "");
        api_request_free(r);
    }
}

static void switches_of_thinking(void **state)
{
    static const struct {
        const char *fields;
        bool on;
        const char *ignored;
    } rows[] = {
        {"\"reasoning_effort\":\"none\"", false, ""},
        {"\"reasoning_effort\":\"low\"", true, ""},
        {"\"reasoning_effort\":\"max\"", true, ""},
        {"\"chat_template_kwargs\":{\"enable_thinking\":true}", true, ""},
        {"\"chat_template_kwargs\":{\"enable_thinking\":false},\"reasoning_effort\":\"high\"",
            false, ""},
        {"\"chat_template_kwargs\":{\"x\":1}", false, "chat_template_kwargs.x"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char body[512];
        struct api_request *r;

        snprintf(body, sizeof(body), "{" HI ",%s}", rows[i].fields);
        r = accept(body);
        assert_int_equal(api_request_job(r, 0)->prompt.enable_thinking, rows[i].on);
        assert_string_equal(api_request_ignored(r), rows[i].ignored);
        api_request_free(r);
    }
}

static void calls_results_and_thoughts_in_the_history(void **state)
{
    struct api_request *r = accept(
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\" a \"},"
        "{\"type\":\"text\",\"text\":\"\\nb\"}]},{\"role\":\"assistant\",\"content\":null,"
        "\"reasoning_content\":\"hm\",\"tool_calls\":[" CALL("1") "," CALL("2") "]}," RESULT(
            "2") ",{\"role\":\"tool\",\"tool_call_id\":\"1\",\"name\":\"f\",\"content\":[{"
                 "\"type\":\"text\",\"text\":\"one \"},{\"type\":\"text\",\"text\":\"two\"}]},"
                 "{\"role\":\"assistant\",\"content\":\"c\",\"reasoning\":\"hm2\","
                 "\"tool_calls\":[]}]}");
    const struct prompt *p = &api_request_job(r, 0)->prompt;

    assert_int_equal(p->n, 5);
    assert_int_equal(p->messages[0].content_len, 2); /* each part is trimmed */
    assert_memory_equal(p->messages[0].content, "ab", 2);
    assert_int_equal(p->messages[1].content_len, 0);
    assert_int_equal(p->messages[1].reasoning_len, 2);
    assert_int_equal(p->messages[1].n_tool_calls, 2);
    assert_string_equal(p->messages[1].tool_calls[1].id, "2");
    assert_string_equal(p->messages[1].tool_calls[1].name, "f");
    assert_string_equal(p->messages[1].tool_calls[1].arguments, "{}");
    assert_int_equal(p->messages[2].role, ROLE_TOOL);
    assert_string_equal(p->messages[2].tool_call_id, "2");
    assert_int_equal(p->messages[3].content_len, 7); /* a result is not */
    assert_memory_equal(p->messages[3].content, "one two", 7);
    assert_string_equal(p->messages[3].name, "f");
    assert_memory_equal(p->messages[4].reasoning, "hm2", 3);
    assert_int_equal(p->messages[4].n_tool_calls, 0);
    assert_string_equal(api_request_ignored(r), "");
    api_request_free(r);
}

#define AFTER_CALL(messages)                                                        \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\"," \
    "\"tool_calls\":[" CALL("1") "]}" messages "]}"
#define ONE_CALL(call) \
    "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[" call "]}," RESULT("1") "]}"

static const struct bad_body bad_bodies[] = {
    {"{" HI ",\"tools\":{}}", GD_EINVAL, "tools", "an array"},
    {"{" HI ",\"tools\":[1]}", GD_EINVAL, "tools[0]", "an object"},
    {"{" HI ",\"tools\":[{}]}", GD_EINVAL, "tools[0].type", "required"},
    {"{" HI ",\"tools\":[{\"type\":\"web_search\"}]}", GD_ENOTSUP, "tools[0].type", "\"function\""},
    {"{" HI ",\"tools\":[{\"type\":\"function\"}]}", GD_EINVAL, "tools[0].function", "an object"},
    {"{" HI ",\"tools\":[" F "," TOOL("") "]}", GD_EINVAL, "tools[1].function.name", "required"},
    {"{" HI ",\"tools\":[" TOOL("\"name\":\"\"") "]}", GD_EINVAL, "tools[0].function.name",
        "1 to 64"},
    {"{" HI ",\"tools\":[" TOOL("\"name\":\"a b\"") "]}", GD_EINVAL, "tools[0].function.name",
        "1 to 64"},
    {"{" HI ",\"tools\":[" TOOL("\"name\":\"f{\"") "]}", GD_EINVAL, "tools[0].function.name",
        "1 to 64"},
    {"{" HI ",\"tools\":[" TOOL("\"name\":\"f\",\"description\":1") "]}", GD_EINVAL,
        "tools[0].function.description", "a string"},
    {"{" HI ",\"tools\":[" TOOL("\"name\":\"f\",\"parameters\":\"x\"") "]}", GD_EINVAL,
        "tools[0].function.parameters", "an object"},
    {"{" HI ",\"tools\":[" F "," F "]}", GD_EINVAL, "tools[1]", "given twice"},
    {"{" HI ",\"tool_choice\":\"required\"}", GD_ENOTSUP, "tool_choice", "cannot be forced"},
    {"{" HI ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}}", GD_ENOTSUP,
        "tool_choice", "cannot be forced"},
    {"{" HI ",\"tool_choice\":\"any\"}", GD_EINVAL, "tool_choice", "\"auto\" or \"none\""},
    {"{" HI ",\"parallel_tool_calls\":1}", GD_EINVAL, "parallel_tool_calls", "true or false"},
    {"{" HI ",\"reasoning_effort\":\"much\"}", GD_EINVAL, "reasoning_effort", "none, minimal"},
    {"{" HI ",\"reasoning_effort\":3}", GD_EINVAL, "reasoning_effort", "a string"},
    {"{" HI ",\"chat_template_kwargs\":[]}", GD_EINVAL, "chat_template_kwargs", "an object"},
    {"{" HI ",\"chat_template_kwargs\":{\"enable_thinking\":\"yes\"}}", GD_EINVAL,
        "chat_template_kwargs.enable_thinking", "true or false"},
    {ONE_CALL("1"), GD_EINVAL, "messages[0].tool_calls[0]", "an object"},
    {ONE_CALL("{}"), GD_EINVAL, "messages[0].tool_calls[0].id", "required"},
    {ONE_CALL("{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\"}}"), GD_EINVAL,
        "messages[0].tool_calls[0].function.arguments", "required"},
    {ONE_CALL(
         "{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{}}}"),
        GD_EINVAL, "messages[0].tool_calls[0].function.arguments", "a string"},
    {AFTER_CALL(""), GD_EINVAL, "messages[1].tool_calls[0]", "must follow"},
    {AFTER_CALL("," RESULT("2")), GD_EINVAL, "messages[2].tool_call_id", "no tool call of this id"},
    {AFTER_CALL(",{\"role\":\"tool\",\"content\":\"x\"}"), GD_EINVAL, "messages[2]",
        "messages[2].tool_call_id: required"},
    {AFTER_CALL(",{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":null}"), GD_EINVAL,
        "messages[2].content", "got null"},
    {AFTER_CALL(",{\"role\":\"user\",\"content\":\"y\"}," RESULT("1")), GD_EINVAL,
        "messages[1].tool_calls[0]", "must follow"},
    {"{\"messages\":[" RESULT("1") "]}", GD_EINVAL, "messages[0].tool_call_id",
        "no tool call before it"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[" CALL("1") "]}]}",
        GD_ENOTSUP, "messages[0].tool_calls", "not supported"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":null}]}", GD_EINVAL, "messages[0].content",
        "got null"},
};

static void bad_bodies_are_refused_by_name(void **state)
{
    struct api_limits l = tool_limits();

    for (size_t i = 0; i < COUNT(bad_bodies); i++) {
        struct api_request *r = NULL;
        struct err err = {0};

        check_refusal(&bad_bodies[i],
            api_parse_chat(&r, bad_bodies[i].body, strlen(bad_bodies[i].body), &l, &err), &err);
        assert_null(r);
    }
}

static void models_without_thinking_say_so(void **state)
{
    static const struct bad_body on = {"{" HI
                                       ",\"chat_template_kwargs\":{\"enable_thinking\":true}}",
        GD_ENOTSUP, "chat_template_kwargs.enable_thinking", "no thinking"};
    static const char off[] = "{" HI ",\"chat_template_kwargs\":{\"enable_thinking\":false}}";
    struct api_limits l = test_limits();
    struct api_request *r = NULL;
    struct err err = {0};

    check_refusal(&on, api_parse_chat(&r, on.body, strlen(on.body), &l, &err), &err);
    assert_int_equal(api_parse_chat(&r, off, strlen(off), &l, &err), 0);
    api_request_free(r);
}

/* ---- answers */

static const char *piece(void *ud, int32_t id, size_t *len)
{
    *len = 1;
    return "x";
}

static struct api_response *respond(const char *body)
{
    struct api_request *r = accept(body);
    struct api_response *rsp = api_response_create(r, "R1", 1, piece, NULL);

    api_request_free(r);
    return rsp;
}

static void feed(struct api_response *rsp, enum channel channel, const char *name, const char *text,
    struct buf *out)
{
    struct job_event ev = {.kind = name ? EVENT_CALL : EVENT_TEXT,
        .channel = channel,
        .name = name,
        .text = text,
        .text_len = strlen(text),
        .stop_id = -1};

    api_response_feed(rsp, 0, &ev, out);
}

static void finish(struct api_response *rsp, enum finish_reason why, struct buf *out)
{
    struct job_event ev = {.kind = EVENT_FINISH,
        .finish = why,
        .stop_id = -1,
        .usage = {.prompt_tokens = 5, .completion_tokens = 9, .reasoning_tokens = 4}};

    api_response_feed(rsp, 0, &ev, out);
}

static void body_says(struct api_response *rsp, const char *choice)
{
    struct buf out = {0};

    assert_int_equal(api_response_body(rsp, &out), 200);
    if (!strstr(out.data, choice))
        fail_msg("%s\nlacks %s", out.data, choice);
    assert_non_null(strstr(out.data, "\"completion_tokens_details\":{\"reasoning_tokens\":4}"));
    buf_free(&out);
    api_response_free(rsp);
}

static void an_answer_with_calls(void **state)
{
    struct api_response *rsp = respond("{" HI "}");

    feed(rsp, CHANNEL_REASONING, NULL, "h\"", NULL);
    feed(rsp, CHANNEL_REASONING, NULL, "m", NULL);
    feed(rsp, CHANNEL_CONTENT, "f", "{\"a\":\"\\\"\"}", NULL);
    feed(rsp, CHANNEL_CONTENT, "g", "{}", NULL);
    finish(rsp, FINISH_STOP, NULL);
    body_says(rsp,
        "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,\"refusal\":null,"
        "\"reasoning_content\":\"h\\\"m\",\"tool_calls\":[{\"id\":\"call_R1_0_0\",\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":\\\"\\\\\\\"\\\"}\"}}"
        ","
        "{\"id\":\"call_R1_0_1\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":"
        "\"{}\"}}]},\"logprobs\":null,\"finish_reason\":\"tool_calls\"");
    rsp = respond("{" HI "}");
    feed(rsp, CHANNEL_CONTENT, NULL, "Now: ", NULL);
    feed(rsp, CHANNEL_CONTENT, "f", "{}", NULL);
    finish(rsp, FINISH_LENGTH, NULL);
    body_says(rsp, "\"content\":\"Now: \",\"refusal\":null,\"tool_calls\":[{\"id\":\"call_R1_0_0\","
                   "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
                   "\"logprobs\":null,\"finish_reason\":\"length\"");
    rsp = respond("{" HI "}");
    finish(rsp, FINISH_STOP, NULL);
    body_says(
        rsp, "\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"");
}

static void delta(struct buf *out, const char *want)
{
    const char *at = strstr(out->data, "\"delta\":");

    assert_non_null(at);
    if (strncmp(at, want, strlen(want)) != 0)
        fail_msg("%s\nis not %s", at, want);
    buf_clear(out);
}

static void a_stream_with_calls(void **state)
{
    struct api_response *rsp = respond("{" HI ",\"stream\":true}");
    struct buf out = {0};

    feed(rsp, CHANNEL_REASONING, NULL, "hm", &out);
    assert_non_null(strstr(out.data, "\"delta\":{\"reasoning_content\":\"hm\"}"));
    delta(&out, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    feed(rsp, CHANNEL_CONTENT, NULL, "Now:", &out);
    delta(&out, "\"delta\":{\"content\":\"Now:\"},");
    for (int i = 0; i < 2; i++) {
        char want[200];

        feed(rsp, CHANNEL_CONTENT, "f", "{}", &out);
        snprintf(want, sizeof(want),
            "\"delta\":{\"tool_calls\":[{\"index\":%d,\"id\":\"call_R1_0_%d\",\"type\":"
            "\"function\","
            "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"logprobs\":null,"
            "\"finish_reason\":null",
            i, i);
        delta(&out, want);
    }
    finish(rsp, FINISH_STOP, &out);
    delta(&out, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"tool_calls\"");
    buf_free(&out);
    api_response_free(rsp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tools_reach_the_prompt),
        cmocka_unit_test(choices_of_tools),
        cmocka_unit_test(switches_of_thinking),
        cmocka_unit_test(calls_results_and_thoughts_in_the_history),
        cmocka_unit_test(bad_bodies_are_refused_by_name),
        cmocka_unit_test(models_without_thinking_say_so),
        cmocka_unit_test(an_answer_with_calls),
        cmocka_unit_test(a_stream_with_calls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
