/* loop.c - libuv drives, libmicrohttpd is driven; the beginning and the end of both.
 *
 * MHD has no threads of its own here: its epoll descriptor is one uv_poll_t, its next deadline one
 * uv_timer_t. The engine thread reaches us through one struct wake. What 0.9.75 and libuv 1.44
 * need:
 *  - MHD_run twice per wake-up: at its connection limit MHD takes the listening socket out of epoll
 *    and puts it back only at the start of a later run.
 *  - No timer of 0 ms: libuv 1.44 never leaves its timer loop when such a timer starts itself
 * again. uv_idle makes the loop turn at once, and uv_check is where MHD runs.
 *  - MHD_get_timeout forgets resumed connections: so every resume asks for a run. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gemmad/log.h"
#include "server/conn.h"
#include "server/generate.h"
#include "server/request.h"
#include "server/socket.h"

enum {
    TICK_MS = 500,
    RESERVE = 32,          /* connections above the limit that probes may still use */
    POOL_BYTES = 96 << 10, /* of one connection: header, read and write buffers */
    POOL_INCREMENT = 16 << 10,
    FDS_BESIDE_CONNECTIONS = 64 /* files, epoll, pipes */
};

/* ---- turning ---- */

static void on_idle(uv_idle_t *h)
{
    /* Its being active is the point: the loop does not sleep before the next uv_check. */
}

void loop_pump(struct server *s)
{
    if (s->mhd)
        uv_idle_start(&s->idle, on_idle);
}

static void on_mhd_readable(uv_poll_t *h, int status, int events)
{
    loop_pump(h->data);
}

static void on_mhd_timer(uv_timer_t *h)
{
    loop_pump(h->data);
}

static void run_mhd(struct server *s)
{
    MHD_UNSIGNED_LONG_LONG ms;

    uv_idle_stop(&s->idle); /* before the runs: what they do may ask for another */
    MHD_run(s->mhd);
    MHD_run(s->mhd);
    if (MHD_get_timeout(s->mhd, &ms) != MHD_YES)
        uv_timer_stop(&s->mhd_timer);
    else if (ms == 0)
        loop_pump(s);
    else
        uv_timer_start(&s->mhd_timer, on_mhd_timer, ms, 0);
}

static void on_check(uv_check_t *h)
{
    struct server *s = h->data;

    if (!s->mhd || !uv_is_active((uv_handle_t *)&s->idle))
        return;
    run_mhd(s);
    life_advance(s);
}

static void on_tick(uv_timer_t *h)
{
    struct server *s = h->data;

    conn_tick(s);
    loop_pump(s); /* also a net under any wake-up that MHD may lose */
    if (s->n_conns == 0)
        uv_timer_stop(&s->tick); /* an idle server sleeps */
}

void loop_tick_on(struct server *s)
{
    if (!uv_is_active((uv_handle_t *)&s->tick))
        uv_timer_start(&s->tick, on_tick, TICK_MS, TICK_MS);
}

static void on_wake(void *ud)
{
    struct server *s = ud;
    struct request *next;

    for (struct request *q = s->requests; q; q = next) {
        next = q->next;
        generate_wake(q);
    }
}

static void engine_news(void *ud)
{
    wake_send(ud);
}

/* ---- starting ---- */

__attribute__((format(printf, 2, 0))) static void mhd_log(void *ud, const char *fmt, va_list ap)
{
    char line[256];

    vsnprintf(line, sizeof(line), fmt, ap);
    line[strcspn(line, "\r\n")] = 0;
    log_debug("http: %s", line);
}

static void mhd_panic(void *ud, const char *file, unsigned line, const char *reason)
{
    log_error("libmicrohttpd gave up: %s line=%u", reason ? reason : "no reason given", line);
    abort();
}

static int start_mhd(struct server *s, struct err *err)
{
    const union MHD_DaemonInfo *epoll;

    MHD_set_panic_func(mhd_panic, NULL);
    s->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL,
        NULL, http_handle, s, MHD_OPTION_EXTERNAL_LOGGER, mhd_log, s, MHD_OPTION_LISTEN_SOCKET,
        s->listen_fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)(s->cfg.max_connections + RESERVE),
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->cfg.idle_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
        MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)POOL_INCREMENT,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_URI_LOG_CALLBACK, http_uri, s,
        MHD_OPTION_NOTIFY_COMPLETED, http_done, s, MHD_OPTION_NOTIFY_CONNECTION, conn_notify, s,
        MHD_OPTION_END);
    if (!s->mhd)
        return err_set(err, GD_EIO, "libmicrohttpd does not start");
    epoll = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (uv_poll_init(&s->loop, &s->mhd_poll, epoll->epoll_fd) < 0 ||
        uv_poll_start(&s->mhd_poll, UV_READABLE, on_mhd_readable) < 0)
        return err_set(err, GD_EIO, "cannot watch libmicrohttpd's epoll descriptor");
    s->mhd_poll.data = s;
    return 0;
}

/* A core file would hold prompts, answers and keys. */
static void forbid_cores(void)
{
    struct rlimit r = {0};

    if (getrlimit(RLIMIT_CORE, &r) < 0)
        return;
    r.rlim_cur = 0;
    if (setrlimit(RLIMIT_CORE, &r) < 0)
        log_warn("core files cannot be switched off");
}

/* Every connection is a descriptor: take what the hard limit gives, and say when it is too few. */
static void raise_fd_limit(const struct config *cfg)
{
    struct rlimit r;
    rlim_t want = (rlim_t)cfg->max_connections + FDS_BESIDE_CONNECTIONS + RESERVE;

    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= want)
        return;
    r.rlim_cur = r.rlim_max < want ? r.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur < want)
        log_warn("too few file descriptors for max_connections limit=%llu wanted=%llu",
            (unsigned long long)r.rlim_cur, (unsigned long long)want);
}

/* The setting, or the last component of the path: a file without .gguf, a folder as it is. */
static void set_model_id(struct server *s)
{
    const char *path = s->opts->engine.model_path;
    size_t end = strlen(path), begin;

    if (s->cfg.served_model_name[0]) {
        snprintf(s->model_id, sizeof(s->model_id), "%s", s->cfg.served_model_name);
        return;
    }
    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/';)
        begin--;
    if (end - begin > 5 && strncmp(path + end - 5, ".gguf", 5) == 0)
        end -= 5;
    snprintf(s->model_id, sizeof(s->model_id), "%.*s", (int)(end - begin), path + begin);
}

static int start(struct server *s, struct err *err)
{
    int r;

    if (wake_open(&s->wake, &s->loop, on_wake, s) < 0)
        return err_set(err, GD_EIO, "no descriptor is left for the engine to wake the server");
    uv_timer_init(&s->loop, &s->mhd_timer);
    uv_timer_init(&s->loop, &s->tick);
    uv_idle_init(&s->loop, &s->idle);
    uv_check_init(&s->loop, &s->check);
    uv_check_start(&s->check, on_check);
    s->mhd_timer.data = s->tick.data = s->idle.data = s->check.data = s;
    if (s->cfg.api_key_file[0]) {
        r = keys_load(&s->keys, s->cfg.api_key_file, err);
        if (r < 0)
            return r;
    }
    r = listen_open(
        &s->listen_fd, s->url, sizeof(s->url), &s->loopback, &s->cfg, s->keys != NULL, err);
    if (r < 0)
        return r;
    raise_fd_limit(&s->cfg);
    r = start_mhd(s, err);
    if (r < 0)
        return r;
    s->engine_opts.wake = engine_news;
    s->engine_opts.wake_ud = &s->wake;
    if (life_start(s) < 0)
        return err_set(err, GD_EIO, "cannot start the loader");
    if (s->opts->on_listening)
        s->opts->on_listening(s->opts->ud, s->url);
    loop_pump(s);
    return 0;
}

/* ---- the end ---- */

static void close_handle(uv_handle_t *h, void *ud)
{
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

/* Takes a half-started server too. Nothing may be suspended when MHD stops: it would abort. */
static void finish(struct server *s)
{
    if (s->mhd) {
        s->phase = PHASE_CLOSING;
        MHD_quiesce_daemon(s->mhd);
        conn_shut_all(s, false);
        MHD_run(s->mhd);
        MHD_run(s->mhd);
        uv_poll_stop(&s->mhd_poll); /* before MHD closes the descriptor under it */
        MHD_stop_daemon(s->mhd);
        s->mhd = NULL;
    }
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (s->loading) {
        /* engine_open() cannot be interrupted, and nothing of it needs saving. */
        log_info("stopped while loading");
        _exit(0);
    }
    while (s->n_working > 0)
        uv_run(&s->loop, UV_RUN_ONCE);
    engine_close(s->engine);
    wake_close(&s->wake);
    uv_walk(&s->loop, close_handle, NULL);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_loop_close(&s->loop);
    keys_free(s->keys);
}

int server_run(const struct server_opts *opts, struct err *err)
{
    struct server *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return err_set(err, GD_ENOMEM, "out of memory");
    s->opts = opts;
    s->cfg = *opts->config;
    s->engine_opts = opts->engine;
    s->listen_fd = s->wake.fd = -1;
    s->created = (int64_t)time(NULL);
    set_model_id(s);
    signal(SIGPIPE, SIG_IGN);
    forbid_cores();
    if (uv_loop_init(&s->loop) < 0) {
        free(s);
        return err_set(err, GD_EIO, "libuv does not start");
    }
    r = start(s, err);
    if (r == 0) {
        uv_run(&s->loop, UV_RUN_DEFAULT);
        if (!s->loading && s->load_result < 0) { /* while loading it is the helper thread's */
            *err = s->load_err;
            r = s->load_result;
        } else {
            log_info("stopped");
        }
    }
    finish(s);
    free(s);
    return r;
}
