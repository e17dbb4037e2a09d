/* steps_attention.c - K and V of the new rows go into their pages, then every query attends.
 *
 * First phase, by rows: head norm and rotation of q and k where they are fused in, append to the
 * pages. Second phase: pieces of (sequence, kv head, query rows). When there are fewer pieces than
 * threads, the query heads of a group are split too. */
#include <string.h>

#include "graph/plan.h"

static struct kv_view view_of(const struct graph *g, const struct step *s, int seq)
{
    const struct attention_spec *a = &s->node.attn.spec;

    return (struct kv_view){.type = g->kv_layout.type,
        .n_kv_heads = a->n_kv_heads,
        .head_dim = a->head_dim,
        .base = g->kv->base[s->kv_group],
        .page_stride = g->kv_layout.group[s->kv_group].page_bytes,
        .layer_offset = s->kv_offset,
        .pages = g->seqs[seq].pages[s->kv_group]};
}

static void norm_and_rotate(
    struct graph *g, struct step *s, float *x, int n_heads, const float *w, int row)
{
    const struct ir_attention *a = &s->node.attn;
    int d = a->spec.head_dim, table = s->node.rope_table;
    size_t at = (size_t)row * (size_t)(d / 2);

    for (int h = 0; h < n_heads; h++) {
        if (a->norm)
            g->k->rmsnorm(x + h * d, x + h * d, w, s->node.eps, d);
        if (a->rope)
            g->k->rope(x + h * d, g->cos[table] + at, g->sin[table] + at, d);
    }
}

/* K and V are normed in scratch: another operation may read the raw projection. */
static void append(struct graph *g, struct step *s, int row, struct scratch *t)
{
    const struct attention_spec *a = &s->node.attn.spec;
    size_t bytes = (size_t)(a->n_kv_heads * a->head_dim) * sizeof(float);
    struct kv_view kv = view_of(g, s, g->seq_of[row]);

    memcpy(t->row[0], row_at(g, &s->in[1], row), bytes);
    norm_and_rotate(g, s, t->row[0], a->n_kv_heads, s->vec2, row);
    memcpy(t->row[1], row_at(g, &s->in[2], row), bytes);
    for (int h = 0; s->node.attn.v_norm && h < a->n_kv_heads; h++) {
        float *v = t->row[1] + h * a->head_dim;

        g->k->rmsnorm(v, v, NULL, s->node.eps, a->head_dim);
    }
    g->k->attention.kv_write(&kv, g->pos[row], t->row[0], t->row[1]);
}

/* The pieces of one sequence: kv heads x row blocks x parts of the head group. */
struct pieces {
    int blocks, parts;
};

static struct pieces pieces_of(const struct graph *g, const struct step *s, int seq)
{
    const struct attention_spec *a = &s->node.attn.spec;
    int group = a->n_heads / a->n_kv_heads;
    int blocks = (g->seqs[seq].n_tokens + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    int parts = g->n_seqs * a->n_kv_heads * blocks < g->n_threads ? g->n_threads : 1;

    return (struct pieces){blocks, parts < group ? parts : group};
}

static void attend(struct graph *g, struct step *s, int seq, struct pieces p, int piece, int thread)
{
    const struct attention_spec *a = &s->node.attn.spec;
    const struct graph_seq *q = &g->seqs[seq];
    int group = a->n_heads / a->n_kv_heads;
    int block = p.blocks - 1 - piece % p.blocks; /* the longest first */
    int part = piece / p.blocks % p.parts, kv_head = piece / p.blocks / p.parts;
    int row = block * ATTENTION_ROWS;
    int n = q->n_tokens - row < ATTENTION_ROWS ? q->n_tokens - row : ATTENTION_ROWS;
    struct kv_view kv = view_of(g, s, seq);
    struct attention_spec unmasked = *a;
    struct attention_task task = {.spec = g->no_window ? &unmasked : a,
        .kv = &kv,
        .ld = (size_t)s->in[0].ld,
        .scratch = g->scratch[thread].attention};
    int head, end;

    unmasked.window = 0;
    pool_share(group, part, p.parts, &head, &end);
    task.q = row_at(g, &s->in[0], g->seq_row[seq] + row);
    task.out = row_at(g, &s->out[0], g->seq_row[seq] + row);
    task.pos = q->past + row;
    task.n_keys = g->hp.bidirectional ? q->past + q->n_tokens : 0;
    task.n_rows = n;
    task.head = kv_head * group + head;
    task.n_heads = end - head;
    g->k->attention.run(&task);
}

void step_attention(struct graph *g, struct step *s, int thread)
{
    const struct attention_spec *a = &s->node.attn.spec;
    int first, last, at;

    pool_share(g->n_rows, thread, g->n_threads, &first, &last);
    for (int r = first; r < last; r++) {
        norm_and_rotate(g, s, row_at(g, &s->in[0], r), a->n_heads, s->vec, r);
        if (s->node.n_in > 1)
            append(g, s, r, &g->scratch[thread]);
    }
    pool_barrier(g->pool);

    while ((at = atomic_fetch_add(&s->next, 1)) >= 0) {
        for (int seq = 0; seq < g->n_seqs; seq++) {
            struct pieces p = pieces_of(g, s, seq);
            int n = a->n_kv_heads * p.blocks * p.parts;

            if (at < n) {
                attend(g, s, seq, p, at, thread);
                break;
            }
            at -= n;
            if (seq == g->n_seqs - 1)
                return;
        }
    }
}
