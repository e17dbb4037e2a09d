/* request.c - what /v1/completions and /v1/chat/completions share: stops, lengths, shape, and the
 * life of a request. */
#include "api/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/params.h"

enum { STOP_BYTES_MAX = 1024, TIMEOUT_MS_MAX = 24 * 3600 * 1000 };

void api_limits_default(struct api_limits *l)
{
    *l = (struct api_limits){
        .model = "gemma",
        .body_max = 8 << 20,
        .values_max = 200000,
        .n_max = 128,
        .prompts_max = 128,
        .inputs_max = 2048,
        .choices_max = 256,
        .messages_max = 4096,
        .stop_max = 16,
        .stop_ids_max = 64,
        .bias_max = 1024,
        .logprobs_max = 20,
        .max_tokens_completion = 16,
        .max_tokens_chat = -1,
        .sampling = {.temperature = 1,
            .top_p = 1,
            .typical_p = 1,
            .repeat_penalty = 1,
            .repeat_last_n = 64},
    };
}

int parse_no_memory(struct err *err)
{
    return err_set(err, GD_ENOMEM, "no memory for this body");
}

char *parse_copy(struct parse *p, const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = arena_alloc(p->arena, n, 1);

    if (copy)
        memcpy(copy, s, n);
    return copy;
}

int parse_open(struct parse *p, const char *body, size_t len, struct err *err)
{
    const struct api_limits *l = p->limits;
    const char *model = NULL;
    char shown[JSON_SHOW_MAX];
    int r;

    r = json_parse(&p->json, body, len, l->body_max, l->values_max, err);
    if (r < 0)
        return r;
    r = json_open(&p->o, p->json.root, "", err);
    if (r == 0)
        r = json_string(&p->o, "model", &model, err);
    if (r >= 0 && model && strcmp(model, l->model) != 0) {
        json_show(model, shown);
        r = err_set_at(
            err, GD_ENOENT, "model", "The model `%s` does not exist; this is %s", shown, l->model);
    }
    if (r < 0) {
        cJSON_Delete(p->json.root);
        p->json.root = NULL;
        return r;
    }
    return 0;
}

static int read_stop(struct parse *p, struct job_params *job, struct err *err)
{
    const cJSON *stop = json_take(&p->o, "stop"), *c;
    const char **list;
    int n;

    if (!stop)
        return 0;
    if (!cJSON_IsString(stop) && !cJSON_IsArray(stop))
        return json_refuse(err, "stop", "a string or an array of strings", stop);
    n = cJSON_IsString(stop) ? 1 : cJSON_GetArraySize(stop);
    if (n > p->limits->stop_max)
        return err_set_at(err, GD_EINVAL, "stop", "stop: want at most %d strings, got %d",
            p->limits->stop_max, n);
    list = arena_alloc(p->arena, (size_t)n, sizeof(*list));
    if (!list)
        return parse_no_memory(err);
    c = cJSON_IsString(stop) ? stop : stop->child;
    for (int i = 0; i < n; i++, c = c->next) {
        char path[JSON_PATH_MAX] = "stop";

        if (c != stop)
            snprintf(path, sizeof(path), "stop[%d]", i);
        if (!cJSON_IsString(c) || !c->valuestring[0] || strlen(c->valuestring) > STOP_BYTES_MAX)
            return json_refuse(err, path, "a string of 1..1024 bytes", c);
        list[i] = c->valuestring;
    }
    job->stop = list;
    job->n_stop = (size_t)n;
    return 0;
}

int parse_ids(struct parse *p, const cJSON *array, const char *path, int32_t **ids, size_t *n,
    struct err *err)
{
    const cJSON *c;
    int32_t *list;
    size_t count = (size_t)cJSON_GetArraySize(array), at = 0;

    list = arena_alloc(p->arena, count, sizeof(*list));
    if (!list)
        return parse_no_memory(err);
    cJSON_ArrayForEach(c, array)
    {
        double v = c->valuedouble;
        char where[2 * JSON_PATH_MAX], want[48];

        if (!cJSON_IsNumber(c) || v != floor(v) || v < 0 || v >= p->limits->vocab) {
            snprintf(where, sizeof(where), "%s[%zu]", path, at);
            snprintf(want, sizeof(want), "a token id in 0..%d", p->limits->vocab - 1);
            return json_refuse(err, where, want, c);
        }
        list[at++] = (int32_t)v;
    }
    *ids = list;
    *n = count;
    return 0;
}

static int read_stop_ids(struct parse *p, struct job_params *job, struct err *err)
{
    const cJSON *array = NULL;
    int32_t *ids = NULL;
    int n, r;

    r = json_array(&p->o, "stop_token_ids", p->limits->stop_ids_max, &array, &n, err);
    if (r <= 0)
        return r;
    r = parse_ids(p, array, "stop_token_ids", &ids, &job->n_stop_ids, err);
    job->stop_ids = ids;
    return r;
}

static int read_switches(
    struct parse *p, struct shape *shape, struct job_params *job, struct err *err)
{
    const struct {
        const char *name;
        bool *out;
    } rows[] = {
        {"stream", &shape->stream},
        {"return_token_ids", &shape->return_ids},
        {"return_tokens_as_token_ids", &shape->ids_as_tokens},
        {"ignore_eos", &job->ignore_eos},
        {"include_stop_str_in_output", &job->include_stop},
        {"skip_special_tokens", &job->skip_special},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        int r = json_bool(&p->o, rows[i].name, rows[i].out, err);

        if (r < 0)
            return r;
    }
    shape->service_tier =
        cJSON_IsString(cJSON_GetObjectItemCaseSensitive(p->o.item, "service_tier"));
    return 0;
}

static int read_stream_options(struct parse *p, struct shape *shape, struct err *err)
{
    const cJSON *c = json_take(&p->o, "stream_options");
    struct json_object o;
    bool obfuscation = false;
    int r;

    if (!c)
        return 0;
    r = json_open(&o, c, "stream_options", err);
    if (r < 0)
        return r;
    if (!shape->stream)
        return err_set_at(
            err, GD_EINVAL, "stream_options", "stream_options: only allowed when stream is true");
    r = json_bool(&o, "include_usage", &shape->include_usage, err);
    if (r < 0)
        return r;
    r = json_bool(&o, "include_obfuscation", &obfuscation, err);
    if (r < 0)
        return r;
    if (obfuscation)
        return err_set_at(err, GD_ENOTSUP, "stream_options.include_obfuscation",
            "stream_options.include_obfuscation: only false is supported");
    return params_nested(&o, "stream_options", p->limits->strict, p->ignored, err);
}

int parse_timeout(struct parse *p, struct job_params *job, struct err *err)
{
    int64_t max = p->limits->timeout_ms > 0 ? p->limits->timeout_ms : TIMEOUT_MS_MAX;
    int r;

    job->timeout_ms = p->limits->timeout_ms;
    r = json_int(&p->o, "timeout_ms", 1, max, &job->timeout_ms, err);
    return r < 0 ? r : 0;
}

int parse_common(struct parse *p, struct shape *shape, struct job_params *job, struct err *err)
{
    int64_t n = 1;
    int r;

    *job = (struct job_params){.n = 1, .max_tokens = -1, .logprobs = -1, .skip_special = true};
    shape->logprobs = -1;
    r = parse_sampling(p, &job->sampling, err);
    if (r == 0)
        r = read_stop(p, job, err);
    if (r == 0)
        r = read_stop_ids(p, job, err);
    if (r == 0)
        r = read_switches(p, shape, job, err);
    if (r == 0)
        r = read_stream_options(p, shape, err);
    if (r == 0)
        r = parse_timeout(p, job, err);
    if (r < 0)
        return r;
    r = json_int(&p->o, "n", 1, p->limits->n_max, &n, err);
    job->n = shape->n = (int)n;
    return r < 0 ? r : 0;
}

int parse_lengths(
    struct parse *p, const struct shape *shape, struct job_params *job, struct err *err)
{
    int64_t min = 0;
    int r;

    r = json_int(&p->o, "min_tokens", 0, INT32_MAX, &min, err);
    if (r < 0)
        return r;
    if (job->max_tokens >= 0 && min > job->max_tokens)
        return err_set_at(err, GD_EINVAL, "min_tokens",
            "min_tokens: want at most max_tokens, %d, got %lld", job->max_tokens, (long long)min);
    job->min_tokens = (int)min;
    if (job->max_tokens == 0 && !shape->echo)
        return err_set_at(err, GD_EINVAL, "max_tokens",
            "max_tokens: 0 is only allowed together with echo in /v1/completions");
    return 0;
}

int parse_begin(struct parse *p, struct api_request **request, const char *body, size_t len,
    const struct api_limits *l, struct err *err)
{
    struct api_request *r = calloc(1, sizeof(*r));
    int rc;

    if (!r)
        return parse_no_memory(err);
    *p = (struct parse){.limits = l, .arena = &r->arena, .ignored = &r->ignored};
    rc = parse_open(p, body, len, err);
    if (rc < 0) {
        api_request_free(r);
        return rc;
    }
    r->root = p->json.root;
    *request = r;
    return 0;
}

int parse_finish(
    struct parse *p, struct api_request *request, int r, struct api_request **out, struct err *err)
{
    const struct api_limits *l = p->limits;

    if (r >= 0 && request->n_jobs * (size_t)request->shape.n > (size_t)l->choices_max)
        r = err_set_at(err, GD_EINVAL, "n",
            "n: want at most %d choices in all, got %zu prompts * %d", l->choices_max,
            request->n_jobs, request->shape.n);
    if (r >= 0)
        r = params_rest(&p->o, l->strict, p->ignored, err);
    if (r >= 0) {
        request->model = parse_copy(p, l->model);
        request->fingerprint = l->fingerprint ? parse_copy(p, l->fingerprint) : NULL;
        if (!request->model || (l->fingerprint && !request->fingerprint))
            r = parse_no_memory(err);
    }
    if (r < 0) {
        api_request_free(request);
        return r;
    }
    *out = request;
    return 0;
}

void api_request_free(struct api_request *r)
{
    if (!r)
        return;
    cJSON_Delete(r->root);
    arena_free(&r->arena);
    buf_free(&r->ignored);
    free(r);
}

size_t api_request_jobs(const struct api_request *r)
{
    return r->n_jobs;
}

const struct job_params *api_request_job(const struct api_request *r, size_t i)
{
    return &r->jobs[i];
}

bool api_request_stream(const struct api_request *r)
{
    return r->shape.stream;
}

const char *api_request_ignored(const struct api_request *r)
{
    return r->ignored.len ? r->ignored.data : "";
}
