/* steps_attention.c - K and V of the new rows go into their pages, then every query attends.
 *
 * First phase, by rows: head norm and rotation of q and k where they are fused in, append to the
 * pages. Second phase: pieces of (sequence, kv head, query rows). Where one would keep its thread
 * busy when the others are done, the query heads of its group are split too. */
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

/* Queries times keys of one sequence. */
static int64_t work_of(const struct graph *g, const struct step *s, int seq)
{
    const struct graph_seq *q = &g->seqs[seq];
    const int window = g->no_window ? 0 : s->node.attn.spec.window;
    int64_t keys = (int64_t)q->past + q->n_tokens;

    if (window && keys > (int64_t)window + q->n_tokens)
        keys = (int64_t)window + q->n_tokens;
    return keys * q->n_tokens;
}

static int64_t all_work(const struct graph *g, const struct step *s)
{
    int64_t sum = 0;

    for (int i = 0; i < g->n_seqs; i++)
        sum += work_of(g, s, i);
    return sum;
}

/* The pieces of one sequence: kv heads x row blocks x parts of the head group. */
struct pieces {
    int blocks, parts;
};

/* A piece is split when it is a quarter more than a thread's share of all work. */
static struct pieces pieces_of(const struct graph *g, const struct step *s, int seq, int64_t all)
{
    const struct attention_spec *a = &s->node.attn.spec;
    const int group = a->n_heads / a->n_kv_heads;
    const int blocks = (g->seqs[seq].n_tokens + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    const bool too_long = work_of(g, s, seq) * 4 * g->n_threads > all * 5 * blocks * a->n_kv_heads;
    const int parts = too_long ? g->n_threads : 1;

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
    const int64_t all = all_work(g, s);
    int first, last, at;

    pool_share(g->n_rows, thread, g->n_threads, &first, &last);
    for (int r = first; r < last; r++) {
        norm_and_rotate(g, s, row_at(g, &s->in[0], r), a->n_heads, s->vec, r);
        if (s->node.n_in > 1)
            append(g, s, r, &g->scratch[thread]);
    }
    pool_barrier(g->pool);

    while ((at = atomic_fetch_add(&s->next, 1)) >= 0) {
        /* Prompts stand behind answers and are longer: they come first. */
        for (int seq = g->n_seqs - 1; seq >= 0; seq--) {
            struct pieces p = pieces_of(g, s, seq, all);
            int n = a->n_kv_heads * p.blocks * p.parts;

            if (at < n) {
                attend(g, s, seq, p, at, thread);
                break;
            }
            at -= n;
            if (seq == 0)
                return;
        }
    }
}
