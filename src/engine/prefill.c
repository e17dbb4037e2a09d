/* prefill.c - which prompts a step computes, how much of them, and how answers begin. */
#include <string.h>

#include "base/clock.h"
#include "engine/choice.h"
#include "engine/scheduler.h"
#include "engine/scheduler_private.h"

/* Positions of c for the prefill graph to compute before decode runs follow. */
static int target(const struct sched *s, const struct choice *c)
{
    if (choice_answered(c) == 0)
        return c->n_tokens;
    return s->replays ? c->job->n_prompt : c->n_tokens - 1;
}

/* The prompt is computed: its other choices come to be, and each draws its first token from the
 * same logits. */
static void begin_answers(struct sched *s, struct choice *first, const struct graph_seq *seq)
{
    struct job *j = first->job;
    int at = 0, n = j->params.n;

    while (s->live[at] != first)
        at++;
    for (int i = 1; i < n; i++) {
        struct choice *c = choice_create(j, i, s->o.ctx_tokens);

        c->forked = true;
        c->n_cached = first->n_cached;
        c->past = first->past;
        kv_share(s->kv, &c->kv, &first->kv);
        sched_insert_live(s, at + i, c);
    }
    first->forked = true;
    for (int i = 0; i < n; i++) {
        struct choice *c = s->live[at + i];

        c->state = CHOICE_DECODE;
        if (j->max_tokens > 0) {
            sched_sample_seq(s, c, s->samplers[0], seq);
            sched_accept(s, c);
        } else {
            sched_end_plainly(s, c, FINISH_LENGTH); /* j is gone after the last one */
        }
    }
}

/* seq: its last part of a run, when that has the logits for the first token. */
static void prompt_done(struct sched *s, struct choice *c, const struct graph_seq *seq)
{
    struct job *j = c->job;

    if (choice_answered(c) > 0) {
        c->state = CHOICE_DECODE; /* computed again after a preemption */
        return;
    }
    if (!c->counted) { /* it may have been preempted before its first token */
        s->stats.prompt_tokens += (uint64_t)j->n_prompt;
        s->stats.cached_tokens += (uint64_t)c->n_cached;
        c->counted = true;
    }
    if (j->params.prompt_logprobs)
        sched_post_prompt(s, c);
    if (c->past < target(s, c))
        c->state = CHOICE_DECODE; /* whose run gives the first token, too */
    else
        begin_answers(s, c, seq);
}

/* What others have computed of this prompt by now need not be computed again. The last token is,
 * for its logits. */
static void adopt_known(struct sched *s, struct choice *c)
{
    int past = kv_adopt(s->kv, &c->kv, c->tokens, c->past, target(s, c) - 1);

    if (choice_answered(c) == 0)
        c->n_cached += past - c->past;
    c->past = past;
}

static bool scores(const struct choice *c)
{
    return choice_answered(c) == 0 && c->job->params.prompt_logprobs;
}

/* No token of its prompt needs logits in the prefill graph: a decode run can give the first. */
static bool needs_no_logits(const struct choice *c)
{
    const struct job *j = c->job;

    return choice_answered(c) > 0 || (!scores(c) && j->params.n == 1 && j->max_tokens > 0);
}

/* Where c's prompt ends for the prefill graph. Beside answers the last token is left to their next
 * decode run, which reads the head anyway: for one row it is most of a small model. Not where that
 * would show in its bits. */
static int prefill_target(const struct sched *s, const struct choice *c)
{
    const bool leaves_one = !s->replays && sched_any_in(s, CHOICE_DECODE) &&
                            choice_answered(c) == 0 && needs_no_logits(c);

    return target(s, c) - leaves_one;
}

/* At most n: how many prompt tokens of c are to be computed now. */
static int piece_size(const struct sched *s, const struct choice *c, int n)
{
    int left = prefill_target(s, c) - c->past;

    n = n < s->pace.max_chunk ? n : s->pace.max_chunk;
    n = scores(c) && n > PROMPT_ROWS ? PROMPT_ROWS : n;
    if (n >= left)
        return left;
    /* Ending with a page lets this prompt take over what others make known meanwhile. */
    return n > KV_PAGE ? n - (c->past + n) % KV_PAGE : n;
}

/* Computes up to n tokens of c's prompt; returns how many, 0 when there are no pages. */
static int prefill_some(struct sched *s, struct choice *c, int n)
{
    bool first_answer = choice_answered(c) == 0, scored = scores(c), ends;
    int64_t start = clock_ns();
    struct graph_seq seq;

    if (!scored)
        adopt_known(s, c);
    n = piece_size(s, c, n);
    if (n == 0) { /* known but for the last token */
        prompt_done(s, c, NULL);
        return 0;
    }
    if (!sched_make_room(s, c, n)) {
        c->stalled = true;
        return 0;
    }
    seq = sched_part(c, n);
    if (scored) {
        seq.n_logits = n;
        seq.logits = s->logits;
    } else if (first_answer && c->past + n == target(s, c) && c->job->max_tokens > 0) {
        sched_ask(s, c, 0, &seq);
    }
    ends = c->past + n == prefill_target(s, c);
    graph_run(s->rt->prefill, kv_memory(s->kv), &seq, 1);
    pace_measured(&s->pace, n, (double)(clock_ns() - start) / 1e6);
    sched_advance(s, c, n);
    if (scored)
        sched_score_prompt(s, c, n);
    if (ends) {
        if (scored) /* the row to draw from is the last */
            memmove(s->logits, s->logits + (size_t)(n - 1) * (size_t)s->rt->hp.vocab,
                (size_t)s->rt->hp.vocab * sizeof(float));
        prompt_done(s, c, &seq);
    }
    return n;
}

/* The piece that c would compute next is what an older prompt computes now: better to wait and take
 * it over. The oldest never waits, so there is always one that computes. */
static bool follows(const struct sched *s, const struct choice *c)
{
    if (target(s, c) - 1 < c->past + KV_PAGE)
        return false;
    for (int i = 0; i < s->n_live && s->live[i] != c; i++) {
        const struct choice *o = s->live[i];

        if (o->state == CHOICE_PREFILL && !o->stalled && !scores(o) &&
            target(s, o) >= c->past + KV_PAGE && kv_same_text(s->kv, &o->kv, &c->kv) &&
            memcmp(o->tokens + c->past, c->tokens + c->past, KV_PAGE * sizeof(*c->tokens)) == 0)
            return true;
    }
    return false;
}

static bool can_compute(struct sched *s, struct choice *c)
{
    if (c->state != CHOICE_PREFILL || c->stalled || c->riding)
        return false;
    if (scores(c))
        return true;
    adopt_known(s, c);
    return !follows(s, c);
}

static struct choice *oldest_prompt(struct sched *s)
{
    for (int i = 0; i < s->n_live; i++) {
        if (can_compute(s, s->live[i]))
            return s->live[i];
    }
    return NULL;
}

static struct choice *shortest_prompt(struct sched *s)
{
    struct choice *best = NULL;

    for (int i = 0; i < s->n_live; i++) {
        struct choice *c = s->live[i];

        if (!can_compute(s, c))
            continue;
        if (!best || target(s, c) - c->past < target(s, best) - best->past)
            best = c;
    }
    return best;
}

/* Half of the budget for those with the least left, then the one that came first, then whoever.
 * Each piece by itself reads all weights: a small budget is not cut, but is those prompts' every
 * other time, and little that is left of one is left. `take` gives a prompt up to n tokens and
 * returns how many. */
static int share_out(
    struct sched *s, int budget, int (*take)(struct sched *s, struct choice *c, int n))
{
    const int least = budget < PACE_SMALLEST ? budget : PACE_SMALLEST;
    const int half = budget >= 4 * PACE_SMALLEST ? budget / 2 : s->stats.steps % 2 ? budget : 0;
    struct choice *oldest, *c;
    int spent = 0;

    for (int i = 0; i < s->n_live; i++)
        s->live[i]->stalled = s->live[i]->riding = false;
    oldest = oldest_prompt(s);
    while (oldest && spent + least <= half && (c = shortest_prompt(s)) && c != oldest)
        spent += take(s, c, half - spent);
    if (oldest && oldest->state == CHOICE_PREFILL && spent + least <= budget)
        spent += take(s, oldest, budget - spent);
    while (oldest && spent + least <= budget && (c = shortest_prompt(s)))
        spent += take(s, c, budget - spent);
    return spent;
}

static int compute(struct sched *s, struct choice *c, int n)
{
    n = prefill_some(s, c, n);
    sched_publish(s);
    return n;
}

void sched_prefill(struct sched *s, int budget)
{
    share_out(s, budget, compute);
}

/* ---- beside answers ---- */

static int ride(struct sched *s, struct choice *c, int n)
{
    n = piece_size(s, c, n);
    if (n == 0) {
        prompt_done(s, c, NULL);
        return 0;
    }
    /* One job may have more choices than the run has room for. */
    c->stalled = s->n_rows + s->n_riders == s->o.max_sequences ||
                 !kv_reserve(s->kv, &c->kv, c->past, c->past + n);
    if (c->stalled)
        return 0;
    c->riding = true;
    s->seqs[s->n_rows + s->n_riders] = sched_part(c, n);
    s->riders[s->n_riders++] = c;
    return n;
}

int sched_ride(struct sched *s)
{
    int budget;

    if (s->replays || s->pace.decode_ms <= 0 || s->pace.n_ridden >= PACE_RIDES)
        return 0;
    for (int i = 0; i < s->n_live; i++)
        if (s->live[i]->state == CHOICE_PREFILL && !needs_no_logits(s->live[i]))
            return 0;
    budget = pace_budget(&s->pace, s->pace.decode_ms);
    return share_out(s, budget < s->pace.max_chunk ? budget : s->pace.max_chunk, ride);
}

void sched_rode(struct sched *s)
{
    for (int i = 0; i < s->n_riders; i++) {
        struct choice *c = s->riders[i];
        const int n_tokens = s->seqs[s->n_rows + i].n_tokens;
        const bool ends = c->past + n_tokens == prefill_target(s, c);

        sched_advance(s, c, n_tokens);
        if (ends)
            prompt_done(s, c, NULL);
    }
}
