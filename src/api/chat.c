/* chat.c - the body of POST /v1/chat/completions, and the messages that /apply-template shares. */
#include <stdio.h>
#include <string.h>

#include "api/params.h"
#include "api/request.h"
#include "base/utf8.h"

static int read_role(struct json_object *o, bool tools, struct chat_message *m, struct err *err)
{
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {{"system", ROLE_SYSTEM}, {"developer", ROLE_SYSTEM}, {"user", ROLE_USER},
        {"assistant", ROLE_ASSISTANT}, {"tool", ROLE_TOOL}};
    const char *name = NULL;
    char path[JSON_PATH_MAX], shown[JSON_SHOW_MAX];
    int r = json_string(o, "role", &name, err);

    if (r < 0)
        return r;
    json_path(o, "role", path);
    if (r == 0)
        return err_set_at(err, GD_EINVAL, path, "%s: required", path);
    for (size_t i = 0; i < sizeof(roles) / sizeof(*roles); i++) {
        if (strcmp(name, roles[i].name) == 0 && (roles[i].role != ROLE_TOOL || tools)) {
            m->role = roles[i].role;
            return 0;
        }
    }
    if (strcmp(name, "tool") == 0 || strcmp(name, "function") == 0)
        return err_set_at(
            err, GD_ENOTSUP, path, "%s: messages of the role %s are not supported", path, name);
    json_show(name, shown);
    return err_set_at(err, GD_EINVAL, path,
        "%s: want system, developer, user or assistant, got \"%s\"", path, shown);
}

/* The text of one part. */
static int read_part(
    struct parse *p, const cJSON *part, const char *path, const char **text, struct err *err)
{
    const char *type = NULL;
    char shown[JSON_SHOW_MAX];
    struct json_object o;
    int r = json_open(&o, part, path, err);

    if (r == 0)
        r = json_string(&o, "type", &type, err);
    if (r < 0)
        return r;
    if (!type)
        return err_set_at(err, GD_EINVAL, path, "%s.type: required", path);
    if (strcmp(type, "text") != 0) {
        json_show(type, shown);
        return err_set_at(err, GD_ENOTSUP, path,
            "%s: content of type \"%s\" is not supported; this server reads text only", path,
            shown);
    }
    r = json_string(&o, "text", text, err);
    if (r < 0)
        return r;
    if (r == 0)
        return err_set_at(err, GD_EINVAL, path, "%s.text: required", path);
    json_take(&o, "prompt_cache_breakpoint"); /* a hint for OpenAI's cache; ours finds prefixes */
    return params_nested(&o, "messages[].content[]", p->limits->strict, p->ignored, err);
}

static int join_parts(
    struct parse *p, const cJSON *parts, const char *path, struct chat_message *m, struct err *err)
{
    const cJSON *part;
    struct buf joined = {0};
    char *copy;
    int i = 0, r = 0;

    cJSON_ArrayForEach(part, parts)
    {
        char where[JSON_PATH_MAX + 16];
        const char *text = NULL;
        size_t len;

        snprintf(where, sizeof(where), "%s[%d]", path, i++);
        r = read_part(p, part, where, &text, err);
        if (r < 0)
            break;
        len = strlen(text);
        if (parts->child->next && (m->role == ROLE_USER || m->role == ROLE_ASSISTANT))
            utf8_trim(&text, &len); /* each, as the chat templates do */
        buf_append(&joined, text, len);
    }
    if (r == 0) {
        copy = parse_copy(p, joined.len ? joined.data : "");
        m->content = copy;
        m->content_len = joined.len;
        if (!copy)
            r = parse_no_memory(err);
    }
    buf_free(&joined);
    return r;
}

static int read_content(
    struct parse *p, struct json_object *o, struct chat_message *m, struct err *err)
{
    const cJSON *c = json_take(o, "content");
    char path[JSON_PATH_MAX];

    json_path(o, "content", path);
    if (cJSON_IsString(c)) {
        m->content = c->valuestring;
        m->content_len = strlen(c->valuestring);
        return 0;
    }
    if (cJSON_IsArray(c) && c->child)
        return join_parts(p, c, path, m, err);
    if (!c && m->n_tool_calls) {
        m->content = "";
        return 0;
    }
    return json_refuse(err, path, "a string or an array of text parts", c);
}

/* Members that would change what the message says, so that dropping them would be a lie. */
static int refuse_calls(struct json_object *o, const struct chat_message *m, struct err *err)
{
    static const char *const names[] = {
        "tool_calls", "function_call", "audio", "refusal", "tool_call_id"};

    enum { N = sizeof(names) / sizeof(*names) };

    for (size_t i = 0; i < N; i++) {
        const cJSON *c = json_take(o, names[i]);
        char path[JSON_PATH_MAX];

        if ((i == 0 && m->n_tool_calls) || (i + 1 == N && m->role == ROLE_TOOL))
            continue; /* taken */
        if (!c || (cJSON_IsArray(c) && !c->child) || (cJSON_IsString(c) && !c->valuestring[0]))
            continue;
        json_path(o, names[i], path);
        return err_set_at(err, GD_ENOTSUP, path, "%s: not supported by this server", path);
    }
    return 0;
}

/* What a message has beside its text. */
static int read_tool_parts(
    struct parse *p, struct json_object *o, struct chat_message *m, struct err *err)
{
    int r = 0;

    if (m->role == ROLE_ASSISTANT && p->limits->tools)
        r = parse_calls(p, o, m, err);
    if (r == 0 && m->role == ROLE_ASSISTANT && p->limits->thinking)
        r = parse_reasoning(o, m, err);
    if (r < 0 || m->role != ROLE_TOOL)
        return r;
    r = json_string(o, "tool_call_id", &m->tool_call_id, err);
    if (r == 0)
        return err_set_at(err, GD_EINVAL, o->path, "%s.tool_call_id: required", o->path);
    return r < 0 ? r : json_string(o, "name", &m->name, err);
}

static int read_message(
    struct parse *p, const cJSON *item, int i, struct chat_message *m, struct err *err)
{
    struct json_object o;
    char path[JSON_PATH_MAX];
    int r;

    snprintf(path, sizeof(path), "messages[%d]", i);
    r = json_open(&o, item, path, err);
    if (r == 0)
        r = read_role(&o, p->limits->tools, m, err);
    if (r == 0)
        r = read_tool_parts(p, &o, m, err);
    if (r >= 0)
        r = refuse_calls(&o, m, err);
    if (r == 0)
        r = read_content(p, &o, m, err);
    if (r == 0)
        r = params_nested(&o, "messages[]", p->limits->strict, p->ignored, err);
    return r;
}

/* A continued answer needs no new turn, so add_generation_prompt is false then unless it is said
 * otherwise, which is a contradiction. */
static int read_turn(struct parse *p, struct prompt *prompt, struct err *err)
{
    int r = json_bool(&p->o, "continue_final_message", &prompt->continue_final_message, err);

    if (r < 0)
        return r;
    prompt->add_generation_prompt = !prompt->continue_final_message;
    r = json_bool(&p->o, "add_generation_prompt", &prompt->add_generation_prompt, err);
    if (r < 0)
        return r;
    if (!prompt->continue_final_message)
        return 0;
    if (prompt->add_generation_prompt)
        return err_set_at(err, GD_EINVAL, "add_generation_prompt",
            "add_generation_prompt: not together with continue_final_message");
    if (prompt->messages[prompt->n - 1].role != ROLE_ASSISTANT)
        return err_set_at(err, GD_EINVAL, "continue_final_message",
            "continue_final_message: the last message is not the assistant's");
    return 0;
}

static int read_messages(struct parse *p, struct prompt *prompt, struct err *err)
{
    const cJSON *array = NULL, *c;
    struct chat_message *list;
    int n = 0, i = 0, r;

    r = json_array(&p->o, "messages", p->limits->messages_max, &array, &n, err);
    if (r < 0)
        return r;
    if (n == 0)
        return err_set_at(
            err, GD_EINVAL, "messages", "messages: required, an array of at least one message");
    list = arena_alloc(p->arena, (size_t)n, sizeof(*list));
    if (!list)
        return parse_no_memory(err);
    cJSON_ArrayForEach(c, array)
    {
        r = read_message(p, c, i, &list[i], err);
        if (r < 0)
            return r;
        i++;
    }
    *prompt = (struct prompt){.kind = PROMPT_CHAT, .messages = list, .n = (size_t)n};
    return p->limits->tools ? parse_check_results(list, (size_t)n, err) : 0;
}

int parse_conversation(struct parse *p, struct prompt *prompt, bool *one_call, struct err *err)
{
    int r = read_messages(p, prompt, err);

    if (r == 0)
        r = read_turn(p, prompt, err);
    if (r == 0)
        r = parse_tools(p, prompt, one_call, err);
    return r < 0 ? r : parse_thinking(p, prompt, err);
}

static int read_logprobs(struct parse *p, struct api_request *r, struct err *err)
{
    bool want = false;
    int64_t top = 0;
    int rc = json_bool(&p->o, "logprobs", &want, err);

    if (rc >= 0)
        rc = json_int(&p->o, "top_logprobs", 0, p->limits->logprobs_max, &top, err);
    if (rc < 0)
        return rc;
    if (top > 0 && !want)
        return err_set_at(
            err, GD_EINVAL, "top_logprobs", "top_logprobs: only allowed when logprobs is true");
    r->shape.logprobs = want ? (int)top : -1;
    return 0;
}

static int read_all(struct parse *p, struct api_request *r, struct err *err)
{
    struct job_params *job = arena_alloc(&r->arena, 1, sizeof(*job));
    int64_t max_tokens = p->limits->max_tokens_chat;
    int rc;

    if (!job)
        return parse_no_memory(err);
    r->jobs = job;
    r->n_jobs = 1;
    r->shape.chat = true;
    rc = parse_common(p, &r->shape, job, err);
    if (rc == 0)
        rc = read_logprobs(p, r, err);
    /* the newer name wins; both are read, so that both are checked */
    if (rc == 0)
        rc = json_int(&p->o, "max_tokens", -1, INT32_MAX, &max_tokens, err);
    if (rc >= 0)
        rc = json_int(&p->o, "max_completion_tokens", -1, INT32_MAX, &max_tokens, err);
    if (rc < 0)
        return rc;
    job->max_tokens = (int)max_tokens;
    job->logprobs = r->shape.logprobs;
    rc = parse_lengths(p, &r->shape, job, err);
    if (rc == 0)
        rc = parse_conversation(p, &job->prompt, &job->one_call, err);
    return rc;
}

int api_parse_chat(struct api_request **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err)
{
    struct api_request *request = NULL;
    struct parse p;
    int r = parse_begin(&p, &request, body, len, l, err);

    if (r < 0)
        return r;
    return parse_finish(&p, request, read_all(&p, request, err), out, err);
}
