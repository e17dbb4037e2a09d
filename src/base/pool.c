/* pool.c - fork/join over a generation counter, with bounded spinning before every sleep.
 *
 * Three things are ever waited for: the next job (by workers), the end of a job (by thread 0) and
 * a barrier inside a job. Each is an `event`: a counter that goes up, and a futex on that counter.
 * A waiter first looks at the counter for some microseconds, because the steps of a plan follow
 * each other that fast and waking a sleeper costs tens of them on a virtual machine; then it
 * sleeps, because whatever takes longer (an idle daemon, a peer that lost its CPU to a neighbour)
 * has a better use for the CPU. Where looking long keeps failing, it looks only briefly. Both
 * bounds are far below a scheduling quantum. With more threads than CPUs it sleeps at once. */
#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"

enum { CACHE_LINE = 64, MAX_THREADS = 1024, SHORT_NS = 4000, LONG_NS = 64000 };

/* What a long look must earn: four failures outweigh sixteen successes. After a failure, that many
 * short looks pass before the next try, twice as many each time. */
enum { CREDIT_MAX = 16, CREDIT_FAILURE = 4, RETRY_FIRST = 4, RETRY_MAX = 1024 };

/* Alone on its cache line: waiters read it in a loop. */
struct event {
    alignas(CACHE_LINE) atomic_uint value; /* the futex word */
    atomic_uint sleepers;

    /* Any waiter may change these; a lost update only delays the adaptation. */
    alignas(CACHE_LINE) atomic_int credit; /* looks long while above 0 */
    atomic_int retry, retry_next;          /* short looks to go, and after the next failure */
    int short_looks, long_looks;           /* looks that fit in SHORT_NS and LONG_NS */
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int n_threads;
    int n_started; /* of workers[]; thread 0 is not among them */
    struct worker *workers;

    /* The job: written by thread 0 before `start` moves, read by workers after. */
    pool_fn *fn;
    void *arg;
    bool stop;

    struct event start, done, phase;
    alignas(CACHE_LINE) atomic_int running; /* workers that still are inside the job */
    alignas(CACHE_LINE) atomic_int arrived; /* threads that wait at the barrier */
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* Nanoseconds of 256 looks: a pause takes from 10 to 150 cycles by CPU model. The fastest of a few
 * rounds counts, because a round that was descheduled looks slow. */
static int looks_cost(void)
{
    enum { ROUNDS = 5, LOOKS = 256 };
    int64_t best = SHORT_NS * LOOKS / 8;

    for (int r = 0; r < ROUNDS; r++) {
        int64_t start = clock_ns(), took;

        for (int i = 0; i < LOOKS; i++)
            relax();
        took = clock_ns() - start;
        if (took < best)
            best = took;
    }
    return best > LOOKS ? (int)best : LOOKS;
}

/* cost: of 256 looks; 0 = never look. */
static void event_init(struct event *e, int cost)
{
    e->short_looks = cost ? SHORT_NS * 256 / cost : 0;
    e->long_looks = cost ? LONG_NS * 256 / cost : 0;
    atomic_init(&e->credit, CREDIT_FAILURE);
    atomic_init(&e->retry_next, RETRY_FIRST);
}

static int get(const atomic_int *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static void set(atomic_int *v, int to)
{
    atomic_store_explicit(v, to, memory_order_relaxed);
}

static void long_look_succeeded(struct event *e)
{
    int credit = get(&e->credit);

    if (credit < CREDIT_MAX)
        set(&e->credit, credit + 1);
    else if (get(&e->retry_next) != RETRY_FIRST)
        set(&e->retry_next, RETRY_FIRST);
}

static void look_failed(struct event *e)
{
    int credit = get(&e->credit), next = get(&e->retry_next);

    if (credit > CREDIT_FAILURE) {
        set(&e->credit, credit - CREDIT_FAILURE);
    } else if (credit > 0) {
        set(&e->credit, 0);
        set(&e->retry, next);
        set(&e->retry_next, next < RETRY_MAX ? 2 * next : RETRY_MAX);
    } else if (get(&e->retry) > 0) {
        set(&e->retry, get(&e->retry) - 1);
    } else {
        set(&e->credit, CREDIT_FAILURE);
    }
}

/* True when the event's value moved away from `old` while looking. */
static bool look(struct event *e, unsigned old)
{
    int n = get(&e->credit) > 0 ? e->long_looks : e->short_looks;

    for (int i = 0; i < n; i++) {
        if (atomic_load_explicit(&e->value, memory_order_acquire) != old) {
            if (i > e->short_looks)
                long_look_succeeded(e);
            return true;
        }
        relax();
    }
    return false;
}

/* Waits until the event's value is no longer `old`. */
static void event_wait(struct event *e, unsigned old)
{
    if (look(e, old))
        return;
    look_failed(e);
    /* Sleepers goes up before the value is read again, and the setter moves the value before it
     * reads sleepers (both sequentially consistent): one of the two always sees the other. */
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(&e->value) == old)
        syscall(SYS_futex, &e->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&e->sleepers, 1);
}

static void event_signal(struct event *e)
{
    atomic_fetch_add(&e->value, 1);
    if (atomic_load(&e->sleepers) > 0)
        syscall(SYS_futex, &e->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *worker_main(void *arg)
{
    const struct worker *w = arg;
    struct pool *p = w->pool;

    /* Every job moves `start` by one and ends only when all workers took part, so a worker is
     * never more than one job behind and counting along is enough. */
    for (unsigned job = 0;; job++) {
        event_wait(&p->start, job);
        if (p->stop)
            return NULL;
        p->fn(p->arg, w->index, p->n_threads);
        if (atomic_fetch_sub(&p->running, 1) == 1)
            event_signal(&p->done);
    }
}

static int start_worker(struct pool *p, int index, struct err *err)
{
    struct worker *w = &p->workers[index - 1];
    char name[24]; /* longer than 15 is refused: the thread then keeps its name */
    sigset_t all, before;
    int r;

    *w = (struct worker){.pool = p, .index = index};
    /* Signals belong to the loop thread. */
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* this thread's own doing: a mapped file that shrank */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        return err_set(err, GD_ENOMEM, "cannot start worker thread %d of %d: %s", index + 1,
            p->n_threads, strerror(r));
    p->n_started++;
    snprintf(name, sizeof(name), "gemmad-%d", index);
    pthread_setname_np(w->thread, name);
    return 0;
}

int pool_create(struct pool **out, int n_threads, struct err *err)
{
    struct pool *p;
    int cost;
    int r;

    if (n_threads < 1 || n_threads > MAX_THREADS)
        return err_set_at(
            err, GD_EINVAL, "threads", "threads must be 1 to %d, got %d", MAX_THREADS, n_threads);
    p = mem_aligned(sizeof(*p));
    if (!p)
        return err_set(err, GD_ENOMEM, "no memory for the thread pool");
    p->n_threads = n_threads;
    cost = n_threads <= cpu_allowed() ? looks_cost() : 0;
    event_init(&p->start, cost);
    event_init(&p->done, cost);
    event_init(&p->phase, cost);
    p->workers = xcalloc((size_t)n_threads, sizeof(*p->workers));
    for (int i = 1; i < n_threads; i++) {
        r = start_worker(p, i, err);
        if (r < 0) {
            pool_destroy(p);
            return r;
        }
    }
    *out = p;
    return 0;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    p->stop = true;
    event_signal(&p->start);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    free(p->workers);
    mem_aligned_free(p, sizeof(*p));
}

int pool_threads(const struct pool *p)
{
    return p ? p->n_threads : 1;
}

void pool_run(struct pool *p, pool_fn *fn, void *arg)
{
    unsigned done;

    if (!p || p->n_threads == 1) {
        fn(arg, 0, 1);
        return;
    }
    done = atomic_load_explicit(&p->done.value, memory_order_relaxed);
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->running, p->n_threads - 1, memory_order_relaxed);
    event_signal(&p->start);
    fn(arg, 0, p->n_threads);
    event_wait(&p->done, done);
}

void pool_barrier(struct pool *p)
{
    unsigned phase;

    if (!p || p->n_threads == 1)
        return;
    phase = atomic_load_explicit(&p->phase.value, memory_order_relaxed);
    if (atomic_fetch_add(&p->arrived, 1) == p->n_threads - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        event_signal(&p->phase);
    } else {
        event_wait(&p->phase, phase);
    }
}
