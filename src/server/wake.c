/* wake.c - one write per wake-up, however many sends fell together. */
#include "server/wake.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_sent(uv_poll_t *h, int status, int events)
{
    struct wake *w = h->data;
    uint64_t n;

    while (read(w->fd, &n, sizeof(n)) < 0 && errno == EINTR)
        ;
    /* Before fn looks: a send from here on writes again. An exchange, not a store, so that fn sees
     * what was written before the sends that found it true. */
    atomic_exchange(&w->sent, false);
    w->fn(w->ud);
}

int wake_open(struct wake *w, uv_loop_t *loop, void (*fn)(void *ud), void *ud)
{
    w->fn = fn;
    w->ud = ud;
    atomic_init(&w->sent, false);
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0)
        return -1;
    if (uv_poll_init(loop, &w->poll, w->fd) < 0) {
        close(w->fd);
        w->fd = -1;
        return -1;
    }
    w->poll.data = w;
    uv_poll_start(&w->poll, UV_READABLE, on_sent);
    return 0;
}

void wake_send(struct wake *w)
{
    const uint64_t one = 1;

    if (atomic_exchange(&w->sent, true))
        return;
    /* The counter is 0 or 1: only a signal can come between. */
    while (write(w->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void wake_close(struct wake *w)
{
    if (w->fd < 0)
        return;
    uv_close((uv_handle_t *)&w->poll, NULL);
    close(w->fd);
    w->fd = -1;
}
