/* prompts.c - the four shapes of "prompt" in /v1/completions and of "input" in /v1/embeddings. */
#include <stdio.h>
#include <string.h>

#include "api/request.h"

static int read_text(const cJSON *c, struct prompt *prompt)
{
    prompt->kind = PROMPT_TEXT;
    prompt->text = c->valuestring;
    prompt->text_len = strlen(c->valuestring);
    return 0;
}

static int read_tokens(
    struct parse *p, const cJSON *c, const char *path, struct prompt *prompt, struct err *err)
{
    int32_t *ids = NULL;
    int n = cJSON_GetArraySize(c), r;

    if (n > p->limits->ctx_tokens)
        return err_set_at(err, GD_ECONTEXT, path, "%s: %d tokens, but the context has %d", path, n,
            p->limits->ctx_tokens);
    prompt->kind = PROMPT_TOKENS;
    r = parse_ids(p, c, path, &ids, &prompt->n, err);
    prompt->ids = ids;
    return r;
}

/* One entry of a list: a string, or a non-empty list of ids; all of the kind of the first. */
static int read_entry(struct parse *p, const cJSON *c, const cJSON *first, const char *name, int i,
    struct prompt *prompt, struct err *err)
{
    char path[JSON_PATH_MAX], want[JSON_PATH_MAX];

    snprintf(path, sizeof(path), "%s[%d]", name, i);
    if (cJSON_IsString(c) != cJSON_IsString(first)) {
        snprintf(want, sizeof(want), "the same kind as %s[0]", name);
        return json_refuse(err, path, want, c);
    }
    if (cJSON_IsString(c))
        return read_text(c, prompt);
    if (cJSON_IsArray(c) && c->child)
        return read_tokens(p, c, path, prompt, err);
    return json_refuse(err, path, "a string or a non-empty array of token ids", c);
}

static int read_list(
    struct parse *p, const cJSON *list, const char *name, struct prompt *prompts, struct err *err)
{
    const cJSON *c;
    int i = 0, r = 0;

    cJSON_ArrayForEach(c, list)
    {
        r = read_entry(p, c, list->child, name, i, &prompts[i], err);
        if (r < 0)
            return r;
        i++;
    }
    return r;
}

int parse_prompts(
    struct parse *p, const char *name, int max, struct prompt **prompts, size_t *n, struct err *err)
{
    static const char want[] =
        "a string, an array of strings, an array of token ids, or an array of such arrays";
    const cJSON *c = json_take(&p->o, name);
    bool list = cJSON_IsArray(c) && c->child && !cJSON_IsNumber(c->child);
    size_t count = list ? (size_t)cJSON_GetArraySize(c) : 1;

    if (!c)
        return err_set_at(err, GD_EINVAL, name, "%s: required", name);
    if (!cJSON_IsString(c) && !(cJSON_IsArray(c) && c->child))
        return json_refuse(err, name, want, c);
    if (count > (size_t)max)
        return err_set_at(
            err, GD_EINVAL, name, "%s: want at most %d %ss, got %zu", name, max, name, count);
    *prompts = arena_alloc(p->arena, count, sizeof(**prompts));
    if (!*prompts)
        return parse_no_memory(err);
    *n = count;
    if (list)
        return read_list(p, c, name, *prompts, err);
    return cJSON_IsString(c) ? read_text(c, *prompts) : read_tokens(p, c, name, *prompts, err);
}
