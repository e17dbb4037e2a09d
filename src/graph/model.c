/* model.c - a model file for programs that link the graph library: file, shape, weights, threads.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/pool.h"
#include "graph/flow.h"
#include "graph/weights.h"
#include "kernels/kernels.h"
#include "model/tokenizer.h"

struct flow_model {
    struct source *src;
    struct hparams hp;
    struct tokenizer *tok;
    struct kernels kernels;
    struct pool *pool;
    struct weight_store *weights;
};

/* What follows once the source is open (r is 0) with all its tensors. */
static int finish_open(
    struct flow_model **out, struct flow_model *m, int n_threads, int r, struct err *err)
{
    if (r == 0)
        r = hparams_read(&m->hp, m->src, err);
    if (r == 0)
        r = tokenizer_open(&m->tok, m->src, err);
    if (r == 0)
        r = pool_create(&m->pool, n_threads ? n_threads : cpu_allowed(), err);
    if (r < 0) {
        flow_model_close(m);
        return r;
    }
    kernels_init(&m->kernels, kernels_best());
    m->weights = weight_store_create(m->src, m->pool);
    *out = m;
    return 0;
}

int flow_model_open(struct flow_model **out, const char *path, int n_threads, struct err *err)
{
    struct flow_model *m = xcalloc(1, sizeof(*m));

    return finish_open(out, m, n_threads, source_open(&m->src, path, err), err);
}

int flow_model_open_tensors(struct flow_model **out, const char *path,
    const struct flow_tensor *tensors, size_t n, int n_threads, struct err *err)
{
    struct flow_model *m = xcalloc(1, sizeof(*m));
    struct tensor *at = calloc(n ? n : 1, sizeof(*at));
    int r;

    for (size_t i = 0; i < n && at; i++) {
        const struct flow_tensor *from = &tensors[i];

        at[i] = (struct tensor){.name = from->name,
            .type = (uint32_t)from->type,
            .n_dims = from->n_dims,
            .data = from->data,
            .bytes = from->bytes};
        memcpy(at[i].ne, from->dims, sizeof(at[i].ne));
    }
    r = at ? source_open_given(&m->src, path, &(struct given_tensors){at, n}, err)
           : err_set(err, GD_ENOMEM, "no memory for a list of %zu tensors", n);
    free(at);
    return finish_open(out, m, n_threads, r, err);
}

bool flow_model_tensor(const struct flow_model *m, size_t i, struct flow_tensor *out)
{
    const struct tensor *t = source_tensor_at(m->src, i);

    if (!t)
        return false;
    *out = (struct flow_tensor){.name = t->name,
        .type = (int)t->type,
        .n_dims = t->n_dims,
        .data = t->data,
        .bytes = t->bytes};
    memcpy(out->dims, t->ne, sizeof(out->dims));
    return true;
}

void flow_model_close(struct flow_model *m)
{
    if (!m)
        return;
    weight_store_destroy(m->weights);
    pool_destroy(m->pool);
    tokenizer_close(m->tok);
    source_close(m->src);
    free(m);
}

const struct hparams *flow_model_hparams(const struct flow_model *m)
{
    return &m->hp;
}

int flow_model_build(struct graph **out, struct flow_model *m, const struct flow *f,
    const struct flow_profile *p, struct err *err)
{
    return flow_build(out, f, p, m->weights, &m->kernels, m->pool, err);
}

void flow_model_size(const struct flow_model *m, struct flow_model_size *out)
{
    *out = (struct flow_model_size){.n_layers = m->hp.n_layers,
        .width = m->hp.width,
        .vocab = m->hp.vocab,
        .n_rope_tables = m->hp.n_rope,
        .context = m->hp.context};
}

void flow_model_layer(const struct flow_model *m, int layer, struct flow_layer_info *out)
{
    flow_layer_describe(&m->hp, layer, out);
}

int flow_model_encode(
    const struct flow_model *m, const char *text, int32_t **ids, int *n, struct err *err)
{
    struct token_list list = {0};
    size_t len = 0;
    int r;

    while (text[len])
        len++;
    if (tokenizer_special(m->tok)->add_bos)
        token_list_push(&list, tokenizer_special(m->tok)->bos);
    r = tokenizer_encode(m->tok, text, len, true, &list, err);
    if (r < 0) {
        token_list_free(&list);
        return r;
    }
    *ids = list.ids;
    *n = (int)list.n;
    return 0;
}

const char *flow_model_piece(const struct flow_model *m, int32_t id, size_t *len)
{
    return tokenizer_piece(m->tok, id, len);
}
