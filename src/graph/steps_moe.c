/* steps_moe.c - mixture of experts: rows are sorted by the experts they chose, each chosen expert
 * runs once over its rows.
 *
 * A slot is one (row, choice) pair; slots lie sorted by expert, rows ascending within one. Phases,
 * each shared out: route   softmax, the n_used largest, their weights                     by rows
 *   sort    slots per expert                                               one thread
 *   fill    the row's input prepared into its slots                        by rows
 *   hidden  gelu(Wgate x) * (Wup x) of every slot                          by (expert, panels)
 *   prepare hidden states for the down matrix                              by slots
 *   down    every slot's output                                            by (expert, panels)
 *   sum     a row's slots in the order of its choices                      by rows
 * A row's result depends on the row alone, and an expert nobody chose is not read. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/moe.h"

/* The shared memory of a mixture; pointers into graph.moe, for the run's number of slots. */
struct slots {
    int *expert, *slot_of; /* (rows, n_used): choice -> expert, choice -> slot */
    float *weight;         /* (rows, n_used) */
    int *first;            /* (n_experts + 1): slots of expert e are [first[e], first[e + 1]) */
    uint8_t *in, *act;     /* prepared inputs, prepared hidden states */
    float *hidden, *out;   /* (slots, width), (slots, model width) */
    size_t hidden_ld, out_ld, bytes;
};

static struct slots slots_of(const struct graph *g, const struct step *s, uint8_t *base, int rows)
{
    const struct ir_moe *m = &s->node.moe;
    size_t n = (size_t)rows * (size_t)m->n_used, at = 0;
    struct slots t = {.hidden_ld = mem_round_up((size_t)m->width, PANEL_ROWS),
        .out_ld = mem_round_up((size_t)g->hp.width, PANEL_ROWS)};
    const size_t sizes[] = {n * sizeof(int), n * sizeof(int), n * sizeof(float),
        (size_t)(m->n_experts + 1) * sizeof(int), n * act_col_bytes(s->moe->in_kind, g->hp.width),
        n * act_col_bytes(s->moe->down_kind, m->width), n * t.hidden_ld * sizeof(float),
        n * t.out_ld * sizeof(float)};
    uint8_t *p[8];

    for (int i = 0; i < 8; i++) {
        p[i] = base ? base + at : NULL;
        at += mem_round_up(sizes[i], 64);
    }
    t.expert = (int *)(void *)p[0];
    t.slot_of = (int *)(void *)p[1];
    t.weight = (float *)(void *)p[2];
    t.first = (int *)(void *)p[3];
    t.in = p[4];
    t.act = p[5];
    t.hidden = (float *)(void *)p[6];
    t.out = (float *)(void *)p[7];
    t.bytes = at;
    return t;
}

size_t moe_scratch(const struct graph *g, const struct step *s)
{
    return slots_of(g, s, NULL, g->max_rows).bytes;
}

static int take_stack(
    struct weight_store *store, const struct ir_weight *w, const struct wmat **out, struct err *err)
{
    return w->name[0] ? weight_store_stack(store, w, out, err) : 0;
}

int moe_take(struct graph *g, struct step *s, struct weight_store *store, struct err *err)
{
    const struct ir_moe *m = &s->node.moe;
    struct moe *x = xcalloc(1, sizeof(*x));
    const struct wmat *in;
    int r;

    s->moe = x;
    r = take_stack(store, &m->gate_up, &x->gate_up, err);
    if (r == 0)
        r = take_stack(store, &m->gate, &x->gate, err);
    if (r == 0)
        r = take_stack(store, &m->up, &x->up, err);
    if (r == 0)
        r = take_stack(store, &m->down, &x->down, err);
    if (r == 0 && m->expert_scale.name[0])
        r = weight_store_vector(store, &m->expert_scale, &x->expert_scale, err);
    if (r < 0)
        return r;
    in = x->gate_up ? x->gate_up : x->gate;
    x->in_kind = plan_act(g, in->type);
    x->down_kind = plan_act(g, x->down->type);
    if (!x->gate_up && plan_act(g, x->up->type) != x->in_kind)
        return err_set_at(err, GD_ENOTSUP, m->up.name,
            "tensor %s must have the type of the gate tensor", m->up.name);
    return 0;
}

static void route(struct graph *g, struct step *s, struct slots *t, int row)
{
    const struct ir_moe *m = &s->node.moe;
    const float *logits = row_at(g, &s->in[1], row);
    int *expert = t->expert + row * m->n_used;
    float *w = t->weight + row * m->n_used, max = logits[g->k->argmax(logits, m->n_experts)],
          sum = 0;

    /* The largest logits are the largest probabilities; the softmax's own sum cancels when they are
     * renormalised. */
    for (int j = 0; j < m->n_used; j++) {
        int best = -1;

        for (int e = 0; e < m->n_experts; e++) {
            bool taken = false;

            for (int i = 0; i < j; i++)
                taken |= expert[i] == e;
            if (!taken && (best < 0 || logits[e] > logits[best]))
                best = e;
        }
        expert[j] = best;
        w[j] = expf(logits[best] - max);
        sum += w[j];
    }
    for (int j = 0; j < m->n_used; j++) {
        w[j] /= sum;
        if (s->moe->expert_scale)
            w[j] *= s->moe->expert_scale[expert[j]];
    }
}

static void sort(const struct ir_moe *m, struct slots *t, int rows)
{
    int n = rows * m->n_used, at = 0;

    memset(t->first, 0, (size_t)(m->n_experts + 1) * sizeof(*t->first));
    for (int i = 0; i < n; i++)
        t->first[t->expert[i]]++;
    for (int e = 0; e <= m->n_experts; e++) {
        int count = t->first[e];

        t->first[e] = at;
        at += count;
    }
    for (int i = 0; i < n; i++) /* first[e] moves to the end of e's slots */
        t->slot_of[i] = t->first[t->expert[i]]++;
    for (int e = m->n_experts; e > 0; e--)
        t->first[e] = t->first[e - 1];
    t->first[0] = 0;
}

/* The n columns of slots from `first` on, out of a buffer of k values per slot. */
static struct act columns(enum act_kind kind, int k, uint8_t *act, int first, int n)
{
    return act_init(kind, n, k, act + (size_t)first * act_col_bytes(kind, k));
}

/* Panels [p0, p1) of one expert's hidden states. */
static void hidden(
    struct graph *g, struct step *s, struct slots *t, int e, int p0, int p1, int thread)
{
    const struct ir_moe *m = &s->node.moe;
    const struct moe *x = s->moe;
    size_t ld = GROUP_PANELS * PANEL_ROWS;
    float *gate = g->scratch[thread].tile, *up = gate + GEGLU_COLS * ld;
    int row0 = p0 * PANEL_ROWS,
        rows = (p1 * PANEL_ROWS < m->width ? p1 * PANEL_ROWS : m->width) - row0;
    const struct wmat *w = x->gate_up ? &x->gate_up[2 * e] : &x->gate[e];
    const struct wmat *u = x->gate_up ? &x->gate_up[2 * e + 1] : &x->up[e];

    for (int c = t->first[e]; c < t->first[e + 1]; c += GEGLU_COLS) {
        int n = t->first[e + 1] - c < GEGLU_COLS ? t->first[e + 1] - c : GEGLU_COLS;

        struct act in = columns(x->in_kind, g->hp.width, t->in, c, n);

        g->k->matmul.run(w, &in, gate - row0, ld, p0, p1);
        g->k->matmul.run(u, &in, up - row0, ld, p0, p1);
        for (int i = 0; i < n; i++)
            g->k->geglu(t->hidden + (size_t)(c + i) * t->hidden_ld + row0, gate + (size_t)i * ld,
                up + (size_t)i * ld, rows);
    }
}

static void down(struct graph *g, struct step *s, struct slots *t, int e, int p0, int p1)
{
    int first = t->first[e];
    struct act in =
        columns(s->moe->down_kind, s->node.moe.width, t->act, first, t->first[e + 1] - first);

    g->k->matmul.run(&s->moe->down[e], &in, t->out + (size_t)first * t->out_ld, t->out_ld, p0, p1);
}

/* Deals (expert, group of panels) pairs to the threads in turn, leaving out experts without slots.
 */
static void deal(
    struct graph *g, struct step *s, struct slots *t, int n_panels, int thread, bool is_down)
{
    int turn = 0;

    for (int e = 0; e < s->node.moe.n_experts; e++) {
        for (int p = 0; t->first[e] < t->first[e + 1] && p < n_panels; p += GROUP_PANELS) {
            int end = p + GROUP_PANELS < n_panels ? p + GROUP_PANELS : n_panels;

            if (turn++ % g->n_threads != thread)
                continue;
            if (is_down)
                down(g, s, t, e, p, end);
            else
                hidden(g, s, t, e, p, end, thread);
        }
    }
}

static void sum(struct graph *g, struct step *s, const struct slots *t, int row)
{
    int n = s->node.moe.n_used, width = g->hp.width;
    float *y = row_at(g, &s->out[0], row);

    for (int j = 0; j < n; j++) {
        const float *x = t->out + (size_t)t->slot_of[row * n + j] * t->out_ld;
        float w = t->weight[row * n + j];

        for (int i = 0; i < width; i++)
            y[i] = j == 0 ? w * x[i] : y[i] + w * x[i];
    }
}

void step_moe(struct graph *g, struct step *s, int thread)
{
    const struct ir_moe *m = &s->node.moe;
    int rows = n_rows_of(g, s->in[0].rows), n = rows * m->n_used, first, last;
    struct slots t = slots_of(g, s, g->moe, rows);
    struct act in = act_init(s->moe->in_kind, n, g->hp.width, t.in);
    struct act act = act_init(s->moe->down_kind, n, m->width, t.act);

    pool_share(rows, thread, g->n_threads, &first, &last);
    for (int r = first; r < last; r++)
        route(g, s, &t, r);
    pool_barrier(g->pool);
    if (thread == 0)
        sort(m, &t, rows);
    pool_barrier(g->pool);
    for (int r = first; r < last; r++)
        for (int j = 0; j < m->n_used; j++)
            g->k->matmul.act_fill(&in, t.slot_of[r * m->n_used + j], row_at(g, &s->in[0], r));
    pool_barrier(g->pool);
    deal(g, s, &t, (m->width + PANEL_ROWS - 1) / PANEL_ROWS, thread, false);
    pool_barrier(g->pool);
    pool_share(n, thread, g->n_threads, &first, &last);
    for (int i = first; i < last; i++)
        g->k->matmul.act_fill(&act, i, t.hidden + (size_t)i * t.hidden_ld);
    pool_barrier(g->pool);
    deal(g, s, &t, s->moe->down[0].n_panels, thread, true);
    pool_barrier(g->pool);
    pool_share(rows, thread, g->n_threads, &first, &last);
    for (int r = first; r < last; r++)
        sum(g, s, &t, r);
}
