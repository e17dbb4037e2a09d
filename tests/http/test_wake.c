/* The wake-up of the loop: nothing that was sent is lost, many sends cost one call, and a loop that
 * shares a CPU with a busy sender hears at once, not at the next tick of the scheduler's clock. */
#include "server/wake.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/clock.h"

enum { ROUNDS = 64 };

struct fixture {
    uv_loop_t loop;
    struct wake wake;
    int written;     /* plain: send and fn must order it */
    atomic_int seen; /* of written, by fn */
    int calls;
    int64_t sent[ROUNDS], heard[ROUNDS]; /* clock_ns() */
};

static void open_wake(struct fixture *f, void (*fn)(void *ud))
{
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(wake_open(&f->wake, &f->loop, fn, f), 0);
}

static void close_wake(struct fixture *f)
{
    wake_close(&f->wake);
    wake_close(&f->wake); /* does nothing */
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static void see(void *ud)
{
    struct fixture *f = ud;
    const int written = f->written;

    f->calls++;
    if (written == ROUNDS)
        uv_stop(&f->loop);
    atomic_store(&f->seen, written); /* from here on the sender writes the next one */
}

static void sends_that_fall_together_are_one_call(void **state)
{
    struct fixture f = {0};

    open_wake(&f, see);
    for (f.written = 0; f.written < ROUNDS; f.written++)
        wake_send(&f.wake);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(f.calls, 1);
    assert_int_equal(uv_run(&f.loop, UV_RUN_NOWAIT), 1); /* the handle is there, */
    assert_int_equal(f.calls, 1);                        /* but has no news */
    close_wake(&f);
}

static void *send_and_wait(void *arg)
{
    struct fixture *f = arg;

    for (int i = 1; i <= ROUNDS; i++) {
        f->written = i;
        wake_send(&f->wake);
        while (atomic_load(&f->seen) < i)
            sched_yield();
    }
    return NULL;
}

static void every_send_is_heard(void **state)
{
    struct fixture f = {0};
    pthread_t sender;

    open_wake(&f, see);
    assert_int_equal(pthread_create(&sender, NULL, send_and_wait, &f), 0);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    pthread_join(sender, NULL);
    assert_int_equal(atomic_load(&f.seen), ROUNDS);
    close_wake(&f);
}

static void hear(void *ud)
{
    struct fixture *f = ud;

    f->heard[f->calls++] = clock_ns();
    if (f->calls == ROUNDS)
        uv_stop(&f->loop);
}

static void spin(int64_t ns)
{
    for (int64_t end = clock_ns() + ns; clock_ns() < end;)
        ;
}

/* As the engine does: works, sends, works on for more than one tick. */
static void *send_and_work(void *arg)
{
    struct fixture *f = arg;

    for (int i = 0; i < ROUNDS; i++) {
        struct timespec pause = {.tv_nsec = 1000000};

        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        spin(200000);
        f->sent[i] = clock_ns();
        wake_send(&f->wake);
        spin(12000000);
    }
    return NULL;
}

static void a_busy_sender_on_the_same_cpu_is_no_obstacle(void **state)
{
    struct fixture f = {0};
    cpu_set_t before, one;
    pthread_t sender;
    int prompt = 0;

    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    open_wake(&f, hear);
    assert_int_equal(pthread_create(&sender, NULL, send_and_work, &f), 0);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    pthread_join(sender, NULL);
    sched_setaffinity(0, sizeof(before), &before);
    for (int i = 0; i < ROUNDS; i++)
        prompt += f.heard[i] - f.sent[i] < 1000000;
    /* 64 of 64 on an idle machine, 0 to 5 with uv_async_t. */
    if (prompt < ROUNDS / 4)
        fail_msg("only %d of %d wake-ups came within a millisecond", prompt, ROUNDS);
    close_wake(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_that_fall_together_are_one_call),
        cmocka_unit_test(every_send_is_heard),
        cmocka_unit_test(a_busy_sender_on_the_same_cpu_is_no_obstacle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
