/* steps_more.c - row by row steps of the later families: Gemma 3n, 4 and the embedding models. */
#include <math.h>
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

void step_scale(struct graph *g, struct step *s, int thread)
{
    float factor = s->node.scale * (s->vec ? s->vec[0] : 1);
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++)
        g->k->scale(row_at(g, &s->out[0], r), row_at(g, &s->in[0], r), factor, width);
}

void step_mul(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++)
        g->k->mul(row_at(g, &s->out[0], r), row_at(g, &s->in[0], r),
            s->vec ? s->vec : row_at(g, &s->in[1], r), width);
}

void step_tanh(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *x = row_at(g, &s->in[0], r);
        float *y = row_at(g, &s->out[0], r);

        for (int i = 0; i < width; i++)
            y[i] = tanhf(x[i]);
    }
}

void step_sparse(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *x = row_at(g, &s->in[0], r);
        float *y = row_at(g, &s->out[0], r), cut;
        double mean = 0, var = 0;

        for (int i = 0; i < width; i++)
            mean += (double)x[i];
        mean /= width;
        for (int i = 0; i < width; i++)
            var += ((double)x[i] - mean) * ((double)x[i] - mean);
        cut = (float)mean + (float)sqrt(var / width) * s->node.scale;
        for (int i = 0; i < width; i++)
            y[i] = x[i] > cut ? x[i] - cut : 0;
    }
}

static double mean_square(const float *x, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum / n;
}

void step_match_rms(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *x = row_at(g, &s->in[0], r);
        double floor = (double)s->node.eps, have = mean_square(x, width);
        double want = mean_square(row_at(g, &s->in[1], r), width);

        g->k->scale(row_at(g, &s->out[0], r), x,
            (float)(sqrt(want) / sqrt(have > floor ? have : floor)), width);
    }
}

void step_mean(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        float *y = row_at(g, &s->out[0], r);

        g->k->add(y, row_at(g, &s->in[0], r), row_at(g, &s->in[1], r), width);
        for (int i = 2; i < s->node.n_in; i++)
            g->k->add(y, y, row_at(g, &s->in[i], r), width);
        g->k->scale(y, y, 1.0f / (float)s->node.n_in, width);
    }
}

/* out_k = in_k + sum_i c[k n + i] in_i, i ascending. */
void step_altup_predict(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s), n = s->node.n_out;

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *c = row_at(g, &s->in[n], r);

        for (int k = 0; k < n; k++) {
            float *y = row_at(g, &s->out[k], r);

            for (int j = 0; j < width; j++) {
                float sum = 0;

                for (int i = 0; i < n; i++)
                    sum += c[k * n + i] * row_at(g, &s->in[i], r)[j];
                y[j] = row_at(g, &s->in[k], r)[j] + sum;
            }
        }
    }
}

/* out_k = in_k + (1 + c[k]) (y - in_0) */
void step_altup_correct(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s), n = s->node.n_out;

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *active = row_at(g, &s->in[0], r), *now = row_at(g, &s->in[n], r);
        const float *c = row_at(g, &s->in[n + 1], r);

        for (int k = 0; k < n; k++) {
            const float *x = row_at(g, &s->in[k], r);
            float *y = row_at(g, &s->out[k], r);

            for (int j = 0; j < width; j++)
                y[j] = x[j] + (1 + c[k]) * (now[j] - active[j]);
        }
    }
}

/* Rows of a sequence are added in ascending order, so a sequence's mean is its own alone. */
void step_pool(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        int seq = g->seq_of[g->out_row[r]], row = g->seq_row[seq], n = g->seqs[seq].n_tokens;
        float *y = row_at(g, &s->out[0], r);

        memcpy(y, row_at(g, &s->in[0], row), (size_t)width * sizeof(*y));
        for (int i = 1; i < n; i++)
            g->k->add(y, y, row_at(g, &s->in[0], row + i), width);
        g->k->scale(y, y, 1.0f / (float)n, width);
    }
}

void step_unit(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *x = row_at(g, &s->in[0], r);
        double norm = sqrt(mean_square(x, width) * width);

        g->k->scale(row_at(g, &s->out[0], r), x, (float)(1 / (norm > 1e-12 ? norm : 1e-12)), width);
    }
}

void step_input(struct graph *g, struct step *s, int thread)
{
    int first, last, width = width_of(g, s);

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const struct graph_seq *q = &g->seqs[g->seq_of[r]];
        size_t row = (size_t)(r - g->seq_row[g->seq_of[r]]);

        memcpy(row_at(g, &s->out[0], r), q->input + row * (size_t)width,
            (size_t)width * sizeof(float));
    }
}

void step_custom(struct graph *g, struct step *s, int thread)
{
    int first, last;

    share(g, s, thread, &first, &last);
    for (int r = first; r < last; r++) {
        const float *in[FLOW_STAGE_ARGS] = {0};
        float *out[FLOW_STAGE_ARGS] = {0};

        for (int i = 0; i < s->node.n_in; i++)
            in[i] = row_at(g, &s->in[i], r);
        for (int i = 0; i < s->node.n_out; i++)
            out[i] = row_at(g, &s->out[i], r);
        s->node.stage.run(s->node.stage.ud, in, out);
    }
}
