/* generate.c - from a body to jobs, from events to an answer.
 *
 * The head of an answer waits until the engine has admitted the job, so that a refusal still gets
 * its status. Streams pull: MHD asks for bytes, and when there are none the connection is suspended
 * until the engine wakes the loop; nothing is pushed at a socket, so a slow reader holds back only
 * itself. */
#include "server/generate.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "server/request.h"

/* Bytes formatted ahead of the socket for one stream. */
enum { STREAM_AHEAD = 32 << 10 };

static const char *piece(void *ud, int32_t id, size_t *len)
{
    return engine_piece(ud, id, len);
}

/* ---- submission: possibly on a helper thread ---- */

void generate_busy(struct request *q, const struct err *err)
{
    struct engine_stats st;

    engine_stats(q->srv->engine, &st);
    reply_error(q, err);
    q->reply.retry_after = api_retry_after(st.retry_after_s);
}

/* A full queue is refused before the prompt costs anything. */
bool generate_queue_is_full(struct request *q)
{
    struct engine_stats st;
    struct err err;

    engine_stats(q->srv->engine, &st);
    if (st.waiting < q->srv->cfg.queue_max)
        return false;
    err_fill(&err, GD_EBUSY, "the queue is full: %d requests are waiting", st.waiting);
    generate_busy(q, &err);
    return true;
}

void generate_release(struct request *q)
{
    for (size_t i = 0; i < q->n_jobs; i++)
        job_release(q->jobs[i]);
    free(q->jobs);
    q->jobs = NULL;
    q->n_jobs = 0;
}

static int submit(struct request *q, const struct api_request *req, struct err *err)
{
    size_t n = api_request_jobs(req);
    struct engine *e = q->srv->engine;

    q->stream = api_request_stream(req);
    memccpy(q->ignored, api_request_ignored(req), 0, sizeof(q->ignored) - 1);
    q->rsp = api_response_create(req, q->created_id, (int64_t)time(NULL), piece, e);
    q->jobs = xcalloc(n, sizeof(struct job *));
    for (size_t i = 0; i < n; i++) {
        int r = job_submit(&q->jobs[i], e, api_request_job(req, i), q, err);

        if (r < 0) {
            generate_release(q); /* all prompts or none */
            return r;
        }
        q->n_jobs = i + 1;
        api_response_prompt(
            q->rsp, i, job_prompt_ids(q->jobs[i]), (size_t)job_prompt_tokens(q->jobs[i]));
    }
    return 0;
}

typedef int parse_fn(struct api_request **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);

static void generate(struct request *q, parse_fn *parse)
{
    struct api_request *req = NULL;
    struct err err = {0};
    int r;

    if (generate_queue_is_full(q))
        return;
    r = parse(&req, q->body.data ? q->body.data : "", q->body.len, &q->limits, &err);
    if (r == 0)
        r = submit(q, req, &err);
    api_request_free(req);
    if (r == GD_EBUSY)
        generate_busy(q, &err);
    else if (r < 0)
        reply_error(q, &err);
}

void generate_chat(struct request *q)
{
    generate(q, api_parse_chat);
}

void generate_completion(struct request *q)
{
    generate(q, api_parse_completion);
}

/* ---- events to bytes: loop thread ---- */

bool generate_failed(struct request *q, const struct job_event *ev)
{
    struct err err;

    switch (ev->finish) {
    case FINISH_ERROR: reply_error(q, &ev->err); return true;
    case FINISH_CANCELED:
        err_fill(&err, GD_ESTOPPING, "the server is shutting down");
        reply_error(q, &err);
        return true;
    case FINISH_TIMEOUT:
        err_fill(&err, GD_EBUSY, "the request's time was over before its turn came");
        generate_busy(q, &err);
        return true;
    default: return false;
    }
}

/* An end before the beginning: the request gets a status of its own instead of an answer. */
static bool refused(struct request *q, const struct job_event *ev)
{
    return !q->started && ev->kind == EVENT_FINISH && generate_failed(q, ev);
}

/* Feeds events until there are none, or a stream has enough to send. False when refused. */
static bool pull(struct request *q)
{
    struct job_event ev;

    for (size_t i = 0; i < q->n_jobs; i++) {
        while (!(q->stream && q->reply.body.len >= STREAM_AHEAD) && job_next(q->jobs[i], &ev)) {
            if (refused(q, &ev))
                return false;
            q->started = true;
            q->decoding = q->decoding || ev.kind == EVENT_TEXT;
            api_response_feed(q->rsp, i, &ev, &q->reply.body);
        }
    }
    return true;
}

bool generate_poll(struct request *q)
{
    if (q->embeddings)
        return embeddings_poll(q);
    if (!pull(q)) {
        generate_release(q);
        q->stream = false;
        return true;
    }
    if (!api_response_done(q->rsp))
        return q->stream && q->started;
    generate_release(q);
    if (!q->stream) {
        q->reply.status = api_response_body(q->rsp, &q->reply.body);
        q->reply.type = API_JSON_TYPE;
        if (q->reply.status == 503)
            q->reply.retry_after = 1;
    }
    return true;
}

static bool has_news(const struct request *q)
{
    for (size_t i = 0; i < q->n_jobs; i++) {
        if (job_ready(q->jobs[i]))
            return true;
    }
    return false;
}

void generate_wake(struct request *q)
{
    if (q->working || !q->suspended)
        return;
    if (q->state == REQUEST_WAIT ? generate_poll(q) : has_news(q))
        http_resume(q);
}

void generate_tick(struct request *q, int64_t now)
{
    if (!q->stream || q->working || !q->suspended || q->gone ||
        now - q->quiet_ms < (int64_t)q->srv->cfg.keepalive_s * 1000)
        return;
    /* A stream that waits long in the queue gets its head now, or proxies would give up on it;
     * what fails from here on is told inside the stream. */
    q->started = true;
    q->quiet_ms = now;
    buf_puts(&q->reply.body, API_SSE_KEEPALIVE);
    http_resume(q);
}

ssize_t generate_read(void *request, uint64_t pos, char *out, size_t max)
{
    struct request *q = request;
    size_t n;

    if (q->gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (q->sent == q->reply.body.len) {
        buf_clear(&q->reply.body);
        q->sent = 0;
        pull(q);
        if (api_response_done(q->rsp))
            generate_release(q);
    }
    n = q->reply.body.len - q->sent;
    if (n > max)
        n = max;
    if (n > 0) {
        memcpy(out, q->reply.body.data + q->sent, n);
        q->sent += n;
        q->quiet_ms = now_ms();
        return (ssize_t)n;
    }
    if (api_response_done(q->rsp))
        return MHD_CONTENT_READER_END_OF_STREAM;
    http_suspend(q); /* returning 0 without this would be a busy loop */
    return 0;
}
