#include "engine/scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/choice.h"
#include "engine/scheduler_private.h"
#include "engine/stats.h"

struct sched *sched_create(struct runtime *rt, struct kv *kv, const struct sched_opts *o)
{
    struct sched *s = xcalloc(1, sizeof(*s));

    s->rt = rt;
    s->kv = kv;
    s->o = *o;
    s->pace = (struct pace){
        .fixed = o->prefill_chunk, .max_chunk = rt->max_chunk, .target_ms = o->itl_target_ms};
    s->rows = xcalloc((size_t)o->max_sequences, sizeof(struct choice *));
    s->seqs = xcalloc((size_t)o->max_sequences, sizeof(*s->seqs));
    s->riders = xcalloc((size_t)o->max_sequences, sizeof(struct choice *));
    s->embeds = rt->hp.bidirectional;
    if (s->embeds)
        return s;
    s->replays = !graph_same_bits(rt->prefill, rt->decode);
    if (sched_open_drawing(s) < 0) {
        sched_destroy(s);
        return NULL;
    }
    return s;
}

void sched_destroy(struct sched *s)
{
    if (!s)
        return;
    assert(s->n_live == 0);
    sched_close_drawing(s);
    free(s->rows);
    free(s->seqs);
    free(s->riders);
    free(s->live);
    free(s);
}

int sched_running(const struct sched *s)
{
    return s->n_running;
}

const struct engine_stats *sched_stats(struct sched *s)
{
    s->stats.running = s->n_running;
    s->stats.kv_used = kv_used(s->kv);
    sched_count_head(s);
    return &s->stats;
}

static void wake(struct sched *s)
{
    if (s->o.wake)
        s->o.wake(s->o.wake_ud);
}

bool sched_any_in(const struct sched *s, enum choice_state state)
{
    for (int i = 0; i < s->n_live; i++) {
        if (s->live[i]->state == state)
            return true;
    }
    return false;
}

/* ---- the end of a choice and of a job ---- */

static void end_job(struct sched *s, struct job *j, enum finish_reason reason)
{
    s->stats.jobs_finished[reason]++;
    histogram_add(&s->stats.end_to_end, (double)(clock_ns() - j->submit_ns) / 1e9);
    atomic_store(&j->ended, true);
    job_unref(j);
}

static void post_finish(struct sched *s, struct choice *c, int index, const struct finish *finish)
{
    struct finish f = *finish;

    f.usage.prompt_tokens = c->job->n_prompt;
    f.usage.cached_tokens = c->n_cached;
    f.usage.completion_tokens = index == c->index ? choice_answered(c) : 0;
    job_post_finish(c->job, index, &f);
    s->n_running--;
    if (--c->job->n_left == 0)
        end_job(s, c->job, f.reason);
}

/* The choice itself is freed at the end of the step: lists that name it may still be in use. */
void sched_end(struct sched *s, struct choice *c, const struct finish *finish)
{
    int n = c->job->params.n;
    bool alone = c->forked;

    kv_drop(s->kv, &c->kv);
    c->state = CHOICE_ENDED;
    /* The choices that were still to come from this one's prompt end with it; j may be gone after
     * the last. */
    for (int i = n - 1; i >= 1 && !alone; i--)
        post_finish(s, c, i, finish);
    post_finish(s, c, c->index, finish);
    c->job = NULL;
    s->news = true;
}

void sched_end_plainly(struct sched *s, struct choice *c, enum finish_reason reason)
{
    struct finish f = {.reason = reason, .stop = -1, .stop_id = -1};

    choice_cut(c, &f);
    sched_end(s, c, &f);
}

void sched_turn_away(struct sched *s, struct job *j, enum finish_reason reason)
{
    struct finish f = {.reason = reason, .stop = -1, .stop_id = -1};

    f.usage.prompt_tokens = j->n_prompt;
    for (int i = 0; i < j->params.n; i++)
        job_post_finish(j, i, &f);
    end_job(s, j, reason);
    wake(s);
}

/* A caller that has gone wants no events. */
static void forget(struct sched *s, struct choice *c)
{
    int n_gone = c->forked ? 1 : c->job->params.n;

    kv_drop(s->kv, &c->kv);
    c->state = CHOICE_ENDED;
    s->n_running -= n_gone;
    c->job->n_left -= n_gone;
    if (c->job->n_left == 0) {
        s->stats.jobs_canceled++;
        atomic_store(&c->job->ended, true);
        job_unref(c->job);
    }
    c->job = NULL;
}

static void sweep(struct sched *s)
{
    int n = 0;

    for (int i = 0; i < s->n_live; i++) {
        if (s->live[i]->state == CHOICE_ENDED)
            choice_destroy(s->live[i]);
        else
            s->live[n++] = s->live[i];
    }
    s->n_live = n;
}

static void reap(struct sched *s)
{
    int64_t now = clock_ns();

    for (int i = 0; i < s->n_live; i++) {
        struct choice *c = s->live[i];

        if (atomic_load(&c->job->released))
            forget(s, c);
        else if (c->job->deadline_ns && now >= c->job->deadline_ns)
            sched_end_plainly(s, c, FINISH_TIMEOUT);
    }
    sweep(s);
}

void sched_end_all(struct sched *s, enum finish_reason reason)
{
    for (int i = 0; i < s->n_live; i++)
        sched_end_plainly(s, s->live[i], reason);
    sweep(s);
    wake(s);
}

/* ---- admission ---- */

/* Pages for n_tokens and some growth. */
static uint32_t wanted(const struct sched *s, int group, int n_tokens)
{
    int n = n_tokens + KV_PAGE < s->o.ctx_tokens ? n_tokens + KV_PAGE : s->o.ctx_tokens;

    return kv_pages_for(s->kv, group, n, 1);
}

/* Pages that running choices will take soon, beyond those they hold. */
static uint32_t promised(const struct sched *s, int group)
{
    uint32_t n = 0;

    for (int i = 0; i < s->n_live; i++) {
        const struct choice *c = s->live[i];
        uint32_t want, held = kv_held(&c->kv, group);

        if (c->state != CHOICE_PREFILL && c->state != CHOICE_DECODE)
            continue;
        want = wanted(s, group, c->n_tokens);
        n += want > held ? want - held : 0;
        n += c->forked ? 0 : (uint32_t)c->job->params.n - 1; /* each copies the last page */
    }
    return n;
}

/* Are there pages for n_new more choices over n_tokens, and for a piece of prompt in flight? */
static bool pages_suffice(const struct sched *s, int n_tokens, int n_new)
{
    for (int g = 0; g < KV_GROUPS; g++) {
        int ctx = s->o.ctx_tokens;
        uint32_t in_flight =
            kv_pages_for(s->kv, g, ctx, s->pace.max_chunk) - kv_pages_for(s->kv, g, ctx, 1);
        uint32_t need = wanted(s, g, n_tokens) + (uint32_t)(n_new - 1) + promised(s, g) + in_flight;

        if (kv_total_pages(s->kv, g) && need > kv_free_pages(s->kv, g))
            return false;
    }
    return true;
}

bool sched_has_room(const struct sched *s, const struct job *j)
{
    if (s->n_running == 0)
        return true;
    if (s->embeds)
        return sched_embed_has_room(s, j);
    return s->n_running + j->params.n <= s->o.max_sequences && !sched_any_in(s, CHOICE_PREEMPTED) &&
           pages_suffice(s, j->n_prompt, j->params.n);
}

void sched_insert_live(struct sched *s, int at, struct choice *c)
{
    if (s->n_live == s->live_cap) {
        s->live_cap = s->live_cap ? 2 * s->live_cap : 32;
        s->live = xrealloc(s->live, (size_t)s->live_cap * sizeof(struct choice *));
    }
    memmove(s->live + at + 1, s->live + at, (size_t)(s->n_live - at) * sizeof(struct choice *));
    s->live[at] = c;
    s->n_live++;
}

void sched_admit(struct sched *s, struct job *j)
{
    struct choice *c = choice_create(j, 0, s->o.ctx_tokens);

    c->forked = j->params.n == 1;
    c->state = CHOICE_PREFILL;
    j->n_left = j->params.n;
    s->n_running += j->params.n;
    sched_insert_live(s, s->n_live, c);
    histogram_add(&s->stats.queue_time, (double)(clock_ns() - j->submit_ns) / 1e9);
    job_post_started(j);
    s->news = true;
}

/* ---- pages run out ---- */

static void preempt(struct sched *s, struct choice *c)
{
    kv_drop(s->kv, &c->kv);
    piece_clear(&c->prompt_news);
    c->past = 0;
    c->n_cached = 0;
    c->state = CHOICE_PREEMPTED;
    s->stats.preemptions++;
}

/* The youngest choice that holds pages, younger than c; NULL when there is none. */
static struct choice *younger_holder(struct sched *s, const struct choice *c)
{
    for (int i = s->n_live - 1; i >= 0 && s->live[i] != c; i--) {
        struct choice *v = s->live[i];

        if (kv_held(&v->kv, KV_GLOBAL) + kv_held(&v->kv, KV_SLIDING) > 0)
            return v;
    }
    return NULL;
}

bool sched_make_room(struct sched *s, struct choice *c, int n)
{
    while (!kv_reserve(s->kv, &c->kv, c->past, c->past + n)) {
        struct choice *victim = younger_holder(s, c);

        if (!victim)
            return false;
        preempt(s, victim);
    }
    return true;
}

static void readmit(struct sched *s)
{
    bool idle = true;

    for (int i = 0; i < s->n_live; i++)
        idle = idle && s->live[i]->state == CHOICE_PREEMPTED;
    for (int i = 0; i < s->n_live; i++) {
        struct choice *c = s->live[i];

        if (c->state != CHOICE_PREEMPTED)
            continue;
        if (!idle && !pages_suffice(s, c->n_tokens, 1))
            return;
        c->state = CHOICE_PREFILL;
        idle = false;
    }
}

/* ---- decoding ---- */

struct graph_seq sched_part(const struct choice *c, int n)
{
    return (struct graph_seq){
        .past = c->past,
        .n_tokens = n,
        .tokens = &c->tokens[c->past],
        .pages = {c->kv.pages[KV_GLOBAL], c->kv.pages[KV_SLIDING]},
    };
}

static void gather_rows(struct sched *s)
{
    s->n_rows = s->n_riders = 0;
    for (int i = 0; i < s->n_live && s->n_rows < s->o.max_sequences; i++) {
        struct choice *c = s->live[i];
        struct graph_seq *seq = &s->seqs[s->n_rows];

        if (c->state != CHOICE_DECODE || !sched_make_room(s, c, 1))
            continue;
        *seq = sched_part(c, 1);
        if (c->past + 1 == c->n_tokens) /* the next one is not known yet */
            sched_ask(s, c, s->n_rows, seq);
        s->rows[s->n_rows++] = c;
    }
}

void sched_advance(struct sched *s, struct choice *c, int n)
{
    const int n_prompt = c->job->n_prompt;

    c->past += n;
    kv_commit(s->kv, &c->kv, c->tokens, s->replays && c->past > n_prompt ? n_prompt : c->past);
    kv_trim(s->kv, &c->kv, c->past);
}

/* Returns the milliseconds it took, 0 when nothing decodes. Prompts may have had their share. */
static double decode(struct sched *s)
{
    int64_t start = clock_ns();
    int n_tokens;
    double ms;

    gather_rows(s);
    if (s->n_rows == 0)
        return 0;
    n_tokens = sched_ride(s);
    graph_run(s->n_riders ? s->rt->prefill : s->rt->decode, kv_memory(s->kv), s->seqs,
        s->n_rows + s->n_riders);
    for (int i = 0; i < s->n_rows; i++)
        sched_advance(s, s->rows[i], 1);
    sched_rode(s);
    sched_sample(s);
    for (int i = 0; i < s->n_rows; i++)
        if (s->seqs[i].n_logits)
            sched_accept(s, s->rows[i]);
    ms = (double)(clock_ns() - start) / 1e6;
    pace_decoded(&s->pace, n_tokens, ms);
    return ms;
}

void sched_publish(struct sched *s)
{
    if (s->news)
        wake(s);
    s->news = false;
}

static void generate(struct sched *s)
{
    double decode_ms = decode(s);

    sched_publish(s);
    if (s->n_riders == 0 && sched_any_in(s, CHOICE_PREFILL))
        sched_prefill(s, pace_budget(&s->pace, sched_any_in(s, CHOICE_DECODE) ? decode_ms : 0));
}

void sched_step(struct sched *s)
{
    reap(s);
    readmit(s);
    sched_publish(s);
    if (s->embeds)
        sched_embed(s);
    else
        generate(s);
    sched_publish(s);
    sweep(s);
    s->stats.steps++;
}
