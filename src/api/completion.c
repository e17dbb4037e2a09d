/* completion.c - the body of POST /v1/completions: one job per prompt. */
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

/* One entry of a list of prompts: a string, or a non-empty list of ids. */
static int read_entry(
    struct parse *p, const cJSON *c, int i, struct prompt *prompt, struct err *err)
{
    char path[JSON_PATH_MAX];

    snprintf(path, sizeof(path), "prompt[%d]", i);
    if (cJSON_IsString(c))
        return read_text(c, prompt);
    if (cJSON_IsArray(c) && c->child)
        return read_tokens(p, c, path, prompt, err);
    return json_refuse(err, path, "a string or a non-empty array of token ids", c);
}

static int make_jobs(struct parse *p, struct api_request *r, size_t n, struct err *err)
{
    if (n > (size_t)p->limits->prompts_max)
        return err_set_at(err, GD_EINVAL, "prompt", "prompt: want at most %d prompts, got %zu",
            p->limits->prompts_max, n);
    r->jobs = arena_alloc(&r->arena, n, sizeof(*r->jobs));
    if (!r->jobs)
        return parse_no_memory(err);
    r->n_jobs = n;
    return 0;
}

/* A string, a list of strings, a list of ids, or a list of lists of ids. The first entry decides,
 * the others must be of its kind. */
static int read_prompts(struct parse *p, struct api_request *r, struct err *err)
{
    static const char want[] =
        "a string, an array of strings, an array of token ids, or an array of such arrays";
    const cJSON *prompt = json_take(&p->o, "prompt"), *c;
    bool list = cJSON_IsArray(prompt) && prompt->child && !cJSON_IsNumber(prompt->child);
    int rc, i = 0;

    if (!prompt)
        return err_set_at(err, GD_EINVAL, "prompt", "prompt: required");
    if (!cJSON_IsString(prompt) && !(cJSON_IsArray(prompt) && prompt->child))
        return json_refuse(err, "prompt", want, prompt);
    rc = make_jobs(p, r, list ? (size_t)cJSON_GetArraySize(prompt) : 1, err);
    if (rc < 0)
        return rc;
    if (cJSON_IsString(prompt))
        return read_text(prompt, &r->jobs[0].prompt);
    if (!list)
        return read_tokens(p, prompt, "prompt", &r->jobs[0].prompt, err);
    cJSON_ArrayForEach(c, prompt)
    {
        if (cJSON_IsString(c) != cJSON_IsString(prompt->child)) {
            char path[JSON_PATH_MAX];

            snprintf(path, sizeof(path), "prompt[%d]", i);
            return json_refuse(err, path, "the same kind as prompt[0]", c);
        }
        rc = read_entry(p, c, i, &r->jobs[i].prompt, err);
        if (rc < 0)
            return rc;
        i++;
    }
    return 0;
}

static int read_best_of(struct parse *p, int n, struct err *err)
{
    int64_t best_of = n;
    int r = json_int(&p->o, "best_of", 0, INT32_MAX, &best_of, err);

    if (r <= 0 || best_of == n)
        return r < 0 ? r : 0;
    if (best_of < n)
        return err_set_at(
            err, GD_EINVAL, "best_of", "best_of: want at least n, %d, got %d", n, (int)best_of);
    return err_set_at(
        err, GD_ENOTSUP, "best_of", "best_of: more candidates than n are not supported");
}

static int read_all(struct parse *p, struct api_request *r, struct err *err)
{
    struct job_params job;
    int64_t max_tokens = p->limits->max_tokens_completion, logprobs = -1;
    int rc;

    rc = parse_common(p, &r->shape, &job, err);
    if (rc == 0)
        rc = json_bool(&p->o, "echo", &r->shape.echo, err);
    if (rc >= 0) /* -1, as with llama.cpp: until the context is full */
        rc = json_int(&p->o, "max_tokens", -1, INT32_MAX, &max_tokens, err);
    if (rc >= 0)
        rc = json_int(&p->o, "logprobs", 0, p->limits->logprobs_max, &logprobs, err);
    if (rc >= 0)
        rc = read_best_of(p, r->shape.n, err);
    if (rc < 0)
        return rc;
    job.max_tokens = (int)max_tokens;
    job.logprobs = r->shape.logprobs = (int)logprobs;
    job.prompt_logprobs = r->shape.echo && logprobs >= 0;
    rc = parse_lengths(p, &r->shape, &job, err);
    if (rc == 0)
        rc = read_prompts(p, r, err);
    for (size_t i = 0; rc == 0 && i < r->n_jobs; i++) {
        struct prompt prompt = r->jobs[i].prompt;

        r->jobs[i] = job;
        r->jobs[i].prompt = prompt;
    }
    return rc;
}

int api_parse_completion(struct api_request **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err)
{
    struct api_request *request = NULL;
    struct parse p;
    int r = parse_begin(&p, &request, body, len, l, err);

    if (r < 0)
        return r;
    return parse_finish(&p, request, read_all(&p, request, err), out, err);
}
