/* POST /v1/chat/completions and the bodies of the text endpoints. */
#include "api_test.h"

static struct api_request *accept(const char *body, const struct api_limits *l)
{
    struct api_request *r = NULL;
    struct err err = {0};

    if (api_parse_chat(&r, body, strlen(body), l, &err) != 0)
        fail_msg("%s: %s", body, err.msg);
    return r;
}

static void a_conversation_is_one_job(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r =
        accept("{\"model\":\"gemma-test\",\"messages\":[{\"role\":\"system\",\"content\":\"S\"},"
               "{\"role\":\"developer\",\"content\":\"D\"},{\"content\":\"\",\"role\":\"user\"},"
               "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\\u00e9\"},"
               "{\"text\":\"b\",\"type\":\"text\",\"prompt_cache_breakpoint\":{}}],\"tool_calls\":"
               "null,\"refusal\":null},"
               "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"}]}],"
               "\"max_tokens\":5,\"max_completion_tokens\":9,\"logprobs\":true,\"top_logprobs\":3,"
               "\"n\":2,\"stop\":\"x\",\"temperature\":0}",
            &l);
    const struct job_params *j = api_request_job(r, 0);

    assert_int_equal(api_request_jobs(r), 1);
    assert_int_equal(j->prompt.kind, PROMPT_CHAT);
    assert_int_equal(j->prompt.n, 5);
    assert_int_equal(j->prompt.messages[0].role, ROLE_SYSTEM);
    assert_int_equal(j->prompt.messages[1].role, ROLE_SYSTEM);
    assert_int_equal(j->prompt.messages[2].role, ROLE_USER);
    assert_int_equal(j->prompt.messages[2].content_len, 0);
    assert_int_equal(j->prompt.messages[3].role, ROLE_ASSISTANT);
    assert_int_equal(j->prompt.messages[3].content_len, 4);
    assert_memory_equal(j->prompt.messages[3].content,
        "a\xc3\xa9"
        "b",
        4);
    assert_int_equal(j->prompt.messages[4].content_len, 0);
    assert_true(j->prompt.add_generation_prompt && !j->prompt.continue_final_message);
    assert_int_equal(j->max_tokens, 9);
    assert_int_equal(j->logprobs, 3);
    assert_false(j->prompt_logprobs);
    assert_int_equal(j->n, 2);
    assert_int_equal(j->n_stop, 1);
    assert_true(j->sampling.temperature == 0);
    assert_string_equal(api_request_ignored(r), "");
    api_request_free(r);
}

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define REPLY                                                                       \
    "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\"," \
    "\"content\":\"Hel\"}]"

static void lengths_and_logprobs_have_their_defaults(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r = accept("{" HI "}", &l);

    assert_int_equal(api_request_job(r, 0)->max_tokens, -1);
    assert_int_equal(api_request_job(r, 0)->logprobs, -1);
    api_request_free(r);
    r = accept("{" HI ",\"max_tokens\":3,\"logprobs\":true}", &l);
    assert_int_equal(api_request_job(r, 0)->max_tokens, 3);
    assert_int_equal(api_request_job(r, 0)->logprobs, 0);
    api_request_free(r);
    r = accept("{" HI ",\"logprobs\":false,\"top_logprobs\":0}", &l);
    assert_int_equal(api_request_job(r, 0)->logprobs, -1);
    api_request_free(r);
}

static void the_last_message_can_be_continued(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r = accept("{" REPLY ",\"continue_final_message\":true}", &l);

    assert_true(api_request_job(r, 0)->prompt.continue_final_message);
    assert_false(api_request_job(r, 0)->prompt.add_generation_prompt);
    api_request_free(r);
    r = accept("{" REPLY ",\"add_generation_prompt\":false}", &l);
    assert_false(api_request_job(r, 0)->prompt.continue_final_message);
    assert_false(api_request_job(r, 0)->prompt.add_generation_prompt);
    api_request_free(r);
}

static void fields_of_messages_that_go_unused_are_named(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r =
        accept("{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"Bob\"},"
               "{\"role\":\"assistant\",\"content\":\"b\",\"reasoning_content\":\"hm\"},"
               "{\"role\":\"user\",\"name\":\"Al\",\"content\":[{\"type\":\"text\",\"text\":\"c\","
               "\"cache_control\":{}}]}]}",
            &l);

    assert_string_equal(api_request_ignored(r),
        "messages[].name, messages[].reasoning_content, messages[].content[].cache_control");
    api_request_free(r);
}

#define MESSAGE(fields) "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{" fields "}]}"

static const struct bad_body bad_chats[] = {
    {"{}", GD_EINVAL, "messages", "messages: required"},
    {"{\"messages\":null}", GD_EINVAL, "messages", "messages: required"},
    {"{\"messages\":[]}", GD_EINVAL, "messages", "at least one message"},
    {"{\"messages\":{}}", GD_EINVAL, "messages", "an array, got an object"},
    {"{\"messages\":\"Hi\"}", GD_EINVAL, "messages", "an array, got a string"},
    {"{\"messages\":[1]}", GD_EINVAL, "messages[0]", "an object, got 1"},
    {"{\"messages\":[null]}", GD_EINVAL, "messages[0]", "an object, got null"},
    {"{\"messages\":[[]]}", GD_EINVAL, "messages[0]", "an object, got an empty array"},
    {MESSAGE(""), GD_EINVAL, "messages[1].role", "messages[1].role: required"},
    {MESSAGE("\"content\":\"x\""), GD_EINVAL, "messages[1].role", "required"},
    {MESSAGE("\"role\":null,\"content\":\"x\""), GD_EINVAL, "messages[1].role", "required"},
    {MESSAGE("\"role\":1"), GD_EINVAL, "messages[1].role", "a string, got 1"},
    {MESSAGE("\"role\":\"User\""), GD_EINVAL, "messages[1].role", "got \"User\""},
    {MESSAGE("\"role\":\"\""), GD_EINVAL, "messages[1].role", "want system, developer"},
    {MESSAGE("\"role\":\"tool\",\"content\":\"x\""), GD_ENOTSUP, "messages[1].role",
        "the role tool"},
    {MESSAGE("\"role\":\"function\",\"content\":\"x\""), GD_ENOTSUP, "messages[1].role",
        "the role function"},
    {MESSAGE("\"role\":\"user\""), GD_EINVAL, "messages[1].content",
        "a string or an array of text parts, got null"},
    {MESSAGE("\"role\":\"assistant\",\"content\":null"), GD_EINVAL, "messages[1].content",
        "got null"},
    {MESSAGE("\"role\":\"user\",\"content\":1"), GD_EINVAL, "messages[1].content", "got 1"},
    {MESSAGE("\"role\":\"user\",\"content\":{}"), GD_EINVAL, "messages[1].content",
        "got an object"},
    {MESSAGE("\"role\":\"user\",\"content\":[]"), GD_EINVAL, "messages[1].content",
        "got an empty array"},
    {MESSAGE("\"role\":\"user\",\"content\":[\"x\"]"), GD_EINVAL, "messages[1].content[0]",
        "an object, got a string"},
    {MESSAGE("\"role\":\"user\",\"content\":[{}]"), GD_EINVAL, "messages[1].content[0]",
        "messages[1].content[0].type: required"},
    {MESSAGE("\"role\":\"user\",\"content\":[{\"type\":1}]"), GD_EINVAL,
        "messages[1].content[0].type", "a string, got 1"},
    {MESSAGE("\"role\":\"user\",\"content\":[{\"type\":\"text\"}]"), GD_EINVAL,
        "messages[1].content[0]", "messages[1].content[0].text: required"},
    {MESSAGE("\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":2}]"), GD_EINVAL,
        "messages[1].content[0].text", "a string, got 2"},
    {MESSAGE("\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
             "{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]"),
        GD_ENOTSUP, "messages[1].content[1]", "content of type \"image_url\" is not supported"},
    {MESSAGE("\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]"), GD_ENOTSUP,
        "messages[1].content[0]", "\"input_audio\" is not supported; this server reads text"},
    {MESSAGE("\"role\":\"user\",\"content\":[{\"type\":\"a\\u0001\\u00e9\"}]"), GD_ENOTSUP,
        "messages[1].content[0]", "\"a???\" is not supported"},
    {MESSAGE("\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"1\"}]"), GD_ENOTSUP,
        "messages[1].tool_calls", "not supported"},
    {MESSAGE("\"role\":\"assistant\",\"content\":\"\",\"function_call\":{}"), GD_ENOTSUP,
        "messages[1].function_call", "not supported"},
    {MESSAGE("\"role\":\"assistant\",\"content\":\"\",\"refusal\":\"no\""), GD_ENOTSUP,
        "messages[1].refusal", "not supported"},
    {MESSAGE("\"role\":\"user\",\"role\":\"user\",\"content\":\"x\""), GD_EINVAL, "role",
        "given twice"},
    {"{" HI ",\"max_tokens\":\"5\",\"max_completion_tokens\":5}", GD_EINVAL, "max_tokens",
        "an integer"},
    {"{" HI ",\"max_completion_tokens\":1.5}", GD_EINVAL, "max_completion_tokens", "got 1.5"},
    {"{" HI ",\"max_completion_tokens\":0}", GD_EINVAL, "max_tokens", "0 is only allowed"},
    {"{" HI ",\"max_tokens\":0}", GD_EINVAL, "max_tokens", "0 is only allowed"},
    {"{" HI ",\"logprobs\":5}", GD_EINVAL, "logprobs", "true or false, got 5"},
    {"{" HI ",\"top_logprobs\":5}", GD_EINVAL, "top_logprobs", "only allowed when logprobs"},
    {"{" HI ",\"logprobs\":true,\"top_logprobs\":21}", GD_EINVAL, "top_logprobs",
        "an integer in 0..20, got 21"},
    {"{" HI ",\"logprobs\":true,\"top_logprobs\":true}", GD_EINVAL, "top_logprobs", "got true"},
    {"{" HI ",\"echo\":true}", GD_ENOTSUP, "echo", "only /v1/completions has it"},
    {"{" HI ",\"best_of\":2}", GD_ENOTSUP, "best_of", "only /v1/completions has it"},
    {"{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}", GD_ENOTSUP,
        "tools", "tools: this value is not supported"},
    {"{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}}", GD_ENOTSUP,
        "response_format", "only {\"type\":\"text\"} is"},
    {"{" HI ",\"continue_final_message\":true}", GD_EINVAL, "continue_final_message",
        "not the assistant's"},
    {"{" REPLY ",\"continue_final_message\":true,\"add_generation_prompt\":true}", GD_EINVAL,
        "add_generation_prompt", "not together"},
    {"{" HI ",\"add_generation_prompt\":1}", GD_EINVAL, "add_generation_prompt", "true or false"},
    {"{" HI ",\"continue_final_message\":\"x\"}", GD_EINVAL, "continue_final_message",
        "true or false"},
    {"{" HI ",\"model\":\"other\"}", GD_ENOENT, "model", "does not exist"},
    {"{" HI ",\"n\":257}", GD_EINVAL, "n", "in 1..128"},
    {"{" HI ",\"n\":128,\"temperature\":-0.1}", GD_EINVAL, "temperature", "0..2, got -0.1"},
};

static void bad_bodies_are_refused_by_name(void **state)
{
    struct api_limits l = test_limits();

    for (size_t i = 0; i < COUNT(bad_chats); i++) {
        struct api_request *r = NULL;
        struct err err = {0};
        int rc = api_parse_chat(&r, bad_chats[i].body, strlen(bad_chats[i].body), &l, &err);

        check_refusal(&bad_chats[i], rc, &err);
        assert_null(r);
    }
}

static void strict_names_the_message(void **state)
{
    static const struct bad_body bad = {MESSAGE("\"role\":\"user\",\"content\":\"x\",\"name\":1"),
        GD_EINVAL, "messages[1].name", "messages[1].name: no such parameter"};
    struct api_limits l = test_limits();
    struct api_request *r = NULL;
    struct err err = {0};

    l.strict = true;
    check_refusal(&bad, api_parse_chat(&r, bad.body, strlen(bad.body), &l, &err), &err);
    l.messages_max = 1;
    assert_int_equal(api_parse_chat(&r, bad.body, strlen(bad.body), &l, &err), GD_EINVAL);
    assert_string_equal(err.msg, "messages: want at most 1 entries, got 2");
}

/* ---- /tokenize, /detokenize, /apply-template */

static const char *letter(void *ud, int32_t id, size_t *len)
{
    static const char bytes[] = "ab\xf0\"";

    *len = id < 4;
    return id < 4 ? bytes + id : "";
}

static void tokenize_bodies_are_read_and_written(void **state)
{
    struct api_limits l = test_limits();
    const char *body = "{\"content\":\"x\\u00e9\",\"add_special\":true,\"parse_special\":false,"
                       "\"with_pieces\":true,\"zeta\":1}";
    const int32_t ids[] = {0, 3, 2, 9};
    struct api_text *t = NULL;
    struct err err = {0};
    struct buf b = {0};

    assert_int_equal(api_parse_tokenize(&t, body, strlen(body), &l, &err), 0);
    assert_int_equal(t->content_len, 3);
    assert_memory_equal(t->content, "x\xc3\xa9", 3);
    assert_true(t->add_special && !t->parse_special && t->with_pieces);
    assert_string_equal(t->ignored, "zeta");
    api_tokenize_body(&b, t, ids, 4, letter, NULL);
    assert_string_equal(b.data,
        "{\"tokens\":[{\"id\":0,\"piece\":\"a\"},{\"id\":3,\"piece\":\"\\\"\"},"
        "{\"id\":2,\"piece\":[240]},{\"id\":9,\"piece\":\"\"}]}");
    api_text_free(t);
    buf_clear(&b);
    assert_int_equal(api_parse_tokenize(&t, "{\"content\":\"\"}", 14, &l, &err), 0);
    assert_true(!t->add_special && t->parse_special && !t->with_pieces);
    api_tokenize_body(&b, t, ids, 2, letter, NULL);
    assert_string_equal(b.data, "{\"tokens\":[0,3]}");
    buf_clear(&b);
    api_tokenize_body(&b, t, ids, 0, letter, NULL);
    assert_string_equal(b.data, "{\"tokens\":[]}");
    api_text_free(t);
    buf_free(&b);
}

static void the_other_text_bodies_too(void **state)
{
    struct api_limits l = test_limits();
    struct api_text *t = NULL;
    struct err err = {0};
    struct buf b = {0};

    assert_int_equal(api_parse_detokenize(&t, "{\"tokens\":[5,99]}", 17, &l, &err), 0);
    assert_int_equal(t->n_ids, 2);
    assert_int_equal(t->ids[1], 99);
    api_text_free(t);
    assert_int_equal(api_parse_detokenize(&t, "{\"tokens\":[]}", 13, &l, &err), 0);
    assert_int_equal(t->n_ids, 0);
    api_text_free(t);
    assert_int_equal(api_parse_template(&t, "{" HI "}", strlen("{" HI "}"), &l, &err), 0);
    assert_int_equal(t->prompt.n, 1);
    assert_true(t->prompt.add_generation_prompt && !t->prompt.continue_final_message);
    api_text_free(t);
    api_detokenize_body(&b, "a\"\xff", 3);
    assert_string_equal(b.data, "{\"content\":\"a\\\"\xef\xbf\xbd\"}");
    buf_clear(&b);
    api_template_body(&b, "<bos>\n", 6);
    assert_string_equal(b.data, "{\"prompt\":\"<bos>\\n\"}");
    buf_free(&b);
}

static void bad_text_bodies_are_refused(void **state)
{
    typedef int parse_fn(struct api_text * *out, const char *body, size_t len,
        const struct api_limits *l, struct err *err);
    static const struct {
        parse_fn *parse;
        struct bad_body bad;
    } rows[] = {
        {api_parse_tokenize, {"{}", GD_EINVAL, "content", "required"}},
        {api_parse_tokenize, {"[]", GD_EINVAL, "", "a JSON object"}},
        {api_parse_tokenize, {"{\"content\":1}", GD_EINVAL, "content", "a string, got 1"}},
        {api_parse_tokenize, {"{\"content\":[\"a\"]}", GD_EINVAL, "content", "a string"}},
        {api_parse_tokenize,
            {"{\"content\":\"\",\"add_special\":1}", GD_EINVAL, "add_special", "true or false"}},
        {api_parse_tokenize, {"{\"content\":\"\",\"with_pieces\":\"x\"}", GD_EINVAL, "with_pieces",
                                 "true or false"}},
        {api_parse_tokenize,
            {"{\"content\":\"\",\"model\":\"x\"}", GD_ENOENT, "model", "does not exist"}},
        {api_parse_detokenize, {"{}", GD_EINVAL, "tokens", "required"}},
        {api_parse_detokenize, {"{\"tokens\":1}", GD_EINVAL, "tokens", "an array"}},
        {api_parse_detokenize, {"{\"tokens\":[100]}", GD_EINVAL, "tokens[0]", "in 0..99"}},
        {api_parse_detokenize, {"{\"tokens\":[1,\"2\"]}", GD_EINVAL, "tokens[1]", "a string"}},
        {api_parse_template, {"{}", GD_EINVAL, "messages", "required"}},
        {api_parse_template, {"{" HI ",\"tools\":[1]}", GD_ENOTSUP, "tools", "not supported"}},
    };
    struct api_limits l = test_limits();

    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct bad_body *bad = &rows[i].bad;
        struct api_text *t = NULL;
        struct err err = {0};

        check_refusal(bad, rows[i].parse(&t, bad->body, strlen(bad->body), &l, &err), &err);
        assert_null(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversation_is_one_job),
        cmocka_unit_test(lengths_and_logprobs_have_their_defaults),
        cmocka_unit_test(the_last_message_can_be_continued),
        cmocka_unit_test(fields_of_messages_that_go_unused_are_named),
        cmocka_unit_test(bad_bodies_are_refused_by_name),
        cmocka_unit_test(strict_names_the_message),
        cmocka_unit_test(tokenize_bodies_are_read_and_written),
        cmocka_unit_test(the_other_text_bodies_too),
        cmocka_unit_test(bad_text_bodies_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
