/* state.h - what the files of this folder share: the server and its connections (requests:
 * request.h). Loop thread only. */
#ifndef SERVER_STATE_H
#define SERVER_STATE_H

#include <microhttpd.h>
#include <uv.h>

#include "api/api.h"
#include "base/buf.h"
#include "server/keys.h"
#include "server/metrics.h"
#include "server/server.h"
#include "server/wake.h"

enum phase {
    PHASE_LOADING,
    PHASE_READY,
    PHASE_DRAINING,  /* refuses new work, running answers go on */
    PHASE_CANCELING, /* the drain time is over: answers end where they are */
    PHASE_CLOSING    /* connections are being closed */
};

struct server {
    const struct server_opts *opts;
    struct config cfg;              /* a copy: SIGHUP changes some of it */
    struct engine_opts engine_opts; /* the caller's, with our wake */
    enum phase phase;

    uv_loop_t loop;
    struct MHD_Daemon *mhd;
    uv_poll_t mhd_poll; /* MHD's epoll descriptor */
    uv_timer_t mhd_timer, tick, stop_timer, watchdog;
    uv_idle_t idle; /* active while MHD must run again at once */
    uv_check_t check;
    struct wake wake; /* the engine has news */
    uv_signal_t sigterm, sigint, sighup;
    uv_work_t load;

    int listen_fd;
    char url[300];
    bool loopback;     /* listens on loopback only */
    struct keys *keys; /* NULL: nobody is asked for one */

    struct engine *engine; /* NULL until ready; then constant until the end */
    struct engine *loaded; /* the helper thread's, while loading */
    bool loading;
    struct api_limits limits;
    char model_id[CONFIG_NAME_MAX];
    int64_t created; /* unix seconds of the start */
    int64_t load_ms;
    int load_result; /* with load_err: the helper thread's while `loading` */
    struct err load_err;
    char fingerprint[64];

    struct conn *conns;
    int n_conns;
    struct request *requests; /* whose bodies have arrived and whose answers are not yet out */
    int n_requests, n_working;
    size_t body_bytes; /* held in all requests */
    struct metrics metrics;
};

/* One client connection, from accept to close. */
struct conn {
    struct server *srv;
    struct MHD_Connection *mhd;
    struct conn *next, **at;
    int fd;
    struct request *req; /* the one being served */
    int64_t idle_ms;     /* since when there is no request */
    int64_t header_ms;   /* when bytes of a header were first seen; 0 = none yet */
    uint64_t bytes_idle; /* received when it became idle */
    bool loopback;       /* the peer is on this machine */
    bool over;           /* beyond max_connections: only probes are answered */
    bool watching, closed;
    uv_poll_t hangup; /* UV_DISCONNECT: MHD does not look at suspended sockets */
    bool has_hangup;
};

int64_t now_ms(void);

/* loop.c */
void loop_pump(struct server *s); /* runs MHD soon, once for all who ask */
void loop_tick_on(struct server *s);

/* life.c: loading, signals, draining */
enum { STUCK_MS = 120000 }; /* no step for so long: even a huge chunk on a slow machine is faster */
int life_start(struct server *s);    /* begins to load the model; signal handlers; watchdog */
void life_advance(struct server *s); /* after every turn of MHD: is a drain over? */

#endif
