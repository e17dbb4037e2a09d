/* replace_layer.c - what a layer is for: replace_layer MODEL LAYER TEXT puts a stage that changes
 * nothing in the place of one layer and prints the likeliest next token with and without the layer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gemmad/flow.h"

enum { MAX_TOKENS = 512 };

struct skip {
    int layer, width;
};

static void copy_row(void *ud, const float *const *in, float *const *out)
{
    const struct skip *s = ud;

    memcpy(out[0], in[0], (size_t)s->width * sizeof(float));
}

static int skip_layer(void *ud, struct flow *f, const struct flow_layer_info *layer, int h)
{
    struct skip *s = ud;
    struct flow_stage stage = {.name = "nothing", .n_in = 1, .n_out = 1, .run = copy_row, .ud = s};
    int out[FLOW_STAGE_ARGS];

    if (layer->index != s->layer)
        return flow_default_layer(f, layer, h);
    stage.in_width[0] = stage.out_width[0] = s->width;
    flow_custom(f, &stage, &h, out);
    return out[0];
}

static int likeliest(struct flow_model *m, const struct flow_hooks *hooks, const int32_t *ids,
    int n, struct err *err)
{
    struct flow_model_size size;
    struct flow_options o;
    struct flow_profile p;
    struct graph *g = NULL;
    struct flow *f = NULL;
    float *logits;
    int best = 0, r;

    flow_model_size(m, &size);
    logits = calloc((size_t)size.vocab, sizeof(*logits));
    flow_prefill_options(&o, 1, n);
    o.hooks = hooks;
    flow_profile_default(&p);
    r = flow_create(&f, flow_model_hparams(m), &o, err);
    if (r == 0)
        r = flow_model_build(&g, m, f, &p, err);
    if (r == 0)
        r = graph_exec(g, &(struct graph_io){.input_ids = ids, .output = logits}, err);
    for (int i = 1; i < size.vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    graph_destroy(g);
    flow_destroy(f);
    free(logits);
    return r < 0 ? -1 : best;
}

int main(int argc, char **argv)
{
    struct flow_model_size size;
    struct flow_model *m = NULL;
    struct skip skip;
    struct err err;
    int32_t *ids = NULL;
    int n, with = -1, without = -1;
    size_t len;

    if (argc != 4) {
        fprintf(stderr, "usage: replace_layer MODEL LAYER TEXT\n");
        return 2;
    }
    if (flow_model_open(&m, argv[1], 0, &err) == 0 &&
        flow_model_encode(m, argv[3], &ids, &n, &err) == 0) {
        flow_model_size(m, &size);
        skip = (struct skip){atoi(argv[2]), size.width};
        with = likeliest(m, NULL, ids, n, &err);
        without =
            likeliest(m, &(struct flow_hooks){.ud = &skip, .layer = skip_layer}, ids, n, &err);
    }
    if (with >= 0 && without >= 0) {
        const char *piece = flow_model_piece(m, with, &len);

        printf("with:    %d \"%.*s\"\n", with, (int)len, piece);
        piece = flow_model_piece(m, without, &len);
        printf("without: %d \"%.*s\"\n", without, (int)len, piece);
    } else {
        fprintf(stderr, "replace_layer: %s\n", err.msg);
    }
    free(ids);
    flow_model_close(m);
    return with >= 0 && without >= 0 ? 0 : 1;
}
