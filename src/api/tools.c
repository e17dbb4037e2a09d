/* tools.c - what a chat request says about tools and thinking: the functions that are offered, the
 * calls and results in its history, and the switches. Only of models whose chat format has them;
 * for others these members stay where they are and are refused with the rest (params.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "api/request.h"

enum { TOOLS_MAX = 128, CALLS_MAX = 128, NAME_MAX = 64 };

/* A required string of one object. */
static int need_string(struct json_object *o, const char *name, const char **out, struct err *err)
{
    char path[JSON_PATH_MAX];
    int r = json_string(o, name, out, err);

    if (r != 0)
        return r < 0 ? r : 0;
    json_path(o, name, path);
    return err_set_at(err, GD_EINVAL, path, "%s: required", path);
}

/* The name is written into the prompt and read back from the answer. */
static int need_name(struct json_object *o, const char **out, struct err *err)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    char path[JSON_PATH_MAX];
    int r = need_string(o, "name", out, err);
    size_t n;

    if (r < 0)
        return r;
    n = strlen(*out);
    if (n >= 1 && n <= NAME_MAX && strspn(*out, allowed) == n)
        return 0;
    json_path(o, "name", path);
    return err_set_at(
        err, GD_EINVAL, path, "%s: want 1 to %d of a-z, A-Z, 0-9, _, - and .", path, NAME_MAX);
}

/* "type": "function", and its object. */
static int open_function(struct json_object *o, struct json_object *f, struct err *err)
{
    const char *type = NULL;
    char path[JSON_PATH_MAX];
    int r = need_string(o, "type", &type, err);

    if (r < 0)
        return r;
    json_path(o, "type", path);
    if (strcmp(type, "function") != 0)
        return err_set_at(err, GD_ENOTSUP, path, "%s: only \"function\" is supported", path);
    json_path(o, "function", path);
    return json_open(f, json_take(o, "function"), path, err);
}

/* An optional object as JSON text, in the arena. */
static int take_schema(
    struct parse *p, struct json_object *o, const char *name, const char **out, struct err *err)
{
    const cJSON *c = json_take(o, name);
    char path[JSON_PATH_MAX];
    char *printed;

    if (!c)
        return 0;
    json_path(o, name, path);
    if (!cJSON_IsObject(c))
        return json_refuse(err, path, "an object", c);
    printed = cJSON_PrintUnformatted(c);
    *out = printed ? parse_copy(p, printed) : NULL;
    cJSON_free(printed);
    return *out ? 0 : parse_no_memory(err);
}

static int read_tool(
    struct parse *p, const cJSON *item, int i, struct chat_tool *list, struct err *err)
{
    struct chat_tool *t = &list[i];
    struct json_object o, f;
    char path[JSON_PATH_MAX];
    int r;

    snprintf(path, sizeof(path), "tools[%d]", i);
    r = json_open(&o, item, path, err);
    if (r == 0)
        r = open_function(&o, &f, err);
    if (r == 0)
        r = need_name(&f, &t->name, err);
    if (r == 0)
        r = json_string(&f, "description", &t->description, err);
    if (r >= 0)
        r = take_schema(p, &f, "parameters", &t->parameters, err);
    if (r == 0)
        r = take_schema(p, &f, "response", &t->response, err);
    for (int k = 0; k < i && r == 0; k++) {
        if (strcmp(list[k].name, t->name) == 0)
            r = err_set_at(
                err, GD_EINVAL, path, "%s: the function %s is given twice", path, t->name);
    }
    if (r == 0) /* "strict" among them: answers are not held to the schema */
        r = params_nested(&f, "tools[].function", p->limits->strict, p->ignored, err);
    return r < 0 ? r : params_nested(&o, "tools[]", p->limits->strict, p->ignored, err);
}

/* False in *use: the tools are not to be offered. */
static int read_choice(struct parse *p, bool *use, struct err *err)
{
    const cJSON *c = json_take(&p->o, "tool_choice");

    *use = true;
    if (!c)
        return 0;
    if (cJSON_IsObject(c) || (cJSON_IsString(c) && strcmp(c->valuestring, "required") == 0))
        return err_set_at(err, GD_ENOTSUP, "tool_choice",
            "tool_choice: only \"auto\" and \"none\" are supported; a call cannot be forced");
    if (!cJSON_IsString(c) ||
        (strcmp(c->valuestring, "auto") != 0 && strcmp(c->valuestring, "none") != 0))
        return json_refuse(err, "tool_choice", "\"auto\" or \"none\"", c);
    *use = strcmp(c->valuestring, "auto") == 0;
    return 0;
}

int parse_tools(struct parse *p, struct prompt *prompt, bool *one_call, struct err *err)
{
    const cJSON *array = NULL, *c;
    struct chat_tool *list;
    bool use, parallel = true;
    int n = 0, i = 0, r;

    *one_call = false;
    if (!p->limits->tools)
        return 0;
    r = read_choice(p, &use, err);
    if (r == 0)
        r = json_bool(&p->o, "parallel_tool_calls", &parallel, err);
    if (r >= 0)
        r = json_array(&p->o, "tools", TOOLS_MAX, &array, &n, err);
    if (r < 0 || n == 0)
        return r < 0 ? r : 0;
    list = arena_alloc(p->arena, (size_t)n, sizeof(*list));
    if (!list)
        return parse_no_memory(err);
    cJSON_ArrayForEach(c, array)
    {
        r = read_tool(p, c, i++, list, err);
        if (r < 0)
            return r;
    }
    if (use) {
        prompt->tools = list;
        prompt->n_tools = (size_t)n;
    }
    *one_call = !parallel;
    return 0;
}

/* ---- thinking ---- */

static int read_effort(struct parse *p, struct prompt *prompt, struct err *err)
{
    static const char *const efforts[] = {
        "none", "minimal", "low", "medium", "high", "xhigh", "max"};
    const char *effort = NULL;
    int r = json_string(&p->o, "reasoning_effort", &effort, err);

    if (r <= 0)
        return r;
    for (size_t i = 0; i < sizeof(efforts) / sizeof(*efforts); i++) {
        if (strcmp(effort, efforts[i]) == 0) {
            prompt->enable_thinking = i > 0;
            return 0;
        }
    }
    return err_set_at(err, GD_EINVAL, "reasoning_effort",
        "reasoning_effort: want none, minimal, low, medium, high, xhigh or max");
}

int parse_thinking(struct parse *p, struct prompt *prompt, struct err *err)
{
    static const char path[] = "chat_template_kwargs";
    const cJSON *c = json_take(&p->o, path);
    struct json_object o;
    int r = p->limits->thinking ? read_effort(p, prompt, err) : 0;

    if (r < 0 || !c)
        return r;
    r = json_open(&o, c, path, err);
    if (r == 0)
        r = json_bool(&o, "enable_thinking", &prompt->enable_thinking, err);
    if (r < 0)
        return r;
    if (prompt->enable_thinking && !p->limits->thinking)
        return err_set_at(err, GD_ENOTSUP, "chat_template_kwargs.enable_thinking",
            "chat_template_kwargs.enable_thinking: this model's chat format has no thinking");
    return params_nested(&o, path, p->limits->strict, p->ignored, err);
}

/* ---- history ---- */

static int read_call(struct parse *p, const cJSON *item, const char *path,
    struct chat_tool_call *call, struct err *err)
{
    struct json_object o, f;
    int r = json_open(&o, item, path, err);

    if (r == 0)
        r = need_string(&o, "id", &call->id, err);
    if (r == 0)
        r = open_function(&o, &f, err);
    if (r == 0)
        r = need_name(&f, &call->name, err);
    if (r == 0)
        r = need_string(&f, "arguments", &call->arguments, err);
    if (r == 0)
        r = params_nested(
            &f, "messages[].tool_calls[].function", p->limits->strict, p->ignored, err);
    if (r < 0)
        return r;
    json_take(&o, "index"); /* of a delta, which some clients keep */
    return params_nested(&o, "messages[].tool_calls[]", p->limits->strict, p->ignored, err);
}

int parse_calls(struct parse *p, struct json_object *o, struct chat_message *m, struct err *err)
{
    const cJSON *array = NULL, *c;
    struct chat_tool_call *list;
    int n = 0, i = 0, r = json_array(o, "tool_calls", CALLS_MAX, &array, &n, err);

    if (r < 0 || n == 0)
        return r < 0 ? r : 0;
    list = arena_alloc(p->arena, (size_t)n, sizeof(*list));
    if (!list)
        return parse_no_memory(err);
    cJSON_ArrayForEach(c, array)
    {
        char path[JSON_PATH_MAX];

        snprintf(path, sizeof(path), "%.30s.tool_calls[%d]", o->path, i);
        r = read_call(p, c, path, &list[i++], err);
        if (r < 0)
            return r;
    }
    m->tool_calls = list;
    m->n_tool_calls = (size_t)n;
    return 0;
}

int parse_reasoning(struct json_object *o, struct chat_message *m, struct err *err)
{
    int r = json_string(o, "reasoning", &m->reasoning, err);

    if (r >= 0)
        r = json_string(o, "reasoning_content", &m->reasoning, err);
    if (r >= 0 && m->reasoning)
        m->reasoning_len = strlen(m->reasoning);
    return r < 0 ? r : 0;
}

static bool answers(const struct chat_message *m, const struct chat_tool_call *call)
{
    return m->tool_call_id && strcmp(m->tool_call_id, call->id) == 0;
}

/* The results after message i, each of one of its calls, and all of them. *at is moved past them.
 */
static int check_results(const struct chat_message *m, size_t n, size_t *at, struct err *err)
{
    size_t i = *at, end = i + 1;
    char path[JSON_PATH_MAX];

    if (m[i].role == ROLE_TOOL) /* only at the start: others are passed with their calls */
        return err_set_at(err, GD_EINVAL, "messages[0].tool_call_id",
            "messages[0].tool_call_id: no tool call before it");
    while (end < n && m[end].role == ROLE_TOOL)
        end++;
    for (size_t k = i + 1; k < end; k++) {
        bool known = false;

        for (size_t c = 0; c < m[i].n_tool_calls; c++)
            known = known || answers(&m[k], &m[i].tool_calls[c]);
        snprintf(path, sizeof(path), "messages[%zu].tool_call_id", k);
        if (!known)
            return err_set_at(err, GD_EINVAL, path,
                "%s: the assistant's message before it has no tool call of this id", path);
    }
    for (size_t c = 0; c < m[i].n_tool_calls; c++) {
        bool answered = false;

        for (size_t k = i + 1; k < end; k++)
            answered = answered || answers(&m[k], &m[i].tool_calls[c]);
        snprintf(path, sizeof(path), "messages[%zu].tool_calls[%zu]", i, c);
        if (!answered)
            return err_set_at(
                err, GD_EINVAL, path, "%s: a tool message with its result must follow", path);
    }
    *at = end;
    return 0;
}

int parse_check_results(const struct chat_message *m, size_t n, struct err *err)
{
    size_t at = 0;

    while (at < n) {
        int r = check_results(m, n, &at, err);

        if (r < 0)
            return r;
    }
    return 0;
}
