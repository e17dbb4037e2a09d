/* chat_gemma4.c - the turns of Gemma 4 and of FunctionGemma.
 *
 *   <|turn>ROLE\nTEXT<turn|>\n
 *
 * A first turn of the system holds the switch for thinking, the system's text and the tools. All
 * that a model does between two messages of a user is one turn of it: thoughts, calls, their
 * results, and text. FunctionGemma does the same with the frames of Gemma 3. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/chat_private.h"

static const struct tool_marks gemma4_marks = {"<|\"|>", "<|tool>", "<tool|>", "<|tool_call>",
    "<tool_call|>", "<|tool_response>", "<tool_response|>", false};
static const struct tool_marks interleaved_marks = {"<|\"|>", "<|tool>", "<tool|>", "<|tool_call>",
    "<tool_call|>", "<|tool_response>", "<tool_response|>", true};
static const struct tool_marks function_marks = {"<escape>", "<start_function_declaration>",
    "<end_function_declaration>", "<start_function_call>", "<end_function_call>",
    "<start_function_response>", "<end_function_response>", false};

/* What the last turn ended with. */
enum ending { END_TURN, END_CALL, END_RESPONSE };

int message_error(struct sink *s, int code, size_t i, const char *field, const char *sentence)
{
    char param[64];

    snprintf(param, sizeof(param), "messages[%zu].%s", i, field);
    if (s->r == 0)
        s->r = err_set_at(s->err, code, param, "%s %s", param, sentence);
    return s->r;
}

static void put_trimmed(struct sink *s, const char *text, size_t len)
{
    utf8_trim(&text, &len);
    sink_text(s, text, len);
}

/* An answer without what it thought: every <|channel>...<channel|>, and an open one at the end.
 * Then it is trimmed. */
static void put_answer(struct sink *s, const struct chat_message *m)
{
    static const char open[] = "<|channel>", close[] = "<channel|>";
    const char *at = m->content ? m->content : "", *end = at + m->content_len;
    struct buf kept = {0};

    while (at < end) {
        const char *stop = memmem(at, (size_t)(end - at), close, sizeof(close) - 1);
        const char *thought;

        stop = stop ? stop : end;
        thought = memmem(at, (size_t)(stop - at), open, sizeof(open) - 1);
        buf_append(&kept, at, (size_t)((thought ? thought : stop) - at));
        at = stop < end ? stop + sizeof(close) - 1 : end;
    }
    put_trimmed(s, kept.len ? kept.data : "", kept.len);
    buf_free(&kept);
}

static bool is_system(const struct conversation *c)
{
    return c->m[0].role == ROLE_SYSTEM;
}

/* The first message that is a turn of its own. */
static size_t first_turn(const struct conversation *c)
{
    return is_system(c) ? 1 : 0;
}

static void put_system(struct sink *s, const struct tool_marks *marks, const struct conversation *c)
{
    if (!c->o->enable_thinking && !c->o->n_tools && !is_system(c))
        return;
    sink_frame(s, "<|turn>");
    sink_puts(s, "system\n");
    if (c->o->enable_thinking) {
        sink_frame(s, "<|think|>");
        sink_puts(s, "\n");
    }
    if (is_system(c))
        put_trimmed(s, c->m[0].content, c->m[0].content_len);
    tools_declare(s, marks, c->o);
    sink_frame(s, "<turn|>");
    sink_puts(s, "\n");
}

static void put_thought(
    struct sink *s, const struct conversation *c, size_t i, const char *before_end)
{
    const struct chat_message *m = &c->m[i];

    if (m->reasoning_len == 0 || m->n_tool_calls == 0)
        return;
    for (size_t k = i + 1; k < c->n; k++) {
        if (c->m[k].role == ROLE_USER)
            return; /* of an older turn */
    }
    sink_frame(s, "<|channel>");
    sink_puts(s, "thought\n");
    sink_text(s, m->reasoning, m->reasoning_len);
    sink_puts(s, before_end);
    sink_frame(s, "<channel|>");
}

/* The results that follow message i; returns how many. */
static size_t put_results(
    struct sink *s, const struct tool_marks *marks, const struct conversation *c, size_t i)
{
    size_t n = 0;

    if (c->m[i].n_tool_calls == 0)
        return 0;
    for (; i + n + 1 < c->n && c->m[i + n + 1].role == ROLE_TOOL; n++) {
        const struct chat_message *m = &c->m[i + n + 1];
        const char *name = tools_answered(s, c, i, i + n + 1);

        if (!name)
            break;
        tools_response_text(s, marks, name, m->content, m->content_len);
    }
    return n;
}

/* True when the turn before message i was the assistant's, so that this goes on with it. */
static bool goes_on(const struct conversation *c, size_t i)
{
    while (i > first_turn(c) && c->m[i - 1].role == ROLE_TOOL)
        i--;
    return i > first_turn(c) && c->m[i - 1].role == ROLE_ASSISTANT;
}

static const char *turn_name(enum chat_role role)
{
    switch (role) {
    case ROLE_SYSTEM: return "system\n";
    case ROLE_USER: return "user\n";
    case ROLE_ASSISTANT: return "model\n";
    case ROLE_TOOL: break;
    }
    return "tool\n";
}

/* A tool's result stands with the call it answers; one without a call is left out. */
static enum ending put_turn(struct sink *s, const struct conversation *c, size_t i)
{
    const struct chat_message *m = &c->m[i];
    size_t n_results;

    if (m->role != ROLE_ASSISTANT || !goes_on(c, i)) {
        sink_frame(s, "<|turn>");
        sink_puts(s, turn_name(m->role));
    }
    if (m->role == ROLE_ASSISTANT)
        put_thought(s, c, i, "\n");
    tools_call(s, &gemma4_marks, c, i);
    n_results = put_results(s, &gemma4_marks, c, i);
    if (m->role == ROLE_ASSISTANT)
        put_answer(s, m);
    else
        put_trimmed(s, m->content, m->content_len);
    if (c->o->continue_final_message && i + 1 == c->n)
        return END_TURN;
    if (m->n_tool_calls && n_results == 0) {
        sink_frame(s, "<|tool_response>");
        return END_CALL;
    }
    if (n_results && m->content_len == 0)
        return END_RESPONSE;
    sink_frame(s, "<turn|>");
    sink_puts(s, "\n");
    return END_TURN;
}

/* Every message is a turn; calls get no results. */
static void put_interleaved(struct sink *s, const struct conversation *c, size_t i)
{
    const struct chat_message *m = &c->m[i];

    sink_frame(s, "<|turn>");
    sink_puts(s, turn_name(m->role));
    if (m->role == ROLE_ASSISTANT)
        put_thought(s, c, i, "");
    tools_call(s, &interleaved_marks, c, i);
    if (m->role == ROLE_ASSISTANT)
        put_answer(s, m);
    else
        put_trimmed(s, m->content, m->content_len);
    if (c->o->continue_final_message && i + 1 == c->n)
        return;
    sink_frame(s, "<turn|>");
    sink_puts(s, "\n");
}

/* After results the model goes on where it is. The template also leaves out the turn for the
 * answer where a call came with text, after which the turn was closed: that is put right here. */
static void put_answer_turn(struct sink *s, enum chat_format f, const struct conversation *c)
{
    sink_frame(s, "<|turn>");
    sink_puts(s, "model\n");
    if (c->o->enable_thinking || f == CHAT_GEMMA4_SMALL)
        return;
    sink_frame(s, "<|channel>");
    sink_puts(s, "thought\n");
    sink_frame(s, "<channel|>");
}

void format_gemma4(struct sink *s, enum chat_format f, const struct conversation *c)
{
    enum ending ending = END_TURN;
    bool interleaved = f == CHAT_GEMMA4_INTERLEAVED;

    sink_frame(s, "<bos>");
    put_system(s, interleaved ? &interleaved_marks : &gemma4_marks, c);
    for (size_t i = first_turn(c); i < c->n && s->r == 0; i++) {
        if (interleaved)
            put_interleaved(s, c, i);
        else if (c->m[i].role != ROLE_TOOL)
            ending = put_turn(s, c, i);
    }
    if (c->o->add_generation_prompt && ending == END_TURN)
        put_answer_turn(s, f, c);
}

/* ---- FunctionGemma ---- */

static void put_developer(struct sink *s, const struct conversation *c)
{
    if (!c->o->n_tools && !is_system(c))
        return;
    sink_frame(s, "<start_of_turn>");
    sink_puts(s, "developer\n");
    if (is_system(c))
        put_trimmed(s, c->m[0].content, c->m[0].content_len);
    else /* the sentence it was trained on */
        sink_puts(s, "You are a model that can do function calling with the following functions");
    tools_declare(s, &function_marks, c->o);
    sink_frame(s, "<end_of_turn>");
    sink_puts(s, "\n");
}

/* A result in the documented form names its function: {"name": ..., "response": {...}}. */
static bool is_documented(const struct json_value *v)
{
    return json_is(v, JSON_OBJECT) && v->n == 2 && json_is(json_member(v, "name"), JSON_STRING) &&
           json_member(v, "response");
}

static bool put_documented(struct sink *s, const struct json_value *v)
{
    const struct json_value *name = json_member(v, "name"), *value = json_member(v, "response");

    if (!is_documented(v))
        return false;
    tools_response_value(s, &function_marks, name->text, name->len, value);
    return true;
}

static bool all_documented(const struct json_value *list)
{
    for (const struct json_value *v = list->child; v; v = v->next) {
        if (!is_documented(v))
            return false;
    }
    return list->child != NULL;
}

/* Results are objects in what it was trained on: content that is one is shown as such. */
static void put_function_result(
    struct sink *s, const struct conversation *c, size_t caller, size_t i)
{
    const struct chat_message *m = &c->m[i];
    struct json_tree tree = {0};
    const struct json_value *root;
    const char *name;

    root = json_tree_read(&tree, m->content, m->content_len) ? NULL : tree.root;
    if (json_is(root, JSON_ARRAY) && all_documented(root)) {
        for (const struct json_value *v = root->child; v; v = v->next)
            put_documented(s, v);
    } else if (!put_documented(s, root)) {
        name = tools_answered(s, c, caller, i);
        if (name && json_is(root, JSON_OBJECT))
            tools_response_value(s, &function_marks, name, strlen(name), root);
        else if (name)
            tools_response_text(s, &function_marks, name, m->content, m->content_len);
    }
    json_tree_free(&tree);
}

static size_t put_function_results(struct sink *s, const struct conversation *c, size_t i)
{
    size_t n = 0;

    if (c->m[i].n_tool_calls == 0)
        return 0;
    for (; i + n + 1 < c->n && c->m[i + n + 1].role == ROLE_TOOL && s->r == 0; n++)
        put_function_result(s, c, i, i + n + 1);
    return n;
}

static enum ending put_function_turn(
    struct sink *s, const struct conversation *c, size_t i, enum ending before)
{
    const struct chat_message *m = &c->m[i];

    if (m->role != ROLE_ASSISTANT || before != END_RESPONSE) {
        sink_frame(s, "<start_of_turn>");
        sink_puts(s, m->role == ROLE_SYSTEM ? "developer\n" : turn_name(m->role));
    }
    put_trimmed(s, m->content, m->content_len);
    tools_call(s, &function_marks, c, i);
    if (m->n_tool_calls && put_function_results(s, c, i) > 0)
        return END_RESPONSE;
    if (m->n_tool_calls) {
        sink_frame(s, "<start_function_response>");
        return END_CALL;
    }
    if (c->o->continue_final_message && i + 1 == c->n)
        return END_TURN;
    sink_frame(s, "<end_of_turn>");
    sink_puts(s, "\n");
    return END_TURN;
}

void format_functiongemma(struct sink *s, const struct conversation *c)
{
    enum ending ending = END_TURN;

    sink_frame(s, "<bos>");
    put_developer(s, c);
    for (size_t i = first_turn(c); i < c->n && s->r == 0; i++) {
        if (c->m[i].role != ROLE_TOOL)
            ending = put_function_turn(s, c, i, ending);
    }
    if (c->o->add_generation_prompt && ending == END_TURN) {
        sink_frame(s, "<start_of_turn>");
        sink_puts(s, "model\n");
    }
}
