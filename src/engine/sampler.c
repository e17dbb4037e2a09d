#include "engine/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/partial.h"
#include "engine/select.h"
#include "graph/draw.h"

/* Far below any logit, far above -FLT_MAX: differences and quotients by a temperature stay finite.
 */
static const float banned_logit = -1e30f;
static const float greedy_below = 1e-5f;
static const float logprob_floor = -9999.0f;

/* exp(-80) of the largest is beyond what a float sum of a whole vocabulary can see. */
static const float deepest = 80.0f;

struct undo {
    int32_t id;
    float logit;
};

struct sampler {
    const struct kernels *k;
    int vocab;
    struct candidate *list; /* (vocab) */
    float *row;             /* (vocab) cleaned of NaN */
    float *absent; /* (vocab) -INFINITY between calls: a row of which only the best is known */
    int32_t *seen; /* (vocab) zero between calls */
    struct undo *undo;
    size_t n_undo, undo_cap;
};

void sampling_default(struct sampling *s)
{
    *s = (struct sampling){
        .temperature = 1,
        .top_p = 1,
        .typical_p = 1,
        .repeat_penalty = 1,
        .repeat_last_n = 64,
    };
}

struct sampler *sampler_create(const struct kernels *k, int vocab)
{
    struct sampler *s = xcalloc(1, sizeof(*s));
    size_t n = (size_t)vocab;

    assert(vocab > 0);
    s->k = k;
    s->vocab = vocab;
    s->list = xcalloc(n, sizeof(*s->list));
    s->row = xcalloc(n, sizeof(*s->row));
    s->absent = xcalloc(n, sizeof(*s->absent));
    for (size_t i = 0; i < n; i++)
        s->absent[i] = -INFINITY;
    s->seen = xcalloc(n, sizeof(*s->seen));
    return s;
}

void sampler_destroy(struct sampler *s)
{
    if (!s)
        return;
    free(s->list);
    free(s->row);
    free(s->absent);
    free(s->seen);
    free(s->undo);
    free(s);
}

/* ---- penalties and bias: few ids, patched in place ---- */

static void patch(struct sampler *s, float *logits, int32_t id, float value)
{
    if (s->n_undo == s->undo_cap) {
        s->undo_cap = s->undo_cap ? 2 * s->undo_cap : 256;
        s->undo = xrealloc(s->undo, s->undo_cap * sizeof(*s->undo));
    }
    s->undo[s->n_undo++] = (struct undo){id, logits[id]};
    logits[id] = value;
}

static void restore(struct sampler *s, float *logits)
{
    while (s->n_undo > 0) {
        s->n_undo--;
        logits[s->undo[s->n_undo].id] = s->undo[s->n_undo].logit;
    }
}

static void penalise_repeats(struct sampler *s, float *logits, const struct sampler_input *in)
{
    float penalty = in->params->repeat_penalty;
    int last = in->params->repeat_last_n, n = last < 0 || last > in->n_tokens ? in->n_tokens : last;
    const int32_t *window = in->tokens + (in->n_tokens - n);

    if (penalty == 1.0f)
        return;
    for (int i = 0; i < n; i++) {
        float x = logits[window[i]];

        if (s->seen[window[i]])
            continue;
        s->seen[window[i]] = 1;
        patch(s, logits, window[i], x > 0 ? x / penalty : x * penalty);
    }
    for (int i = 0; i < n; i++)
        s->seen[window[i]] = 0;
}

static void penalise_answer(struct sampler *s, float *logits, const struct sampler_input *in)
{
    const struct sampling *p = in->params;

    if (p->presence_penalty == 0 && p->frequency_penalty == 0)
        return;
    for (int i = in->n_prompt; i < in->n_tokens; i++)
        s->seen[in->tokens[i]]++;
    for (int i = in->n_prompt; i < in->n_tokens; i++) {
        int32_t id = in->tokens[i];

        if (!s->seen[id])
            continue;
        patch(s, logits, id,
            logits[id] - (float)s->seen[id] * p->frequency_penalty - p->presence_penalty);
        s->seen[id] = 0;
    }
}

static void patch_all(struct sampler *s, float *logits, const struct sampler_input *in)
{
    const struct sampling *p = in->params;

    for (size_t i = 0; i < p->n_bias; i++) {
        int32_t id = p->bias[i].id;

        patch(s, logits, id, p->bias[i].bias <= -100 ? banned_logit : logits[id] + p->bias[i].bias);
    }
    penalise_repeats(s, logits, in);
    penalise_answer(s, logits, in);
    for (size_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].bias <= -100) /* a penalty below 1 must not bring a banned token back */
            patch(s, logits, p->bias[i].id, banned_logit);
    }
    for (int list = 0; list < 2; list++) {
        for (size_t i = 0; i < in->banned[list].n; i++)
            patch(s, logits, in->banned[list].ids[i], banned_logit);
    }
}

/* ---- truncation ---- */

/* A row whose largest value or sum is no number is copied without NaN and infinities. */
static const float *clean(struct sampler *s, const float *logits)
{
    for (int i = 0; i < s->vocab; i++) {
        float x = logits[i];
        bool ordinary = x > banned_logit && x < -banned_logit;

        s->row[i] = ordinary ? x : x > 0 ? -banned_logit : banned_logit;
    }
    return s->row;
}

static double weigh(struct candidate *c, int n, float max)
{
    double total = 0;

    for (int i = 0; i < n; i++) {
        c[i].mass = expf(c[i].logit - max);
        total += c[i].mass;
    }
    return total;
}

/* Locally typical sampling: tokens whose surprise is nearest to the entropy come first. */
static int keep_typical(struct candidate *c, int n, float max, double total, float typical_p)
{
    double mean = 0, entropy;

    for (int i = 0; i < n; i++)
        mean += c[i].mass / total * (c[i].logit - max);
    entropy = log(total) - mean;
    for (int i = 0; i < n; i++)
        c[i].key = (float)fabs(log(total) - (c[i].logit - max) - entropy);
    return select_mass(c, n, typical_p * total);
}

static int keep_min_p(struct candidate *c, int n, float min_p)
{
    float floor_logit = c[0].logit;
    int kept = 0;

    for (int i = 1; i < n; i++)
        floor_logit = c[i].logit > floor_logit ? c[i].logit : floor_logit;
    floor_logit += logf(min_p);
    for (int i = 0; i < n; i++) {
        if (c[i].logit >= floor_logit)
            c[kept++] = c[i];
    }
    return kept;
}

/* Enough of the top of the row for top_p and min_p alone to cut exactly. sum is of the whole row.
 */
static int gather_top(
    struct sampler *s, const float *row, const struct sampling *p, float max, double sum)
{
    float bound = p->min_p > 0 ? -logf(p->min_p) : deepest;
    float depth = p->top_p < 1 ? 10 : bound;

    for (;; depth *= 2) {
        int n;

        if (depth > bound)
            depth = bound;
        n = select_above(row, s->vocab, max - depth, s->list);
        if (depth == bound || weigh(s->list, n, max) >= p->top_p * sum)
            return n;
    }
}

/* Of the n candidates gathered, which have `total` mass together: what typical_p, top_p and min_p
 * leave. */
static int cut(struct candidate *c, int n, float max, double total, const struct sampling *p)
{
    if (p->typical_p < 1) {
        n = keep_typical(c, n, max, total, p->typical_p);
        total = weigh(c, n, max);
    }
    if (p->top_p < 1) {
        for (int i = 0; i < n; i++)
            c[i].key = -c[i].logit;
        n = select_mass(c, n, p->top_p * total);
    }
    return p->min_p > 0 ? keep_min_p(c, n, p->min_p) : n;
}

static int more_likely(const void *a, const void *b)
{
    return select_before(a, b) ? -1 : 1;
}

/* Survivors are s->list[0..n). ALL: nothing is truncated. UNUSABLE: the row's sum is no number. */
enum { ALL = -1, UNUSABLE = -2 };

static int truncate_row(struct sampler *s, const float *row, const struct sampling *p, float max)
{
    struct candidate *c = s->list;
    double total;
    int n;

    if (p->top_k > 0 && p->top_k < s->vocab) {
        n = select_largest(row, s->vocab, p->top_k, c);
        if (n <= SHORTLIST_MAX) /* in order, as a shortlist brings them: sums depend on it */
            qsort(c, (size_t)n, sizeof(*c), more_likely);
        total = weigh(c, n, max);
    } else if (p->typical_p < 1) {
        n = select_above(row, s->vocab, max - deepest, c);
        total = weigh(c, n, max);
    } else if (p->top_p < 1 || p->min_p > 0) {
        total = s->k->sum_exp(row, max, s->vocab);
        if (!isfinite(total))
            return UNUSABLE;
        n = gather_top(s, row, p, max, total);
        weigh(c, n, max);
    } else {
        return ALL;
    }
    return cut(c, n, max, total, p);
}

int sampler_survivors(
    struct sampler *s, const float *logits, const struct sampling *p, const struct candidate **out)
{
    *out = s->list;
    return truncate_row(s, logits, p, logits[s->k->argmax(logits, s->vocab)]);
}

/* ---- drawing ---- */

/* splitmix64's finaliser: every bit of the input reaches every bit of the output. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t bits_of(uint64_t seed, int choice, int n)
{
    return mix(mix(mix(seed) ^ (uint64_t)choice) ^ (uint64_t)n);
}

/* The noise of the next token. */
static struct draw draw_of(const struct sampler_input *in)
{
    return (struct draw){.scale = 1 / in->params->temperature,
        .key = bits_of(in->seed, in->choice, in->n_tokens - in->n_prompt)};
}

/* From a part of a row, as if from all of it: the largest with noise. */
static int32_t draw_list(const struct candidate *c, int n, const struct sampler_input *in)
{
    const struct draw d = draw_of(in);
    struct logit drawn = {-1, -INFINITY};

    for (int i = 0; i < n; i++)
        draw_take_one(&d, c[i].id, c[i].logit, &drawn);
    return drawn.id;
}

static int32_t draw(struct sampler *s, const float *row, int best, const struct sampler_input *in)
{
    const struct sampling *p = in->params;
    struct logit drawn = {-1, -INFINITY};
    struct draw d;
    int n;

    if (p->temperature < greedy_below)
        return best;
    n = truncate_row(s, row, p, row[best]);
    if (n == UNUSABLE)
        return UNUSABLE;
    if (n != ALL)
        return draw_list(s->list, n, in);
    d = draw_of(in);
    draw_take(s->k, &d, 0, row, s->vocab, &drawn);
    return drawn.id;
}

static int32_t pick(struct sampler *s, const float *logits, const struct sampler_input *in)
{
    const float *row = logits;

    for (int attempt = 0; attempt < 2; attempt++) {
        int best = s->k->argmax(row, s->vocab);

        if (isfinite(row[best])) {
            int32_t id = row[best] > banned_logit / 2 ? draw(s, row, best, in) : -1;

            if (id != UNUSABLE)
                return id;
        }
        row = clean(s, logits);
    }
    return -1;
}

int32_t sampler_pick(struct sampler *s, float *logits, const struct sampler_input *in)
{
    int32_t id;

    patch_all(s, logits, in);
    id = pick(s, logits, in);
    restore(s, logits);
    return id;
}

/* ---- from a shortlist ---- */

/* How many ids of the row a call may lower; -1 when it may raise one. */
static int n_lowered(const struct sampler_input *in)
{
    const struct sampling *p = in->params;
    size_t n = in->banned[0].n + in->banned[1].n + p->n_bias;
    int last = p->repeat_last_n;

    for (size_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].bias > 0)
            return -1;
    if (p->repeat_penalty < 1 || p->presence_penalty < 0 || p->frequency_penalty < 0)
        return -1;
    if (p->repeat_penalty > 1)
        n += (size_t)(last < 0 || last > in->n_tokens ? in->n_tokens : last);
    if (p->presence_penalty > 0 || p->frequency_penalty > 0)
        n += (size_t)(in->n_tokens - in->n_prompt);
    return n < SHORTLIST_MAX ? (int)n : -1;
}

bool sampler_shortlist(const struct sampler_input *in, int vocab, struct shortlist *list)
{
    const struct sampling *p = in->params;
    const bool greedy = p->temperature < greedy_below;
    const bool has_top_k = p->top_k > 0 && p->top_k < vocab;
    const bool truncates = has_top_k || p->typical_p < 1 || p->top_p < 1 || p->min_p > 0;
    const int lowered = n_lowered(in), k = greedy || !truncates ? 1 : has_top_k ? p->top_k : vocab;
    const bool fits = k <= SHORTLIST_MAX - lowered;

    list->k = fits ? k + lowered : SHORTLIST_MAX;
    list->draw = (struct draw){0};
    list->choose = NULL;
    list->row_else = !fits;
    if (!greedy && lowered == 0 && p->typical_p == 1) { /* what is lowered changes all others */
        list->draw = draw_of(in);
        if (truncates) {
            list->choose = partial_draw;
            list->user = p;
        }
        return true;
    }
    return lowered >= 0 && fits && (greedy || has_top_k);
}

int32_t sampler_pick_from(
    struct sampler *s, const struct shortlist *list, const struct sampler_input *in)
{
    const struct sampling *p = in->params;
    const struct logit *best = list->best;
    struct candidate *c = s->list;
    int n = list->n;

    if (list->drawn)
        return best[0].id;
    for (int i = 0; i < n; i++)
        s->absent[best[i].id] = best[i].value;
    patch_all(s, s->absent, in);
    for (int i = 0; i < n; i++) {
        float logit = s->absent[best[i].id];

        c[i] = (struct candidate){.logit = logit, .key = -logit, .id = best[i].id};
    }
    restore(s, s->absent);
    for (int i = 0; i < n; i++)
        s->absent[best[i].id] = -INFINITY;
    qsort(c, (size_t)n, sizeof(*c), more_likely);
    if (c[0].logit <= banned_logit / 2)
        return -1;
    if (p->temperature < greedy_below)
        return c[0].id;
    n = n < p->top_k ? n : p->top_k;
    n = cut(c, n, c[0].logit, weigh(c, n, c[0].logit), p);
    return draw_list(c, n, in);
}

/* ---- log-probabilities ---- */

static float floored(double logprob)
{
    return logprob > logprob_floor ? (float)logprob : logprob_floor; /* NaN goes to the floor too */
}

int sampler_logprobs(struct sampler *s, const float *logits, int32_t id, int n_top, float *logprob,
    struct token_alternative *top)
{
    const float *row = logits;
    float max = row[s->k->argmax(row, s->vocab)];
    double sum = isfinite(max) ? s->k->sum_exp(row, max, s->vocab) : NAN;
    double log_sum;
    int n;

    if (!isfinite(sum)) {
        row = clean(s, logits);
        max = row[s->k->argmax(row, s->vocab)];
        sum = s->k->sum_exp(row, max, s->vocab);
    }
    log_sum = max > banned_logit ? max + log(sum) : INFINITY; /* nothing finite: all at the floor */
    *logprob = floored(row[id] - log_sum);
    if (n_top <= 0)
        return 0;
    n = select_largest(row, s->vocab, n_top < s->vocab ? n_top : s->vocab, s->list);
    qsort(s->list, (size_t)n, sizeof(*s->list), more_likely);
    for (int i = 0; i < n; i++)
        top[i] = (struct token_alternative){s->list[i].id, floored(s->list[i].logit - log_sum)};
    return n;
}
