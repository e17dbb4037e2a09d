/* screen.c - the best of a row without computing all of it; see head.h. */
#include "graph/screen.h"

#include <math.h>

#include "graph/steps_matmul.h"
#include "kernels/planes.h"

enum {
    GROUP_ROWS = GROUP_PANELS * PANEL_ROWS,
    PULL = 8 * GROUP_PANELS, /* panels to bound that a thread takes: one core may read faster */
    SEEDS = 32,              /* panels a column computes exactly before it has a threshold */
    AHEAD = 2,               /* survivors on their way from memory */
};

/* One thread's run of it. */
struct screen {
    struct graph *g;
    struct step *s;
    const struct act *x;
    int thread;
    struct head_thread *mine;
    struct act columns;      /* of the bound */
    float slack[SCREEN_MAX]; /* to add to it */
    int64_t n_exact;         /* panels computed exactly */
    /* In this round: the panels with reach >= least are still to be computed for a column. */
    const float *reach[SCREEN_MAX];
    float least[SCREEN_MAX];
};

/* False when some column has no bound. The same on every thread. */
static bool screen_begin(struct screen *sc)
{
    const struct linear *l = &sc->s->linear[0];

    sc->columns = act_init(sc->x->kind, sc->x->n_cols, sc->x->k, sc->mine->columns);
    for (int c = 0; c < sc->x->n_cols; c++) {
        sc->slack[c] = planes_bound(&l->w, sc->x, &sc->columns, c);
        if (!isfinite(sc->slack[c]))
            return false;
    }
    return true;
}

/* What panels may give to column c, and the same with noise. */
static float *bound_of(const struct head *h, int c)
{
    return h->bound + (size_t)c * (size_t)h->coarse.n_panels;
}

static float *noisy_of(const struct head *h, int c)
{
    return h->noisy + (size_t)c * (size_t)h->coarse.n_panels;
}

/* A thread's share of the panels column c begins with. */
static int n_seeds(const struct screen *sc, int c)
{
    const struct shortlist *list = sc->g->out_best[c];
    const int k = list->draw.scale > 0 ? 1 : list->k;

    return (SEEDS + k - 1) / sc->g->n_threads + 1;
}

/* Of 16; the four steps of the loop are three vector operations. */
static float largest(const float *x)
{
    float m[4];

    for (int i = 0; i < 4; i++) {
        const float a = x[i] > x[i + 4] ? x[i] : x[i + 4];
        const float b = x[i + 8] > x[i + 12] ? x[i + 8] : x[i + 12];

        m[i] = a > b ? a : b;
    }
    m[0] = m[0] > m[2] ? m[0] : m[2];
    m[1] = m[1] > m[3] ? m[1] : m[3];
    return m[0] > m[1] ? m[0] : m[1];
}

/* Panels first .. first + n - 1 of column c may give this: what to go by. */
static const float *with_noise(const struct screen *sc, int c, const float *bound, int first, int n)
{
    const struct draw *d = &sc->g->out_best[c]->draw;
    float *noisy = noisy_of(sc->g->head, c) + first;

    if (d->scale == 0)
        return bound;
    sc->g->k->noise_bounds(noisy, d->key, first, n);
    for (int p = 0; p < n; p++)
        noisy[p] += d->scale * bound[p];
    return noisy;
}

/* What each panel may give at most, a group at a time. The soft-cap is monotone but for its
 * rounding (kernels/simd_math.h). */
static void bound_panels(struct screen *sc, int first, int last)
{
    struct head *h = sc->g->head;
    float *tile = sc->mine->tile, top[GROUP_PANELS];

    for (int at = first; at < last; at += GROUP_PANELS) {
        const int n = at + GROUP_PANELS < last ? GROUP_PANELS : last - at;

        for (int i = 0; at + n == h->coarse.n_panels && i < SCREEN_MAX * GROUP_ROWS; i++)
            tile[i] = -INFINITY; /* rows beyond the last are not written */
        sc->g->k->matmul.run(
            &h->coarse, &sc->columns, tile - at * PANEL_ROWS, GROUP_ROWS, at, at + n);
        for (int c = 0; c < sc->x->n_cols; c++) {
            float *bound = bound_of(h, c) + at;

            for (int p = 0; p < n; p++)
                top[p] = largest(tile + c * GROUP_ROWS + p * PANEL_ROWS) + sc->slack[c];
            head_softcap(sc->g, sc->s, top, n);
            for (int p = 0; p < n; p++)
                bound[p] = top[p] + sc->s->node.cap * 0x1p-18f;
            best_add_rows(
                &sc->mine->seeds[c], n_seeds(sc, c), at, with_noise(sc, c, bound, at, n), n);
        }
    }
}

/* The logits of a panel and column c. */
static void add_panel(struct screen *sc, int panel, int c)
{
    const struct wmat *w = &sc->s->linear[0].w;
    const struct act x = matmul_columns(sc->x, c, 1);
    const int row = panel * PANEL_ROWS, n = w->rows - row < PANEL_ROWS ? w->rows - row : PANEL_ROWS;
    float values[PANEL_ROWS];

    sc->g->k->matmul.run(w, &x, values - row, PANEL_ROWS, panel, panel + 1);
    head_softcap(sc->g, sc->s, values, n);
    head_take(sc->g, c, row, values, n, sc->thread);
    bound_of(sc->g->head, c)[panel] = noisy_of(sc->g->head, c)[panel] = NAN;
    sc->n_exact++;
}

/* The most promising of the panels this thread has bounded, for each column. */
static void add_seeds(struct screen *sc)
{
    for (int c = 0; c < sc->x->n_cols; c++)
        for (int i = 0; i < sc->mine->seeds[c].n; i++)
            add_panel(sc, sc->mine->seeds[c].heap[i].id, c);
}

/* Panels that some column still needs. What is known compares as false. */
static int list_survivors(const struct screen *sc, int *panels)
{
    int n = 0;

    for (int p = 0; p < sc->g->head->coarse.n_panels; p++) {
        bool reaches = false;

        for (int c = 0; c < sc->x->n_cols; c++)
            reaches |= sc->reach[c][p] >= sc->least[c];
        panels[n] = p;
        n += reaches;
    }
    return n;
}

/* What a panel must reach by what this thread has found itself. */
static float own_least(const struct screen *sc, int c)
{
    const float own = sc->reach[c] == noisy_of(sc->g->head, c)
                          ? sc->mine->drawn[c].value
                          : best_floor(&sc->mine->best[c], sc->g->out_best[c]->k);

    return own > sc->least[c] ? own : sc->least[c];
}

/* The same on every thread, which then takes every n-th: the likely tokens lie together. Others of
 * its panels are on their way while one is computed, and may be ruled out by what it gives. */
static void add_survivors(struct screen *sc)
{
    const struct wmat *w = &sc->s->linear[0].w;
    const int thread = sc->thread, step = sc->g->n_threads, *panels = sc->mine->survivors;
    const int n = list_survivors(sc, sc->mine->survivors);

    pool_barrier(sc->g->pool); /* the lists and bounds change from here on */
    for (int i = thread; i < n && i < thread + AHEAD * step; i += step)
        planes_fetch(w, panels[i]);
    for (int i = thread; i < n; i += step) {
        if (i + AHEAD * step < n)
            planes_fetch(w, panels[i + AHEAD * step]);
        for (int c = 0; c < sc->x->n_cols; c++)
            if (sc->reach[c][panels[i]] >= own_least(sc, c))
                add_panel(sc, panels[i], c);
    }
}

/* First round: what is among the best, or drawn from all. */
static void ask_for_best(struct screen *sc)
{
    for (int c = 0; c < sc->x->n_cols; c++) {
        const struct shortlist *list = sc->g->out_best[c];
        struct best all;

        if (list->draw.scale > 0) {
            sc->reach[c] = noisy_of(sc->g->head, c);
            sc->least[c] = head_drawn(sc->g, c).value;
            continue;
        }
        head_gather(sc->g, c, &all);
        sc->reach[c] = bound_of(sc->g->head, c);
        sc->least[c] = best_floor(&all, list->k);
    }
}

/* Second, for a draw from a part of the row: what comes before the one that is drawn from all. If
 * that is not even among the k best so far, the k best or nothing but the row. */
static bool ask_for_larger(struct screen *sc)
{
    bool any = false;

    for (int c = 0; c < sc->x->n_cols; c++) {
        const struct shortlist *list = sc->g->out_best[c];
        struct best all;
        int32_t drawn;

        sc->reach[c] = bound_of(sc->g->head, c);
        sc->least[c] = INFINITY;
        if (!list->choose)
            continue;
        any = true;
        head_gather(sc->g, c, &all);
        if (!list->row_else)
            sc->least[c] = best_floor(&all, list->k);
        drawn = head_drawn(sc->g, c).id;
        for (int i = 0; i < all.n; i++)
            if (all.heap[i].id == drawn)
                sc->least[c] = all.heap[i].value;
    }
    return any;
}

/* Third, where that leaves open which is drawn: the k best. */
static void ask_for_list(struct screen *sc)
{
    for (int c = 0; c < sc->x->n_cols; c++) {
        const struct shortlist *list = sc->g->out_best[c];
        struct best all;

        sc->least[c] = INFINITY;
        if (!list->choose || list->row_else || head_chosen(sc->g, c, &all) >= 0)
            continue;
        head_gather(sc->g, c, &all);
        sc->least[c] = best_floor(&all, list->k);
    }
}

/* Each begins when all threads know what the one before gave. */
static void rounds(struct screen *sc)
{
    pool_barrier(sc->g->pool);
    ask_for_best(sc);
    add_survivors(sc);
    pool_barrier(sc->g->pool);
    if (!ask_for_larger(sc))
        return;
    add_survivors(sc);
    pool_barrier(sc->g->pool);
    ask_for_list(sc);
    add_survivors(sc);
}

bool head_screened(struct graph *g, struct step *s, const struct act *x, int thread)
{
    struct head *h = g->head;
    struct screen sc = {.g = g, .s = s, .x = x, .thread = thread, .mine = &h->threads[thread]};
    int64_t n_bounded = 0;

    if (!h->screens_now || !screen_begin(&sc))
        return false;
    for (int c = 0; c < x->n_cols; c++)
        sc.mine->seeds[c].n = 0;
    for (int first, last; head_pull(s, PULL, &first, &last); n_bounded += last - first)
        bound_panels(&sc, first, last);
    add_seeds(&sc);
    rounds(&sc);
    atomic_fetch_add(&h->n_exact, sc.n_exact);
    atomic_fetch_add(&h->read, (int64_t)h->coarse.panel_bytes * n_bounded +
                                   (int64_t)wmat_packed_bytes(&s->linear[0].w) * sc.n_exact);
    return true;
}
