#include "api/embeddings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "api/request.h"
#include "api/write.h"
#include "base/mem.h"

struct api_embeddings {
    struct arena arena;
    cJSON *root;
    struct buf ignored;
    struct job_params *jobs;
    size_t n_jobs, n_added;
    int64_t n_tokens;
    int dimensions; /* 0 = all */
    bool base64;
    char *model;
};

void api_embeddings_free(struct api_embeddings *e)
{
    if (!e)
        return;
    cJSON_Delete(e->root);
    arena_free(&e->arena);
    buf_free(&e->ignored);
    free(e);
}

static int read_format(struct parse *p, bool *base64, struct err *err)
{
    const char *format = "float";
    int r = json_string(&p->o, "encoding_format", &format, err);

    *base64 = strcmp(format, "base64") == 0;
    if (r > 0 && !*base64 && strcmp(format, "float") != 0)
        return err_set_at(
            err, GD_EINVAL, "encoding_format", "encoding_format: want \"float\" or \"base64\"");
    return r < 0 ? r : 0;
}

static int check_inputs(const struct prompt *inputs, size_t n, bool list, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        char path[JSON_PATH_MAX] = "input";

        if (inputs[i].kind != PROMPT_TEXT || inputs[i].text_len > 0)
            continue;
        if (list)
            snprintf(path, sizeof(path), "input[%zu]", i);
        return err_set_at(err, GD_EINVAL, path, "%s: must not be empty", path);
    }
    return 0;
}

static int read_inputs(
    struct parse *p, struct api_embeddings *e, const struct job_params *job, struct err *err)
{
    bool list = cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(p->o.item, "input"));
    struct prompt *inputs = NULL;
    size_t n = 0;
    int r = parse_prompts(p, "input", p->limits->inputs_max, &inputs, &n, err);

    if (r == 0)
        r = check_inputs(inputs, n, list, err);
    if (r < 0)
        return r;
    e->jobs = arena_alloc(p->arena, n, sizeof(*e->jobs));
    if (!e->jobs)
        return parse_no_memory(err);
    for (size_t i = 0; i < n; i++) {
        e->jobs[i] = *job;
        e->jobs[i].prompt = inputs[i];
        e->jobs[i].follows = i > 0;
    }
    e->n_jobs = n;
    return 0;
}

static int read_all(struct parse *p, struct api_embeddings *e, struct err *err)
{
    const struct api_limits *l = p->limits;
    struct job_params job = {
        .sampling = l->sampling, .n = 1, .logprobs = -1, .skip_special = true, .embed = true};
    int64_t dimensions = 0;
    int r = json_int(
        &p->o, "dimensions", 1, l->embed_width ? l->embed_width : INT32_MAX, &dimensions, err);

    if (r >= 0)
        r = read_format(p, &e->base64, err);
    if (r >= 0)
        r = parse_timeout(p, &job, err);
    if (r >= 0)
        r = read_inputs(p, e, &job, err);
    if (r >= 0)
        r = params_rest(&p->o, l->strict, p->ignored, err);
    if (r < 0)
        return r;
    e->dimensions = (int)dimensions;
    e->model = parse_copy(p, l->model);
    return e->model ? 0 : parse_no_memory(err);
}

int api_parse_embeddings(struct api_embeddings **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err)
{
    struct api_embeddings *e = calloc(1, sizeof(*e));
    struct parse p;
    int r;

    if (!e)
        return parse_no_memory(err);
    p = (struct parse){.limits = l, .arena = &e->arena, .ignored = &e->ignored};
    r = parse_open(&p, body, len, err);
    if (r == 0) {
        e->root = p.json.root;
        r = read_all(&p, e, err);
    }
    if (r < 0) {
        api_embeddings_free(e);
        return r;
    }
    *out = e;
    return 0;
}

size_t api_embeddings_jobs(const struct api_embeddings *e)
{
    return e->n_jobs;
}

const struct job_params *api_embeddings_job(const struct api_embeddings *e, size_t i)
{
    return &e->jobs[i];
}

const char *api_embeddings_ignored(const struct api_embeddings *e)
{
    return e->ignored.len ? e->ignored.data : "";
}

size_t api_embeddings_added(const struct api_embeddings *e)
{
    return e->n_added;
}

int64_t api_embeddings_tokens(const struct api_embeddings *e)
{
    return e->n_tokens;
}

void api_embedding_cut(const float *vector, int n, float *out, int n_out)
{
    double sum = 0, scale = 1;

    for (int i = 0; i < n_out; i++)
        sum += (double)vector[i] * (double)vector[i];
    if (n_out < n && sum > 0)
        scale = 1 / sqrt(sum);
    for (int i = 0; i < n_out; i++)
        out[i] = (float)(vector[i] * scale);
}

static void write_vector(struct buf *out, const float *v, int n, bool base64)
{
    unsigned char *bytes;

    if (!base64) {
        buf_putc(out, '[');
        for (int i = 0; i < n; i++) {
            if (i)
                buf_putc(out, ',');
            write_float(out, v[i]);
        }
        buf_putc(out, ']');
        return;
    }
    bytes = xcalloc((size_t)n, 4);
    for (int i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, &v[i], sizeof(bits));
        for (int k = 0; k < 4; k++)
            bytes[4 * i + k] = (unsigned char)(bits >> 8 * k);
    }
    buf_putc(out, '"');
    write_base64(out, bytes, 4 * (size_t)n);
    buf_putc(out, '"');
    free(bytes);
}

void api_embeddings_add(
    struct api_embeddings *e, const float *vector, int n, int prompt_tokens, struct buf *out)
{
    int n_out = e->dimensions && e->dimensions < n ? e->dimensions : n;
    float *v = xcalloc((size_t)n_out, sizeof(*v));

    api_embedding_cut(vector, n, v, n_out);
    buf_puts(out, e->n_added ? "," : "{\"object\":\"list\",\"data\":[");
    buf_puts(out, "{\"object\":\"embedding\",\"index\":");
    write_int(out, (int64_t)e->n_added);
    buf_puts(out, ",\"embedding\":");
    write_vector(out, v, n_out, e->base64);
    buf_putc(out, '}');
    e->n_added++;
    e->n_tokens += prompt_tokens;
    free(v);
}

void api_embeddings_end(struct api_embeddings *e, struct buf *out)
{
    buf_puts(out, "],\"model\":");
    write_string(out, e->model, strlen(e->model));
    buf_puts(out, ",\"usage\":{\"prompt_tokens\":");
    write_int(out, e->n_tokens);
    buf_puts(out, ",\"total_tokens\":");
    write_int(out, e->n_tokens);
    buf_puts(out, "}}");
}
