/* tensors.c - graph_exec(): tensors in, tensors out, for whoever has no K/V pages.
 *
 * The graph keeps pages of its own, one run of them per sequence. Before a decode run the keys a
 * sequence may see are copied into its pages, left to right; a mask leaves the others out, so that
 * what attends is the same arithmetic on the same pages as in the daemon, and a masked sequence
 * equals the one that never had those keys. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/plan.h"

struct exec {
    struct kv_memory memory;
    size_t bytes[KV_GROUPS];
    uint32_t *pages; /* (batch, pages per sequence), the same numbers in both groups */
    struct graph_seq *seqs;
    float *row;  /* K, then V, of one position of the widest layer */
    int n_pages; /* per sequence */
};

static void free_pages(struct exec *x)
{
    for (int i = 0; i < KV_GROUPS; i++) {
        mem_aligned_free(x->memory.base[i], x->bytes[i]);
        x->memory.base[i] = NULL;
    }
    free(x->pages);
    x->pages = NULL;
    x->n_pages = 0;
}

void exec_free(struct graph *g)
{
    if (!g->exec)
        return;
    free_pages(g->exec);
    free(g->exec->seqs);
    free(g->exec->row);
    free(g->exec);
}

static size_t widest_row(const struct graph *g)
{
    size_t most = 0;

    for (int i = 0; i < g->n_layers; i++) {
        size_t n = (size_t)g->hp.layers[i].n_kv_heads * (size_t)g->hp.layers[i].head_dim;

        most = n > most ? n : most;
    }
    return most;
}

/* Room for n_positions of every sequence. */
static int reserve(struct graph *g, int n_positions, struct err *err)
{
    struct exec *x = g->exec;
    int need = (n_positions + KV_PAGE - 1) / KV_PAGE, total = need * g->max_seqs;

    if (!x) {
        x = g->exec = xcalloc(1, sizeof(*x));
        x->seqs = xcalloc((size_t)g->max_seqs, sizeof(*x->seqs));
        x->row = xcalloc(2 * widest_row(g), sizeof(*x->row));
    }
    if (need <= x->n_pages)
        return 0;
    free_pages(x);
    for (int i = 0; i < KV_GROUPS; i++) {
        x->bytes[i] = g->kv_layout.group[i].page_bytes * (size_t)total;
        if (x->bytes[i] && !(x->memory.base[i] = mem_aligned(x->bytes[i])))
            return err_set(err, GD_ENOMEM, "no memory for K and V of %d positions", n_positions);
    }
    x->pages = xcalloc((size_t)total, sizeof(*x->pages));
    for (int i = 0; i < total; i++)
        x->pages[i] = (uint32_t)i;
    x->n_pages = need;
    return 0;
}

static uint32_t *pages_of(const struct graph *g, int seq)
{
    return g->exec->pages + (size_t)seq * (size_t)g->exec->n_pages;
}

/* ---- past K and V in ---- */

static bool kept(const struct graph_io *io, int seq, int past, int pos)
{
    return !io->custom_mask || io->custom_mask[(size_t)seq * (size_t)(past + 1) + (size_t)pos] == 0;
}

/* Copies the visible past of one sequence and layer; returns how many positions. */
static int copy_past(struct graph *g, const struct graph_io *io, int seq, int layer, int past)
{
    const struct hparams_layer *l = &g->hp.layers[layer];
    size_t dim = (size_t)l->head_dim, heads = (size_t)l->n_kv_heads;
    struct kv_view kv = graph_kv_view(g, &g->exec->memory, layer, pages_of(g, seq));
    float *k = g->exec->row, *v = k + heads * dim;
    int n = 0;

    for (int pos = 0; pos < past; pos++) {
        if (!kept(io, seq, past, pos))
            continue;
        for (size_t h = 0; h < heads; h++) {
            size_t at = (((size_t)seq * heads + h) * (size_t)past + (size_t)pos) * dim;

            memcpy(k + h * dim, io->past_k[layer] + at, dim * sizeof(*k));
            memcpy(v + h * dim, io->past_v[layer] + at, dim * sizeof(*v));
        }
        g->k->attention.kv_write(&kv, n++, k, v);
    }
    return n;
}

static int n_kept(const struct graph_io *io, int seq, int past)
{
    int n = 0;

    for (int pos = 0; pos < past; pos++)
        n += kept(io, seq, past, pos);
    return n;
}

static bool has_own_kv(const struct graph *g, int layer)
{
    return g->hp.layers[layer].kv_layer == layer;
}

/* ---- new K and V out ---- */

static void copy_new(
    struct graph *g, const struct graph_io *io, int seq, int layer, int first, int n)
{
    const struct hparams_layer *l = &g->hp.layers[layer];
    size_t dim = (size_t)l->head_dim, heads = (size_t)l->n_kv_heads;
    struct kv_view kv = graph_kv_view(g, &g->exec->memory, layer, pages_of(g, seq));
    float *k = g->exec->row, *v = k + heads * dim;

    for (int i = 0; i < n; i++) {
        g->k->attention.kv_read(&kv, first + i, k, v);
        for (size_t h = 0; h < heads; h++) {
            size_t at = (((size_t)seq * heads + h) * (size_t)n + (size_t)i) * dim;

            memcpy(io->new_k[layer] + at, k + h * dim, dim * sizeof(*k));
            memcpy(io->new_v[layer] + at, v + h * dim, dim * sizeof(*v));
        }
    }
}

/* ---- checks ---- */

static int bad(struct err *err, const char *field, const char *why)
{
    return err_set_at(err, GD_EINVAL, field, "%s %s", field, why);
}

static int check_prefill(const struct graph *g, const struct graph_io *io, int seq, struct err *err)
{
    const struct flow_options *o = &g->options;

    if (io->past_k || io->past_v || io->past || io->positions || io->rope_cos || io->rope_sin ||
        io->custom_mask)
        return bad(err, "past", "belongs to decode graphs, like positions, rope rows and masks");
    if (o->output == FLOW_LAST_LOGITS && o->dynamic_seq &&
        (io->last_index < 0 || io->last_index >= seq))
        return err_set_at(
            err, GD_EINVAL, "last_index", "last_index is %d, of %d tokens", io->last_index, seq);
    if (!o->dynamic_seq && io->last_index && io->last_index != seq - 1)
        return bad(err, "last_index", "is an input of graphs with dynamic_seq");
    if ((io->new_k || io->new_v) && !o->export_kv)
        return bad(err, "new_k", "needs a graph with export_kv");
    return 0;
}

static int check_decode(const struct graph *g, const struct graph_io *io, int past, struct err *err)
{
    if (past < 0 || past >= g->hp.context)
        return err_set_at(
            err, GD_EINVAL, "past", "past is %d, it must be 0..%d", past, g->hp.context - 1);
    if (past > 0 && (!io->past_k || !io->past_v))
        return bad(err, "past_k", "and past_v must be given when there is a past");
    for (int i = 0; past > 0 && i < g->n_layers; i++)
        if (has_own_kv(g, i) && (!io->past_k[i] || !io->past_v[i]))
            return err_set_at(
                err, GD_EINVAL, "past_k", "past_k and past_v of layer %d are missing", i);
    if (!io->rope_cos != !io->rope_sin)
        return bad(err, "rope_cos", "and rope_sin come together");
    if (!io->custom_mask != !g->options.custom_mask)
        return bad(err, "custom_mask",
            g->options.custom_mask ? "must be given" : "needs a graph with custom_mask");
    for (int s = 0; io->custom_mask && s < g->max_seqs; s++)
        if (io->custom_mask[(size_t)s * (size_t)(past + 1) + (size_t)past] != 0)
            return bad(err, "custom_mask", "must let the new token see itself");
    for (int s = 0; io->positions && s < g->max_seqs; s++)
        if (io->positions[s] < 0 || io->positions[s] >= g->hp.context)
            return err_set_at(err, GD_EINVAL, "positions", "positions[%d] is %d, it must be 0..%d",
                s, io->positions[s], g->hp.context - 1);
    return 0;
}

/* Whether the rope tables hold the run's last position; rows that are inputs need none. */
static int check_rope(const struct graph *g, const struct graph_io *io, int last, struct err *err)
{
    int n = g->options.rope_positions;

    if (!n || io->rope_cos)
        return 0;
    for (int s = 0; io->positions && s < g->max_seqs; s++)
        last = s == 0 || io->positions[s] > last ? io->positions[s] : last;
    if (last >= n)
        return err_set_at(err, GD_EINVAL, "rope_positions",
            "position %d lies beyond the graph's rope tables of %d positions", last, n);
    return 0;
}

static int check(
    const struct graph *g, const struct graph_io *io, int seq, int past, struct err *err)
{
    const struct flow_options *o = &g->options;
    int r;

    if (g->hp.backbone_width)
        return err_set_at(err, GD_ENOTSUP, "target",
            "a draft model reads its target's pages: it runs beside it only");
    if (seq < 1 || seq > o->seq || (!o->dynamic_seq && seq != o->seq))
        return err_set_at(err, GD_EINVAL, "seq", "seq is %d, the graph takes %s%d", seq,
            o->dynamic_seq ? "1.." : "", o->seq);
    if (!o->dynamic_past && past != o->past_seq)
        return err_set_at(
            err, GD_EINVAL, "past", "past is %d, the graph was built for %d", past, o->past_seq);
    if (!io->input_ids || !io->output)
        return bad(err, io->input_ids ? "output" : "input_ids", "is missing");
    for (int i = 0; i < g->max_seqs * seq; i++)
        if (io->input_ids[i] < 0 || io->input_ids[i] >= g->hp.vocab)
            return err_set_at(err, GD_EINVAL, "input_ids",
                "input_ids[%d] is %d, of a vocabulary of %d", i, io->input_ids[i], g->hp.vocab);
    if (!io->new_k != !io->new_v)
        return bad(err, "new_k", "and new_v come together");
    for (int i = 0; io->new_k && i < g->n_layers; i++)
        if (has_own_kv(g, i) && (!io->new_k[i] || !io->new_v[i]))
            return err_set_at(
                err, GD_EINVAL, "new_k", "new_k and new_v of layer %d are missing", i);
    r = o->mode == FLOW_PREFILL ? check_prefill(g, io, seq, err) : check_decode(g, io, past, err);
    return r < 0 ? r : check_rope(g, io, past + seq - 1, err);
}

/* ---- the run ---- */

static void describe(struct graph *g, const struct graph_io *io, int s, int seq, int past)
{
    const struct flow_options *o = &g->options;
    struct graph_seq *q = &g->exec->seqs[s];
    size_t width = (size_t)g->out_width;
    bool last = o->output == FLOW_LAST_LOGITS;
    int rows = last ? 1 : seq, visible = n_kept(io, s, past);

    *q = (struct graph_seq){.past = visible,
        .n_tokens = seq,
        .tokens = io->input_ids + (size_t)s * (size_t)seq,
        .pages = {pages_of(g, s), pages_of(g, s)},
        .n_logits = rows,
        .n_after = last && o->dynamic_seq ? seq - 1 - io->last_index : 0,
        .shift = (io->positions ? io->positions[s] : past) - visible,
        .logits = io->output + (size_t)s * (size_t)rows * width};
    for (int i = 0; past > 0 && i < g->n_layers; i++)
        if (has_own_kv(g, i))
            copy_past(g, io, s, i, past);
}

static void take_rope(struct graph *g, const struct graph_io *io)
{
    for (int t = 0; t < g->hp.n_rope; t++) {
        size_t bytes = (size_t)g->max_seqs * (size_t)(g->hp.rope[t].n_dims / 2) * sizeof(float);

        memcpy(g->cos[t], io->rope_cos[t], bytes);
        memcpy(g->sin[t], io->rope_sin[t], bytes);
    }
}

int graph_exec(struct graph *g, const struct graph_io *io, struct err *err)
{
    int seq = io->seq ? io->seq : g->options.seq;
    int past = g->options.dynamic_past || io->past ? io->past : g->options.past_seq;
    int r = check(g, io, seq, past, err);

    if (r == 0)
        r = reserve(g, past + seq, err);
    if (r < 0)
        return r;
    for (int s = 0; s < g->max_seqs; s++)
        describe(g, io, s, seq, past);
    g->no_window = io->custom_mask != NULL;
    if (io->rope_cos)
        take_rope(g, io);
    g->rope_given = io->rope_cos || (g->rope_baked && !io->positions);
    graph_run(g, &g->exec->memory, g->exec->seqs, g->max_seqs);
    g->no_window = g->rope_given = false;
    g->rope_baked =
        g->mode == FLOW_DECODE && !g->options.dynamic_past && !io->rope_cos && !io->positions;
    for (int s = 0; io->new_k && s < g->max_seqs; s++)
        for (int i = 0; i < g->n_layers; i++)
            if (has_own_kv(g, i))
                copy_new(g, io, s, i, g->exec->seqs[s].past, seq);
    return 0;
}
