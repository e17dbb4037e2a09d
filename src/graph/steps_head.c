/* steps_head.c - see head.h. */
#include "graph/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/carve.h"
#include "graph/steps_matmul.h"
#include "kernels/planes.h"

enum {
    GROUP_ROWS = GROUP_PANELS * PANEL_ROWS,
    PULL = 8 * GROUP_PANELS, /* panels to bound that a thread takes: one core may read faster */
    SEEDS = 32,              /* panels a column computes exactly before it has a threshold */
    AHEAD = 2,               /* survivors on their way from memory */
    PAUSE_MAX = 16           /* runs */
};
#define TOO_MANY 0.4 /* of the panels */

/* ---- the best of a row ---- */

/* Larger first, lower ids first among equals. */
static bool before(const struct logit *a, const struct logit *b)
{
    return a->value > b->value || (a->value == b->value && a->id < b->id);
}

static void sift_down(struct best *b, int i)
{
    const struct logit moved = b->heap[i];

    for (int child; (child = 2 * i + 1) < b->n; i = child) {
        if (child + 1 < b->n && before(&b->heap[child], &b->heap[child + 1]))
            child++;
        if (!before(&moved, &b->heap[child]))
            break;
        b->heap[i] = b->heap[child];
    }
    b->heap[i] = moved;
}

static void add(struct best *b, int k, struct logit new)
{
    if (b->n == k) {
        if (before(&new, &b->heap[0])) {
            b->heap[0] = new;
            sift_down(b, 0);
        }
        return;
    }
    b->heap[b->n++] = new;
    if (b->n == k)
        for (int i = k / 2 - 1; i >= 0; i--)
            sift_down(b, i);
}

/* Below this nothing is among the k best any more. */
static float floor_of(const struct best *b, int k)
{
    return b->n > 0 && b->n == k ? b->heap[0].value : -INFINITY;
}

/* n values of rows id, id + 1, ... */
static void add_rows(struct best *b, int k, int id, const float *values, int n)
{
    float least = floor_of(b, k);

    for (int i = 0; i < n; i += PANEL_ROWS) {
        const int m = n - i < PANEL_ROWS ? n - i : PANEL_ROWS;
        bool any = false;

        for (int j = i; j < i + m; j++)
            any |= values[j] >= least;
        for (int j = i; any && j < i + m; j++)
            if (values[j] >= least) {
                add(b, k, (struct logit){id + j, values[j]});
                least = floor_of(b, k);
            }
    }
}

/* All threads' best of column c together. */
static void gather(const struct graph *g, int c, struct best *out)
{
    const int k = g->out_best[c]->k;

    out->n = 0;
    for (int t = 0; t < g->n_threads; t++) {
        const struct best *b = &g->head->threads[t].best[c];

        for (int i = 0; i < b->n; i++)
            add(out, k, b->heap[i]);
    }
}

static int by_order(const void *a, const void *b)
{
    return before(a, b) ? -1 : 1;
}

/* Numbers that are none make a list that cannot be trusted. (Only rows that were written have
 * such.) */
static bool trusted(const struct best *b, int k, int rows)
{
    if (b->n < (k < rows ? k : rows))
        return false;
    for (int i = 0; i < b->n; i++)
        if (!isfinite(b->heap[i].value))
            return false;
    return true;
}

/* Columns are shared out; every thread's lists are complete. */
static void hand_over(struct graph *g, int rows, int n_cols, int thread)
{
    for (int c = thread; c < n_cols; c += g->n_threads) {
        struct shortlist *list = g->out_best[c];
        struct best all;

        gather(g, c, &all);
        if (!trusted(&all, list->k, rows))
            continue;
        qsort(all.heap, (size_t)all.n, sizeof(*all.heap), by_order);
        memcpy(list->best, all.heap, (size_t)all.n * sizeof(*all.heap));
        list->n = all.n;
    }
}

/* ---- logits ---- */

static void softcap(struct graph *g, const struct step *s, float *values, int n)
{
    if (s->node.mm.epilogue == EPI_SOFTCAP && s->node.cap > 0)
        g->k->softcap(values, s->node.cap, n);
}

/* The next panels that no thread has yet. False: there are none. */
static bool pull(struct step *s, int most, int *first, int *last)
{
    const int n = s->linear[0].w.n_panels;

    *first = atomic_fetch_add(&s->next, most);
    *last = n - *first < most ? n : *first + most;
    return *first < n;
}

/* Panels [first, last) of all columns to the caller's rows; neighbours at one stride are computed
 * together. */
static void write_logits(
    struct graph *g, const struct step *s, const struct act *x, int first, int last, int thread)
{
    const struct linear *l = &s->linear[0];
    int row0 = first * PANEL_ROWS,
        row1 = last * PANEL_ROWS < l->w.rows ? last * PANEL_ROWS : l->w.rows;
    int n;

    for (int at = 0; at < x->n_cols; at += n) {
        struct act part;

        for (n = 1; at + n < x->n_cols && g->out_ptr[at + n] == g->out_ptr[at + n - 1] + l->w.rows;)
            n++;
        part = matmul_columns(x, at, n);
        matmul_multiply(g, l, &part, g->out_ptr[at], (size_t)l->w.rows, first, last, thread);
        for (int r = at; r < at + n; r++)
            softcap(g, s, g->out_ptr[r] + row0, row1 - row0);
    }
}

static void write_groups(
    struct graph *g, const struct step *s, const struct act *x, int first, int last, int thread)
{
    const int rows = s->linear[0].w.rows;
    struct best *best = g->head->threads[thread].best;

    for (int at = first; at < last; at += GROUP_PANELS) {
        const int end = at + GROUP_PANELS < last ? at + GROUP_PANELS : last;
        const int row0 = at * PANEL_ROWS;
        const int row1 = end * PANEL_ROWS < rows ? end * PANEL_ROWS : rows;

        write_logits(g, s, x, at, end, thread);
        for (int c = 0; g->head->lists_now && c < x->n_cols; c++)
            add_rows(&best[c], g->out_best[c]->k, row0, g->out_ptr[c] + row0, row1 - row0);
    }
}

/* ---- the screen ---- */

/* One thread's run of it. */
struct screen {
    struct graph *g;
    struct step *s;
    const struct act *x;
    struct head_thread *mine;
    struct act columns;      /* of the bound */
    float slack[SCREEN_MAX]; /* to add to it */
    float least[SCREEN_MAX]; /* of the k best of all seeds */
    int64_t n_exact;         /* panels computed exactly */
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

/* What panels may give to column c. */
static float *bound_of(const struct head *h, int c)
{
    return h->bound + (size_t)c * (size_t)h->coarse.n_panels;
}

/* A thread's share of the panels column c begins with. */
static int n_seeds(const struct screen *sc, int c)
{
    return (SEEDS + sc->g->out_best[c]->k - 1) / sc->g->n_threads + 1;
}

/* Of 16, by halves: each half is a few vector operations. */
static float largest(const float *x)
{
    float m[PANEL_ROWS / 2];

    for (int i = 0; i < 8; i++)
        m[i] = x[i] > x[i + 8] ? x[i] : x[i + 8];
    for (int half = 4; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            m[i] = m[i] > m[i + half] ? m[i] : m[i + half];
    return m[0];
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
            softcap(sc->g, sc->s, top, n);
            for (int p = 0; p < n; p++)
                bound[p] = top[p] + sc->s->node.cap * 0x1p-18f;
            add_rows(&sc->mine->seeds[c], n_seeds(sc, c), at, bound, n);
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
    softcap(sc->g, sc->s, values, n);
    add_rows(&sc->mine->best[c], sc->g->out_best[c]->k, row, values, n);
    bound_of(sc->g->head, c)[panel] = NAN;
    sc->n_exact++;
}

/* The most promising of the panels this thread has bounded, for each column. */
static void add_seeds(struct screen *sc)
{
    for (int c = 0; c < sc->x->n_cols; c++)
        for (int i = 0; i < sc->mine->seeds[c].n; i++)
            add_panel(sc, sc->mine->seeds[c].heap[i].id, c);
}

/* Panels that may hold one of some column's best. What is known compares as false. */
static int list_survivors(const struct screen *sc, int *panels)
{
    const struct head *h = sc->g->head;
    int n = 0;

    for (int p = 0; p < h->coarse.n_panels; p++) {
        bool reaches = false;

        for (int c = 0; c < sc->x->n_cols; c++)
            reaches |= bound_of(h, c)[p] >= sc->least[c];
        panels[n] = p;
        n += reaches;
    }
    return n;
}

/* The same on every thread, which then takes every n-th: the likely tokens lie together. Others of
 * its panels are on their way while one is computed, and may be ruled out by what it gives. */
static void add_survivors(struct screen *sc, int thread)
{
    const struct wmat *w = &sc->s->linear[0].w;
    const int step = sc->g->n_threads, *panels = sc->mine->survivors;
    struct best all;
    int n;

    for (int c = 0; c < sc->x->n_cols; c++) {
        gather(sc->g, c, &all);
        sc->least[c] = floor_of(&all, sc->g->out_best[c]->k);
    }
    n = list_survivors(sc, sc->mine->survivors);
    pool_barrier(sc->g->pool); /* the lists and bounds change from here on */
    for (int i = thread; i < n && i < thread + AHEAD * step; i += step)
        planes_fetch(w, panels[i]);
    for (int i = thread; i < n; i += step) {
        if (i + AHEAD * step < n)
            planes_fetch(w, panels[i + AHEAD * step]);
        for (int c = 0; c < sc->x->n_cols; c++) {
            const float own = floor_of(&sc->mine->best[c], sc->g->out_best[c]->k);

            if (bound_of(sc->g->head, c)[panels[i]] >= (own > sc->least[c] ? own : sc->least[c]))
                add_panel(sc, panels[i], c);
        }
    }
}

/* False: nothing was done. */
static bool screened(struct graph *g, struct step *s, const struct act *x, int thread)
{
    struct head *h = g->head;
    struct screen sc = {.g = g, .s = s, .x = x, .mine = &h->threads[thread]};
    int64_t n_bounded = 0;

    if (!h->screens_now || !screen_begin(&sc))
        return false;
    for (int first, last; pull(s, PULL, &first, &last); n_bounded += last - first)
        bound_panels(&sc, first, last);
    add_seeds(&sc);
    pool_barrier(g->pool);
    add_survivors(&sc, thread);
    atomic_fetch_add(&h->n_exact, sc.n_exact);
    atomic_fetch_add(&h->read, (int64_t)h->coarse.panel_bytes * n_bounded +
                                   (int64_t)wmat_packed_bytes(&s->linear[0].w) * sc.n_exact);
    return true;
}

/* ---- the step ---- */

/* Lists where all want one, and short ones screened: with more rows or longer lists too many panels
 * survive. After a run that computed too many panels twice, for the logits lie close together, some
 * do without: twice as many each time in a row. */
void head_begin(struct graph *g)
{
    struct head *h = g->head;
    int total = 0;

    h->lists_now = h->lists && g->n_out <= HEAD_COLS;
    for (int i = 0; i < g->n_out && h->lists_now; i++) {
        h->lists_now = g->out_best[i] != NULL;
        total += h->lists_now ? g->out_best[i]->k : 0;
    }
    if (h->screens_now && atomic_load(&h->n_exact) > h->coarse.n_panels * TOO_MANY)
        h->pause = h->next_pause = h->next_pause < PAUSE_MAX / 2 ? 2 * h->next_pause : PAUSE_MAX;
    else if (h->screens_now)
        h->next_pause = 1;
    atomic_store(&h->n_exact, 0);
    h->screens_now = h->lists_now && h->screens && g->n_out <= SCREEN_MAX &&
                     total <= SCREEN_LENGTHS && h->pause == 0;
    if (h->pause > 0)
        h->pause--;
}

/* With few columns the memory is the limit, and long equal shares read best. */
static void whole(struct graph *g, struct step *s, const struct act *x, int thread)
{
    const struct wmat *w = &s->linear[0].w;
    int first, last;

    if (thread == 0)
        atomic_fetch_add(&g->head->read, (int64_t)wmat_bytes(w));
    if (x->n_cols > STATIC_ROWS) {
        while (pull(s, GROUP_PANELS, &first, &last))
            write_groups(g, s, x, first, last, thread);
        return;
    }
    pool_share(w->n_panels, thread, g->n_threads, &first, &last);
    write_groups(g, s, x, first, last, thread);
}

static void list(struct graph *g, struct step *s, const struct act *x, int thread)
{
    struct head_thread *mine = &g->head->threads[thread];

    for (int c = 0; c < x->n_cols; c++)
        mine->best[c].n = 0;
    for (int c = 0; c < SCREEN_MAX && g->head->screens; c++)
        mine->seeds[c].n = 0;
    if (!screened(g, s, x, thread))
        whole(g, s, x, thread);
    pool_barrier(g->pool);
    hand_over(g, s->linear[0].w.rows, x->n_cols, thread);
}

void step_head(struct graph *g, struct step *s, int thread)
{
    const struct linear *l = &s->linear[0];
    int n = s->node.mm.gather ? g->n_out : n_rows_of(g, s->in[0].rows);
    struct prepared p = {0};

    if (n == 0)
        return;
    matmul_prepare(g, s, thread, n, &p);
    if (thread == 0)
        atomic_fetch_add(&g->head->whole, (int64_t)wmat_bytes(&l->w));
    if (g->head->lists_now)
        list(g, s, &p.act[l->kind], thread);
    else
        whole(g, s, &p.act[l->kind], thread);
}

/* ---- its memory ---- */

static void carve_head(
    struct head *h, const struct graph *g, const struct step *s, struct carver *c)
{
    const struct wmat *w = &s->linear[0].w;

    if (h->screens)
        h->bound = carve(c, (size_t)SCREEN_MAX * (size_t)w->n_panels * sizeof(float));
    for (int t = 0; t < g->n_threads; t++) {
        struct head_thread *mine = &h->threads[t];

        mine->best = carve(c, HEAD_COLS * sizeof(struct best));
        if (!h->screens)
            continue;
        mine->seeds = carve(c, SCREEN_MAX * sizeof(struct best));
        mine->survivors = carve(c, (size_t)w->n_panels * sizeof(int));
        mine->tile = carve(c, (size_t)SCREEN_MAX * GROUP_ROWS * sizeof(float));
        mine->columns = carve(c, SCREEN_MAX * act_col_bytes(s->linear[0].kind, w->k));
    }
}

int head_create(struct graph *g, struct step *s, struct err *err)
{
    const struct wmat *w = &s->linear[0].w;
    struct head *h = xcalloc(1, sizeof(*h));
    struct carver c = {0};

    g->head = h;
    h->next_pause = 1;
    h->threads = xcalloc((size_t)g->n_threads, sizeof(*h->threads));
    h->lists = g->ir.values[s->node.out[s->node.n_out - 1]].output;
    h->screens = h->lists && w->fine && isfinite(w->max_scale) &&
                 (s->linear[0].kind == ACT_Q8 || s->linear[0].kind == ACT_Q16);
    if (w->fine)
        h->coarse = planes_coarse(w);
    carve_head(h, g, s, &c);
    h->bytes = c.at;
    c = (struct carver){.base = mem_aligned(h->bytes)};
    h->memory = c.base;
    if (!c.base)
        return err_set(err, GD_ENOMEM, "no memory for the head's scratch (%zu bytes)", h->bytes);
    carve_head(h, g, s, &c);
    return 0;
}

void head_destroy(struct head *h)
{
    if (!h)
        return;
    mem_aligned_free(h->memory, h->bytes);
    free(h->threads);
    free(h);
}
