/* steps_head.c - see head.h. */
#include "graph/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/carve.h"
#include "graph/draw.h"
#include "graph/screen.h"
#include "graph/steps_matmul.h"
#include "kernels/planes.h"

enum { BLOCK_PANELS = HEAD_ROWS / PANEL_ROWS, DRAW_LENGTH = 2, VAIN_MAX = 6 };
#define TOO_MANY 0.4 /* of the panels */

/* ---- logits ---- */

void head_softcap(const struct graph *g, const struct step *s, float *values, int n)
{
    if (s->node.mm.epilogue == EPI_SOFTCAP && s->node.cap > 0)
        g->k->softcap(values, s->node.cap, n);
}

bool head_pull(struct step *s, int most, int *first, int *last)
{
    const int n = s->linear[0].w.n_panels;

    *first = atomic_fetch_add(&s->next, most);
    *last = n - *first < most ? n : *first + most;
    return *first < n;
}

/* Panels [first, last) of columns [c, end) to the caller's rows; neighbours at one stride are
 * computed together. */
static void write_rows(struct graph *g, const struct step *s, const struct act *x, int c, int end,
    int first, int last, int thread)
{
    const struct linear *l = &s->linear[0];
    int row0 = first * PANEL_ROWS,
        row1 = last * PANEL_ROWS < l->w.rows ? last * PANEL_ROWS : l->w.rows;
    int n;

    for (int at = c; at < end; at += n) {
        struct act part;

        for (n = 1; at + n < end && g->out_ptr[at + n] == g->out_ptr[at + n - 1] + l->w.rows;)
            n++;
        part = matmul_columns(x, at, n);
        matmul_multiply(g, l, &part, g->out_ptr[at], (size_t)l->w.rows, first, last, thread);
        for (int r = at; r < at + n; r++)
            head_softcap(g, s, g->out_ptr[r] + row0, row1 - row0);
    }
}

/* The whole head gives the list that decides a draw from a part of the row; without a screen nobody
 * asks what would be drawn from all. */
static bool draws_now(const struct head *h, const struct shortlist *list)
{
    return list->draw.scale > 0 && (!list->choose || h->screens_now);
}

void head_take(const struct graph *g, int c, int row, const float *logits, int n, int thread)
{
    const struct shortlist *list = g->out_best[c];
    const struct head_thread *mine = &g->head->threads[thread];

    if (draws_now(g->head, list))
        draw_take(g->k, &list->draw, row, logits, n, &mine->drawn[c]);
    if (list->draw.scale == 0 || list->choose)
        best_add_rows(&mine->best[c], list->k, row, logits, n);
}

/* Where the whole head is computed, what may come to the row begins with it. */
static bool can_take(const struct head *h, const struct shortlist *list)
{
    return list && (h->screens_now || !list->row_else);
}

/* Panels [first, last), whole blocks, of all columns: to the caller's rows if someone wants his,
 * else no further than the cache. */
static void blocks(
    struct graph *g, const struct step *s, const struct act *x, int first, int last, int thread)
{
    const int rows = s->linear[0].w.rows;
    const struct head *h = g->head;
    float *tile = h->threads[thread].tile;

    for (int at = first; at < last; at += BLOCK_PANELS) {
        const int end = at + BLOCK_PANELS < last ? at + BLOCK_PANELS : last;
        const int row0 = at * PANEL_ROWS;
        const int n = (end * PANEL_ROWS < rows ? end * PANEL_ROWS : rows) - row0;

        if (h->rows_now) {
            write_rows(g, s, x, 0, x->n_cols, at, end, thread);
        } else {
            matmul_multiply(g, &s->linear[0], x, tile - row0, HEAD_ROWS, at, end, thread);
            for (int c = 0; c < x->n_cols; c++)
                head_softcap(g, s, tile + c * HEAD_ROWS, n);
        }
        for (int c = 0; h->takes_now && c < x->n_cols; c++)
            if (can_take(h, g->out_best[c]))
                head_take(g, c, row0, h->rows_now ? g->out_ptr[c] + row0 : tile + c * HEAD_ROWS, n,
                    thread);
    }
}

/* ---- what is handed over ---- */

void head_gather(const struct graph *g, int c, struct best *out)
{
    const int k = g->out_best[c]->k;

    out->n = 0;
    for (int t = 0; t < g->n_threads; t++) {
        const struct best *b = &g->head->threads[t].best[c];

        for (int i = 0; i < b->n; i++)
            best_add(out, k, b->heap[i]);
    }
}

struct logit head_drawn(const struct graph *g, int c)
{
    struct logit best = g->head->threads[0].drawn[c];

    for (int t = 1; t < g->n_threads; t++)
        if (best_before(&g->head->threads[t].drawn[c], &best))
            best = g->head->threads[t].drawn[c];
    return best;
}

/* Numbers that are none make a list that cannot be trusted. */
static bool all_finite(const struct best *b)
{
    for (int i = 0; i < b->n; i++)
        if (!isfinite(b->heap[i].value))
            return false;
    return true;
}

int head_chosen(const struct graph *g, int c, struct best *all)
{
    struct shortlist list = *g->out_best[c];
    const int32_t drawn = head_drawn(g, c).id;
    int i = 0;

    head_gather(g, c, all);
    best_sort(all);
    if (!list.choose)
        return -1;
    list.best = all->heap;
    list.n = all->n;
    while (i < all->n && all->heap[i].id != drawn)
        i++;
    return i < all->n && all_finite(all) ? list.choose(&list, i) : -1;
}

static void give(struct shortlist *list, const struct logit *best, int n, bool drawn)
{
    memcpy(list->best, best, (size_t)n * sizeof(*best));
    list->n = n;
    list->drawn = drawn;
}

static bool hand_list(const struct graph *g, int c, int rows)
{
    struct shortlist *list = g->out_best[c];
    struct best all;
    int i;

    if (list->draw.scale > 0 && !list->choose) {
        const struct logit drawn = head_drawn(g, c);

        if (isfinite(drawn.value))
            give(list, &drawn, 1, true);
        return isfinite(drawn.value);
    }
    i = head_chosen(g, c, &all);
    if (i >= 0)
        give(list, &all.heap[i], 1, true);
    else if (!list->row_else && all.n == (list->k < rows ? list->k : rows) && all_finite(&all))
        give(list, all.heap, all.n, false);
    return list->n > 0;
}

/* Columns are shared out; every thread has taken what it could. */
static void hand_over(struct graph *g, int rows, int n_cols, int thread)
{
    for (int c = thread; c < n_cols; c += g->n_threads)
        if (can_take(g->head, g->out_best[c]) && !hand_list(g, c, rows))
            atomic_store(&g->head->lacks, true);
}

/* ---- the step ---- */

/* As many panels survive for a draw as for a list of so many. Where products take longer than
 * reading, one draw is screened, but not several. */
static int length(const struct graph *g, const struct shortlist *list)
{
    if (list->draw.scale == 0)
        return list->k;
    return g->k->isa == ISA_AVX512 ? DRAW_LENGTH : SCREEN_LENGTHS / 2 + 1;
}

/* Whether the next run may be screened. Where one computed too many panels twice, for the logits
 * lie close together, or some row after all, the next ones may, too: the second time in a row a run
 * does without, then twice as many each time. */
static bool may_screen(struct head *h)
{
    const bool in_vain =
        atomic_load(&h->n_exact) > h->coarse.n_panels * TOO_MANY || atomic_load(&h->lacks);

    if (h->screens_now) {
        h->n_vain = !in_vain ? 0 : h->n_vain < VAIN_MAX ? h->n_vain + 1 : VAIN_MAX;
        h->pause = (1 << h->n_vain) / 4; /* 0, 0, 1, 2, .. 16 */
    } else if (h->pause > 0) {
        h->pause--;
    }
    return h->screens && h->pause == 0;
}

/* Lists where few rows are wanted. Short ones are screened, if nobody wants his row: with more rows
 * or longer lists too many panels survive. */
void head_begin(struct graph *g)
{
    struct head *h = g->head;
    int total = 0;

    h->takes_now = h->lists && g->n_out <= HEAD_COLS;
    h->rows_now = !h->takes_now;
    for (int i = 0; i < g->n_out; i++) {
        h->rows_now |= !g->out_best[i];
        total += g->out_best[i] ? length(g, g->out_best[i]) : 0;
    }
    h->screens_now =
        may_screen(h) && !h->rows_now && g->n_out <= SCREEN_MAX && total <= SCREEN_LENGTHS;
    atomic_store(&h->n_exact, 0);
    atomic_store(&h->lacks, false);
    for (int i = 0; i < g->n_out; i++)
        h->rows_now |= !can_take(h, g->out_best[i]);
}

/* With few columns the memory is the limit, and long equal shares read best. */
static void whole(struct graph *g, struct step *s, const struct act *x, int thread)
{
    const struct wmat *w = &s->linear[0].w;
    const int n_blocks = (w->n_panels + BLOCK_PANELS - 1) / BLOCK_PANELS;
    int first, last;

    if (thread == 0)
        atomic_fetch_add(&g->head->read, (int64_t)wmat_bytes(w));
    if (x->n_cols > STATIC_ROWS) {
        while (head_pull(s, GROUP_PANELS, &first, &last))
            write_rows(g, s, x, 0, x->n_cols, first, last, thread);
        return;
    }
    pool_share(n_blocks, thread, g->n_threads, &first, &last);
    blocks(
        g, s, x, first * BLOCK_PANELS, last < n_blocks ? last * BLOCK_PANELS : w->n_panels, thread);
}

/* Those that got nothing but their rows. */
static void write_lacking(struct graph *g, struct step *s, const struct act *x, int thread)
{
    int first, last, end;

    pool_share(s->linear[0].w.n_panels, thread, g->n_threads, &first, &last);
    for (int c = 0; c < x->n_cols; c = end + 1) {
        for (end = c; end < x->n_cols && g->out_best[end]->n == 0;)
            end++;
        if (end > c && thread == 0)
            atomic_fetch_add(&g->head->read, (int64_t)wmat_bytes(&s->linear[0].w));
        write_rows(g, s, x, c, end, first, last, thread);
    }
}

static void take_all(struct graph *g, struct step *s, const struct act *x, int thread)
{
    struct head *h = g->head;

    for (int c = 0; c < x->n_cols; c++) {
        h->threads[thread].best[c].n = 0;
        h->threads[thread].drawn[c] = (struct logit){-1, -INFINITY};
    }
    if (!head_screened(g, s, x, thread))
        whole(g, s, x, thread);
    pool_barrier(g->pool);
    hand_over(g, s->linear[0].w.rows, x->n_cols, thread);
    pool_barrier(g->pool);
    if (atomic_load(&h->lacks) && !h->rows_now)
        write_lacking(g, s, x, thread);
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
    if (g->head->takes_now)
        take_all(g, s, &p.act[l->kind], thread);
    else
        whole(g, s, &p.act[l->kind], thread);
}

/* ---- its memory ---- */

static void carve_head(
    struct head *h, const struct graph *g, const struct step *s, struct carver *c)
{
    const struct wmat *w = &s->linear[0].w;

    if (!h->lists)
        return;
    if (h->screens) {
        h->bound = carve(c, (size_t)SCREEN_MAX * (size_t)w->n_panels * sizeof(float));
        h->noisy = carve(c, (size_t)SCREEN_MAX * (size_t)w->n_panels * sizeof(float));
    }
    for (int t = 0; t < g->n_threads; t++) {
        struct head_thread *mine = &h->threads[t];

        mine->best = carve(c, HEAD_COLS * sizeof(struct best));
        mine->drawn = carve(c, HEAD_COLS * sizeof(struct logit));
        mine->tile = carve(c, (size_t)HEAD_COLS * HEAD_ROWS * sizeof(float));
        if (!h->screens)
            continue;
        mine->seeds = carve(c, SCREEN_MAX * sizeof(struct best));
        mine->survivors = carve(c, (size_t)w->n_panels * sizeof(int));
        mine->columns = carve(c, SCREEN_MAX * act_col_bytes(s->linear[0].kind, w->k));
    }
}

int head_create(struct graph *g, struct step *s, struct err *err)
{
    const struct wmat *w = &s->linear[0].w;
    struct head *h = xcalloc(1, sizeof(*h));
    struct carver c = {0};

    g->head = h;
    h->step = s;
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
