#include "engine/queue.h"

#include "base/clock.h"

void queue_init(struct queue *q, int max_jobs, int64_t max_tokens)
{
    *q = (struct queue){.max_jobs = max_jobs, .max_tokens = max_tokens};
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->news, NULL);
}

void queue_finish(struct queue *q)
{
    pthread_cond_destroy(&q->news);
    pthread_mutex_destroy(&q->lock);
}

static bool is_full(const struct queue *q)
{
    return q->n_jobs >= q->max_jobs + q->n_free;
}

static int check(struct queue *q, int64_t n_tokens, bool follows, struct err *err)
{
    if (q->stopping)
        return err_set(err, GD_ESTOPPING, "the server is shutting down");
    if (follows)
        return 0;
    if (is_full(q)) {
        q->refused++;
        return err_set(err, GD_EBUSY, "the queue is full: %d requests are waiting", q->n_jobs);
    }
    /* A prompt longer than the bound must still be served one day: alone it may wait. */
    if (q->n_jobs > 0 && n_tokens > q->max_tokens - q->n_tokens) {
        q->refused++;
        return err_set(err, GD_EBUSY, "the queue is full: %lld prompt tokens are waiting",
            (long long)q->n_tokens);
    }
    return 0;
}

int queue_check(struct queue *q, bool follows, struct err *err)
{
    int r;

    pthread_mutex_lock(&q->lock);
    r = check(q, 0, follows, err);
    pthread_mutex_unlock(&q->lock);
    return r;
}

int queue_push(struct queue *q, struct job *j, struct err *err)
{
    int r;

    pthread_mutex_lock(&q->lock);
    r = check(q, j->n_prompt, j->params.follows, err);
    if (r == 0) {
        j->prev = q->last;
        j->next = NULL;
        j->waiting = true;
        if (q->last)
            q->last->next = j;
        else
            q->first = j;
        q->last = j;
        q->n_jobs++;
        q->n_tokens += j->n_prompt;
        pthread_cond_signal(&q->news);
    }
    pthread_mutex_unlock(&q->lock);
    return r;
}

void queue_remove(struct queue *q, struct job *j)
{
    if (j->prev)
        j->prev->next = j->next;
    else
        q->first = j->next;
    if (j->next)
        j->next->prev = j->prev;
    else
        q->last = j->prev;
    j->prev = j->next = NULL;
    j->waiting = false;
    q->n_jobs--;
    q->n_tokens -= j->n_prompt;
}

double queue_retry_after(const struct queue *q, int64_t now)
{
    double since = (double)(now - q->last_admit_ns) / 1e9, left;

    if (!is_full(q) && (q->n_jobs == 0 || q->n_tokens < q->max_tokens))
        return 0;
    /* One job leaves every admit_interval_s; part of the current interval is over. */
    left = q->admit_interval_s - (q->last_admit_ns ? since : 0);
    return left < 1 ? 1 : left > 600 ? 600 : left;
}
