/* wake.h - lets another thread wake the loop: an eventfd that the loop polls.
 *
 * Not uv_async_t: its callback waits until the sender has left uv_async_send(), at first looking,
 * then with sched_yield(). A woken loop often takes the sender's own CPU in the middle of that
 * call, and once it has yielded the scheduler gives the CPU back at a clock tick only: tokens
 * reached their clients up to 4 ms late. Here nobody waits for anybody. */
#ifndef SERVER_WAKE_H
#define SERVER_WAKE_H

#include <stdatomic.h>
#include <uv.h>

struct wake {
    uv_poll_t poll;
    int fd;           /* -1 = not open */
    atomic_bool sent; /* and not yet taken by the loop */
    void (*fn)(void *ud);
    void *ud;
};

/* fn(ud) runs on the loop's thread after one or several sends. Below 0 when the system has no
 * descriptor left. */
int wake_open(struct wake *w, uv_loop_t *loop, void (*fn)(void *ud), void *ud);

/* Any thread, until wake_close() begins. What the sender wrote before, fn sees. */
void wake_send(struct wake *w);

/* Loop thread, no sender left; does nothing to one that is not open. The loop must turn once more
 * before `w` may go. */
void wake_close(struct wake *w);

#endif
