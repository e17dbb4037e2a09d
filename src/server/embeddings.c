/* embeddings.c - /v1/embeddings: a job for each input, their vectors written in order as they come.
 * There is no half answer: one input that fails fails the request. */
#include <string.h>

#include "api/embeddings.h"
#include "base/mem.h"
#include "server/generate.h"
#include "server/request.h"

static int submit(struct request *q, struct err *err)
{
    size_t n = api_embeddings_jobs(q->embeddings);

    memccpy(q->ignored, api_embeddings_ignored(q->embeddings), 0, sizeof(q->ignored) - 1);
    q->jobs = xcalloc(n, sizeof(struct job *));
    for (size_t i = 0; i < n; i++) {
        int r =
            job_submit(&q->jobs[i], q->srv->engine, api_embeddings_job(q->embeddings, i), q, err);

        if (r < 0) {
            generate_release(q);
            return r;
        }
        q->n_jobs = i + 1;
    }
    return 0;
}

void embeddings_answer(struct request *q)
{
    struct err err = {0};
    int r;

    if (generate_queue_is_full(q))
        return;
    r = api_parse_embeddings(
        &q->embeddings, q->body.data ? q->body.data : "", q->body.len, &q->limits, &err);
    if (r == 0)
        r = submit(q, &err);
    if (r == GD_EBUSY)
        generate_busy(q, &err);
    else if (r < 0)
        reply_error(q, &err);
}

/* The next input's events. 1: its vector is written, 0: not yet, -1: refused. */
static int pull(struct request *q, size_t i)
{
    struct job_event ev;

    while (job_next(q->jobs[i], &ev)) {
        if (ev.kind != EVENT_FINISH) {
            q->started = true;
            continue;
        }
        if (generate_failed(q, &ev))
            return -1;
        api_embeddings_add(
            q->embeddings, ev.vector, ev.n_vector, ev.usage.prompt_tokens, &q->reply.body);
        job_release(q->jobs[i]);
        q->jobs[i] = NULL;
        return 1;
    }
    return 0;
}

bool embeddings_poll(struct request *q)
{
    /* The engine takes them in order, so those behind one that is not done hardly are. */
    for (size_t i = api_embeddings_added(q->embeddings); i < q->n_jobs; i++) {
        int r = pull(q, i);

        if (r == 0)
            return false;
        if (r < 0) {
            generate_release(q);
            return true;
        }
    }
    generate_release(q);
    api_embeddings_end(q->embeddings, &q->reply.body);
    q->reply.status = 200;
    q->reply.type = API_JSON_TYPE;
    return true;
}
