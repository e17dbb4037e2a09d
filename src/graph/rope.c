/* rope.c - inverse frequencies, and the cos and sin rows that turn q and k: computed in every run,
 * or once for all positions that a table holds. Both ways go through flow_rope_rows(), so a row is
 * the same bits. */
#include "graph/rope.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static int n_pairs(const struct graph *g, int table)
{
    return g->hp.rope[table].n_dims / 2;
}

void flow_rope_rows(
    const float *inv_freq, int n_pairs, int first, int n, float *cos_rows, float *sin_rows)
{
    for (int r = 0; r < n; r++) {
        float position = (float)(first + r);

        for (int i = 0; i < n_pairs; i++)
            sincosf(position * inv_freq[i], sin_rows++, cos_rows++);
    }
}

int rope_take_factors(struct graph *g, struct weight_store *store, struct err *err)
{
    int r = 0;

    for (int t = 0; r == 0 && t < g->hp.n_rope; t++) {
        struct ir_weight w = ir_weight(1, n_pairs(g, t), "rope_freqs.weight");

        if (g->hp.rope[t].factors)
            r = weight_store_vector(store, &w, &g->rope_factors[t], err);
    }
    return r;
}

/* ---- tables ---- */

/* cos and sin of one table. */
static bool table_floats(const struct rope_spec *r, int n_positions, size_t *out)
{
    return mem_mul((size_t)r->n_dims / 2, (size_t)n_positions, out) && mem_mul(*out, 2, out);
}

bool rope_table_bytes(const struct hparams *hp, int n_positions, size_t *out)
{
    size_t all = 0, one;

    for (int t = 0; t < hp->n_rope; t++)
        if (!table_floats(&hp->rope[t], n_positions, &one) || !mem_add(all, one, &all))
            return false;
    return mem_mul(all, sizeof(float), out);
}

static void fill_share(void *arg, int thread, int n_threads)
{
    struct graph *g = arg;
    int first, last;

    pool_share(g->options.rope_positions, thread, n_threads, &first, &last);
    for (int t = 0; t < g->hp.n_rope; t++) {
        size_t at = (size_t)first * (size_t)n_pairs(g, t);

        flow_rope_rows(g->inv_freq[t], n_pairs(g, t), first, last - first, g->all_cos[t] + at,
            g->all_sin[t] + at);
    }
}

static int make_tables(struct graph *g, struct err *err)
{
    int n = g->options.rope_positions;
    float *at;

    if (!rope_table_bytes(&g->hp, n, &g->rope_bytes) || !(at = mem_aligned(g->rope_bytes)))
        return err_set_at(err, GD_ENOMEM, "rope_positions",
            "no memory for rope tables of %d positions (%zu bytes)", n, g->rope_bytes);
    g->rope_memory = at;
    for (int t = 0; t < g->hp.n_rope; t++) {
        size_t floats = (size_t)n * (size_t)n_pairs(g, t);

        g->all_cos[t] = at;
        g->all_sin[t] = at + floats;
        at += 2 * floats;
    }
    pool_run(g->pool, fill_share, g);
    return 0;
}

int rope_prepare(struct graph *g, struct err *err)
{
    for (int t = 0; t < g->hp.n_rope; t++) {
        const struct rope_spec *r = &g->hp.rope[t];

        for (int i = 0; i < n_pairs(g, t); i++)
            g->inv_freq[t][i] = (float)(1.0 / pow((double)r->freq_base, 2.0 * i / r->n_dims)) *
                                r->freq_scale / (g->rope_factors[t] ? g->rope_factors[t][i] : 1);
    }
    return g->options.rope_positions ? make_tables(g, err) : 0;
}

bool graph_rope(const struct graph *g, int table, struct graph_rope *out)
{
    if (table < 0 || table >= g->hp.n_rope)
        return false;
    *out = (struct graph_rope){.n_pairs = n_pairs(g, table),
        .inv_freq = g->inv_freq[table],
        .n_positions = g->options.rope_positions,
        .cos = g->all_cos[table],
        .sin = g->all_sin[table]};
    return true;
}

/* ---- the rows of a run ---- */

/* Positions beyond a table are computed: graph_exec() lets none pass, graph_run() cannot fail. */
static void take_row(const struct graph *g, int table, int position, float *c, float *s)
{
    size_t n = (size_t)n_pairs(g, table);

    if (position >= g->options.rope_positions) {
        flow_rope_rows(g->inv_freq[table], (int)n, position, 1, c, s);
        return;
    }
    memcpy(c, g->all_cos[table] + (size_t)position * n, n * sizeof(*c));
    memcpy(s, g->all_sin[table] + (size_t)position * n, n * sizeof(*s));
}

void step_rope_rows(struct graph *g, struct step *unused, int thread)
{
    int first, last;

    pool_share(g->n_rows, thread, g->n_threads, &first, &last);
    for (int t = 0; t < g->hp.n_rope; t++)
        for (int r = first; r < last; r++) {
            size_t at = (size_t)r * (size_t)n_pairs(g, t);

            take_row(g, t, g->pos[r] + g->seqs[g->seq_of[r]].shift, g->cos[t] + at, g->sin[t] + at);
        }
}
