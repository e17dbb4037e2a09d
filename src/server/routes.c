/* routes.c - the table, and the answers that need no text work. */
#include "server/routes.h"

#include <stdio.h>
#include <string.h>

#include "server/generate.h"
#include "server/request.h"

static void json(struct request *q, int status)
{
    q->reply.status = status;
    q->reply.type = API_JSON_TYPE;
}

static void answer_ready(struct request *q)
{
    struct server *s = q->srv;
    enum api_health health = API_READY;
    struct engine_stats st;

    if (s->phase == PHASE_LOADING)
        health = API_LOADING;
    else if (s->phase > PHASE_READY)
        health = API_DRAINING;
    else {
        engine_stats(s->engine, &st); /* a copy of counters: never waits for the engine */
        if (st.last_step_ms_ago > STUCK_MS)
            health = API_STUCK;
    }
    json(q, api_health_body(&q->reply.body, health));
    if (q->reply.status == 503)
        q->reply.retry_after = 1;
}

static void answer_live(struct request *q)
{
    json(q, api_health_body(&q->reply.body, API_READY));
}

static void answer_metrics(struct request *q)
{
    struct server *s = q->srv;
    struct engine_stats st;
    struct metrics_view v = {.version = s->opts->version,
        .model = s->model_id,
        .connections = s->n_conns,
        .requests = s->n_requests - 1, /* not this one */
        .ready = s->phase == PHASE_READY,
        .load_ms = s->load_ms,
        .start_time = s->created};

    if (s->engine) {
        engine_stats(s->engine, &st);
        v.stats = &st;
        v.info = engine_info(s->engine);
    }
    metrics_write(&q->reply.body, &s->metrics, &v);
    q->reply.status = 200;
    q->reply.type = METRICS_TYPE;
}

static void answer_models(struct request *q)
{
    struct server *s = q->srv;

    api_models_body(&q->reply.body, s->model_id, s->created, engine_info(s->engine));
    json(q, 200);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 32) >= 'a' && (c | 32) <= 'f')
        return (c | 32) - 'a' + 10;
    return -1;
}

/* False for a broken escape or a NUL. */
static bool percent_decode(const char *in, char *out, size_t cap)
{
    size_t n = 0;

    for (; *in; in++) {
        int c = (unsigned char)*in;

        if (*in == '%') {
            int hi = hex(in[1]), lo = hi < 0 ? -1 : hex(in[2]);

            if (lo < 0)
                return false;
            c = hi * 16 + lo;
            in += 2;
        }
        if (c == 0 || n + 1 >= cap)
            return false;
        out[n++] = (char)c;
    }
    out[n] = 0;
    return true;
}

static void answer_model(struct request *q)
{
    struct server *s = q->srv;
    char id[CONFIG_NAME_MAX];
    struct err err;

    if (!percent_decode(q->tail, id, sizeof(id)) || strcmp(id, s->model_id) != 0) {
        err_fill_at(&err, GD_ENOENT, "model", "the model does not exist; this server has %.120s",
            s->model_id);
        reply_error(q, &err);
        return;
    }
    api_model_body(&q->reply.body, s->model_id, s->created, engine_info(s->engine));
    json(q, 200);
}

static const struct route routes[] = {
    {"/v1/chat/completions", false, METHOD_POST, generate_chat, false, false},
    {"/v1/completions", false, METHOD_POST, generate_completion, false, false},
    {"/v1/embeddings", false, METHOD_POST, embeddings_answer, false, false},
    {"/v1/models", false, METHOD_GET, answer_models, false, false},
    {"/v1/models/", true, METHOD_GET, answer_model, false, false},
    {"/tokenize", false, METHOD_POST, text_tokenize, false, false},
    {"/detokenize", false, METHOD_POST, text_detokenize, false, false},
    {"/apply-template", false, METHOD_POST, text_template, false, false},
    {"/health", false, METHOD_GET, answer_ready, true, true},
    {"/readyz", false, METHOD_GET, answer_ready, true, true},
    {"/livez", false, METHOD_GET, answer_live, true, true},
    {"/metrics", false, METHOD_GET, answer_metrics, true, false},
};

enum { N_ROUTES = sizeof(routes) / sizeof(routes[0]) };
_Static_assert(N_ROUTES < (int)METRICS_ROUTES, "room for one more: no route");

const struct route *routes_find(const char *path, const char **tail)
{
    for (size_t i = 0; i < N_ROUTES; i++) {
        size_t n = strlen(routes[i].path);

        *tail = path + n;
        if (strncmp(path, routes[i].path, n) == 0 && routes[i].is_prefix == (path[n] != 0))
            return &routes[i];
    }
    *tail = "";
    return NULL;
}

void routes_allow(const struct route *r, char *out, size_t cap)
{
    snprintf(out, cap, "%s", r->method == METHOD_POST ? "POST, OPTIONS" : "GET, HEAD, OPTIONS");
}

int routes_count(void)
{
    return N_ROUTES;
}

int routes_index(const struct route *r)
{
    return r ? (int)(r - routes) : N_ROUTES;
}

const char *routes_name(int index)
{
    return index < N_ROUTES ? routes[index].path : "none";
}
