/* compare.c - how alike two texts look to a layer: compare MODEL LAYER TEXT TEXT prints the cosine
 * of the hidden states after that layer, at each text's last token. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gemmad/flow.h"

enum { MAX_TOKENS = 512 };

/* The row of the last token after a layer; caller frees. NULL on failure. */
static float *state(struct flow_model *m, struct graph *g, const char *stage, const char *text,
    int *width, struct err *err)
{
    struct flow_model_size size;
    const float *rows;
    float *logits, *out = NULL;
    int32_t *ids = NULL;
    int n, n_rows, r;

    flow_model_size(m, &size);
    logits = calloc((size_t)size.vocab, sizeof(*logits));
    r = flow_model_encode(m, text, &ids, &n, err);
    if (r == 0)
        r = graph_exec(g,
            &(struct graph_io){.input_ids = ids, .seq = n, .last_index = n - 1, .output = logits},
            err);
    rows = r == 0 ? graph_tap(g, stage, &n_rows, width) : NULL;
    if (rows) {
        out = malloc((size_t)*width * sizeof(*out));
        memcpy(out, rows + (size_t)(n_rows - 1) * (size_t)*width, (size_t)*width * sizeof(*out));
    } else if (r == 0) {
        err_fill(err, GD_EINVAL, "the model has no stage \"%s\"", stage);
    }
    free(logits);
    free(ids);
    return out;
}

static double cosine(const float *a, const float *b, int n)
{
    double dot = 0, aa = 0, bb = 0;

    for (int i = 0; i < n; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return dot / sqrt(aa * bb);
}

int main(int argc, char **argv)
{
    struct flow_model *m = NULL;
    struct graph *g = NULL;
    struct flow *f = NULL;
    struct flow_options o;
    struct flow_profile p;
    float *a = NULL, *b = NULL;
    char stage[32];
    struct err err;
    int width;

    if (argc != 5) {
        fprintf(stderr, "usage: compare MODEL LAYER TEXT TEXT\n");
        return 2;
    }
    snprintf(stage, sizeof(stage), "layer %s", argv[2]);
    flow_prefill_options(&o, 1, MAX_TOKENS);
    o.dynamic_seq = o.taps = true;
    flow_profile_default(&p);
    if (flow_model_open(&m, argv[1], 0, &err) == 0 &&
        flow_create(&f, flow_model_hparams(m), &o, &err) == 0 &&
        flow_model_build(&g, m, f, &p, &err) == 0)
        a = state(m, g, stage, argv[3], &width, &err);
    if (a)
        b = state(m, g, stage, argv[4], &width, &err);
    if (b)
        printf("%.4f\n", cosine(a, b, width));
    else
        fprintf(stderr, "compare: %s\n", err.msg);
    free(a);
    free(b);
    graph_destroy(g);
    flow_destroy(f);
    flow_model_close(m);
    return b ? 0 : 1;
}
