/* verify_real.c - numbers of a real model: cases.json and perplexity.json of a golden folder.
 *
 * Reference profile: log-probabilities of the stored candidates within 2e-3, hidden states within
 * 1e-3 of their norm, every greedy id, mean negative log-likelihood within 1e-4.
 *
 * Any other profile is compared with our own reference profile (which the former checks hold to the
 * truth), teacher-forced on the golden greedy text: KL, logits, most likely token; continuations
 * without a changed token are the golden ones. Its bars are in bars_of(). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cmd/golden.h"
#include "gemmad/flow.h"

enum { GROUP = 8, QUICK_TOKENS = 100, NLL_ROWS = 64 };

struct real {
    struct verify_result *r;
    const struct verify_opts *o;
    const char *dir;
    struct runtime *truth; /* reference profile */
    struct runtime *rt;    /* the profile under test; the same as truth for reference */
};

/* One prompt of cases.json. */
struct prompt_case {
    const cJSON *json;
    const char *name;
    int32_t *ids, *greedy;
    int n_ids, n_greedy;
};

static bool is_reference(const struct real *x)
{
    return x->truth == x->rt;
}

static int case_read(struct prompt_case *c, const cJSON *json)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(json, "name");

    *c = (struct prompt_case){.json = json, .name = cJSON_IsString(name) ? name->valuestring : "?"};
    c->ids = golden_ints(cJSON_GetObjectItemCaseSensitive(json, "ids"), &c->n_ids);
    c->greedy = golden_ints(cJSON_GetObjectItemCaseSensitive(json, "greedy_ids"), &c->n_greedy);
    return c->n_ids > 0 && c->n_greedy > 0 ? 0 : GD_EFORMAT;
}

static void case_free(struct prompt_case *c)
{
    free(c->ids);
    free(c->greedy);
}

static double top_error(const cJSON *position, const float *logits, int vocab)
{
    double lse = golden_logsumexp(logits, vocab),
           worst = fabs(lse - golden_number(position, "logsumexp", INFINITY));
    const cJSON *pair;

    cJSON_ArrayForEach(pair, cJSON_GetObjectItemCaseSensitive(position, "top"))
    {
        const cJSON *id = cJSON_GetArrayItem(pair, 0), *lp = cJSON_GetArrayItem(pair, 1);
        double d;

        if (!cJSON_IsNumber(id) || !cJSON_IsNumber(lp) || id->valueint < 0 || id->valueint >= vocab)
            return INFINITY;
        d = fabs((double)logits[id->valueint] - lse - lp->valuedouble);
        worst = d > worst ? d : worst;
    }
    return worst;
}

/* Feeds the prompt in pieces that end at the stored positions; largest error of a stored
 * log-probability. */
static double feed_and_compare(
    struct real *x, struct plain_kv *kv, int seq, const struct prompt_case *c, float *logits)
{
    const cJSON *position;
    double worst = 0;
    int done = 0;

    cJSON_ArrayForEach(position, cJSON_GetObjectItemCaseSensitive(c->json, "positions"))
    {
        int pos = (int)golden_number(position, "pos", -1);
        double e;

        if (pos < done || pos >= c->n_ids)
            return INFINITY;
        plain_feed(
            x->truth, kv, seq, done, c->ids + done, pos + 1 - done, x->o->ro.max_chunk, logits);
        done = pos + 1;
        e = top_error(position, logits, x->truth->hp.vocab);
        worst = e > worst ? e : worst;
    }
    return done == c->n_ids ? worst : INFINITY;
}

/* Hidden states of the last row: L2 norm and first four numbers per stage. */
static double layers_error(const struct real *x, const struct prompt_case *c)
{
    const cJSON *stage;
    double worst = 0;
    int i = 0;

    cJSON_ArrayForEach(stage, cJSON_GetObjectItemCaseSensitive(c->json, "layers"))
    {
        const cJSON *first4 = cJSON_GetObjectItemCaseSensitive(stage, "first4");
        double norm = golden_number(stage, "norm", 0), sum = 0, e;
        char name[32];
        const float *row;
        int rows, width;

        snprintf(name, sizeof(name), "layer %d", i - 1);
        row = graph_tap(x->truth->prefill,
            i == 0                          ? "embedding"
            : i > x->truth->hp.n_layers - 1 ? "norm output"
                                            : name,
            &rows, &width);
        if (!row || rows < 1 || norm <= 0)
            return INFINITY;
        row += (size_t)(rows - 1) * (size_t)width;
        for (int j = 0; j < width; j++)
            sum += (double)row[j] * (double)row[j];
        e = fabs(sqrt(sum) - norm) / norm;
        for (int j = 0; j < 4; j++) {
            const cJSON *v = cJSON_GetArrayItem(first4, j);
            double d = cJSON_IsNumber(v) ? fabs((double)row[j] - v->valuedouble) / norm : INFINITY;

            e = d > e ? d : e;
        }
        worst = e > worst ? e : worst;
        i++;
    }
    return i > 0 ? worst : INFINITY;
}

/* Greedy continuation of a group in lockstep: all must equal the golden ids. */
static void check_greedy(
    struct real *x, struct plain_kv *kv, const struct prompt_case *cases, int n, float *logits)
{
    int vocab = x->truth->hp.vocab, same[GROUP] = {0}, past[GROUP], steps = 0;
    int32_t id[GROUP];

    for (int i = 0; i < n; i++)
        steps = cases[i].n_greedy > steps ? cases[i].n_greedy : steps;
    for (int i = 0; i < n; i++)
        past[i] = cases[i].n_ids;
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < n; i++) {
            int32_t got = golden_argmax(logits + (size_t)i * (size_t)vocab, vocab);

            if (s < cases[i].n_greedy && same[i] == s && got == cases[i].greedy[s])
                same[i]++;
            id[i] = s < cases[i].n_greedy ? cases[i].greedy[s] : 0;
        }
        if (s + 1 == steps)
            break;
        plain_decode(x->truth, kv, past, id, n, logits);
        for (int i = 0; i < n; i++)
            past[i]++;
    }
    for (int i = 0; i < n; i++)
        verify_report(x->r, same[i] == cases[i].n_greedy, "%s %s: %d of %d greedy ids", x->dir,
            cases[i].name, same[i], cases[i].n_greedy);
}

static void check_reference_group(struct real *x, struct prompt_case *cases, int n)
{
    int vocab = x->truth->hp.vocab, room = 0;
    float *logits = xcalloc((size_t)n * (size_t)vocab, sizeof(*logits));
    struct plain_kv kv = {0};
    struct err err;

    for (int i = 0; i < n; i++)
        room =
            cases[i].n_ids + cases[i].n_greedy > room ? cases[i].n_ids + cases[i].n_greedy : room;
    if (plain_kv_create(&kv, x->truth, n, room, &err) < 0) {
        verify_report(x->r, false, "%s: %s", x->dir, err.msg);
        free(logits);
        return;
    }
    for (int i = 0; i < n; i++) {
        double top = feed_and_compare(x, &kv, i, &cases[i], logits + (size_t)i * (size_t)vocab);
        double layers = layers_error(x, &cases[i]);

        verify_report(x->r, top <= 2e-3, "%s %s: log-probabilities within %.2g (bound 2e-3)",
            x->dir, cases[i].name, top);
        verify_report(x->r, layers <= 1e-3,
            "%s %s: hidden states within %.2g of their norm (bound 1e-3)", x->dir, cases[i].name,
            layers);
    }
    check_greedy(x, &kv, cases, n, logits);
    plain_kv_free(&kv);
    free(logits);
}

/* ---- another profile against the reference ---- */

/* What a profile may cost. Default: about twice what scales per 32 values cost in theory, and twice
 * what was measured for logits (0.051) and identical texts (8 of 18, AVX2 7). Precise, with f32
 * pages: about twice what was measured with AVX-512 and AVX2: KL 3.8e-8 and 3.1e-7, logits 2.9e-4,
 * likelihood 9e-6; no token changed, and one may. */
struct bars {
    double kl_mean, kl_p99, changed; /* changed: per cent */
    double logit;                    /* largest difference of a logit over the row's range */
    double nll;
    double identical; /* share of the continuations */
};

static struct bars bars_of(const char *profile)
{
    if (strcmp(profile, "precise") == 0)
        return (struct bars){1e-7, 7e-7, 0.15, 6e-4, 2e-5, 0.9};
    return (struct bars){0.005, 0.05, 4, 0.1, 5e-3, 0.2};
}

struct divergence {
    double *kl;    /* per position */
    double *logit; /* largest difference of a logit over the range of the reference's row */
    int n, cap, changed;
    int n_texts, n_identical; /* continuations, and those in which no token changed */
};

static double kl_divergence(const float *p, const float *q, int vocab)
{
    double lp = golden_logsumexp(p, vocab), lq = golden_logsumexp(q, vocab), sum = 0;

    for (int i = 0; i < vocab; i++) {
        double a = (double)p[i] - lp;

        sum += exp(a) * (a - ((double)q[i] - lq));
    }
    return sum;
}

/* Adds one position; whether its most likely token is the same. */
static bool diverge(struct divergence *d, const float *p, const float *q, int vocab)
{
    bool same = golden_argmax(p, vocab) == golden_argmax(q, vocab);

    if (d->n == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 256;
        d->kl = xrealloc(d->kl, (size_t)d->cap * sizeof(*d->kl));
        d->logit = xrealloc(d->logit, (size_t)d->cap * sizeof(*d->logit));
    }
    d->kl[d->n] = kl_divergence(p, q, vocab);
    d->logit[d->n++] = golden_row_error(q, p, vocab);
    d->changed += !same;
    return same;
}

static void diverge_group(struct real *x, struct prompt_case *cases, int n, struct divergence *d)
{
    int vocab = x->rt->hp.vocab, room = 0, past[GROUP], steps = 0;
    bool changed[GROUP] = {false};
    size_t row = (size_t)vocab;
    float *p = xcalloc((size_t)n * row, sizeof(*p)), *q = xcalloc((size_t)n * row, sizeof(*q));
    struct plain_kv kp = {0}, kq = {0};
    int32_t id[GROUP];
    struct err err;

    for (int i = 0; i < n; i++) {
        room =
            cases[i].n_ids + cases[i].n_greedy > room ? cases[i].n_ids + cases[i].n_greedy : room;
        steps = cases[i].n_greedy > steps ? cases[i].n_greedy : steps;
        past[i] = cases[i].n_ids;
    }
    if (plain_kv_create(&kp, x->truth, n, room, &err) < 0 ||
        plain_kv_create(&kq, x->rt, n, room, &err) < 0) {
        verify_report(x->r, false, "%s: %s", x->dir, err.msg);
        steps = 0;
    }
    for (int i = 0; i < n && steps; i++) {
        plain_feed(x->truth, &kp, i, 0, cases[i].ids, cases[i].n_ids, x->o->ro.max_chunk,
            p + (size_t)i * row);
        plain_feed(x->rt, &kq, i, 0, cases[i].ids, cases[i].n_ids, x->o->ro.max_chunk,
            q + (size_t)i * row);
    }
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < n; i++) {
            if (s < cases[i].n_greedy)
                changed[i] |= !diverge(d, p + (size_t)i * row, q + (size_t)i * row, vocab);
            id[i] = s < cases[i].n_greedy ? cases[i].greedy[s] : 0;
        }
        if (s + 1 == steps)
            break;
        plain_decode(x->truth, &kp, past, id, n, p);
        plain_decode(x->rt, &kq, past, id, n, q);
        for (int i = 0; i < n; i++)
            past[i]++;
    }
    for (int i = 0; i < n && steps; i++) {
        d->n_texts++;
        d->n_identical += !changed[i];
    }
    plain_kv_free(&kp);
    plain_kv_free(&kq);
    free(p);
    free(q);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void report_divergence(struct real *x, struct divergence *d)
{
    const struct bars bars = bars_of(x->o->ro.profile);
    double mean = 0, p99, changed, logit;

    if (d->n == 0) {
        verify_report(x->r, false, "%s: no positions to compare", x->dir);
        return;
    }
    qsort(d->kl, (size_t)d->n, sizeof(*d->kl), by_value);
    qsort(d->logit, (size_t)d->n, sizeof(*d->logit), by_value);
    for (int i = 0; i < d->n; i++)
        mean += d->kl[i] / d->n;
    p99 = d->kl[(int)(0.99 * (d->n - 1))];
    changed = 100.0 * d->changed / d->n;
    logit = d->logit[d->n - 1];
    verify_report(x->r, mean <= bars.kl_mean && p99 <= bars.kl_p99,
        "%s: KL to the reference profile at %d positions: mean %.2g (bound %g), p99 %.2g (bound "
        "%g), max %.2g",
        x->dir, d->n, mean, bars.kl_mean, p99, bars.kl_p99, d->kl[d->n - 1]);
    verify_report(x->r, logit <= bars.logit,
        "%s: largest difference of a logit over its row's range: median %.2g, p99 %.2g, max %.2g "
        "(bound %g)",
        x->dir, d->logit[d->n / 2], d->logit[(int)(0.99 * (d->n - 1))], logit, bars.logit);
    verify_report(x->r, changed <= bars.changed,
        "%s: most likely token changed at %.2f %% of the positions (bound %g %%)", x->dir, changed,
        bars.changed);
    verify_report(x->r, d->n_identical >= bars.identical * d->n_texts,
        "%s: %d of %d greedy continuations are the reference profile's (bound %g of them)", x->dir,
        d->n_identical, d->n_texts, bars.identical);
}

/* ---- perplexity ---- */

static void check_nll(struct real *x)
{
    int n, vocab = x->rt->hp.vocab;
    double sum = 0, want, bound = is_reference(x) ? 1e-4 : bars_of(x->o->ro.profile).nll;
    struct plain_kv kv = {0};
    int32_t *ids;
    float *logits;
    char path[4096];
    struct err err;
    cJSON *json;

    snprintf(path, sizeof(path), "%s/perplexity.json", x->dir);
    json = golden_json(path, &err);
    ids = golden_ints(cJSON_GetObjectItemCaseSensitive(json, "ids"), &n);
    want = golden_number(json, "mean_nll", NAN);
    logits = xcalloc((size_t)NLL_ROWS * (size_t)vocab, sizeof(*logits));
    if (n < 2 || isnan(want) || plain_kv_create(&kv, x->rt, 1, n, &err) < 0) {
        verify_report(x->r, false, "%s: perplexity.json cannot be checked", x->dir);
        n = 0;
    }
    for (int at = 0; at < n; at += NLL_ROWS) {
        int m = n - at < NLL_ROWS ? n - at : NLL_ROWS;
        struct graph_seq q = {.past = at,
            .n_tokens = m,
            .tokens = ids + at,
            .pages = {kv.table, kv.table},
            .n_logits = m,
            .logits = logits};

        graph_run(x->rt->prefill, &kv.memory, &q, 1);
        for (int i = 0; i < m && at + i + 1 < n; i++) {
            const float *row = logits + (size_t)i * (size_t)vocab;

            sum += golden_logsumexp(row, vocab) - (double)row[ids[at + i + 1]];
        }
    }
    if (n)
        verify_report(x->r, fabs(sum / (n - 1) - want) <= bound,
            "%s: mean negative log-likelihood %.6f of %d tokens, golden %.6f (bound %.0e)", x->dir,
            sum / (n - 1), n - 1, want, bound);
    plain_kv_free(&kv);
    free(logits);
    free(ids);
    cJSON_Delete(json);
}

static void check_cases(struct real *x, const cJSON *json)
{
    struct prompt_case group[GROUP];
    struct divergence d = {0};
    const cJSON *item, *list = cJSON_GetObjectItemCaseSensitive(json, "cases");
    int n = 0;

    cJSON_ArrayForEach(item, list)
    {
        if (case_read(&group[n], item) < 0) {
            verify_report(x->r, false, "%s: case %s is malformed", x->dir, group[n].name);
            case_free(&group[n]);
        } else if (x->o->quick && group[n].n_ids > QUICK_TOKENS) {
            case_free(&group[n]);
        } else {
            n++;
        }
        if (n == GROUP || (n > 0 && !item->next)) {
            if (is_reference(x))
                check_reference_group(x, group, n);
            else
                diverge_group(x, group, n, &d);
            while (n > 0)
                case_free(&group[--n]);
        }
    }
    if (!is_reference(x))
        report_divergence(x, &d);
    free(d.kl);
    free(d.logit);
}

void verify_real(struct verify_result *r, const struct verify_opts *o, const char *dir)
{
    struct real x = {.r = r, .o = o, .dir = dir};
    bool reference = strcmp(o->ro.profile, "reference") == 0;
    struct verify_opts exact = *o;
    char path[4096];
    struct err err;
    cJSON *json;

    if (!o->ro.model_path) {
        verify_report(r, false, "%s: needs --model FILE", dir);
        return;
    }
    snprintf(path, sizeof(path), "%s/cases.json", dir);
    json = golden_json(path, &err);
    if (!reference) { /* the exact profile gives the same bits on every instruction set: take the
                         fastest */
        exact.ro.isa = isa_name(kernels_best());
        exact.ro.kv_type = "f32";
        exact.ro.profile = "reference";
    }
    if (!json || verify_open(&x.truth, &exact, o->ro.model_path, true, &err) < 0 ||
        (!reference && verify_open(&x.rt, o, o->ro.model_path, false, &err) < 0)) {
        verify_report(r, false, "%s: %s", dir, err.msg);
    } else {
        if (reference)
            x.rt = x.truth;
        check_cases(&x, json);
        check_nll(&x);
    }
    if (!reference)
        runtime_close(x.rt);
    runtime_close(x.truth);
    cJSON_Delete(json);
}
