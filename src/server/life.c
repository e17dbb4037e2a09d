/* life.c - the phases of the daemon: loading, ready, draining, the end.
 *
 * SIGTERM and SIGINT: new work is refused, running answers get drain_s seconds, then the engine
 * ends them (each stream gets a proper last event), then connections are closed. A second signal
 * skips the rest of the drain time. SIGHUP reads keys, log level and limits again. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "gemmad/log.h"
#include "server/conn.h"
#include "server/notify.h"
#include "server/state.h"

enum {
    CANCEL_MS = 5000, /* for the last events of canceled answers to reach their clients */
    CLOSE_MS = 2000,  /* for answers that are on the wire already */
    EXTEND_MS = 10000 /* while loading, the service manager hears this often that we live */
};

/* ---- loading ---- */

static void on_load(uv_work_t *w)
{
    struct server *s = w->data;

    s->load_result = engine_open(&s->loaded, &s->engine_opts, &s->load_err);
}

static void set_limits(struct server *s)
{
    const struct engine_info *i = engine_info(s->engine);
    const struct config *cfg = &s->cfg;
    struct api_limits *l = &s->limits;

    api_limits_default(l);
    snprintf(s->fingerprint, sizeof(s->fingerprint), "gemmad-%s-%s-%s", s->opts->version, i->isa,
        i->profile);
    l->model = s->model_id;
    l->fingerprint = s->fingerprint;
    l->body_max = (size_t)cfg->max_body_kib << 10;
    l->vocab = i->vocab;
    l->ctx_tokens = i->ctx_tokens;
    l->embed_width = i->embed_width;
    l->n_max = cfg->max_n;
    l->prompts_max = cfg->max_prompts;
    l->timeout_ms = (int64_t)cfg->request_timeout_s * 1000;
    if (cfg->default_temperature >= 0)
        l->sampling.temperature = cfg->default_temperature;
    if (cfg->default_top_k >= 0)
        l->sampling.top_k = cfg->default_top_k;
    if (cfg->default_top_p >= 0)
        l->sampling.top_p = cfg->default_top_p;
    l->strict = cfg->strict;
    l->tools = i->has_tools;
    l->thinking = i->has_thinking;
}

static void on_loaded(uv_work_t *w, int status)
{
    struct server *s = w->data;

    s->loading = false;
    s->load_ms = now_ms() - s->load_ms;
    if (s->load_result < 0) {
        uv_stop(&s->loop);
        return;
    }
    s->engine = s->loaded;
    s->loaded = NULL;
    if (s->phase != PHASE_LOADING)
        return; /* a signal came first */
    set_limits(s);
    cpu_short_turns(); /* not earlier: the engine's threads would inherit it */
    s->phase = PHASE_READY;
    if (notify_watchdog_ms() == 0)
        uv_timer_stop(&s->watchdog);
    notify("READY=1\nSTATUS=serving %s on %s", s->model_id, s->url);
    if (s->opts->on_ready)
        s->opts->on_ready(s->opts->ud, engine_info(s->engine), (double)s->load_ms / 1000);
}

/* Alive means: this loop turns, and the engine makes progress. */
static void on_watchdog(uv_timer_t *t)
{
    struct server *s = t->data;
    struct engine_stats st = {0};

    if (s->loading) {
        notify("EXTEND_TIMEOUT_USEC=%d\nWATCHDOG=1", 3 * EXTEND_MS * 1000);
        return;
    }
    if (s->engine)
        engine_stats(s->engine, &st);
    if (st.last_step_ms_ago < STUCK_MS)
        notify("WATCHDOG=1");
    else
        log_error(
            "the engine makes no progress last_step_s=%lld", (long long)st.last_step_ms_ago / 1000);
}

/* ---- the end ---- */

static void close_begin(struct server *s);
static void on_stop_timer(uv_timer_t *t);

static void stop_in(struct server *s, int64_t ms)
{
    uv_timer_start(&s->stop_timer, on_stop_timer, ms > 0 ? (uint64_t)ms : 1, 0);
}

static void cancel_begin(struct server *s)
{
    s->phase = PHASE_CANCELING;
    log_info("ending running answers requests=%d", s->n_requests);
    engine_cancel_all(s->engine);
    stop_in(s, CANCEL_MS);
}

static void on_stop_timer(uv_timer_t *t)
{
    struct server *s = t->data;

    if (s->phase == PHASE_DRAINING) {
        cancel_begin(s);
    } else if (s->phase == PHASE_CANCELING) {
        conn_shut_all(s, false);
        close_begin(s);
    } else {
        conn_shut_all(s, false);
        uv_stop(&s->loop);
    }
}

static void close_begin(struct server *s)
{
    s->phase = PHASE_CLOSING;
    MHD_quiesce_daemon(s->mhd); /* the descriptor stays ours: server_run closes it */
    conn_shut_all(s, true);
    stop_in(s, CLOSE_MS);
    loop_pump(s);
}

static void drain_begin(struct server *s)
{
    s->phase = PHASE_DRAINING;
    log_info("draining requests=%d drain_s=%d", s->n_requests, s->cfg.drain_s);
    engine_stop(s->engine);
    stop_in(s, (int64_t)s->cfg.drain_s * 1000);
    loop_pump(s);
}

void life_advance(struct server *s)
{
    if ((s->phase == PHASE_DRAINING || s->phase == PHASE_CANCELING) && s->n_requests == 0 &&
        s->n_working == 0)
        close_begin(s);
    if (s->phase == PHASE_CLOSING && s->n_conns == 0)
        uv_stop(&s->loop);
}

static void on_stop(uv_signal_t *h, int signum)
{
    struct server *s = h->data;

    log_info("stopping signal=%d", signum);
    notify("STOPPING=1\nSTATUS=finishing %d requests", s->n_requests);
    switch (s->phase) {
    case PHASE_LOADING: close_begin(s); break;
    case PHASE_READY: drain_begin(s); break;
    case PHASE_DRAINING: cancel_begin(s); break;
    case PHASE_CANCELING:
    case PHASE_CLOSING: stop_in(s, 1); break;
    }
}

/* ---- reload ---- */

/* What takes effect without a restart; config/gemmad.conf lists the same. */
static void take_over(struct server *s, const struct config *fresh)
{
    struct config *c = &s->cfg;

    c->log_level = fresh->log_level;
    c->strict = fresh->strict;
    c->default_temperature = fresh->default_temperature;
    c->default_top_k = fresh->default_top_k;
    c->default_top_p = fresh->default_top_p;
    c->max_body_kib = fresh->max_body_kib;
    c->max_n = fresh->max_n;
    c->max_prompts = fresh->max_prompts;
    c->header_timeout_s = fresh->header_timeout_s;
    c->body_timeout_s = fresh->body_timeout_s;
    c->request_timeout_s = fresh->request_timeout_s;
    c->keepalive_s = fresh->keepalive_s;
    c->drain_s = fresh->drain_s;
    log_set_level(c->log_level);
    if (s->engine)
        set_limits(s);
}

static void on_reload(uv_signal_t *h, int signum)
{
    struct server *s = h->data;
    struct config fresh;
    struct keys *keys;
    struct err err;

    notify("RELOADING=1");
    if (s->opts->reload) {
        if (s->opts->reload(s->opts->ud, &fresh, &err) == 0)
            take_over(s, &fresh);
        else
            log_error("settings not reloaded: %s", err.msg);
    }
    if (s->keys) {
        if (keys_load(&keys, s->cfg.api_key_file, &err) == 0) {
            keys_free(s->keys);
            s->keys = keys;
            log_info("keys reloaded keys=%zu", keys_count(keys));
        } else {
            log_error("the old keys stay: %s", err.msg);
        }
    }
    notify("READY=1");
}

int life_start(struct server *s)
{
    int64_t watchdog = notify_watchdog_ms();

    uv_timer_init(&s->loop, &s->stop_timer);
    uv_timer_init(&s->loop, &s->watchdog);
    uv_signal_init(&s->loop, &s->sigterm);
    uv_signal_init(&s->loop, &s->sigint);
    uv_signal_init(&s->loop, &s->sighup);
    s->stop_timer.data = s->watchdog.data = s->load.data = s;
    s->sigterm.data = s->sigint.data = s->sighup.data = s;
    if (uv_signal_start(&s->sigterm, on_stop, SIGTERM) < 0 ||
        uv_signal_start(&s->sigint, on_stop, SIGINT) < 0 ||
        uv_signal_start(&s->sighup, on_reload, SIGHUP) < 0)
        return -1;
    if (watchdog == 0)
        watchdog = EXTEND_MS;
    uv_timer_start(&s->watchdog, on_watchdog, (uint64_t)watchdog, (uint64_t)watchdog);
    notify("STATUS=loading the model");
    s->loading = true;
    s->load_ms = now_ms();
    return uv_queue_work(&s->loop, &s->load, on_load, on_loaded);
}
