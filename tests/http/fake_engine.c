/* fake_engine.c - include/gemmad/engine.h without a model, for the HTTP tests.
 *
 * One thread that keeps time. What a job does is written in its prompt, as words "name=number":
 *   prefill=MS  before the first token (0)         step=MS  between two tokens (1)
 *   tokens=N    before it ends by itself (5)       burst=N  tokens a step (1)
 *   fail=N      an engine error after N tokens     big=N    bytes of each token's text (a word)
 * Token k of choice c reads "cC.K ". Prompt tokens = its bytes / 4 + 1. max_sequences choices run
 * at once, queue_max jobs wait. FAKE_STUCK makes the statistics look stuck, FAKE_LOAD_MS delays
 * engine_open; a model path that ends in "broken.gguf" fails to load. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "gemmad/engine.h"

enum { MAX_CHOICES = 64, VOCAB = 1000, CONTEXT = 100000, EVENT_BYTES = 16384 };

const double histogram_bounds[HISTOGRAM_BUCKETS] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06,
    0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 320, 640, 2560};

struct choice {
    int made, sent; /* tokens made and handed out */
    enum finish_reason finish;
    bool told; /* the FINISH event was read */
};

struct job {
    struct engine *e;
    struct job *next;
    void *ud;
    int32_t *ids;
    int n_prompt, n, max_tokens;
    int prefill_ms, step_ms, tokens, burst, fail, big;
    int64_t timeout_at, next_ms;
    bool running, started_told, released;
    struct choice choice[MAX_CHOICES];
    struct buf text; /* of the last event */
    struct event_token *tokens_out;
};

struct engine {
    struct engine_opts o;
    struct engine_info info;
    pthread_t thread;
    pthread_mutex_t lock; /* guards everything below and all jobs */
    pthread_cond_t cond;
    struct job *jobs;
    bool closing, stopped;
    struct engine_stats stats;
};

static int64_t ms(void)
{
    return clock_ns() / 1000000;
}

void engine_opts_default(struct engine_opts *o)
{
    *o = (struct engine_opts){.chat_format = "auto", .max_sequences = 4, .queue_max = 64};
}

void sampling_default(struct sampling *s)
{
    *s = (struct sampling){
        .temperature = 1, .top_p = 1, .typical_p = 1, .repeat_penalty = 1, .repeat_last_n = 64};
}

void job_params_default(struct job_params *p)
{
    *p = (struct job_params){.n = 1, .max_tokens = -1, .logprobs = -1, .skip_special = true};
    sampling_default(&p->sampling);
}

/* ---- the thread ---- */

static bool finished(const struct job *j)
{
    for (int i = 0; i < j->n; i++) {
        if (!j->choice[i].finish)
            return false;
    }
    return true;
}

static void finish(struct job *j, enum finish_reason why)
{
    for (int i = 0; i < j->n; i++) {
        if (j->choice[i].finish)
            continue;
        j->choice[i].finish = why;
        j->e->stats.jobs_finished[why]++;
    }
}

static bool step(struct job *j, int64_t now)
{
    if (j->timeout_at && now >= j->timeout_at && !finished(j)) {
        finish(j, FINISH_TIMEOUT);
        return true;
    }
    if (!j->running || finished(j) || now < j->next_ms)
        return false;
    for (int i = 0; i < j->n; i++) {
        struct choice *c = &j->choice[i];

        for (int k = 0; k < j->burst && !c->finish; k++) {
            if (j->fail >= 0 && c->made >= j->fail) {
                c->finish = FINISH_ERROR;
            } else if (c->made >= j->tokens) {
                c->finish = FINISH_STOP;
            } else {
                c->made++;
                j->e->stats.completion_tokens++;
                if (j->max_tokens >= 0 && c->made >= j->max_tokens)
                    c->finish = FINISH_LENGTH;
            }
            j->e->stats.jobs_finished[c->finish]++;
        }
    }
    j->next_ms = now + j->step_ms;
    return true;
}

/* Admits in order, counts, drops what was released. Returns whether somebody has news. */
static bool turn(struct engine *e, int64_t now)
{
    bool news = false;
    int running = 0, waiting = 0;
    int64_t tokens = 0;

    for (struct job *j = e->jobs; j; j = j->next)
        running += j->running && !finished(j) ? j->n : 0;
    for (struct job *j = e->jobs; j; j = j->next) {
        if (!j->running && !finished(j) && running + j->n <= e->o.max_sequences) {
            j->running = true;
            j->next_ms = now + j->prefill_ms;
            running += j->n;
            news = true;
        }
        news = step(j, now) || news;
    }
    running = 0;
    for (struct job *j = e->jobs; j; j = j->next) {
        if (finished(j))
            continue;
        running += j->running ? j->n : 0;
        waiting += !j->running;
        tokens += j->running ? 0 : j->n_prompt;
    }
    e->stats.running = running;
    e->stats.waiting = waiting;
    e->stats.waiting_tokens = tokens;
    e->stats.steps++;
    return news;
}

static int64_t until_next(const struct engine *e, int64_t now)
{
    int64_t wait = 1000;

    for (const struct job *j = e->jobs; j; j = j->next) {
        if (finished(j))
            continue;
        if (j->running && j->next_ms - now < wait)
            wait = j->next_ms - now;
        if (j->timeout_at && j->timeout_at - now < wait)
            wait = j->timeout_at - now;
    }
    return wait > 1 ? wait : 1;
}

static void *run(void *arg)
{
    struct engine *e = arg;
    struct timespec until;

    pthread_mutex_lock(&e->lock);
    while (!e->closing) {
        int64_t wait;

        if (turn(e, ms())) {
            pthread_mutex_unlock(&e->lock);
            e->o.wake(e->o.wake_ud);
            pthread_mutex_lock(&e->lock);
        }
        wait = until_next(e, ms());
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += wait % 1000 * 1000000;
        until.tv_sec += wait / 1000 + until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (!e->closing)
            pthread_cond_timedwait(&e->cond, &e->lock, &until);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

int engine_open(struct engine **out, const struct engine_opts *o, struct err *err)
{
    const char *delay = getenv("FAKE_LOAD_MS");
    size_t n = strlen(o->model_path);
    pthread_condattr_t attr;
    struct engine *e;

    if (delay)
        usleep((unsigned)atoi(delay) * 1000);
    if (n >= 11 && strcmp(o->model_path + n - 11, "broken.gguf") == 0)
        return err_set(err, GD_EFORMAT, "the fake model is broken");
    e = xcalloc(1, sizeof(*e));
    e->o = *o;
    e->info = (struct engine_info){.arch = "fake",
        .name = "Fake",
        .chat_format = "gemma3",
        .vocab = VOCAB,
        .ctx_train = CONTEXT,
        .ctx_tokens = CONTEXT,
        .max_sequences = o->max_sequences,
        .isa = "none",
        .profile = "default",
        .kv_type = "f32"};
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->cond, &attr);
    pthread_create(&e->thread, NULL, run, e);
    *out = e;
    return 0;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    if (e->jobs)
        abort(); /* the contract: release every job first */
    e->closing = true;
    pthread_cond_signal(&e->cond);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    pthread_cond_destroy(&e->cond);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

const struct engine_info *engine_info(const struct engine *e)
{
    return &e->info;
}

/* ---- text ---- */

int engine_tokenize(struct engine *e, const char *text, size_t len, bool add_special,
    bool parse_special, int32_t **ids, size_t *n, struct err *err)
{
    *n = len + add_special;
    *ids = xcalloc(*n, sizeof(**ids));
    for (size_t i = 0; i < len; i++)
        (*ids)[i + add_special] = (unsigned char)text[i];
    return 0;
}

const char *engine_piece(const struct engine *e, int32_t id, size_t *len)
{
    static char bytes[256];

    *len = id >= 0 && id < 256;
    if (*len)
        bytes[id] = (char)id; /* always the same value: harmless from two threads */
    return *len ? &bytes[id] : "";
}

int engine_detokenize(
    struct engine *e, const int32_t *ids, size_t n, char **text, size_t *len, struct err *err)
{
    char *s = xcalloc(n + 1, 1);

    for (size_t i = 0; i < n; i++)
        s[i] = (char)ids[i];
    *text = s;
    *len = n;
    return 0;
}

int engine_apply_template(
    struct engine *e, const struct prompt *p, char **text, size_t *len, struct err *err)
{
    struct buf b = {0};

    for (size_t i = 0; i < p->n; i++)
        buf_printf(&b, "[%.*s]", (int)p->messages[i].content_len, p->messages[i].content);
    *len = b.len;
    *text = buf_take(&b);
    return 0;
}

/* ---- jobs ---- */

static int word(const char *text, const char *name, int def)
{
    char key[16];
    const char *at;

    snprintf(key, sizeof(key), "%s=", name);
    at = text ? strstr(text, key) : NULL;
    return at ? atoi(at + strlen(key)) : def;
}

static void read_script(struct job *j, const struct prompt *p)
{
    const struct chat_message *last = p->kind == PROMPT_CHAT ? &p->messages[p->n - 1] : NULL;
    const char *src = last ? last->content : p->text;
    size_t len = last ? last->content_len : p->kind == PROMPT_TEXT ? p->text_len : 0;
    char *text = xcalloc(len + 1, 1);

    if (len)
        memcpy(text, src, len);
    j->n_prompt = p->kind == PROMPT_TOKENS ? (int)p->n : (int)(len / 4 + 1);
    j->ids = xcalloc((size_t)j->n_prompt, sizeof(*j->ids));
    j->prefill_ms = word(text, "prefill", 0);
    j->step_ms = word(text, "step", 1);
    j->tokens = word(text, "tokens", 5);
    j->burst = word(text, "burst", 1);
    j->fail = word(text, "fail", -1);
    j->big = word(text, "big", 0);
    free(text);
}

int job_submit(
    struct job **out, struct engine *e, const struct job_params *p, void *ud, struct err *err)
{
    struct job *j = xcalloc(1, sizeof(*j)), **at;
    int r = 0;

    j->e = e;
    j->ud = ud;
    j->n = p->n < MAX_CHOICES ? p->n : MAX_CHOICES;
    j->max_tokens = p->max_tokens;
    j->timeout_at = p->timeout_ms ? ms() + p->timeout_ms : 0;
    read_script(j, &p->prompt);
    pthread_mutex_lock(&e->lock);
    if (e->stopped)
        r = err_set(err, GD_ESTOPPING, "the server is shutting down");
    else if (p->embed)
        r = err_set_at(err, GD_ENOTSUP, "model", "the fake makes no embeddings");
    else if (j->n_prompt > CONTEXT)
        r = err_set_at(err, GD_ECONTEXT, "prompt", "%d tokens do not fit", j->n_prompt);
    else if (e->stats.waiting >= e->o.queue_max)
        r = err_set(err, GD_EBUSY, "the queue is full");
    if (r < 0) {
        e->stats.jobs_refused += r == GD_EBUSY;
        pthread_mutex_unlock(&e->lock);
        free(j->ids);
        free(j);
        return r;
    }
    for (at = &e->jobs; *at; at = &(*at)->next)
        ;
    *at = j;
    e->stats.prompt_tokens += (uint64_t)j->n_prompt;
    e->stats.waiting++;
    pthread_cond_signal(&e->cond);
    pthread_mutex_unlock(&e->lock);
    *out = j;
    return 0;
}

void *job_ud(const struct job *j)
{
    return j->ud;
}

static void make_text(struct job *j, int c)
{
    struct choice *ch = &j->choice[c];

    buf_clear(&j->text);
    for (; ch->sent < ch->made && j->text.len < EVENT_BYTES; ch->sent++) {
        size_t start = j->text.len;

        buf_printf(&j->text, "c%d.%d ", c, ch->sent);
        while (j->big && j->text.len - start < (size_t)j->big)
            buf_putc(&j->text, 'x');
    }
}

static void fill_text(struct job *j, int c, struct job_event *ev)
{
    int n = j->choice[c].sent;

    ev->kind = EVENT_TEXT;
    make_text(j, c);
    n = j->choice[c].sent - n;
    free(j->tokens_out);
    j->tokens_out = xcalloc((size_t)n, sizeof(*j->tokens_out));
    ev->text = j->text.data;
    ev->text_len = j->text.len;
    ev->tokens = j->tokens_out;
    ev->n_tokens = (size_t)n;
}

static bool next_event(struct job *j, struct job_event *ev, bool take)
{
    struct job_event none = {0};

    if (ev)
        *ev = none;
    if (j->running && !j->started_told) {
        if (take) {
            j->started_told = true;
            ev->kind = EVENT_STARTED;
        }
        return true;
    }
    for (int c = 0; c < j->n; c++) {
        struct choice *ch = &j->choice[c];

        if (ch->made > ch->sent) {
            if (take) {
                fill_text(j, c, ev);
                ev->choice = c;
            }
            return true;
        }
        if (!ch->finish || ch->told)
            continue;
        if (take) {
            ch->told = true;
            ev->kind = EVENT_FINISH;
            ev->choice = c;
            ev->finish = ch->finish;
            ev->stop_id = -1;
            ev->usage = (struct usage){j->n_prompt, 0, ch->made};
            if (ch->finish == FINISH_ERROR)
                err_fill(&ev->err, GD_EINTERNAL, "the fake engine was told to fail");
        }
        return true;
    }
    return false;
}

bool job_next(struct job *j, struct job_event *ev)
{
    bool r;

    pthread_mutex_lock(&j->e->lock);
    r = next_event(j, ev, true);
    pthread_mutex_unlock(&j->e->lock);
    return r;
}

bool job_ready(struct job *j)
{
    bool r;

    pthread_mutex_lock(&j->e->lock);
    r = next_event(j, NULL, false);
    pthread_mutex_unlock(&j->e->lock);
    return r;
}

int job_prompt_tokens(const struct job *j)
{
    return j->n_prompt;
}

const int32_t *job_prompt_ids(const struct job *j)
{
    return j->ids;
}

void job_release(struct job *j)
{
    struct job **at;

    if (!j)
        return;
    pthread_mutex_lock(&j->e->lock);
    for (at = &j->e->jobs; *at != j; at = &(*at)->next)
        ;
    *at = j->next;
    j->e->stats.jobs_canceled += !finished(j);
    pthread_cond_signal(&j->e->cond);
    pthread_mutex_unlock(&j->e->lock);
    free(j->ids);
    free(j->tokens_out);
    buf_free(&j->text);
    free(j);
}

void engine_stop(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->stopped = true;
    pthread_mutex_unlock(&e->lock);
}

void engine_cancel_all(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    for (struct job *j = e->jobs; j; j = j->next)
        finish(j, FINISH_CANCELED);
    pthread_mutex_unlock(&e->lock);
    e->o.wake(e->o.wake_ud);
}

void engine_stats(struct engine *e, struct engine_stats *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    pthread_mutex_unlock(&e->lock);
    out->last_step_ms_ago = getenv("FAKE_STUCK") ? 1000000 : 0;
    out->retry_after_s = out->waiting >= e->o.queue_max ? 7 : 0;
}
