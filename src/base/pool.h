/* pool.h - fork/join worker threads for the engine thread.
 *
 * The caller of pool_run() is thread 0. Workers spin for a few microseconds between jobs, then
 * sleep on a futex: a busy neighbour costs its share, an idle daemon uses no CPU. The same holds
 * for pool_barrier(). One job runs at a time; only the thread that created the pool may call
 * pool_run(). */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "gemmad/err.h"

struct pool;

typedef void pool_fn(void *arg, int thread, int n_threads);

/* n_threads >= 1 counts the caller. */
int pool_create(struct pool **out, int n_threads, struct err *err);
void pool_destroy(struct pool *p); /* NULL is fine */
int pool_threads(const struct pool *p);

/* Runs fn once on every thread and returns when all are done. p == NULL runs it on the caller
 * alone. */
void pool_run(struct pool *p, pool_fn *fn, void *arg);

/* Inside fn: waits until every thread of the job has arrived. p == NULL does nothing. */
void pool_barrier(struct pool *p);

/* The share [*first, *last) of n items that belongs to a thread: contiguous, as equal as possible.
 */
static inline void pool_share(int n, int thread, int n_threads, int *first, int *last)
{
    *first = (int)((long)n * thread / n_threads);
    *last = (int)((long)n * (thread + 1) / n_threads);
}

#endif
