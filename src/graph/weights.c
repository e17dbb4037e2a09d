#include "graph/weights.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct weight {
    bool taken, shared;
    struct wmat matrix; /* data NULL until packed */
    struct wmat *stack; /* n_slices of them */
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
    for (size_t i = 0; i < s->n; i++) {
        mem_aligned_free(s->weights[i].memory, s->weights[i].bytes);
        free(s->weights[i].stack);
    }
    free(s->weights);
    free(s);
}

void weight_store_begin(struct weight_store *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->weights[i].taken = false;
}

int weight_store_end(struct weight_store *s, bool (*may_be_left)(void *ud, const char *name),
    void *ud, struct err *err)
{
    for (size_t i = 0; i < s->n; i++) {
        const char *name = source_tensor_at(s->src, i)->name;

        if (!s->weights[i].taken && !may_be_left(ud, name))
            return err_set_at(err, GD_EFORMAT, name, "tensor %s is not part of this model", name);
    }
    return 0;
}

/* [rows, k], or n_slices of these one after the other, in whatever way the third dimension cuts
 * them. */
static bool fits(const struct tensor *t, const struct ir_weight *want)
{
    int64_t n = want->n_slices ? want->n_slices : 1;

    if (t->ne[0] != want->k || t->ne[3] != 1 || t->ne[1] < 1 || t->ne[2] > (1 << 20))
        return false;
    return want->n_slices ? t->ne[1] % want->rows == 0 && t->ne[1] / want->rows * t->ne[2] == n
                          : t->ne[1] == want->rows && t->ne[2] == 1;
}

/* Finds the tensor, checks that its shape is [rows, k] and that nobody has it yet. */
static int take(struct weight_store *s, const struct ir_weight *want, const struct tensor **tensor,
    struct weight **out, struct err *err)
{
    const struct tensor *t = source_tensor(s->src, want->name);
    struct weight *w;

    if (!t)
        return err_set_at(err, GD_EFORMAT, want->name, "tensor %s is missing", want->name);
    if (!fits(t, want))
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
        if (!t->in_memory)
            mem_forget(t->data, t->bytes);
        s->bytes += w->bytes;
    }
    *out = w->matrix;
    return 0;
}

int weight_store_stack(
    struct weight_store *s, const struct ir_weight *want, const struct wmat **out, struct err *err)
{
    const struct dtype_info *type;
    const struct tensor *t;
    struct weight *w;
    int r = take(s, want, &t, &w, err);
    size_t one, n = (size_t)want->n_slices;
    struct packing p;

    if (r < 0)
        return r;
    if (!w->memory) {
        type = dtype_find(t->type);
        w->matrix = wmat_init(type, want->rows, want->k, NULL);
        one = wmat_bytes(&w->matrix);
        if (!mem_mul(one, n, &w->bytes) || !(w->memory = mem_aligned(w->bytes)))
            return err_set_at(err, GD_ENOMEM, want->name, "no memory for tensor %s", want->name);
        w->stack = xcalloc(n, sizeof(*w->stack));
        for (size_t i = 0; i < n; i++) {
            uint8_t *dst = (uint8_t *)w->memory + i * one;

            w->stack[i] = wmat_init(type, want->rows, want->k, dst);
            p = (struct packing){&w->stack[i], dst, t->data + i * (t->bytes / n)};
            pool_run(s->pool, pack_share, &p);
        }
        if (!t->in_memory)
            mem_forget(t->data, t->bytes);
        s->bytes += w->bytes;
    }
    *out = w->stack;
    return 0;
}

int weight_store_rows(
    struct weight_store *s, const struct ir_weight *want, struct mapped_rows *out, struct err *err)
{
    const struct tensor *t;
    struct weight *w;
    int r = take(s, want, &t, &w, err);

    if (r < 0)
        return r;
    *out = (struct mapped_rows){.type = dtype_find(t->type),
        .data = t->data,
        .rows = want->rows,
        .k = want->k,
        .row_bytes = t->bytes / (size_t)want->rows};
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
