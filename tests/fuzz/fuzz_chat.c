/* fuzz_chat.c - hostile tools, arguments and results in a prompt, and hostile answers of a model.
 *
 * The input is cut at bytes 0xff into six texts. Rendering may refuse them, with a message; where
 * it does not, the frames are the only marks that were not in the input. Answers end in calls that
 * are JSON and offered, whatever the pieces. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/buf.h"
#include "model/chat.h"
#include "model/chat_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_TEXTS = 6 };

static void require(int truth)
{
    if (!truth)
        abort();
}

static void render(char *const text[N_TEXTS])
{
    const struct chat_tool tool = {"f", text[0], text[1], text[2]};
    const struct chat_tool_call call = {"1", "f", text[3]};
    const struct chat_message m[] = {
        {.role = ROLE_USER, .content = text[5], .content_len = strlen(text[5])},
        {.role = ROLE_ASSISTANT,
            .content = text[5],
            .content_len = strlen(text[5]),
            .reasoning = text[0],
            .reasoning_len = strlen(text[0]),
            .tool_calls = &call,
            .n_tool_calls = 1},
        {.role = ROLE_TOOL,
            .content = text[4],
            .content_len = strlen(text[4]),
            .tool_call_id = "1"}};
    const struct chat_options o = {.add_generation_prompt = true, .tools = &tool, .n_tools = 1};

    for (int f = CHAT_GEMMA4; f <= CHAT_FUNCTIONGEMMA; f++) {
        struct buf out = {0};
        struct err err = {0};
        int r = chat_render((enum chat_format)f, m, 3, &o, &out, &err);

        require(r == 0 || (err.msg[0] && err.param[0]));
        require(r < 0 || out.len > 5);
        buf_free(&out);
    }
}

static void check_call(
    void *ud, enum chat_part part, const char *name, const char *text, size_t len)
{
    struct buf *all = ud;

    require(len > 0);
    if (part == CHAT_CALL) {
        cJSON *json = cJSON_ParseWithLength(text, len);

        require(strcmp(name, "f") == 0);
        require(cJSON_IsObject(json) || memchr(text, 0, len) != NULL);
        cJSON_Delete(json);
    }
    buf_putc(all, (char)('0' + part));
    buf_append(all, text, len);
}

/* Bytes below N_MARKS are marks. */
static void parse(enum chat_format f, const char *text, size_t piece)
{
    static const char *const tools[] = {"f"};
    struct buf all = {0};
    struct chat_parser p = {.format = f,
        .tools = tools,
        .n_tools = 1,
        .split_reasoning = true,
        .emit = check_call,
        .ud = &all};

    while (*text) {
        size_t n = 0;

        if (*text<N_MARKS && * text> 0) {
            if (chat_mark_text(f, (enum chat_mark) * text))
                chat_parser_mark(&p, (enum chat_mark) * text);
            text++;
            continue;
        }
        while (n < piece && text[n] && !(text[n] > 0 && text[n] < N_MARKS))
            n++;
        chat_parser_text(&p, text, n);
        text += n;
    }
    chat_parser_end(&p);
    chat_parser_finish(&p);
    buf_free(&all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text[N_TEXTS];
    size_t at = 0;

    for (int i = 0; i < N_TEXTS; i++) {
        const uint8_t *end = at < size ? memchr(data + at, 0xff, size - at) : NULL;
        size_t n = end ? (size_t)(end - (data + at)) : size - at;

        text[i] = strndup((const char *)data + at, n);
        require(text[i] != NULL);
        at += end ? n + 1 : n;
    }
    render(text);
    for (int i = 0; i < N_TEXTS; i++) {
        parse(CHAT_GEMMA4, text[i], 1);
        parse(CHAT_GEMMA4, text[i], 1000);
        parse(CHAT_FUNCTIONGEMMA, text[i], 3);
        free(text[i]);
    }
    return 0;
}
