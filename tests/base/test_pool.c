/* The pool: every thread runs once, barriers hold, more threads than CPUs neither hang nor burn a
 * CPU, a busy neighbour costs its share, and a pool without work uses none. Run under TSan as
 * well. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/cpu.h"

enum { MAX = 64 };
static const int thread_counts[] = {1, 2, 3, 8, 64};

struct job {
    struct pool *pool;
    int ran[MAX]; /* written without atomics: the join must order it */
    int total[MAX];
    atomic_int bad;
};

static struct pool *make(int n_threads)
{
    struct pool *p = NULL;
    struct err err;

    assert_int_equal(pool_create(&p, n_threads, &err), 0);
    assert_int_equal(pool_threads(p), n_threads);
    return p;
}

static void count(void *arg, int thread, int n_threads)
{
    struct job *j = arg;

    if (n_threads != pool_threads(j->pool))
        atomic_fetch_add(&j->bad, 1);
    j->ran[thread]++;
}

static void every_thread_runs_once_per_job(void **state)
{
    for (size_t k = 0; k < sizeof(thread_counts) / sizeof(*thread_counts); k++) {
        int n = thread_counts[k], jobs = n > 8 ? 50 : 1000;
        struct job j = {.pool = make(n)};

        for (int i = 1; i <= jobs; i++) {
            pool_run(j.pool, count, &j);
            for (int t = 0; t < n; t++)
                assert_int_equal(j.ran[t], i);
        }
        assert_int_equal(j.bad, 0);
        pool_destroy(j.pool);
    }
}

/* Each round everyone writes, waits, reads everyone, waits. */
static void write_then_read_all(void *arg, int thread, int n_threads)
{
    struct job *j = arg;

    for (int round = 1; round <= 50; round++) {
        int sum = 0;

        j->ran[thread] = round;
        pool_barrier(j->pool);
        for (int t = 0; t < n_threads; t++)
            sum += j->ran[t];
        if (sum != round * n_threads)
            atomic_fetch_add(&j->bad, 1);
        j->total[thread] += sum;
        pool_barrier(j->pool);
    }
}

static void a_barrier_lets_nobody_pass_early(void **state)
{
    for (size_t k = 0; k < sizeof(thread_counts) / sizeof(*thread_counts); k++) {
        int n = thread_counts[k], jobs = n > 8 ? 2 : 20;
        struct job j = {.pool = make(n)};

        for (int i = 0; i < jobs; i++)
            pool_run(j.pool, write_then_read_all, &j);
        assert_int_equal(j.bad, 0);
        for (int t = 0; t < n; t++)
            assert_int_equal(j.total[t], jobs * n * 50 * 51 / 2);
        pool_destroy(j.pool);
    }
}

static void without_a_pool_the_caller_works_alone(void **state)
{
    struct job j = {0};

    pool_run(NULL, write_then_read_all, &j);
    assert_int_equal(j.bad, 0);
    assert_int_equal(j.total[0], 50 * 51 / 2);
    assert_int_equal(pool_threads(NULL), 1);
    pool_destroy(NULL);
}

static void a_wrong_thread_count_is_refused(void **state)
{
    struct pool *p = NULL;
    struct err err;

    assert_int_equal(pool_create(&p, 0, &err), GD_EINVAL);
    assert_string_equal(err.param, "threads");
    assert_int_equal(pool_create(&p, -1, &err), GD_EINVAL);
    assert_int_equal(pool_create(&p, 1 << 20, &err), GD_EINVAL);
    assert_null(p);
}

static int64_t cpu_ns(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 +
           ((int64_t)u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

static void an_idle_pool_uses_no_cpu(void **state)
{
    struct job j = {.pool = make(8)};
    int64_t before;

    pool_run(j.pool, count, &j);
    sleep_ms(20);
    before = cpu_ns();
    sleep_ms(200);
    assert_true(cpu_ns() - before < 5000000);
    pool_destroy(j.pool);
}

/* Worker 1 is late by a millisecond each time; the others, and thread 0 in the join, sleep. */
static void late(void *arg, int thread, int n_threads)
{
    struct job *j = arg;

    if (thread == 1)
        sleep_ms(1);
    pool_barrier(j->pool);
    if (thread == 1)
        sleep_ms(1);
}

static void waiting_for_a_late_thread_burns_no_quantum(void **state)
{
    struct job j = {.pool = make(3)};
    int64_t before = cpu_ns(), start = clock_ns(), wall;

    for (int i = 0; i < 50; i++)
        pool_run(j.pool, late, &j);
    wall = clock_ns() - start;
    assert_true(wall >= 100 * 1000000);
    assert_true(cpu_ns() - before < wall / 4);
    pool_destroy(j.pool);
}

static void more_threads_than_cpus_do_not_collapse(void **state)
{
    int n = 4 * cpu_allowed() < MAX ? 4 * cpu_allowed() : MAX;
    struct job j = {.pool = make(n)};
    int64_t start = clock_ns();

    for (int i = 0; i < 200; i++)
        pool_run(j.pool, count, &j);
    /* A spinning pool needs a scheduling quantum (some 3 ms) per job and thread that waits. */
    assert_true(clock_ns() - start < 2000000000);
    pool_destroy(j.pool);
}

/* Processes that never sleep, one bound to each CPU that this one may use, stopped until they are
 * wanted. They die with this process. */
struct neighbours {
    int n;
    pid_t pid[CPU_SETSIZE];
};

static pid_t start_neighbour(int cpu)
{
    pid_t parent = getpid(), child = fork();
    cpu_set_t one;

    assert_true(child >= 0);
    if (child > 0)
        return child;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent ||
        sched_setaffinity(0, sizeof(one), &one) < 0)
        _exit(1);
    raise(SIGSTOP);
    for (volatile unsigned n = 0;;)
        n = n + 1;
}

static void start_neighbours(struct neighbours *all)
{
    cpu_set_t mine;

    all->n = 0;
    assert_int_equal(sched_getaffinity(0, sizeof(mine), &mine), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mine))
            all->pid[all->n++] = start_neighbour(cpu);
    for (int i = 0; i < all->n; i++) {
        int status;

        assert_int_equal(waitpid(all->pid[i], &status, WUNTRACED), all->pid[i]);
        assert_true(WIFSTOPPED(status));
    }
}

static void signal_neighbours(const struct neighbours *all, int signal)
{
    for (int i = 0; i < all->n; i++)
        kill(all->pid[i], signal);
}

static void stop_neighbours(const struct neighbours *all)
{
    signal_neighbours(all, SIGKILL);
    for (int i = 0; i < all->n; i++)
        waitpid(all->pid[i], NULL, 0);
}

/* Equal shares of some tens of microseconds, a barrier after each, as in a decode step. */
static void equal_shares(void *arg, int thread, int n_threads)
{
    struct job *j = arg;

    for (int step = 0; step < 20; step++) {
        volatile unsigned x = (unsigned)thread;

        for (int i = 0; i < 100000; i++)
            x = x + 1;
        pool_barrier(j->pool);
    }
}

static double jobs_per_second(struct job *j)
{
    int64_t start = clock_ns(), now;
    int n = 0;

    do {
        pool_run(j->pool, equal_shares, j);
        n++;
        now = clock_ns();
    } while (now - start < 100 * 1000000);
    return n * 1e9 / (double)(now - start);
}

/* With a neighbour on every CPU a fair half is left at best; 0.22 to 0.51 were measured. A waiter
 * that yields its CPU in a loop instead of sleeping gets it back after the neighbour's quantum, at
 * every barrier: 0.01. The best of some rounds counts: whatever else runs here disturbs some. */
static void busy_neighbours_cost_their_share(void **state)
{
    struct neighbours all;
    struct job j;
    double best = 0;

    start_neighbours(&all); /* before the pool's threads: a fork copies none */
    j = (struct job){.pool = make(cpu_allowed() < MAX ? cpu_allowed() : MAX)};
    for (int round = 0; round < 10 && best < 0.2; round++) {
        double alone = jobs_per_second(&j), beside;

        signal_neighbours(&all, SIGCONT);
        beside = jobs_per_second(&j);
        signal_neighbours(&all, SIGSTOP);
        if (beside / alone > best)
            best = beside / alone;
    }
    stop_neighbours(&all);
    pool_destroy(j.pool);
    if (best < 0.2)
        fail_msg("beside busy neighbours %.0f %% of the speed are left", 100 * best);
}

static void read_mask(void *arg, int thread, int n_threads)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    ((int *)arg)[thread] = sigismember(&mask, SIGTERM);
}

static void workers_leave_signals_to_others(void **state)
{
    struct pool *p = make(3);
    int blocked[3];

    pool_run(p, read_mask, blocked);
    assert_int_equal(blocked[0], 0);
    assert_int_equal(blocked[1], 1);
    assert_int_equal(blocked[2], 1);
    pool_destroy(p);
}

static void shares_cover_everything_once(void **state)
{
    for (int threads = 1; threads <= MAX; threads++) {
        for (int n = 0; n <= 200; n++) {
            int at = 0;

            for (int t = 0; t < threads; t++) {
                int first, last;

                pool_share(n, t, threads, &first, &last);
                assert_int_equal(first, at);
                assert_in_range(last - first, n / threads, (n + threads - 1) / threads);
                at = last;
            }
            assert_int_equal(at, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_runs_once_per_job),
        cmocka_unit_test(a_barrier_lets_nobody_pass_early),
        cmocka_unit_test(without_a_pool_the_caller_works_alone),
        cmocka_unit_test(a_wrong_thread_count_is_refused),
        cmocka_unit_test(an_idle_pool_uses_no_cpu),
        cmocka_unit_test(waiting_for_a_late_thread_burns_no_quantum),
        cmocka_unit_test(more_threads_than_cpus_do_not_collapse),
        cmocka_unit_test(busy_neighbours_cost_their_share),
        cmocka_unit_test(workers_leave_signals_to_others),
        cmocka_unit_test(shares_cover_everything_once),
    };

    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
