/* Chat formats with tools and thinking: Gemma 4 and FunctionGemma, byte for byte. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden_chat.h"
#include "golden_text.h"
#include "model/chat.h"
#include "test_gguf_build.h"

static enum chat_format family_format(const cJSON *json)
{
    const char *family = cJSON_GetStringValue(cJSON_GetObjectItem(json, "family"));

    return strcmp(family, "gemma4") == 0               ? CHAT_GEMMA4
           : strcmp(family, "gemma4-small") == 0       ? CHAT_GEMMA4_SMALL
           : strcmp(family, "gemma4-interleaved") == 0 ? CHAT_GEMMA4_INTERLEAVED
           : strcmp(family, "functiongemma") == 0      ? CHAT_FUNCTIONGEMMA
                                                       : CHAT_NONE;
}

struct tally {
    int equal, refused, better, left_out;
};

/* On purpose: a list of texts is joined, not printed as Python prints a list; the answer gets a
 * turn where the template forgets it; a result in an object is its JSON text. */
static bool is_better(const char *name)
{
    return strcmp(name, "gemma4: system parts") == 0 ||
           strcmp(name, "gemma4: text and call") == 0 ||
           strcmp(name, "gemma4: result mapping") == 0 ||
           strcmp(name, "gemma4-interleaved: result mapping") == 0;
}

static void golden_case(const cJSON *json, struct tally *tally)
{
    const char *want = cJSON_GetStringValue(cJSON_GetObjectItem(json, "expected"));
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(json, "name"));
    struct golden_chat c;
    struct buf got = {0};
    struct err err = {0};
    int r;

    golden_chat_read(&c, json);
    if (c.why_not) {
        print_message("# left out (%s): %s\n", c.why_not, name);
        tally->left_out++;
        golden_chat_free(&c);
        return;
    }
    r = chat_render(family_format(json), c.m, c.n, &c.o, &got, &err);
    if (want && r == 0 && got.len == strlen(want) && memcmp(got.data, want, got.len) == 0) {
        tally->equal++;
    } else if (!want && r < 0) {
        assert_memory_equal(err.param, "messages", 8);
        tally->refused++;
    } else if (is_better(name)) {
        assert_int_equal(r, 0);
        tally->better++;
    } else {
        print_message("# %s: %s\n", name, err.msg);
        fail_msg("got  %s\nwant %s", got.data ? got.data : "", want);
    }
    buf_free(&got);
    golden_chat_free(&c);
}

static void golden_renderings(void **state)
{
    cJSON *cases = golden_load("chat/cases.json"), *json;
    struct tally tally = {0};

    cJSON_ArrayForEach(json, cases)
    {
        if (family_format(json) != CHAT_NONE)
            golden_case(json, &tally);
    }
    print_message("# %d equal, %d refused alike, %d better on purpose, %d left out\n", tally.equal,
        tally.refused, tally.better, tally.left_out);
    assert_int_equal(tally.equal, 156);
    assert_int_equal(tally.refused, 2);
    assert_int_equal(tally.better, 4);
    assert_int_equal(tally.left_out, 8);
    cJSON_Delete(cases);
}

static void join_pieces(const struct tokenizer *t, const struct token_list *ids, struct buf *out)
{
    for (size_t i = 0; i < ids->n; i++) {
        size_t len;
        const char *s = tokenizer_piece(t, ids->ids[i], &len);

        buf_append(out, s, len);
    }
}

static size_t count_control(const struct tokenizer *t, const struct token_list *ids)
{
    size_t n = 0;

    for (size_t i = 0; i < ids->n; i++)
        n += tokenizer_is_control(t, ids->ids[i]);
    return n;
}

/* Anything in the request that could be taken for a frame. */
static bool is_hostile(const cJSON *json)
{
    char *messages = cJSON_PrintUnformatted(cJSON_GetObjectItem(json, "messages"));
    char *tools = cJSON_PrintUnformatted(cJSON_GetObjectItem(json, "tools"));
    bool hostile = strstr(messages, "|>") || strstr(messages, "<|") || strstr(messages, "_turn>") ||
                   strstr(messages, "<eos>") || (tools && strstr(tools, "|>"));

    cJSON_free(messages);
    cJSON_free(tools);
    return hostile;
}

/* The ids are those of the rendered text, unless the request writes frames: then the text is the
 * same, but those are no control tokens. */
static void encodes_alike(const struct tokenizer *t, const cJSON *json, int *n_hostile)
{
    enum chat_format f = family_format(json);
    struct token_list got = {0}, want = {0};
    struct buf text = {0}, back = {0};
    struct golden_chat c;
    struct err err;

    golden_chat_read(&c, json);
    if (c.why_not || chat_render(f, c.m, c.n, &c.o, &text, &err) < 0) {
        buf_free(&text);
        golden_chat_free(&c);
        return;
    }
    if (chat_encode(f, t, c.m, c.n, &c.o, &got, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(tokenizer_encode(t, text.data, text.len, true, &want, &err), 0);
    join_pieces(t, &got, &back);
    assert_int_equal(back.len, text.len);
    assert_memory_equal(back.data, text.data, text.len);
    if (is_hostile(json) && count_control(t, &got) < count_control(t, &want)) {
        ++*n_hostile;
    } else if (!same_ids(&got, &want)) {
        print_difference(cJSON_GetStringValue(cJSON_GetObjectItem(json, "name")), &got, &want);
        fail();
    }
    token_list_free(&got);
    token_list_free(&want);
    buf_free(&text);
    buf_free(&back);
    golden_chat_free(&c);
}

static void encode_golden(const char *path)
{
    struct tokenizer *t = open_tokenizer(path);
    cJSON *cases = golden_load("chat/cases.json"), *json;
    int n_hostile = 0;

    cJSON_ArrayForEach(json, cases)
    {
        if (family_format(json) != CHAT_NONE && family_format(json) != CHAT_FUNCTIONGEMMA)
            encodes_alike(t, json, &n_hostile);
    }
    assert_int_equal(n_hostile, 8);
    cJSON_Delete(cases);
    tokenizer_close(t);
}

static void small_vocabularies_encode_as_rendered(void **state)
{
    encode_golden(golden_path("families/gemma4-dense/model-bf16.gguf"));
}

static void the_real_vocabulary_encodes_as_rendered(void **state)
{
    const char *path = getenv("GEMMAD_TEST_GEMMA4_VOCAB");

    if (!path || !*path) {
        print_message("# SKIPPED: GEMMAD_TEST_GEMMA4_VOCAB names no file: Gemma 4's chats are NOT "
                      "tested on it\n");
        skip();
    }
    encode_golden(path);
}

static void a_vocabulary_without_the_frames_cannot_chat(void **state)
{
    struct tokenizer *t = open_tokenizer(golden_path("families/gemma3/model-bf16.gguf"));
    const struct chat_message user = {.role = ROLE_USER, .content = "u", .content_len = 1};
    const struct chat_options o = {.add_generation_prompt = true};
    struct token_list ids = {0};
    struct err err;

    assert_int_equal(chat_encode(CHAT_GEMMA4, t, &user, 1, &o, &ids, &err), GD_ENOTSUP);
    assert_non_null(strstr(err.msg, "<|turn>"));
    token_list_free(&ids);
    tokenizer_close(t);
}

/* user, a call of f with `arguments`, its result. */
static int render_call(
    enum chat_format f, const char *arguments, const char *result, struct buf *out, struct err *err)
{
    const struct chat_tool_call call = {"call_1", "f", arguments};
    const struct chat_message m[] = {{.role = ROLE_USER, .content = "u", .content_len = 1},
        {.role = ROLE_ASSISTANT, .content = "", .tool_calls = &call, .n_tool_calls = 1},
        {.role = ROLE_TOOL,
            .content = result,
            .content_len = result ? strlen(result) : 0,
            .tool_call_id = "call_1"}};
    const struct chat_options o = {.add_generation_prompt = true};

    return chat_render(f, m, result ? 3 : 2, &o, out, err);
}

static void renders_call(
    enum chat_format f, const char *arguments, const char *result, const char *want)
{
    struct buf out = {0};
    struct err err = {0};

    if (render_call(f, arguments, result, &out, &err) < 0)
        fail_msg("%s", err.msg);
    if (!strstr(out.data, want))
        fail_msg("%s lacks %s", out.data, want);
    buf_free(&out);
}

/* Beside each JSON number what Python prints for it. */
static void numbers_print_as_python_prints_them(void **state)
{
    static const char *const numbers[][2] = {{"0", "0"}, {"-0", "0"}, {"0.0", "0.0"},
        {"-0.0", "-0.0"}, {"2.0", "2.0"}, {"2", "2"}, {"1e0", "1.0"}, {"100.5e-1", "10.05"},
        {"1e15", "1000000000000000.0"}, {"1e16", "1e+16"},
        {"123456789012345680", "123456789012345680"},
        {"123456789012345678901234567890", "123456789012345678901234567890"},
        {"1.5e300", "1.5e+300"}, {"0.0001", "0.0001"}, {"0.00001", "1e-05"}, {"0.1", "0.1"},
        {"1E-7", "1e-07"}, {"1.7976931348623157e308", "1.7976931348623157e+308"},
        {"5e-324", "5e-324"}, {"0.30000000000000004", "0.30000000000000004"},
        {"12345.678", "12345.678"}, {"9007199254740993.0", "9007199254740992.0"},
        {"-1.25e-10", "-1.25e-10"}, {"1e999", "inf"}, {"-1e999", "-inf"}};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        char arguments[64], want[64];

        snprintf(arguments, sizeof(arguments), "{\"n\": %s}", numbers[i][0]);
        snprintf(want, sizeof(want), "call:f{n:%s}<tool_call|>", numbers[i][1]);
        renders_call(CHAT_GEMMA4, arguments, NULL, want);
    }
}

static void arguments_are_read_as_python_reads_json(void **state)
{
    renders_call(CHAT_GEMMA4, NULL, NULL, "call:f{}<tool_call|>");
    renders_call(CHAT_GEMMA4, " \n", NULL, "call:f{}<tool_call|>");
    renders_call(CHAT_GEMMA4, "{\"a\":1,\"b\":2,\"a\":3}", NULL, "call:f{a:3,b:2}");
    renders_call(CHAT_GEMMA4, "{\"\\u00e9\\ud83d\\ude00\":\"\\t\\\\\"}", NULL,
        "call:f{\xc3\xa9\xf0\x9f\x98\x80:<|\"|>\t\\<|\"|>}");
    renders_call(CHAT_GEMMA4, "{\"\u00c9b\":1,\"\u00e9a\":2,\"z\":3,\"\u0416\":4,\"\u0451\":5}",
        NULL, "call:f{z:3,\u00e9a:2,\u00c9b:1,\u0416:4,\u0451:5}");
    renders_call(CHAT_FUNCTIONGEMMA, "{\"B\":[{}],\"a\":null}", NULL,
        "call:f{a:None,B:[{}]}<end_function_call><start_function_response>");
}

static void results_of_functiongemma_are_objects_where_they_can_be(void **state)
{
    renders_call(
        CHAT_FUNCTIONGEMMA, "{}", "{\"t\": 1.50}", "response:f{t:1.5}<end_function_response>");
    renders_call(CHAT_FUNCTIONGEMMA, "{}", "sunny", "response:f{value:<escape>sunny<escape>}");
    renders_call(CHAT_FUNCTIONGEMMA, "{}", "[1]", "response:f{value:<escape>[1]<escape>}");
    renders_call(
        CHAT_FUNCTIONGEMMA, "{}", "{\"name\":\"g\",\"response\":3}", "response:g{value:3}");
    renders_call(CHAT_FUNCTIONGEMMA, "{}", "{\"name\":\"g\",\"response\":3,\"x\":1}",
        "response:f{name:<escape>g<escape>,response:3,x:1}");
    renders_call(CHAT_GEMMA4, "{}", "{\"t\": 1}", "response:f{value:<|\"|>{\"t\": 1}<|\"|>}");
}

static void text_beside_a_call_still_gets_an_answer(void **state)
{
    const struct chat_tool_call call = {"1", "f", "{}"};
    const struct chat_message m[] = {{.role = ROLE_USER, .content = "u", .content_len = 1},
        {.role = ROLE_ASSISTANT,
            .content = "Let me see.",
            .content_len = 11,
            .tool_calls = &call,
            .n_tool_calls = 1},
        {.role = ROLE_TOOL, .content = "r", .content_len = 1, .tool_call_id = "1"}};
    const struct chat_options o = {.add_generation_prompt = true, .enable_thinking = true};
    static const char end[] = "Let me see.<turn|>\n<|turn>model\n";
    struct buf out = {0};
    struct err err;

    assert_int_equal(chat_render(CHAT_GEMMA4, m, 3, &o, &out, &err), 0);
    assert_string_equal(out.data + out.len - strlen(end), end);
    buf_free(&out);
}

static int render_tool(const char *parameters, struct buf *out, struct err *err)
{
    const struct chat_tool tool = {"f", NULL, parameters, NULL};
    const struct chat_message m = {.role = ROLE_USER, .content = "u", .content_len = 1};
    const struct chat_options o = {.tools = &tool, .n_tools = 1};

    return chat_render(CHAT_GEMMA4, &m, 1, &o, out, err);
}

/* Shapes that the golden cases lack; beside each what the template gives under Jinja. */
static void odd_schemas_are_declared_as_the_template_does(void **state)
{
    static const char *const schemas[][2] = {{"{}", "{description:<|\"|><|\"|>}<tool|>"},
        {"{\"properties\":{\"a\":{\"type\":[\"string\",\"null\"]}},\"type\":\"object\"}",
            "a:{type:<|\"|>['STRING', 'NULL']<|\"|>}}"},
        {"{\"properties\":{\"a\":{\"anyOf\":[]},\"b\":true}}",
            "parameters:{properties:{a:{type:<|\"|><|\"|>},b:{type:<|\"|><|\"|>}},}<tool|>"},
        {"{\"properties\":{\"a\":{\"type\":\"object\",\"title\":\"T\"}},\"type\":\"object\"}",
            "a:{properties:{title:{type:<|\"|><|\"|>}},type:<|\"|>OBJECT<|\"|>}"},
        {"{\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"default\":"
         "{\"k\":null},\"minimum\":1,\"x\":null}}}}",
            "items:{default:{<|\"|>k<|\"|>:None},minimum:1,type:<|\"|>OBJECT<|\"|>}"},
        {"{\"properties\":{\"a\":{\"type\":\"string\",\"enum\":[1,true,\"x\"],\"nullable\":true}}}",
            "a:{enum:[1,true,<|\"|>x<|\"|>],nullable:true,type:<|\"|>STRING<|\"|>}"},
        {"{\"properties\":{\"a\":{\"description\":{\"it's\":[\"\\n\",false]}}}}",
            "a:{description:<|\"|>{\"it's\": ['\\n', False]}<|\"|>,type:"},
        {"{\"required\":[1,\"b\"]}",
            "parameters:{required:[<|\"|>1<|\"|>,<|\"|>b<|\"|>],}<tool|>"}};

    for (size_t i = 0; i < sizeof(schemas) / sizeof(*schemas); i++) {
        struct buf out = {0};
        struct err err = {0};

        assert_int_equal(render_tool(schemas[i][0], &out, &err), 0);
        if (!strstr(out.data, schemas[i][1]))
            fail_msg("%s lacks %s", out.data, schemas[i][1]);
        buf_free(&out);
    }
}

static void what_is_no_json_object_is_refused_by_its_place(void **state)
{
    static const char *const texts[] = {"", "x", "{", "{\"a\"", "{\"a\":}", "{\"a\":1,}", "[1,]",
        "[]", "1", "{} {}", "{\"a\":01}", "{\"a\":1.}", "{\"a\":1e}", "{\"a\":-}", "{\"a\":tru}",
        "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\udc00\"}",
        "{\"a\":\"\\ud800\\u0041\"}", "{\"a\":\"\n\"}", "{\"a\":\"\xff\"}", "{\"a\":\"b", "{a:1}",
        "[[[["};
    struct err err;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct buf out = {0};

        memset(&err, 0, sizeof(err));
        assert_int_equal(render_tool(texts[i], &out, &err), GD_EINVAL);
        assert_string_equal(err.param, "tools[0].function.parameters");
        assert_non_null(strstr(err.msg, "JSON"));
        buf_clear(&out);
        if (texts[i][0]) {
            assert_int_equal(render_call(CHAT_GEMMA4, texts[i], NULL, &out, &err), GD_EINVAL);
            assert_string_equal(err.param, "messages[1].tool_calls[0].function.arguments");
        }
        buf_free(&out);
    }
}

/* {"k":{"k":... and objects with many members: bounded, and quick. */
static void hostile_schemas_cost_little(void **state)
{
    struct buf deep = {0}, wide = {0}, long_list = {0}, out = {0};
    struct err err;

    for (int i = 0; i < 100000; i++)
        buf_puts(&deep, "{\"k\":");
    buf_puts(&wide, "{");
    for (int i = 0; i < 300; i++)
        buf_printf(&wide, "%s\"%d\":1", i ? "," : "", i);
    buf_puts(&wide, "}");
    buf_puts(&long_list, "{\"a\":[0");
    for (int i = 0; i < 200000; i++)
        buf_puts(&long_list, ",0");
    buf_puts(&long_list, "]}");
    assert_int_equal(render_tool(deep.data, &out, &err), GD_EINVAL);
    assert_int_equal(render_tool(wide.data, &out, &err), GD_EINVAL);
    assert_non_null(strstr(err.msg, "256 members"));
    assert_int_equal(render_tool(long_list.data, &out, &err), GD_EINVAL);
    assert_non_null(strstr(err.msg, "100000 values"));
    buf_free(&deep);
    buf_free(&wide);
    buf_free(&long_list);
    buf_free(&out);
}

static void formats_without_tools_and_thinking_say_so(void **state)
{
    const struct chat_tool tool = {.name = "f"};
    const struct chat_message user = {.role = ROLE_USER, .content = "u", .content_len = 1};
    const struct chat_message result = {.role = ROLE_TOOL, .content = "u", .content_len = 1};
    const struct chat_options tools = {.tools = &tool, .n_tools = 1}, none = {0};
    const struct chat_options think = {.enable_thinking = true};
    const struct chat_options open = {.continue_final_message = true};
    struct buf out = {0};
    struct err err;

    assert_int_equal(chat_render(CHAT_GEMMA3, &user, 1, &tools, &out, &err), GD_ENOTSUP);
    assert_string_equal(err.param, "tools");
    assert_int_equal(chat_render(CHAT_GEMMA3, &result, 1, &none, &out, &err), GD_ENOTSUP);
    assert_int_equal(chat_render(CHAT_FUNCTIONGEMMA, &user, 1, &think, &out, &err), GD_ENOTSUP);
    assert_string_equal(err.param, "enable_thinking");
    assert_int_equal(chat_render(CHAT_GEMMA4, &result, 1, &open, &out, &err), GD_EINVAL);
    assert_string_equal(err.param, "continue_final_message");
    assert_int_equal(out.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_renderings),
        cmocka_unit_test(small_vocabularies_encode_as_rendered),
        cmocka_unit_test(the_real_vocabulary_encodes_as_rendered),
        cmocka_unit_test(a_vocabulary_without_the_frames_cannot_chat),
        cmocka_unit_test(numbers_print_as_python_prints_them),
        cmocka_unit_test(arguments_are_read_as_python_reads_json),
        cmocka_unit_test(results_of_functiongemma_are_objects_where_they_can_be),
        cmocka_unit_test(text_beside_a_call_still_gets_an_answer),
        cmocka_unit_test(odd_schemas_are_declared_as_the_template_does),
        cmocka_unit_test(what_is_no_json_object_is_refused_by_its_place),
        cmocka_unit_test(hostile_schemas_cost_little),
        cmocka_unit_test(formats_without_tools_and_thinking_say_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
