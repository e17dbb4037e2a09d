#include "graph/weights.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct weight {
    bool taken, shared;
    struct wmat matrix; /* data NULL until packed */
    float *vector;
    void *memory; /* of either */
    size_t bytes;
};

struct weight_store {
    const struct source *src;
    struct pool *pool;
    struct weight *weights; /* one per tensor of the source */
    size_t n, bytes;
};

struct weight_store *weight_store_create(const struct source *src, struct pool *pool)
{
    struct weight_store *s = xcalloc(1, sizeof(*s));

    s->src = src;
    s->pool = pool;
    s->n = source_n_tensors(src);
    s->weights = xcalloc(s->n, sizeof(*s->weights));
    return s;
}

void weight_store_destroy(struct weight_store *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        mem_aligned_free(s->weights[i].memory, s->weights[i].bytes);
    free(s->weights);
    free(s);
}

void weight_store_begin(struct weight_store *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->weights[i].taken = false;
}

/* Tied models may carry a second copy of the embedding as a head; it is not read. */
static bool may_be_left(const struct source *src, const char *name)
{
    return strcmp(name, "output.weight") == 0 && source_tensor(src, "token_embd.weight");
}

int weight_store_end(struct weight_store *s, struct err *err)
{
    for (size_t i = 0; i < s->n; i++) {
        const char *name = source_tensor_at(s->src, i)->name;

        if (!s->weights[i].taken && !may_be_left(s->src, name))
            return err_set_at(err, GD_EFORMAT, name, "tensor %s is not part of this model", name);
    }
    return 0;
}

/* Finds the tensor, checks that its shape is [rows, k] and that nobody has it yet. */
static int take(struct weight_store *s, const struct ir_weight *want, const struct tensor **tensor,
    struct weight **out, struct err *err)
{
    const struct tensor *t = source_tensor(s->src, want->name);
    struct weight *w;

    if (!t)
        return err_set_at(err, GD_EFORMAT, want->name, "tensor %s is missing", want->name);
    if (t->ne[0] != want->k || t->ne[1] != want->rows || t->ne[2] != 1 || t->ne[3] != 1)
        return err_set_at(err, GD_EFORMAT, want->name,
            "tensor %s has the shape %" PRId64 " x %" PRId64 ", not %d x %d", want->name, t->ne[0],
            t->ne[1], want->k, want->rows);
    w = &s->weights[t - source_tensor_at(s->src, 0)];
    if (w->taken && !(w->shared && want->shared))
        return err_set_at(err, GD_EINVAL, want->name, "tensor %s is used twice", want->name);
    w->taken = true;
    w->shared = want->shared;
    *tensor = t;
    *out = w;
    return 0;
}

struct packing {
    const struct wmat *w;
    uint8_t *dst;
    const uint8_t *src;
};

static void pack_share(void *arg, int thread, int n_threads)
{
    struct packing *p = arg;
    int first, last;

    pool_share(p->w->n_panels, thread, n_threads, &first, &last);
    wmat_pack(p->w, p->dst, p->src, first, last);
}

int weight_store_matrix(
    struct weight_store *s, const struct ir_weight *want, struct wmat *out, struct err *err)
{
    const struct dtype_info *type;
    const struct tensor *t;
    struct packing p;
    struct weight *w;
    int r = take(s, want, &t, &w, err);

    if (r < 0)
        return r;
    if (!w->memory) {
        type = dtype_find(t->type);
        w->matrix = wmat_init(type, want->rows, want->k, NULL);
        w->bytes = wmat_bytes(&w->matrix);
        w->memory = mem_aligned(w->bytes);
        if (!w->memory)
            return err_set_at(err, GD_ENOMEM, want->name, "no memory for tensor %s (%zu bytes)",
                want->name, w->bytes);
        w->matrix.data = w->memory;
        p = (struct packing){&w->matrix, w->memory, t->data};
        pool_run(s->pool, pack_share, &p);
        mem_forget(t->data, t->bytes);
        s->bytes += w->bytes;
    }
    *out = w->matrix;
    return 0;
}

int weight_store_vector(
    struct weight_store *s, const struct ir_weight *want, const float **out, struct err *err)
{
    const struct dtype_info *type;
    const struct tensor *t;
    struct weight *w;
    int r = take(s, want, &t, &w, err);

    if (r < 0)
        return r;
    if (!w->memory) {
        type = dtype_find(t->type);
        if (want->k % type->block)
            return err_set_at(err, GD_EFORMAT, want->name, "tensor %s cannot have the type %s",
                want->name, type->name);
        w->bytes = (size_t)want->k * sizeof(float);
        w->memory = mem_aligned(w->bytes);
        if (!w->memory)
            return err_set_at(err, GD_ENOMEM, want->name, "no memory for tensor %s", want->name);
        w->vector = w->memory;
        type->to_float(t->data, w->vector, (size_t)want->k);
        s->bytes += w->bytes;
    }
    *out = w->vector;
    return 0;
}

size_t weight_store_bytes(const struct weight_store *s)
{
    return s->bytes;
}

int64_t weight_store_params(const struct weight_store *s)
{
    int64_t n = 0;

    for (size_t i = 0; i < s->n; i++) {
        const struct tensor *t = source_tensor_at(s->src, i);

        n += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    return n;
}
