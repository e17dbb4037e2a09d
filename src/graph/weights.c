#include "graph/weights.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pack.h"
#include "kernels/planes.h"

struct weight {
    bool taken, shared;
    struct wmat matrix; /* data NULL until packed */
    int n;              /* in a stack; 1 */
    struct wmat *stack; /* n of them */
    float *vector;
    uint8_t *strong; /* of a matrix in planes */
    void *memory;    /* of either; NULL where the matrix lies in a packed file */
    size_t bytes;
};

struct weight_store {
    const struct source *src;
    struct pool *pool;
    struct weight *weights; /* one per tensor of the source */
    size_t n, bytes;
    enum dtype quantize; /* DTYPE_F32: nothing */
    int n_quantized;
    const char *head;     /* its name, or NULL */
    enum dtype head_type; /* DTYPE_F32: as the others */
    bool head_in_planes;
    const char *head_norm;            /* the name of the vector before it, or NULL */
    const struct packed_file *packed; /* NULL: none */
    int n_matrices, n_packed;
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
        free(s->weights[i].strong);
    }
    free(s->weights);
    free(s);
}

void weight_store_quantize(struct weight_store *s, enum dtype type)
{
    s->quantize = type;
}

void weight_store_head(
    struct weight_store *s, const char *name, enum dtype type, bool in_planes, const char *norm)
{
    s->head = name;
    s->head_type = type;
    s->head_in_planes = in_planes;
    s->head_norm = norm;
}

int weight_store_n_quantized(const struct weight_store *s)
{
    return s->n_quantized;
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

        if (!s->weights[i].taken && !may_be_left(ud, name)) {
            char buffer[96];

            name = source_tensor_origin(s->src, name, buffer);
            return err_set_at(err, GD_EFORMAT, name, "tensor %s is not part of this model", name);
        }
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
    char buffer[96];
    const char *name = source_tensor_origin(s->src, want->name, buffer);
    struct weight *w;

    if (!t)
        return err_set_at(err, GD_EFORMAT, name, "tensor %s is missing", name);
    if (!fits(t, want))
        return err_set_at(err, GD_EFORMAT, name,
            "tensor %s has the shape %" PRId64 " x %" PRId64 " x %" PRId64 ", not %d x %d x %d",
            name, t->ne[0], t->ne[1], t->ne[2], want->k, want->rows,
            want->n_slices ? want->n_slices : 1);
    w = &s->weights[t - source_tensor_at(s->src, 0)];
    if (w->taken && !(w->shared && want->shared))
        return err_set_at(err, GD_EINVAL, want->name, "tensor %s is used twice", want->name);
    w->taken = true;
    w->shared = want->shared;
    *tensor = t;
    *out = w;
    return 0;
}

/* ---- matrices ---- */

bool weight_is_float(uint32_t type)
{
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

enum dtype weight_type_named(const char *word)
{
    return strcmp(word, "q8_0") == 0   ? DTYPE_Q8_0
           : strcmp(word, "q6_k") == 0 ? DTYPE_Q6_K
           : strcmp(word, "q4_0") == 0 ? DTYPE_Q4_0
                                       : DTYPE_F32;
}

/* The type that a matrix of a file gets in memory. head: that of the head, for the head. */
static enum dtype packed_type(
    enum dtype quantize, enum dtype head, const struct tensor *t, enum ir_use use, int64_t k)
{
    if (head != DTYPE_F32 && weight_is_float(t->type) && k % dtype_find(head)->block == 0)
        return head;
    if (quantize == DTYPE_F32 || !weight_is_float(t->type) || use == USE_COEFFICIENTS ||
        k % 32 != 0)
        return (enum dtype)t->type;
    return use == USE_TABLE ? DTYPE_Q8_0 : quantize;
}

/* Where the matrices of w lie in the packed file; NULL when they do not. */
static const uint8_t *find_packed(const struct weight_store *s, const char *name, bool in_planes,
    const struct weight *w, float *max_scale)
{
    struct packed_matrix m = {.name = name,
        .type = w->matrix.type->type,
        .rows = w->matrix.rows,
        .k = w->matrix.k,
        .n = w->n,
        .in_planes = in_planes,
        .bytes = w->bytes};

    if (!s->packed || !packed_file_find(s->packed, &m))
        return NULL;
    *max_scale = m.max_scale;
    return m.data;
}

/* What planes_order() makes of the norm before the head; caller frees. */
static uint8_t *strong_columns(const struct weight_store *s, int k)
{
    const struct tensor *t = s->head_norm ? source_tensor(s->src, s->head_norm) : NULL;
    uint8_t *strong = xcalloc((size_t)k / 32, STRONG);
    float *norm = NULL;

    if (t && dtype_find(t->type) && t->ne[0] == k && k % dtype_find(t->type)->block == 0) {
        norm = xcalloc((size_t)k, sizeof(*norm));
        dtype_find(t->type)->to_float(t->data, norm, (size_t)k);
    }
    planes_order(strong, k, norm);
    free(norm);
    return strong;
}

/* The matrix or the stack of n, packed when it is not yet. */
static int take_packed(struct weight_store *s, const struct ir_weight *want, int n,
    struct weight **out, struct err *err)
{
    const struct dtype_info *type;
    const struct tensor *t;
    const uint8_t *mapped;
    struct weight *w;
    bool is_head, in_planes;
    float max_scale = 0;
    int r = take(s, want, &t, &w, err);

    if (r < 0)
        return r;
    *out = w;
    if (w->matrix.data)
        return 0;
    is_head = s->head && strcmp(want->name, s->head) == 0;
    type = dtype_find(
        packed_type(s->quantize, is_head ? s->head_type : DTYPE_F32, t, want->use, want->k));
    in_planes = is_head && s->head_in_planes && planes_fit(type->type, want->k);
    w->matrix = wmat_init(type, want->rows, want->k, NULL);
    w->n = n;
    if (!mem_mul(wmat_bytes(&w->matrix), (size_t)n, &w->bytes))
        return err_set_at(err, GD_ENOMEM, want->name, "no memory for tensor %s", want->name);
    mapped = find_packed(s, want->name, in_planes, w, &max_scale);
    if (!mapped && !(w->memory = mem_aligned(w->bytes)))
        return err_set_at(err, GD_ENOMEM, want->name, "no memory for tensor %s", want->name);
    w->matrix.data = mapped ? mapped : w->memory;
    if (in_planes) {
        w->strong = strong_columns(s, want->k);
        w->matrix = planes_init(want->rows, want->k, w->matrix.data, w->strong);
    }
    w->matrix.max_scale = max_scale;
    s->bytes += w->bytes;
    s->n_quantized += type->type != (enum dtype)t->type;
    s->n_matrices++;
    if (mapped)
        return 0;
    s->n_packed++;
    return pack_matrices(s->pool, t, &w->matrix, n, w->memory, err);
}

int weight_store_matrix(
    struct weight_store *s, const struct ir_weight *want, struct wmat *out, struct err *err)
{
    struct weight *w;
    int r = take_packed(s, want, 1, &w, err);

    if (r == 0)
        *out = w->matrix;
    return r;
}

int weight_store_stack(
    struct weight_store *s, const struct ir_weight *want, const struct wmat **out, struct err *err)
{
    struct weight *w;
    int r = take_packed(s, want, want->n_slices, &w, err);

    if (r < 0)
        return r;
    if (!w->stack) {
        w->stack = xcalloc((size_t)want->n_slices, sizeof(*w->stack));
        for (int i = 0; i < want->n_slices; i++) {
            w->stack[i] = w->matrix;
            w->stack[i].data += (size_t)i * wmat_bytes(&w->matrix);
        }
    }
    *out = w->stack;
    return 0;
}

/* ---- the packed file ---- */

struct packed_key weight_store_key(const struct weight_store *s)
{
    return (struct packed_key){.model = source_fingerprint(s->src),
        .quantize = s->quantize,
        .head = s->head_type,
        .head_in_planes = s->head_in_planes};
}

void weight_store_use(struct weight_store *s, const struct packed_file *f)
{
    s->packed = f;
}

void weight_store_count(const struct weight_store *s, int *n, int *n_packed)
{
    *n = s->n_matrices;
    *n_packed = s->n_packed;
}

int weight_store_save(const struct weight_store *s, const struct packed_key *key, const char *path,
    const atomic_bool *stop, struct err *err)
{
    struct packed_matrix *m = xcalloc((size_t)s->n_matrices, sizeof(*m));
    size_t n = 0;
    int r;

    for (size_t i = 0; i < s->n; i++) {
        const struct weight *w = &s->weights[i];

        if (w->matrix.data)
            m[n++] = (struct packed_matrix){.name = source_tensor_at(s->src, i)->name,
                .type = w->matrix.type->type,
                .rows = w->matrix.rows,
                .k = w->matrix.k,
                .n = w->n,
                .in_planes = w->matrix.fine != NULL,
                .max_scale = w->matrix.max_scale,
                .bytes = w->bytes,
                .data = w->matrix.data};
    }
    r = packed_file_write(path, source_is_public(s->src), key, m, n, stop, err);
    free(m);
    return r;
}

/* ---- what is not packed ---- */

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

size_t weight_estimate(const struct tensor *t, enum dtype quantize, enum dtype head)
{
    const struct dtype_info *type;
    enum ir_use use = strcmp(t->name, "token_embd.weight") == 0 ? USE_TABLE : USE_MATRIX;

    if (strcmp(t->name, "per_layer_token_embd.weight") == 0)
        return 0; /* stays in the file */
    if (t->n_dims < 2)
        return (size_t)t->ne[0] * sizeof(float);
    type = dtype_find(packed_type(quantize, head, t, use, t->ne[0]));
    if (!type || type->type == (enum dtype)t->type)
        return t->bytes;
    return (size_t)(t->ne[0] / type->block) * (size_t)type->bytes *
           (size_t)(t->ne[1] * t->ne[2] * t->ne[3]);
}
