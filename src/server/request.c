#include "server/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/embeddings.h"
#include "base/clock.h"
#include "base/mem.h"
#include "gemmad/log.h"
#include "server/generate.h"
#include "server/routes.h"

int64_t now_ms(void)
{
    return clock_ns() / 1000000;
}

struct request *request_create(struct conn *c, const char *uri)
{
    struct request *q = xcalloc(1, sizeof(*q));
    const char *path = uri;
    size_t n;

    if (strncmp(path, "http://", 7) == 0) { /* absolute form: RFC 9112 wants it taken */
        path += 7;
        path += strcspn(path, "/?");
    }
    n = strcspn(path, "?");
    q->srv = c->srv;
    q->conn = c;
    q->start_ms = q->state_ms = now_ms();
    q->uri = xcalloc(n + 2, 1);
    memcpy(q->uri, n ? path : "/", n ? n : 1);
    return q;
}

void request_link(struct request *q)
{
    struct server *s = q->srv;

    q->next = s->requests;
    if (q->next)
        q->next->at = &q->next;
    q->at = &s->requests;
    s->requests = q;
    s->n_requests++;
}

void request_unlink(struct request *q)
{
    if (!q->at)
        return;
    *q->at = q->next;
    if (q->next)
        q->next->at = q->at;
    q->at = NULL;
    q->srv->n_requests--;
}

void request_free(struct request *q)
{
    generate_release(q);
    api_response_free(q->rsp);
    api_embeddings_free(q->embeddings);
    q->srv->body_bytes -= q->body.len;
    buf_free(&q->body);
    buf_free(&q->reply.body);
    free(q->uri);
    free(q);
}

static bool is_plain(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-");

    return n > 0 && !s[n];
}

static void random_hex(char *out, size_t n_bytes)
{
    unsigned char bytes[32];

    if (getrandom(bytes, n_bytes, 0) != (ssize_t)n_bytes)
        memset(bytes, 0, sizeof(bytes));
    for (size_t i = 0; i < n_bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void request_set_id(struct request *q, const char *asked)
{
    random_hex(q->created_id, 14);
    if (asked && strlen(asked) < sizeof(q->id) && is_plain(asked))
        snprintf(q->id, sizeof(q->id), "%s", asked);
    else
        snprintf(q->id, sizeof(q->id), "req_%s", q->created_id);
}

void reply_error(struct request *q, const struct err *err)
{
    struct reply *r = &q->reply;

    buf_clear(&r->body);
    r->status = api_status(err->code);
    r->type = API_JSON_TYPE;
    if (r->status == 503)
        r->retry_after = 1;
    api_error_body(&r->body, err);
}

void reply_status(struct request *q, int status, const char *message)
{
    struct reply *r = &q->reply;

    buf_clear(&r->body);
    r->status = status;
    r->type = API_JSON_TYPE;
    api_http_error_body(&r->body, status, message);
}

void request_log(const struct request *q, int status, const char *end)
{
    struct usage u = {0};
    char path[80];

    if (!q->working) { /* else both are the helper thread's */
        if (q->rsp)
            u = api_response_usage(q->rsp);
        if (q->embeddings)
            u.prompt_tokens = (int)api_embeddings_tokens(q->embeddings);
    }
    snprintf(path, sizeof(path), "%s", q->uri);
    for (char *p = path; *p; p++) {
        if (*p <= ' ' || *p > '~' || *p == '"')
            *p = '?';
    }
    log_write(q->route && q->route->is_probe ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO,
        "request method=%s path=%s status=%d ms=%lld prompt_tokens=%d cached_tokens=%d "
        "completion_tokens=%d id=%s%s%s%s%s",
        q->method, path, status, (long long)(now_ms() - q->start_ms), u.prompt_tokens,
        u.cached_tokens, u.completion_tokens, q->id, q->key_name[0] ? " key=" : "", q->key_name,
        *end ? " end=" : "", end);
}
