/* next_token.c - the likeliest next tokens of a text: next_token MODEL TEXT */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "gemmad/flow.h"

enum { MAX_TOKENS = 512, SHOWN = 5 };

/* Opens the model and runs the text through a prefill graph; logits of its last token, NULL on
 * failure. */
static float *predict(struct flow_model *m, const char *text, int *vocab, struct err *err)
{
    struct flow_model_size size;
    struct flow_options o;
    struct flow_profile p;
    struct graph *g = NULL;
    struct flow *f = NULL;
    float *logits;
    int32_t *ids = NULL;
    int n, r;

    flow_model_size(m, &size);
    *vocab = size.vocab;
    logits = calloc((size_t)size.vocab, sizeof(*logits));
    flow_prefill_options(&o, 1, MAX_TOKENS);
    o.dynamic_seq = true;
    flow_profile_reference(&p);
    r = flow_model_encode(m, text, &ids, &n, err);
    if (r == 0)
        r = flow_create(&f, flow_model_hparams(m), &o, err);
    if (r == 0)
        r = flow_model_build(&g, m, f, &p, err);
    if (r == 0)
        r = graph_exec(g,
            &(struct graph_io){.input_ids = ids, .seq = n, .last_index = n - 1, .output = logits},
            err);
    graph_destroy(g);
    flow_destroy(f);
    free(ids);
    if (r == 0)
        return logits;
    free(logits);
    return NULL;
}

static void show(struct flow_model *m, float *logits, int vocab)
{
    float max = -INFINITY;
    double sum = 0;

    for (int i = 0; i < vocab; i++)
        max = logits[i] > max ? logits[i] : max; /* gcc 12 for arm64 dies of fmax() here */
    for (int i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - max);
    for (int n = 0; n < SHOWN; n++) {
        const char *piece;
        int best = 0;
        size_t len;

        for (int i = 1; i < vocab; i++)
            if (logits[i] > logits[best])
                best = i;
        piece = flow_model_piece(m, best, &len);
        printf(
            "%7.4f  %6d  \"%.*s\"\n", exp((double)logits[best] - max) / sum, best, (int)len, piece);
        logits[best] = -INFINITY;
    }
}

int main(int argc, char **argv)
{
    struct flow_model *m = NULL;
    float *logits = NULL;
    struct err err;
    int vocab;

    if (argc != 3) {
        fprintf(stderr, "usage: next_token MODEL TEXT\n");
        return 2;
    }
    if (flow_model_open(&m, argv[1], 0, &err) == 0)
        logits = predict(m, argv[2], &vocab, &err);
    if (logits)
        show(m, logits, vocab);
    else
        fprintf(stderr, "next_token: %s\n", err.msg);
    free(logits);
    flow_model_close(m);
    return logits ? 0 : 1;
}
