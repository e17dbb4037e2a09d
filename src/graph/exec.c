/* exec.c - one run: rows numbered, then every thread walks the plan, a barrier after each step. */
#include <assert.h>
#include <string.h>

#include "graph/head.h"
#include "graph/plan.h"

static void walk(void *arg, int thread, int n_threads)
{
    struct graph *g = arg;

    if (!g->rope_given)
        step_rope_rows(g, NULL, thread);
    for (int i = 0; i < g->n_steps; i++) {
        g->steps[i].run(g, &g->steps[i], thread);
        pool_barrier(g->pool);
    }
}

static void number_rows(struct graph *g)
{
    g->n_rows = g->n_out = 0;
    for (int i = 0; i < g->n_seqs; i++) {
        const struct graph_seq *q = &g->seqs[i];

        g->seq_row[i] = g->n_rows;
        for (int j = 0; j < q->n_tokens; j++) {
            g->pos[g->n_rows] = q->past + j;
            g->seq_of[g->n_rows] = i;
            g->token[g->n_rows++] = q->tokens[j];
        }
        if (q->best)
            q->best->n = 0;
        for (int j = 0; j < q->n_logits; j++) {
            g->out_row[g->n_out] = g->n_rows - q->n_after - q->n_logits + j;
            g->out_best[g->n_out] = q->n_logits == 1 ? q->best : NULL;
            g->out_ptr[g->n_out++] = q->logits + (size_t)j * (size_t)g->out_width;
        }
    }
}

void graph_run(
    struct graph *g, const struct kv_memory *kv, const struct graph_seq *seqs, int n_seqs)
{
    int n = 0;

    for (int i = 0; i < n_seqs; i++) {
        assert(!seqs[i].best || (seqs[i].best->k >= 1 && seqs[i].best->k <= SHORTLIST_MAX));
        assert(seqs[i].n_tokens > 0 && seqs[i].n_logits + seqs[i].n_after <= seqs[i].n_tokens);
        n += seqs[i].n_tokens;
    }
    assert(n_seqs >= 1 && n_seqs <= g->max_seqs && n <= g->max_rows);
    (void)n; /* a release build asserts nothing */
    g->kv = kv;
    g->seqs = seqs;
    g->n_seqs = n_seqs;
    number_rows(g);
    if (g->head)
        head_begin(g);
    for (int i = 0; i < g->n_steps; i++)
        atomic_store_explicit(&g->steps[i].next, 0, memory_order_relaxed);
    pool_run(g->pool, walk, g);
}

struct kv_view graph_kv_view(
    const struct graph *g, const struct kv_memory *kv, int layer, const uint32_t *pages)
{
    const struct hparams_layer *l = &g->hp.layers[layer];
    int group = kv_group_of(l);

    return (struct kv_view){.type = g->kv_layout.type,
        .n_kv_heads = l->n_kv_heads,
        .head_dim = l->head_dim,
        .base = kv->base[group],
        .page_stride = g->kv_layout.group[group].page_bytes,
        .layer_offset = kv_offset_of(&g->hp, layer, g->kv_layout.type),
        .pages = pages};
}

void graph_head_bytes(const struct graph *g, int64_t *read, int64_t *whole)
{
    *read = g->head ? atomic_load(&g->head->read) : 0;
    *whole = g->head ? atomic_load(&g->head->whole) : 0;
}

bool graph_same_bits(const struct graph *a, const struct graph *b)
{
    return a->by_blas == b->by_blas && a->profile.precision == b->profile.precision;
}

void graph_kv_layout(const struct graph *g, struct kv_layout *out)
{
    *out = g->kv_layout;
}

int graph_out_width(const struct graph *g)
{
    return g->out_width;
}

int graph_n_steps(const struct graph *g)
{
    return g->n_steps;
}

int graph_max_tokens(const struct graph *g)
{
    return g->max_rows;
}

int graph_max_sequences(const struct graph *g)
{
    return g->max_seqs;
}

const float *graph_tap(const struct graph *g, const char *stage, int *rows, int *width)
{
    for (int v = 0; v < g->ir.n_values; v++) {
        const struct ir_value *value = &g->ir.values[v];
        bool named = value->tap && strcmp(value->name, stage) == 0;

        if (!named && !(value->norm_input && strcmp(stage, "norm input") == 0))
            continue;
        *rows = n_rows_of(g, value->rows);
        *width = value->width;
        assert(g->values[v].ld == value->width || *rows <= 1 || value->width % PANEL_ROWS == 0);
        return g->values[v].base;
    }
    return NULL;
}
