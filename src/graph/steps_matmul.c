/* steps_matmul.c - one step: [gather] [residual add] [norm] prepare | matrices | [GeGLU or
 * soft-cap].
 *
 * With few rows every thread prepares all of them for itself, so that no barrier is needed before
 * the matrices; with more, rows are prepared once, by shares, into memory all threads read. Both
 * give the same bits. Then the panels of all matrices, laid end to end, are shared out: equal
 * static shares with few rows (each core streams its own part of the weights), pulled pieces with
 * many (a slow core holds nobody up). */
#include "graph/steps_matmul.h"

#include "kernels/planes.h"

/* Residual, norms and quantisation of one row. write_sum: this thread stores the residual sum. */
static void prepare_row(struct graph *g, struct step *s, const struct prepared *p,
    struct scratch *t, int row, bool write_sum)
{
    const struct ir_matmul *mm = &s->node.mm;
    const struct kernels *k = g->k;
    int from = mm->gather ? g->out_row[row] : row;
    int width = mm->linear[0].k;
    const float *x = row_at(g, &s->in[0], from);

    if (mm->add) {
        float *sum = write_sum ? row_at(g, &s->out[0], row) : t->row[1];

        if (mm->branch_norm) {
            k->rmsnorm(t->row[0], x, s->vec2, s->node.eps, width);
            x = t->row[0];
        }
        k->add(sum, row_at(g, &s->in[1], from), x, width);
        x = sum;
    }
    if (mm->norm) {
        k->rmsnorm(t->row[2], x, s->vec, s->node.eps, width);
        x = t->row[2];
    }
    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (s->kinds[kind]) {
            k->matmul.act_fill(&p->act[kind], row, x);
            if (s->linear[0].w.strong && (kind == ACT_Q8 || kind == ACT_Q16))
                planes_arrange(&s->linear[0].w, &p->act[kind], row);
        }
}

void matmul_prepare(struct graph *g, struct step *s, int thread, int n, struct prepared *p)
{
    struct scratch *t = &g->scratch[thread];
    bool private = n <= PRIVATE_ROWS;
    int first = 0, last = n;

    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (s->kinds[kind])
            p->act[kind] = act_init((enum act_kind)kind, n, s->node.mm.linear[0].k,
                private ? t->act[kind] : g->act[kind]);
    if (!private)
        pool_share(n, thread, g->n_threads, &first, &last);
    for (int row = first; row < last; row++)
        prepare_row(g, s, p, t, row, !private || thread == 0);
    if (!private)
        pool_barrier(g->pool);
}

void matmul_multiply(struct graph *g, const struct linear *l, const struct act *x, float *y,
    size_t ldy, int first, int last, int thread)
{
    if (l->backend == MATMUL_BLAS)
        matmul_blas(&l->w, x, y, ldy, first, last, g->scratch[thread].blas);
    else
        g->k->matmul.run(&l->w, x, y, ldy, first, last);
}

/* Panels [first, last) of gate and up, a few columns at a time so that both pieces stay in cache.
 */
static void geglu(
    struct graph *g, struct step *s, const struct prepared *p, int first, int last, int thread)
{
    const struct linear *gate = &s->linear[0], *up = &s->linear[1];
    int row0 = first * PANEL_ROWS;
    int width = (last * PANEL_ROWS < gate->w.rows ? last * PANEL_ROWS : gate->w.rows) - row0;
    int n = p->act[gate->kind].n_cols;
    size_t ld = GROUP_PANELS * PANEL_ROWS;
    float *tile[2] = {g->scratch[thread].tile, g->scratch[thread].tile + GEGLU_COLS * ld};

    for (int c = 0; c < n; c += GEGLU_COLS) {
        int m = n - c < GEGLU_COLS ? n - c : GEGLU_COLS;

        for (int i = 0; i < 2; i++) {
            const struct linear *l = i == 0 ? gate : up;
            struct act x = matmul_columns(&p->act[l->kind], c, m);

            matmul_multiply(g, l, &x, tile[i] - row0, ld, first, last, thread);
        }
        for (int r = 0; r < m; r++)
            g->k->geglu(row_at(g, &s->out[s->node.n_out - 1], c + r) + row0,
                tile[0] + (size_t)r * ld, tile[1] + (size_t)r * ld, width);
    }
}

/* Panels [first, last) of one matrix. */
static void panels(struct graph *g, struct step *s, const struct prepared *p, int i, int first,
    int last, int thread)
{
    const struct linear *l = &s->linear[i];
    const struct operand *out = &s->out[s->node.mm.add + i];

    if (s->node.mm.epilogue == EPI_GEGLU) {
        for (int at = first; at < last; at += GROUP_PANELS)
            geglu(g, s, p, at, at + GROUP_PANELS < last ? at + GROUP_PANELS : last, thread);
    } else {
        matmul_multiply(g, l, &p->act[l->kind], out->base, (size_t)out->ld, first, last, thread);
    }
}

/* The part [first, last) of all panels laid end to end. */
static void range(
    struct graph *g, struct step *s, const struct prepared *p, int first, int last, int thread)
{
    int n = s->node.mm.epilogue == EPI_GEGLU ? 1 : s->node.mm.n_linears;

    for (int i = 0, base = 0; i < n; base += s->linear[i++].w.n_panels) {
        int a = first > base ? first - base : 0;
        int b = last - base < s->linear[i].w.n_panels ? last - base : s->linear[i].w.n_panels;

        if (a < b)
            panels(g, s, p, i, a, b, thread);
    }
}

/* Panels pulled at a time: few enough that threads end together, and in pairs, as kernels like
 * them. 40 panels in pieces of 8 would leave one of two threads idle for a fifth of the time. */
static int piece(int total, int n_threads)
{
    int n = GROUP_PANELS;

    while (n > 2 && total < 4 * n * n_threads)
        n /= 2;
    return n;
}

void step_matmul(struct graph *g, struct step *s, int thread)
{
    const struct ir_matmul *mm = &s->node.mm;
    int n = mm->gather ? g->n_out : n_rows_of(g, s->in[0].rows);
    int total = 0, first, last, step;
    struct prepared p = {0};

    if (n == 0)
        return;
    matmul_prepare(g, s, thread, n, &p);
    for (int i = 0; i < (mm->epilogue == EPI_GEGLU ? 1 : mm->n_linears); i++)
        total += s->linear[i].w.n_panels;
    if (n <= STATIC_ROWS) {
        pool_share(total, thread, g->n_threads, &first, &last);
        range(g, s, &p, first, last, thread);
        return;
    }
    step = piece(total, g->n_threads);
    while ((first = atomic_fetch_add(&s->next, step)) < total)
        range(g, s, &p, first, first + step < total ? first + step : total, thread);
}
