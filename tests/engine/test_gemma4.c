/* The engine on Gemma 4's golden model of 512 tokens: tools and thinking from the request to the
 * prompt, marks from the model to the events. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

enum { MARK_CHANNEL_ID = 17, MARK_CALL_ID = 12 }; /* of that vocabulary */

static const struct chat_message hello = {.role = ROLE_USER, .content = "hello", .content_len = 5};
static const struct chat_tool tool = {.name = "f", .parameters = "{\"type\":\"object\"}"};

static void open_engine(struct harness *h)
{
    struct engine_opts o;

    harness_opts(&o);
    o.model_path = GEMMA4_MODEL;
    o.chat_format = "gemma4-small";
    o.n_threads = 1;
    o.ctx_tokens = 256;
    harness_open(h, &o);
}

static void the_prompt_shows_tools_and_thinking(void **state)
{
    struct prompt p = {.kind = PROMPT_CHAT,
        .messages = &hello,
        .n = 1,
        .tools = &tool,
        .n_tools = 1,
        .add_generation_prompt = true,
        .enable_thinking = true};
    struct harness h;
    struct err err;
    char *text;
    size_t len;

    open_engine(&h);
    assert_true(engine_info(h.e)->has_tools && engine_info(h.e)->has_thinking);
    assert_int_equal(engine_apply_template(h.e, &p, &text, &len, &err), 0);
    assert_string_equal(text,
        "<bos><|turn>system\n<|think|>\n<|tool>declaration:f{description:<|\"|><|\"|>,"
        "parameters:{type:<|\"|>OBJECT<|\"|>}}<tool|><turn|>\n<|turn>user\nhello<turn|>\n"
        "<|turn>model\n");
    free(text);
    harness_close(&h);
}

/* A model that is made to write this token, and that one then. */
static void forced(
    struct harness *h, int32_t id, const char *want, enum channel channel, int thought)
{
    const struct logit_bias bias = {.id = id, .bias = 1e6f};
    struct job_params p;
    struct job_event ev;
    struct job *j;
    struct buf text = {0};

    job_params_default(&p);
    p.prompt = (struct prompt){.kind = PROMPT_CHAT,
        .messages = &hello,
        .n = 1,
        .tools = &tool,
        .n_tools = 1,
        .add_generation_prompt = true};
    p.sampling.temperature = 0;
    p.sampling.bias = &bias;
    p.sampling.n_bias = 1;
    p.max_tokens = 3;
    j = harness_submit(h, &p);
    do {
        harness_next(h, j, &ev);
        if (ev.kind == EVENT_TEXT && ev.text_len) {
            assert_int_equal(ev.channel, channel);
            buf_append(&text, ev.text, ev.text_len);
        }
    } while (ev.kind != EVENT_FINISH);
    assert_int_equal(ev.finish, FINISH_LENGTH);
    assert_int_equal(ev.usage.completion_tokens, 3);
    assert_int_equal(ev.usage.reasoning_tokens, thought);
    assert_string_equal(text.data ? text.data : "", want);
    job_release(j);
    buf_free(&text);
}

static void marks_of_the_model_are_no_text(void **state)
{
    struct harness h;

    open_engine(&h);
    forced(&h, MARK_CHANNEL_ID, "", CHANNEL_REASONING, 3);
    /* Calls that never were one. */
    forced(&h, MARK_CALL_ID, "<|tool_call><|tool_call><|tool_call>", CHANNEL_CONTENT, 0);
    harness_close(&h);
}

static void hostile_arguments_are_refused_by_name(void **state)
{
    const struct chat_tool_call call = {"1", "f", "{\"a\":"};
    const struct chat_message m[] = {
        hello, {.role = ROLE_ASSISTANT, .content = "", .tool_calls = &call, .n_tool_calls = 1}};
    struct job_params p;
    struct harness h;
    struct job *j;
    struct err err;

    open_engine(&h);
    job_params_default(&p);
    p.prompt = (struct prompt){.kind = PROMPT_CHAT, .messages = m, .n = 2};
    assert_int_equal(job_submit(&j, h.e, &p, NULL, &err), GD_EINVAL);
    assert_string_equal(err.param, "messages[1].tool_calls[0].function.arguments");
    harness_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_prompt_shows_tools_and_thinking),
        cmocka_unit_test(marks_of_the_model_are_no_text),
        cmocka_unit_test(hostile_arguments_are_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
