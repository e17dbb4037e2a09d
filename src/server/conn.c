#include "server/conn.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "gemmad/log.h"
#include "server/generate.h"
#include "server/request.h"
#include "server/socket.h"

/* From a peer's FIN to the end of the connection, where MHD does not see it. */
enum { GRACE_MS = 500 };

struct conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return i ? i->socket_context : NULL;
}

static void opened(struct server *s, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    const union MHD_ConnectionInfo *peer =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    struct conn *c = xcalloc(1, sizeof(*c));

    c->srv = s;
    c->mhd = mhd;
    c->fd = fd->connect_fd;
    c->idle_ms = now_ms();
    c->loopback = peer && peer->client_addr && address_is_loopback(peer->client_addr);
    c->next = s->conns;
    if (c->next)
        c->next->at = &c->next;
    c->at = &s->conns;
    s->conns = c;
    s->n_conns++;
    c->over = s->n_conns > s->cfg.max_connections;
    socket_keepalive(c->fd);
    loop_tick_on(s);
    *context = c;
}

static void on_hangup_closed(uv_handle_t *h)
{
    free(h->data);
}

/* MHD closes the descriptor after this; a watcher left on it would haunt the next client. */
static void closed(struct conn *c)
{
    struct server *s = c->srv;

    if (c->req) { /* MHD told us of no end: it never knew of a beginning */
        struct request *q = c->req;

        q->conn = NULL;
        request_unlink(q);
        if (!q->working)
            request_free(q);
    }
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    s->n_conns--;
    if (c->has_hangup) {
        uv_poll_stop(&c->hangup);
        uv_close((uv_handle_t *)&c->hangup, on_hangup_closed);
    } else {
        free(c);
    }
    loop_pump(s); /* a drain may be over */
}

void conn_notify(void *server, struct MHD_Connection *mhd, void **context,
    enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        opened(server, mhd, context);
    } else if (*context) {
        closed(*context);
        *context = NULL;
    }
}

/* MHD cleans up a connection whose answer broke off only when it looks for timeouts. By default it
 * looks at the oldest connection and stops there if that one lives; one with a timeout of its own
 * is always looked at. Not to be called from within MHD. */
static void close_soon(struct conn *c)
{
    MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 1u);
    shutdown(c->fd, SHUT_RDWR); /* what MHD still wants to write ends here */
}

/* FIN or a half-close comes as UV_DISCONNECT, a reset as an error. Both mean that nobody waits. */
static void on_hangup(uv_poll_t *h, int status, int events)
{
    struct conn *c = h->data;

    uv_poll_stop(h);
    c->watching = false;
    close_soon(c);
    if (c->req)
        http_gone(c->req);
    loop_pump(c->srv);
}

void conn_watch(struct conn *c)
{
    if (c->watching)
        return;
    if (!c->has_hangup) {
        c->hangup.data = c;
        if (uv_poll_init(&c->srv->loop, &c->hangup, c->fd) < 0) {
            log_warn("cannot watch a connection for a hang-up fd=%d", c->fd);
            return;
        }
        c->has_hangup = true;
    }
    /* Only this event: readable is level-triggered and would spin on pipelined bytes. */
    if (uv_poll_start(&c->hangup, UV_DISCONNECT, on_hangup) == 0)
        c->watching = true;
}

void conn_idle(struct conn *c)
{
    if (c->watching)
        uv_poll_stop(&c->hangup);
    c->watching = false;
    c->req = NULL;
    c->idle_ms = now_ms();
    c->header_ms = 0;
    c->bytes_idle = socket_facts(c->fd).bytes_received;
}

/* ---- deadlines ---- */

static void time_out(struct conn *c, const char *what)
{
    struct buf body = {0}, all = {0};

    log_debug("connection closed: %s came too slowly", what);
    c->srv->metrics.timeouts++;
    api_http_error_body(&body, 408, "the request did not come in time");
    buf_printf(&all,
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: " API_JSON_TYPE
        "\r\nContent-Length: %zu\r\n\r\n%s",
        body.len, body.data);
    /* MHD has written nothing for this request and will not: no API of it closes a connection. */
    if (send(c->fd, all.data, all.len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_debug("a slow client did not take its 408");
    shutdown(c->fd, SHUT_RDWR);
    buf_free(&body);
    buf_free(&all);
}

/* No request line yet. MHD's own timeout counts from the last byte, so a drip would live on. */
static void check_idle(struct conn *c, const struct socket_facts *facts, int64_t now)
{
    const struct config *cfg = &c->srv->cfg;

    if (!c->header_ms && facts->bytes_received > c->bytes_idle)
        c->header_ms = now;
    if (c->header_ms && now - c->header_ms > (int64_t)cfg->header_timeout_s * 1000)
        time_out(c, "a header");
    else if (now - c->idle_ms > (int64_t)cfg->idle_timeout_s * 1000)
        shutdown(c->fd, SHUT_RDWR);
}

/* A connection that should be sending. MHD 0.9.75 misses the end of a peer whose last bytes and FIN
 * came at once (its epoll is edge-triggered, and it stops reading after a short read): such a
 * connection would stay until a timeout. What it has sent before is answered within a tick. */
static void check_sender(struct conn *c, int64_t now)
{
    const struct config *cfg = &c->srv->cfg;
    struct request *q = c->req;
    int64_t since = now - (q ? q->state_ms : c->idle_ms);
    struct socket_facts facts = socket_facts(c->fd);

    if (facts.peer_closed && since >= GRACE_MS)
        shutdown(c->fd, SHUT_RDWR);
    else if (!q)
        check_idle(c, &facts, now);
    else if (q->state == REQUEST_HEAD && since > (int64_t)cfg->header_timeout_s * 1000)
        time_out(c, "a header");
    else if (q->state == REQUEST_BODY && since > (int64_t)cfg->body_timeout_s * 1000)
        time_out(c, "a body");
}

static void check(struct conn *c, int64_t now)
{
    if (!c->req || c->req->state <= REQUEST_BODY)
        check_sender(c, now);
    else if (c->req->state >= REQUEST_WAIT)
        generate_tick(c->req, now);
}

void conn_tick(struct server *s)
{
    struct conn *next;
    int64_t now = now_ms();

    for (struct conn *c = s->conns; c; c = next) {
        next = c->next;
        check(c, now);
    }
}

void conn_shut_all(struct server *s, bool idle_only)
{
    for (struct conn *c = s->conns; c; c = c->next) {
        if (idle_only && c->req)
            continue;
        close_soon(c);
        if (c->req)
            http_gone(c->req);
    }
    loop_pump(s);
}
