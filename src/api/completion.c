/* completion.c - the body of POST /v1/completions: one job per prompt. */
#include "api/request.h"

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
    struct prompt *prompts = NULL;
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
        rc = parse_prompts(p, "prompt", p->limits->prompts_max, &prompts, &r->n_jobs, err);
    if (rc < 0 || !prompts)
        return rc;
    r->jobs = arena_alloc(&r->arena, r->n_jobs, sizeof(*r->jobs));
    if (!r->jobs)
        return parse_no_memory(err);
    for (size_t i = 0; i < r->n_jobs; i++) {
        r->jobs[i] = job;
        r->jobs[i].prompt = prompts[i];
    }
    return 0;
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
