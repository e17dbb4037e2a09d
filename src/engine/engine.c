/* engine.c - opening a model, the thread that runs it, and its numbers. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "engine/private.h"

/* Prompt tokens that one prefill run takes. More saves little: weights are read once per run. */
enum { CHUNK_DEFAULT = 512, CHUNK_MAX = 2048 };

enum { SEQUENCES_MAX = 256 };

/* Shortest context worth opening a model for. */
enum { CTX_MIN = 64 };

void engine_opts_default(struct engine_opts *o)
{
    *o = (struct engine_opts){
        .chat_format = "auto",
        .profile = "default",
        .isa = "auto",
        .kv_type = "auto",
        .quantize = "none",
        .head = "file",
        .matmul_prefill = "auto",
        .matmul_decode = "auto",
        .max_sequences = 16,
        .itl_target_ms = 12,
        .queue_max = 256,
        .queue_tokens_max = 1 << 20,
        .packed_file = "",
        .screen_head = true,
        .prefix_cache = true,
    };
}

/* ---- opening ---- */

static int check_opts(const struct engine_opts *o, struct err *err)
{
    const struct {
        const char *name;
        int value, min, max;
    } bounds[] = {
        {"threads", o->n_threads, 0, 1024},
        {"ctx_tokens", o->ctx_tokens, 0, INT32_MAX},
        {"max_sequences", o->max_sequences, 1, SEQUENCES_MAX},
        {"prefill_chunk", o->prefill_chunk, 0, INT32_MAX},
        {"itl_target_ms", o->itl_target_ms, 1, INT32_MAX},
        {"queue_max", o->queue_max, 1, INT32_MAX},
    };

    for (size_t i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
        if (bounds[i].value < bounds[i].min || bounds[i].value > bounds[i].max)
            return err_set_at(err, GD_EINVAL, bounds[i].name, "%s: want %d to %d, got %d",
                bounds[i].name, bounds[i].min, bounds[i].max, bounds[i].value);
    }
    if (o->ctx_tokens > 0 && o->ctx_tokens < CTX_MIN)
        return err_set_at(err, GD_EINVAL, "ctx_tokens", "ctx_tokens: want at least %d, got %d",
            CTX_MIN, o->ctx_tokens);
    if (o->queue_tokens_max < 1)
        return err_set_at(err, GD_EINVAL, "queue_tokens_max", "queue_tokens_max: want at least 1");
    return 0;
}

static int open_runtime(struct engine *e, struct err *err)
{
    const struct engine_opts *o = &e->opts;
    struct runtime_opts ro;
    int r;

    runtime_opts_default(&ro);
    ro.model_path = o->model_path;
    ro.profile = o->profile;
    ro.isa = o->isa;
    ro.kv_type = o->kv_type;
    ro.quantize = o->quantize;
    ro.head = o->head;
    ro.screen_head = o->screen_head;
    ro.packed_file = o->packed_file;
    ro.matmul_prefill = o->matmul_prefill;
    ro.matmul_decode = o->matmul_decode;
    ro.n_threads = o->n_threads;
    ro.max_sequences = o->max_sequences;
    ro.max_chunk = o->prefill_chunk > CHUNK_DEFAULT ? o->prefill_chunk : CHUNK_DEFAULT;
    ro.max_chunk = ro.max_chunk < CHUNK_MAX ? ro.max_chunk : CHUNK_MAX;
    r = runtime_open(&e->rt, &ro, err);
    if (r < 0)
        return r;
    if (o->ctx_tokens > e->rt->hp.context)
        return err_set_at(err, GD_EINVAL, "ctx_tokens",
            "ctx_tokens: the model was trained for %d tokens, %d are too many", e->rt->hp.context,
            o->ctx_tokens);
    if (e->rt->hp.bidirectional && o->ctx_tokens > graph_max_tokens(e->rt->prefill))
        return err_set_at(err, GD_EINVAL, "ctx_tokens",
            "ctx_tokens: a sequence is embedded at once, at most %d tokens, %d are too many",
            graph_max_tokens(e->rt->prefill), o->ctx_tokens);
    return chat_format_pick(&e->chat, o->chat_format, e->rt->src, err);
}

/* Without a setting, half of what is left beside the weights: the rest is for the requests' own
 * memory and for whatever else runs here. */
static size_t kv_budget(const struct engine *e, size_t available_before)
{
    size_t weights = e->rt->weight_bytes, after = cpu_memory_available(), left;

    if (e->opts.kv_bytes)
        return e->opts.kv_bytes;
    /* Before loading minus the weights: mapped weights that nobody has touched yet count. */
    left = available_before > weights ? available_before - weights : 0;
    return (left < after ? left : after) / 2;
}

static int open_kv(struct engine *e, size_t available_before, struct err *err)
{
    /* What both sides of a position see is of no use to another sequence. */
    bool keep = e->opts.prefix_cache && !e->rt->hp.bidirectional;
    struct kv_need need = {
        .ctx_tokens = e->opts.ctx_tokens ? e->opts.ctx_tokens : e->rt->hp.context,
        .shrink_ctx = e->opts.ctx_tokens == 0,
        .max_sequences = e->opts.max_sequences,
        .max_chunk = e->rt->max_chunk,
        .no_prefixes = !keep,
    };
    struct kv_plan plan;
    int r;

    if (e->rt->hp.bidirectional && need.ctx_tokens > need.max_chunk)
        need.ctx_tokens = need.max_chunk;
    r = kv_plan(&plan, &e->rt->kv, &need, kv_budget(e, available_before), err);

    if (r < 0)
        return r;
    e->info.ctx_tokens = plan.ctx_tokens;
    e->info.kv_bytes = (int64_t)plan.bytes;
    return kv_open(&e->kv, &e->rt->kv, &plan, keep, err);
}

static void fill_info(struct engine *e)
{
    const struct runtime *rt = e->rt;

    e->info.arch = rt->hp.arch_name;
    e->info.name = rt->hp.name;
    e->info.chat_format = chat_format_name(e->chat);
    e->info.has_tools = chat_has_tools(e->chat);
    e->info.has_thinking = chat_has_thinking(e->chat);
    chat_marks_find(&e->marks, e->chat, rt->tok);
    e->info.n_params = rt->n_params;
    e->info.weight_bytes = (int64_t)rt->weight_bytes;
    e->info.vocab = rt->hp.vocab;
    e->info.width = rt->hp.width;
    e->info.n_layers = rt->hp.n_layers;
    e->info.ctx_train = rt->hp.context;
    e->info.max_sequences = e->opts.max_sequences;
    e->info.n_threads = pool_threads(rt->pool);
    e->info.prefill_steps = graph_n_steps(rt->prefill);
    e->info.prefill_tokens = rt->max_chunk;
    e->info.decode_steps = rt->decode ? graph_n_steps(rt->decode) : 0;
    e->info.isa = isa_name(rt->kernels.isa);
    e->info.profile = rt->profile;
    e->info.embed_width = rt->hp.bidirectional ? graph_out_width(rt->prefill) : 0;
    e->info.kv_type = rt->kv.type == KV_BF16 ? "bf16" : "f32";
}

static int open_all(struct engine *e, struct err *err)
{
    size_t available = cpu_memory_available();
    struct sched_opts so = {
        .max_sequences = e->opts.max_sequences,
        .prefill_chunk = e->opts.prefill_chunk,
        .itl_target_ms = e->opts.itl_target_ms,
        .wake = e->opts.wake,
        .wake_ud = e->opts.wake_ud,
    };
    int r = open_runtime(e, err);

    if (r == 0)
        r = open_kv(e, available, err);
    if (r < 0)
        return r;
    fill_info(e);
    so.ctx_tokens = e->info.ctx_tokens;
    e->sched = sched_create(e->rt, e->kv, &so);
    return e->sched ? 0 : err_set(err, GD_ENOMEM, "no memory for logits");
}

/* ---- the thread ---- */

/* Ends the jobs that wait now and are late, or all that wait now: later ones are not meant. The
 * lock is held, and let go meanwhile. */
static void end_waiting(struct engine *e, bool all)
{
    struct queue *q = &e->queue;
    struct job *ending = NULL, *next;
    int64_t now = clock_ns();

    for (struct job *j = q->first; j; j = next) {
        next = j->next;
        if (!all && !(j->deadline_ns && now >= j->deadline_ns))
            continue;
        queue_remove(q, j);
        j->next = ending;
        ending = j;
    }
    if (!ending)
        return;
    pthread_mutex_unlock(&q->lock);
    for (; ending; ending = next) {
        next = ending->next;
        sched_turn_away(e->sched, ending, all ? FINISH_CANCELED : FINISH_TIMEOUT);
    }
    pthread_mutex_lock(&q->lock);
}

static void note_admission(struct queue *q)
{
    int64_t now = clock_ns();
    double interval = (double)(now - q->last_admit_ns) / 1e9;

    /* Only what a waiting job can expect: intervals while others waited. */
    if (q->last_admit_ns && q->n_jobs > 0)
        q->admit_interval_s =
            q->admit_interval_s > 0 ? 0.8 * q->admit_interval_s + 0.2 * interval : interval;
    q->last_admit_ns = now;
}

/* First come, first served: a job that needs more room than there is holds back those behind it,
 * else a stream of small ones would keep it out for ever. The lock is held. */
static void admit(struct engine *e)
{
    struct queue *q = &e->queue;

    while (q->first && sched_has_room(e->sched, q->first)) {
        struct job *j = q->first;

        queue_remove(q, j);
        note_admission(q);
        pthread_mutex_unlock(&q->lock);
        sched_admit(e->sched, j);
        pthread_mutex_lock(&q->lock);
    }
    q->n_free = q->first ? 0 : e->opts.max_sequences - sched_running(e->sched);
    q->n_free = q->n_free > 0 ? q->n_free : 0;
}

static void publish_stats(struct engine *e)
{
    e->queue.published = *sched_stats(e->sched);
    e->queue.last_step_ns = clock_ns();
}

/* The lock is held, and let go while the model computes. */
static void run_until_quit(struct engine *e)
{
    struct queue *q = &e->queue;

    for (;;) {
        if (q->cancel_all || q->quit) {
            q->cancel_all = false;
            end_waiting(e, true);
            pthread_mutex_unlock(&q->lock);
            sched_end_all(e->sched, FINISH_CANCELED);
            pthread_mutex_lock(&q->lock);
        }
        end_waiting(e, false);
        admit(e);
        publish_stats(e);
        if (sched_running(e->sched) > 0) {
            pthread_mutex_unlock(&q->lock);
            sched_step(e->sched);
            pthread_mutex_lock(&q->lock);
        } else if (q->quit) {
            return;
        } else if (!q->first && !q->cancel_all) {
            q->asleep = true;
            pthread_cond_wait(&q->news, &q->lock);
            q->asleep = false;
            q->last_step_ns = clock_ns();
        }
    }
}

static void *engine_main(void *arg)
{
    struct engine *e = arg;
    struct err err = {0};
    int r = open_all(e, &err);

    pthread_mutex_lock(&e->queue.lock);
    e->open_result = r;
    e->open_err = err;
    e->opened = true;
    e->queue.n_free = e->opts.max_sequences;
    e->queue.last_step_ns = clock_ns();
    pthread_cond_broadcast(&e->queue.news);
    if (r == 0)
        run_until_quit(e);
    pthread_mutex_unlock(&e->queue.lock);
    sched_destroy(e->sched);
    kv_close(e->kv);
    runtime_close(e->rt);
    return NULL;
}

/* The runtime's workers belong to the thread that makes them, so the engine thread opens the model.
 * Signals are for the server's loop. */
static int start_thread(struct engine *e)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* this thread's own doing: a mapped file that shrank */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&e->thread, NULL, engine_main, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        pthread_setname_np(e->thread, "gemmad-engine");
    return r;
}

int engine_open(struct engine **out, const struct engine_opts *opts, struct err *err)
{
    struct engine *e;
    int r = check_opts(opts, err);

    if (r < 0)
        return r;
    e = xcalloc(1, sizeof(*e));
    e->opts = *opts;
    queue_init(&e->queue, opts->queue_max, opts->queue_tokens_max);
    if (start_thread(e) != 0) {
        queue_finish(&e->queue);
        free(e);
        return err_set(err, GD_ENOMEM, "cannot start the engine's thread");
    }
    pthread_mutex_lock(&e->queue.lock);
    while (!e->opened)
        pthread_cond_wait(&e->queue.news, &e->queue.lock);
    r = e->open_result;
    pthread_mutex_unlock(&e->queue.lock);
    if (r < 0) {
        *err = e->open_err;
        engine_close(e);
        return r;
    }
    *out = e;
    return 0;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->queue.lock);
    e->queue.stopping = e->queue.quit = true;
    pthread_cond_broadcast(&e->queue.news);
    pthread_mutex_unlock(&e->queue.lock);
    pthread_join(e->thread, NULL);
    queue_finish(&e->queue);
    free(e);
}

void engine_stop(struct engine *e)
{
    pthread_mutex_lock(&e->queue.lock);
    e->queue.stopping = true;
    pthread_mutex_unlock(&e->queue.lock);
}

void engine_cancel_all(struct engine *e)
{
    pthread_mutex_lock(&e->queue.lock);
    e->queue.cancel_all = true;
    pthread_cond_broadcast(&e->queue.news);
    pthread_mutex_unlock(&e->queue.lock);
}

const struct engine_info *engine_info(const struct engine *e)
{
    return &e->info;
}

void engine_stats(struct engine *e, struct engine_stats *out)
{
    struct queue *q = &e->queue;
    int64_t now = clock_ns();

    pthread_mutex_lock(&q->lock);
    *out = q->published;
    out->waiting = q->n_jobs;
    out->waiting_tokens = q->n_tokens;
    out->jobs_refused = q->refused;
    out->jobs_canceled += q->canceled;
    out->retry_after_s = queue_retry_after(q, now);
    out->last_step_ms_ago =
        q->asleep || now < q->last_step_ns ? 0 : (now - q->last_step_ns) / 1000000;
    pthread_mutex_unlock(&q->lock);
}
