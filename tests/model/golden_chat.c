#include "golden_chat.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/utf8.h"
#include "golden_text.h"

void golden_chat_free(struct golden_chat *c)
{
    for (size_t i = 0; i < c->n; i++)
        buf_free(&c->text[i]);
    for (size_t i = 0; i < c->n_printed; i++)
        cJSON_free(c->printed[i]);
}

static const char *text_of(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* The member as JSON text, or NULL. */
static const char *print(struct golden_chat *c, const cJSON *value)
{
    if (!value)
        return NULL;
    assert_true(c->n_printed < 64);
    c->printed[c->n_printed] = cJSON_PrintUnformatted(value);
    return c->printed[c->n_printed++];
}

/* Templates trim each text part; a tool's result only where it is a turn like others. */
static void read_parts(struct golden_chat *c, const cJSON *parts, bool trim, struct buf *out)
{
    const cJSON *part;

    cJSON_ArrayForEach(part, parts)
    {
        const char *text = text_of(part, "text");
        size_t len = text ? strlen(text) : 0;

        if (!text) {
            c->why_not = "media part";
            return;
        }
        if (parts->child->next && trim)
            utf8_trim(&text, &len);
        buf_append(out, text, len);
    }
}

static void read_calls(struct golden_chat *c, const cJSON *calls, struct chat_message *m)
{
    struct chat_tool_call *list = c->calls[m - c->m];
    const cJSON *call;

    cJSON_ArrayForEach(call, calls)
    {
        const cJSON *function = cJSON_GetObjectItem(call, "function");
        const cJSON *arguments = cJSON_GetObjectItem(function, "arguments");

        assert_true(m->n_tool_calls < MAX_CALLS);
        if (!cJSON_IsObject(arguments))
            c->why_not = "arguments that are no mapping";
        list[m->n_tool_calls++] = (struct chat_tool_call){
            text_of(call, "id"), text_of(function, "name"), print(c, arguments)};
    }
    if (m->n_tool_calls)
        m->tool_calls = list;
    c->has_tools = c->has_tools || m->n_tool_calls;
}

static void read_content(
    struct golden_chat *c, const cJSON *content, struct chat_message *m, struct buf *text)
{
    if (cJSON_IsString(content))
        golden_string(content, text);
    else if (cJSON_IsArray(content) &&
             (!content->child || cJSON_GetObjectItem(content->child, "type")))
        read_parts(c, content, m->role != ROLE_TOOL || c->trims_results, text);
    else if (m->role == ROLE_TOOL)
        buf_puts(text, print(c, content));
    else if (!m->n_tool_calls)
        c->why_not = "content without text";
}

static void read_message(struct golden_chat *c, const cJSON *message)
{
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {{"system", ROLE_SYSTEM}, {"developer", ROLE_SYSTEM}, {"user", ROLE_USER},
        {"assistant", ROLE_ASSISTANT}, {"model", ROLE_ASSISTANT}, {"tool", ROLE_TOOL}};
    const char *role = text_of(message, "role");
    struct chat_message *m = &c->m[c->n];
    struct buf *text = &c->text[c->n];

    assert_true(c->n < MAX_MESSAGES);
    c->n++;
    for (size_t i = 0; i < sizeof(roles) / sizeof(*roles); i++) {
        if (strcmp(role, roles[i].name) == 0)
            m->role = roles[i].role;
    }
    if (cJSON_GetObjectItem(message, "tool_responses"))
        c->why_not = "tool_responses";
    read_calls(c, cJSON_GetObjectItem(message, "tool_calls"), m);
    read_content(c, cJSON_GetObjectItem(message, "content"), m, text);
    m->content = text->data ? text->data : "";
    m->content_len = text->len;
    m->tool_call_id = text_of(message, "tool_call_id");
    m->name = text_of(message, "name");
    m->reasoning = text_of(message, "reasoning");
    if (!m->reasoning)
        m->reasoning = text_of(message, "reasoning_content");
    m->reasoning_len = m->reasoning ? strlen(m->reasoning) : 0;
    c->has_tools = c->has_tools || m->role == ROLE_TOOL;
}

void golden_chat_read(struct golden_chat *c, const cJSON *json)
{
    const char *family = text_of(json, "family");
    const cJSON *item;

    *c = (struct golden_chat){.n = 0};
    c->trims_results = family && strcmp(family, "gemma4-interleaved") == 0;
    c->o.add_generation_prompt = cJSON_IsTrue(cJSON_GetObjectItem(json, "add_generation_prompt"));
    c->o.continue_final_message = cJSON_IsTrue(cJSON_GetObjectItem(json, "continue_final_message"));
    c->o.enable_thinking = cJSON_IsTrue(cJSON_GetObjectItem(json, "enable_thinking"));
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "messages")) read_message(c, item);
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "tools"))
    {
        const cJSON *f = cJSON_GetObjectItem(item, "function");

        assert_true(c->o.n_tools < MAX_TOOLS);
        c->tools[c->o.n_tools++] = (struct chat_tool){text_of(f, "name"), text_of(f, "description"),
            print(c, cJSON_GetObjectItem(f, "parameters")),
            print(c, cJSON_GetObjectItem(f, "response"))};
        c->has_tools = true;
    }
    c->o.tools = c->tools;
}
