/* steps_rows.c - steps that treat each row by itself: threads take contiguous shares of the rows.
 */
#include <string.h>

#include "graph/plan.h"

static void share(const struct graph *g, const struct step *s, int thread, int *first, int *last)
{
    pool_share(n_rows_of(g, s->out[0].rows), thread, g->n_threads, first, last);
}

static int width_of(const struct graph *g, const struct step *s)
{
    return g->ir.values[s->node.out[0]].width;
}

/* Ids beyond the table stand for images and sounds: row 0. */
static void read_mapped(const struct mapped_rows *m, int32_t token, float *out)
{
    size_t row = token < m->rows ? (size_t)token : 0;

    m->type->to_float(m->data + row * m->row_bytes, out, (size_t)m->k);
}

void step_embed(struct graph *g, struct step *s, int thread)
{
    int first, last;

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        float *y = row_at(g, &s->out[0], r);

        if (s->node.mapped)
            read_mapped(&s->rows, g->token[r], y);
        else
            wmat_read_row(&s->linear[0].w, g->token[r], y);
        g->k->scale(y, y, s->node.scale, width_of(g, s));
    }
}

void step_rmsnorm(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++)
        g->k->rmsnorm(
            row_at(g, &s->out[0], r), row_at(g, &s->in[0], r), s->vec, s->node.eps, width);
}

void step_head_norm(struct graph *g, struct step *s, int thread)
{
    int first, last, d = s->node.head_dim;

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *x = row_at(g, &s->in[0], r);
        float *y = row_at(g, &s->out[0], r);

        for (int h = 0; h < s->node.n_heads; h++)
            g->k->rmsnorm(y + h * d, x + h * d, s->vec, s->node.eps, d);
    }
}

void step_rope(struct graph *g, struct step *s, int thread)
{
    int first, last, d = s->node.head_dim, table = s->node.rope_table;

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * (size_t)(d / 2);
        float *y = row_at(g, &s->out[0], r);

        memcpy(y, row_at(g, &s->in[0], r), (size_t)(s->node.n_heads * d) * sizeof(*y));
        for (int h = 0; h < s->node.n_heads; h++)
            g->k->rope(y + h * d, g->cos[table] + at, g->sin[table] + at, d);
    }
}

void step_geglu(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++)
        g->k->geglu(
            row_at(g, &s->out[0], r), row_at(g, &s->in[0], r), row_at(g, &s->in[1], r), width);
}

void step_add(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++)
        g->k->add(
            row_at(g, &s->out[0], r), row_at(g, &s->in[0], r), row_at(g, &s->in[1], r), width);
}

/* Input and output may be the same memory: the caller's. */
void step_softcap(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        float *y = row_at(g, &s->out[0], r), *x = row_at(g, &s->in[0], r);

        if (x != y)
            memcpy(y, x, (size_t)width * sizeof(*y));
        if (s->node.cap > 0)
            g->k->softcap(y, s->node.cap, width);
    }
}

void step_gather(struct graph *g, struct step *s, int thread)
{
    int first, last;
    size_t bytes = (size_t)width_of(g, s) * sizeof(float);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++)
        memcpy(row_at(g, &s->out[0], r), row_at(g, &s->in[0], g->out_row[r]), bytes);
}
