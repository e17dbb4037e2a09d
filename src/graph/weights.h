/* weights.h - the model's tensors by name, packed on first use and shared by every graph built from
 * them. */
#ifndef GRAPH_WEIGHTS_H
#define GRAPH_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "gemmad/err.h"
#include "graph/ir.h"
#include "graph/packed_file.h"
#include "kernels/matmul.h"
#include "model/source.h"

struct weight_store;

struct mapped_rows {
    const struct dtype_info *type;
    const uint8_t *data;
    int rows, k;
    size_t row_bytes;
};

/* What a setting calls "q8_0", "q6_k" or "q4_0"; DTYPE_F32 for any other word. */
enum dtype weight_type_named(const char *word);
/* F32, F16 or BF16: what may be packed smaller. */
bool weight_is_float(uint32_t type);

/* src must outlive the store; pool (may be NULL) packs. One thread. */
struct weight_store *weight_store_create(const struct source *src, struct pool *pool);
void weight_store_destroy(struct weight_store *s); /* NULL is fine */
/* Before the first build: F32, F16 and BF16 matrices become DTYPE_Q8_0 or DTYPE_Q4_0 as they are
 * packed, row by row; the embedding and the head at most Q8_0; norms, vectors, coefficients,
 * matrices whose rows are no whole blocks and tables that stay in the file are left as they are. */
void weight_store_quantize(struct weight_store *s, enum dtype type);
int weight_store_n_quantized(const struct weight_store *s); /* matrices so far, stacks as one */

/* Before the first build: the name of the head. F32, F16 and BF16 become `type` (Q8_0, Q6_K, Q4_0,
 * or DTYPE_F32: like the others); Q8_0 is kept in two planes (kernels/planes.h) if wanted, ordered
 * by the vector `norm` when there is such a tensor. */
void weight_store_head(
    struct weight_store *s, const char *name, enum dtype type, bool in_planes, const char *norm);

/* ---- a file of packed weights (graph/packed_file.h) ---- */

/* What such a file must belong to; after weight_store_quantize() and weight_store_head(), before
 * the first build: it samples the model as it is packed. */
struct packed_key weight_store_key(const struct weight_store *s);
/* Before the first build: matrices that f (borrowed) has are used where they lie, the others packed
 * as without it. */
void weight_store_use(struct weight_store *s, const struct packed_file *f);
/* Matrices so far, stacks as one: all, and those packed here. */
void weight_store_count(const struct weight_store *s, int *n, int *n_packed);
/* Writes all matrices so far as packed_file_write() does, readable for those who can read the
 * model. May run on a thread of its own while graphs run, but not while one is built. */
int weight_store_save(const struct weight_store *s, const struct packed_key *key, const char *path,
    const atomic_bool *stop, struct err *err);

/* A build takes its weights between begin and end. Each tensor may be taken once (a shared one more
 * often); end names the first tensor that nobody took. Errors carry the tensor's name. */
void weight_store_begin(struct weight_store *s);
int weight_store_matrix(
    struct weight_store *s, const struct ir_weight *w, struct wmat *out, struct err *err);
int weight_store_vector(
    struct weight_store *s, const struct ir_weight *w, const float **out, struct err *err);
/* A stack of n_slices matrices [rows, k]; *out borrowed. */
int weight_store_stack(
    struct weight_store *s, const struct ir_weight *w, const struct wmat **out, struct err *err);
/* A table that stays in the file: its rows are read one at a time. */
int weight_store_rows(
    struct weight_store *s, const struct ir_weight *w, struct mapped_rows *out, struct err *err);
/* may_be_left: tensors of this name are no part of the computation and may remain (published files
 * carry some). */
int weight_store_end(struct weight_store *s, bool (*may_be_left)(void *ud, const char *name),
    void *ud, struct err *err);

size_t weight_store_bytes(const struct weight_store *s); /* packed so far */
/* About what a tensor of a file will take; quantize and head (the type of this tensor if it is the
 * head): as above, or DTYPE_F32 for none. */
size_t weight_estimate(const struct tensor *t, enum dtype quantize, enum dtype head);
int64_t weight_store_params(const struct weight_store *s); /* numbers in the file's tensors */

#endif
