/* http.c - one request from its header to the end of its answer, as libmicrohttpd calls it.
 *
 * The handler is called with the header, with pieces of the body, and then until a response is
 * queued. A response queued on the first call closes the connection, so only refusals that must
 * close are sent there; everything else is answered on the last call. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "server/conn.h"
#include "server/gate.h"
#include "server/generate.h"
#include "server/request.h"
#include "server/routes.h"

/* Bodies up to this size are parsed and tokenised on the loop thread: a few milliseconds. */
enum { INLINE_BYTES = 32 << 10 };
/* Bodies of all requests together (or one of max_body_kib, if that is more); what does not fit is
 * told to come back. */
enum { BODIES_BYTES = 32 << 20 };

/* ---- replies ---- */

static void add_headers(struct request *q, struct MHD_Response *res)
{
    struct reply *r = &q->reply;
    char seconds[16];

    MHD_add_response_header(res, "X-Request-Id", q->id);
    MHD_add_response_header(res, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(res, "Cache-Control", "no-store");
    if (r->type)
        MHD_add_response_header(res, "Content-Type", r->type);
    if (q->ignored[0])
        MHD_add_response_header(res, "X-Ignored-Params", q->ignored);
    if (r->allow[0])
        MHD_add_response_header(res, "Allow", r->allow);
    if (r->status == 401)
        MHD_add_response_header(res, "WWW-Authenticate", "Bearer realm=\"gemmad\"");
    if (r->retry_after) {
        snprintf(seconds, sizeof(seconds), "%d", r->retry_after);
        MHD_add_response_header(res, "Retry-After", seconds);
    }
    if (r->close || q->srv->phase >= PHASE_DRAINING)
        MHD_add_response_header(res, "Connection", "close");
}

/* Queues the answer; MHD_NO closes the connection. */
static enum MHD_Result answer(struct request *q)
{
    struct MHD_Response *res;
    enum MHD_Result r;

    if (q->stream) {
        q->reply.status = 200;
        q->reply.type = API_SSE_TYPE;
        q->quiet_ms = now_ms();
        res = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 << 10, generate_read, q, NULL);
        if (res)
            MHD_add_response_header(res, "X-Accel-Buffering", "no"); /* nginx would collect it */
    } else {
        size_t n = q->reply.body.len;

        res = MHD_create_response_from_buffer(n, buf_take(&q->reply.body), MHD_RESPMEM_MUST_FREE);
    }
    if (!res)
        return MHD_NO;
    q->state = REQUEST_ANSWER;
    add_headers(q, res);
    r = MHD_queue_response(q->conn->mhd, (unsigned)q->reply.status, res);
    MHD_destroy_response(res);
    return r;
}

/* ---- suspension ---- */

void http_suspend(struct request *q)
{
    q->suspended = true;
    conn_watch(q->conn);
    MHD_suspend_connection(q->conn->mhd);
}

void http_resume(struct request *q)
{
    if (!q->suspended || !q->conn)
        return;
    q->suspended = false;
    MHD_resume_connection(q->conn->mhd);
    loop_pump(q->srv);
}

void http_gone(struct request *q)
{
    if (q->gone)
        return;
    q->gone = true;
    if (!q->working)
        generate_release(q);
    http_resume(q);
}

/* ---- the header ---- */

/* "Bearer KEY"; the scheme's case does not matter. */
static bool is_authorised(struct request *q, const struct header *h)
{
    const char *value = h->authorization, *key = "", *name;

    if (value && strncasecmp(value, "Bearer ", 7) == 0)
        key = value + 7 + strspn(value + 7, " ");
    name = keys_match(q->srv->keys, key, strlen(key)); /* also for none: the same time */
    if (!name)
        return false;
    snprintf(q->key_name, sizeof(q->key_name), "%s", name);
    return true;
}

static bool needs_key(const struct request *q)
{
    const struct server *s = q->srv;

    if (!s->keys || (q->route && q->route->is_open))
        return false;
    if (q->route && strcmp(q->route->path, "/metrics") == 0) {
        if (strcmp(s->cfg.metrics_open, "auto") == 0)
            return !q->conn->loopback;
        return strcmp(s->cfg.metrics_open, "no") == 0;
    }
    return true;
}

static bool host_is_ours(const struct request *q, const struct header *h)
{
    const struct config *cfg = &q->srv->cfg;

    if (strcmp(cfg->allowed_hosts, "auto") == 0 && (q->srv->keys || !q->srv->loopback))
        return true;
    return gate_host_allowed(h->host, cfg->allowed_hosts, cfg->host);
}

/* Method against route. True when the request goes on. */
static bool check_method(struct request *q, const struct header *h)
{
    if (!q->route && h->method == METHOD_OPTIONS && strcmp(q->uri, "*") == 0) {
        snprintf(q->reply.allow, sizeof(q->reply.allow), "GET, HEAD, POST, OPTIONS");
        q->reply.status = 204;
        return false;
    }
    if (!q->route) {
        reply_status(q, 404, "there is no such path");
        return false;
    }
    if (h->method == q->route->method ||
        (h->method == METHOD_HEAD && q->route->method == METHOD_GET))
        return true;
    routes_allow(q->route, q->reply.allow, sizeof(q->reply.allow));
    if (h->method == METHOD_OPTIONS)
        q->reply.status = 204;
    else
        reply_status(q, 405, "the path does not take this method");
    return false;
}

static void check_body_header(struct request *q, const struct header *h)
{
    int64_t max = (int64_t)q->srv->cfg.max_body_kib << 10;

    if (h->content_length > max) {
        reply_status(q, 413, "the body is larger than max_body_kib allows");
        q->reply.close = true;
    } else if (q->route->method != METHOD_POST) {
        return;
    } else if (!h->accepts_body) {
        reply_status(q, 411, "the request needs a Content-Length");
    } else if (!gate_is_json(h->content_type)) {
        reply_status(q, 415, "Content-Type must be application/json");
    }
}

static void refuse_new_work(struct request *q)
{
    struct server *s = q->srv;
    struct err err;

    if (s->phase == PHASE_READY && !q->conn->over)
        return;
    if (s->phase == PHASE_LOADING)
        err_fill(&err, GD_EBUSY, "the model is being loaded");
    else if (s->phase == PHASE_READY)
        err_fill(&err, GD_EBUSY, "there are too many connections");
    else
        err_fill(&err, GD_ESTOPPING, "the server is shutting down");
    reply_error(q, &err);
    q->reply.close = s->phase != PHASE_LOADING;
}

static void decide(struct request *q, const struct header *h)
{
    if (h->status) {
        reply_status(q, h->status, h->why);
        q->reply.close = true;
        return;
    }
    if (!host_is_ours(q, h)) {
        reply_status(q, 403, "the Host header names no host of allowed_hosts");
        q->reply.close = true;
        return;
    }
    if (needs_key(q) && !is_authorised(q, h)) {
        struct err err;

        q->srv->metrics.auth_failures++;
        err_fill(&err, GD_EAUTH, "a valid API key is needed: Authorization: Bearer KEY");
        reply_error(q, &err);
        return;
    }
    if (!check_method(q, h))
        return;
    check_body_header(q, h);
    if (!q->reply.status && !q->route->is_probe)
        refuse_new_work(q);
}

static enum MHD_Result begin(struct request *q, const char *method, const char *version)
{
    struct header h;
    int64_t max = (int64_t)q->srv->cfg.max_body_kib << 10;

    q->begun = true;
    /* Also while the body comes in: MHD misses an end that arrives together with data. */
    conn_watch(q->conn);
    gate_read(&h, q->conn->mhd, q->uri, method, version);
    request_set_id(q, h.request_id);
    snprintf(q->method, sizeof(q->method), "%s", h.method == METHOD_OTHER ? "other" : method);
    q->route = routes_find(q->uri, &q->tail);
    decide(q, &h);
    q->state = REQUEST_BODY;
    q->state_ms = now_ms();
    /* A refusal goes out before the body where it is not wanted: MHD closes the connection then. */
    if (!q->reply.status || !(q->reply.close || h.expects_continue || h.content_length > max))
        return MHD_YES;
    q->reply.close = true;
    return answer(q);
}

/* ---- the body ---- */

static enum MHD_Result receive(struct request *q, const char *data, size_t n)
{
    size_t max = (size_t)q->srv->cfg.max_body_kib << 10;

    q->received += n;
    if (q->received > 2 * max)
        return MHD_NO; /* a chunked upload without end */
    if (!q->reply.status && q->received > max) {
        reply_status(q, 413, "the body is larger than max_body_kib allows");
        q->reply.close = true;
    }
    if (!q->reply.status && q->srv->body_bytes + n > BODIES_BYTES &&
        q->srv->body_bytes > q->body.len) {
        struct err err;

        err_fill(&err, GD_EBUSY, "too many request bodies are being received");
        reply_error(q, &err);
    }
    if (!q->reply.status) {
        buf_append(&q->body, data, n);
        q->srv->body_bytes += n;
    }
    return MHD_YES;
}

static void drop_body(struct request *q)
{
    q->srv->body_bytes -= q->body.len;
    buf_free(&q->body);
}

/* ---- the work ---- */

static void on_work(uv_work_t *w)
{
    struct request *q = w->data;

    q->route->answer(q);
}

/* After the text work: wait for the engine, or answer. False = not yet. */
static bool worked(struct request *q)
{
    drop_body(q);
    if (q->n_jobs == 0)
        return true;
    q->state = REQUEST_WAIT;
    q->quiet_ms = now_ms();
    return generate_poll(q);
}

static void on_worked(uv_work_t *w, int status)
{
    struct request *q = w->data;
    struct server *s = q->srv;

    q->working = false;
    s->n_working--;
    if (!q->conn) { /* MHD has let go of it meanwhile */
        request_free(q);
    } else if (q->gone) {
        generate_release(q);
        http_resume(q);
    } else if (worked(q)) {
        http_resume(q);
    }
    loop_pump(s); /* a drain may be over */
}

static enum MHD_Result work(struct request *q)
{
    struct server *s = q->srv;

    q->state = REQUEST_WORK;
    request_link(q);
    if (!q->reply.status && !q->route->is_probe)
        refuse_new_work(q); /* the phase may have changed while the body came in */
    if (q->reply.status)
        return answer(q);
    q->limits = s->limits;
    if (q->body.len > INLINE_BYTES) {
        q->work.data = q;
        q->working = true;
        s->n_working++;
        uv_queue_work(&s->loop, &q->work, on_work, on_worked);
        http_suspend(q);
        return MHD_YES;
    }
    q->route->answer(q);
    if (worked(q))
        return answer(q);
    http_suspend(q);
    return MHD_YES;
}

enum MHD_Result http_handle(void *ud, struct MHD_Connection *mhd, const char *url,
    const char *method, const char *version, const char *upload, size_t *upload_len, void **cls)
{
    struct request *q = *cls;

    if (!q)
        return MHD_NO;
    if (!q->begun)
        return begin(q, method, version);
    if (*upload_len > 0) {
        size_t n = *upload_len;

        *upload_len = 0;
        return receive(q, upload, n);
    }
    if (q->gone)
        return MHD_NO;
    switch (q->state) {
    case REQUEST_HEAD:
    case REQUEST_BODY: return work(q);
    case REQUEST_WORK:
    case REQUEST_WAIT: /* resumed: there is something to say */ return answer(q);
    case REQUEST_ANSWER: break;
    }
    return MHD_YES;
}

/* ---- the end ---- */

static void count_gone(struct request *q)
{
    enum gone_phase phase = q->state < REQUEST_WAIT ? GONE_BODY
                            : q->decoding           ? GONE_DECODE
                            : q->started            ? GONE_PREFILL
                                                    : GONE_QUEUED;

    q->srv->metrics.gone[phase]++;
}

void http_done(
    void *ud, struct MHD_Connection *mhd, void **cls, enum MHD_RequestTerminationCode why)
{
    struct request *q = *cls;
    struct server *s;
    const char *end = "";
    int status;

    *cls = NULL;
    if (!q)
        return;
    s = q->srv;
    status = q->working ? 499 : q->reply.status; /* else the reply is the helper thread's */
    if (why == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED)
        end = "stalled";
    else if (q->gone || why != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        end = s->phase == PHASE_CLOSING ? "closed" : "gone";
    if (*end && q->begun) {
        if (q->state != REQUEST_ANSWER || !q->stream)
            status = 499;
        count_gone(q);
    }
    if (q->begun) {
        metrics_count(&s->metrics, routes_index(q->route), status);
        request_log(q, status, end);
    }
    conn_idle(q->conn);
    q->conn = NULL;
    request_unlink(q);
    if (!q->working)
        request_free(q);
    loop_pump(s); /* a drain may be over */
}

void *http_uri(void *ud, const char *uri, struct MHD_Connection *mhd)
{
    struct conn *c = conn_of(mhd);

    if (!c || c->req)
        return NULL;
    c->req = request_create(c, uri);
    return c->req;
}
