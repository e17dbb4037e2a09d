/* queue.h - jobs on their way from the callers to the engine thread, and what else they tell it.
 *
 * One lock guards everything here, the statistics that the engine thread publishes included. It is
 * held for moments, never together with a job's lock. */
#ifndef ENGINE_QUEUE_H
#define ENGINE_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/job.h"
#include "gemmad/engine.h"

struct queue {
    pthread_mutex_t lock; /* guards all of this */
    pthread_cond_t news;  /* for the engine thread: a job, or quit */
    struct job *first, *last;
    int n_jobs, max_jobs;
    int64_t n_tokens, max_tokens; /* prompt tokens of the waiting jobs */
    int n_free; /* choices the scheduler could start at once: so many jobs do not really wait */
    bool stopping, cancel_all, quit;

    uint64_t refused, canceled;    /* canceled while waiting */
    struct engine_stats published; /* the engine thread's own counters after its last step */
    bool asleep;
    int64_t last_step_ns, last_admit_ns;
    double admit_interval_s; /* smoothed, while others waited; 0 = not known */
};

void queue_init(struct queue *q, int max_jobs, int64_t max_tokens);
void queue_finish(struct queue *q);

/* May a job be queued? GD_EBUSY or GD_ESTOPPING. The quick look before any work on a prompt; takes
 * the lock. One that follows (job_params) finds no queue full. */
int queue_check(struct queue *q, bool follows, struct err *err);
/* Queues the job, or fails like queue_check() also by its prompt's tokens. Takes the lock. */
int queue_push(struct queue *q, struct job *j, struct err *err);
/* Takes a waiting job out; the caller holds the lock. */
void queue_remove(struct queue *q, struct job *j);
/* Seconds until a job leaves the queue, 0 when there is room; the caller holds the lock. */
double queue_retry_after(const struct queue *q, int64_t now);

#endif
