/* steps_attention.c - K and V of the new rows go into their pages, then every query attends.
 *
 * First phase, by rows: head norm and rotation of q and k where they are fused in, append to the
 * pages. Second phase: pieces of (sequence, kv head, query rows). One that would keep its thread
 * busy when the others are done is split: by keys where it is a single row with many, so that each
 * is read once, and whoever is last merges the segments' parts; else by query heads. */
#include <string.h>

#include "graph/steps_attention.h"

/* Of a row: with fewer, the few segments they lie in are shared out too unevenly; with more
 * segments there is no room. */
enum { KEYS_TO_SHARE = ATTENTION_SEGMENT * 3 / 2, PART_SEGMENTS = 128 };

/* What the keys of one row and kv head give, segment by segment. */
struct attention_parts {
    float *sums;       /* PART_SEGMENTS times attention_part_bytes() */
    atomic_int n_done; /* pieces */
};

void attention_carve(struct graph *g, struct carver *c)
{
    size_t bytes = 0;

    for (int i = 0; i < g->n_steps; i++) {
        const struct attention_spec *spec = &g->steps[i].node.attn.spec;
        struct attention_task row = {.spec = spec, .n_rows = 1};

        if (g->steps[i].node.op != IR_ATTENTION || 5 * spec->n_kv_heads >= 4 * g->n_threads)
            continue; /* see pieces_of() */
        row.n_heads = spec->n_heads / spec->n_kv_heads;
        if (attention_part_bytes(&row) > bytes)
            bytes = attention_part_bytes(&row);
    }
    g->parts = carve(c, (size_t)g->n_threads * sizeof(*g->parts));
    for (int i = 0; i < g->n_threads; i++) {
        float *sums = carve(c, PART_SEGMENTS * bytes);

        if (g->parts)
            g->parts[i].sums = sums;
    }
}

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

/* ---- the second phase ---- */

/* What all pieces of a step share. */
struct attending {
    struct graph *g;
    struct step *s;
    struct attention_spec spec;
    int64_t work; /* of all sequences */
};

/* The pieces of one sequence: kv heads x row blocks x parts of the head group; or, where segments
 * are shared out, kv heads x parts of those. */
struct pieces {
    int blocks, parts;
    int first_segment, n_segments;
};

/* Queries times keys of one sequence. */
static int64_t work_of(const struct attending *a, int seq)
{
    const struct graph_seq *q = &a->g->seqs[seq];
    int64_t keys = (int64_t)q->past + q->n_tokens;

    if (a->spec.window && keys > (int64_t)a->spec.window + q->n_tokens)
        keys = (int64_t)a->spec.window + q->n_tokens;
    return keys * q->n_tokens;
}

static struct attending attending(struct graph *g, struct step *s)
{
    struct attending a = {.g = g, .s = s, .spec = s->node.attn.spec};

    if (g->no_window)
        a.spec.window = 0;
    for (int i = 0; i < g->n_seqs; i++)
        a.work += work_of(&a, i);
    return a;
}

static int group_of(const struct attending *a)
{
    return a->spec.n_heads / a->spec.n_kv_heads;
}

/* All rows of a sequence. */
static struct attention_task task_of(
    const struct attending *a, const struct kv_view *kv, int seq, int kv_head)
{
    const struct graph *g = a->g;
    const struct graph_seq *q = &g->seqs[seq];

    return (struct attention_task){.spec = &a->spec,
        .kv = kv,
        .q = row_at(g, &a->s->in[0], g->seq_row[seq]),
        .out = row_at(g, &a->s->out[0], g->seq_row[seq]),
        .ld = (size_t)a->s->in[0].ld,
        .pos = q->past,
        .n_rows = q->n_tokens,
        .n_keys = g->hp.bidirectional ? q->past + q->n_tokens : 0,
        .head = kv_head * group_of(a),
        .n_heads = group_of(a)};
}

/* A piece is split when it is a quarter more than a thread's share of all work. So there are fewer
 * such pieces than threads. */
static struct pieces pieces_of(const struct attending *a, int seq)
{
    const int n_threads = a->g->n_threads, n_rows = a->g->seqs[seq].n_tokens;
    const int64_t work = work_of(a, seq);
    struct pieces p = {(n_rows + ATTENTION_ROWS - 1) / ATTENTION_ROWS, 1, 0, 0};
    struct attention_task t;
    int last;

    if (work * 4 * n_threads <= a->work * 5 * p.blocks * a->spec.n_kv_heads)
        return p;
    t = task_of(a, NULL, seq, 0);
    attention_segments(&t, &p.first_segment, &last);
    if (n_rows == 1 && work >= KEYS_TO_SHARE && last - p.first_segment <= PART_SEGMENTS) {
        p.n_segments = last - p.first_segment;
        p.parts = p.n_segments < 4 * n_threads ? p.n_segments : 4 * n_threads;
    } else {
        p.parts = n_threads < t.n_heads ? n_threads : t.n_heads;
    }
    return p;
}

/* Some segments of a single row. Who is last puts all parts together. */
static void attend_segments(
    struct graph *g, const struct attention_task *t, struct pieces p, int part, int slot)
{
    struct attention_parts *parts = &g->parts[slot];
    int first, last;

    pool_share(p.n_segments, part, p.parts, &first, &last);
    g->k->attention.run_segments(t, p.first_segment + first, p.first_segment + last,
        parts->sums + (size_t)first * attention_part_bytes(t) / sizeof(float));
    if (atomic_fetch_add(&parts->n_done, 1) == p.parts - 1)
        attention_merge(t, parts->sums);
}

/* Some rows, or some heads of them. */
static void attend_rows(
    const struct graph *g, struct attention_task *t, struct pieces p, int block, int part)
{
    const int row = block * ATTENTION_ROWS;
    int first, last;

    pool_share(t->n_heads, part, p.parts, &first, &last);
    t->q += (size_t)row * t->ld;
    t->out += (size_t)row * t->ld;
    t->pos += row;
    t->n_rows = t->n_rows - row < ATTENTION_ROWS ? t->n_rows - row : ATTENTION_ROWS;
    t->head += first;
    t->n_heads = last - first;
    g->k->attention.run(t);
}

/* slot: the sequence's first of the places for parts. */
static void attend(
    const struct attending *a, int seq, struct pieces p, int piece, int slot, int thread)
{
    const int block = p.blocks - 1 - piece % p.blocks; /* the longest first */
    const int part = piece / p.blocks % p.parts, kv_head = piece / p.blocks / p.parts;
    const struct kv_view kv = view_of(a->g, a->s, seq);
    struct attention_task task = task_of(a, &kv, seq, kv_head);

    task.scratch = a->g->scratch[thread].attention;
    if (p.n_segments > 0)
        attend_segments(a->g, &task, p, part, slot + kv_head);
    else
        attend_rows(a->g, &task, p, block, part);
}

void step_attention(struct graph *g, struct step *s, int thread)
{
    const struct attending a = attending(g, s);
    int first, last, at;

    pool_share(g->n_rows, thread, g->n_threads, &first, &last);
    for (int r = first; r < last; r++) {
        norm_and_rotate(g, s, row_at(g, &s->in[0], r), a.spec.n_heads, s->vec, r);
        if (s->node.n_in > 1)
            append(g, s, r, &g->scratch[thread]);
    }
    for (int i = 0; thread == 0 && i < g->n_threads; i++)
        atomic_store_explicit(&g->parts[i].n_done, 0, memory_order_relaxed);
    pool_barrier(g->pool);

    while ((at = atomic_fetch_add(&s->next, 1)) >= 0) {
        /* Prompts stand behind answers and are longer: they come first. */
        for (int seq = g->n_seqs - 1, slot = 0; seq >= 0; seq--) {
            const struct pieces p = pieces_of(&a, seq);
            const int n = a.spec.n_kv_heads * p.blocks * p.parts;

            if (at < n) {
                attend(&a, seq, p, at, slot, thread);
                break;
            }
            at -= n;
            slot += p.n_segments > 0 ? a.spec.n_kv_heads : 0;
            if (seq == 0)
                return;
        }
    }
}
