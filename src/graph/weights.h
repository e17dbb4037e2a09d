/* weights.h - the model's tensors by name, packed on first use and shared by every graph built from
 * them. */
#ifndef GRAPH_WEIGHTS_H
#define GRAPH_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "gemmad/err.h"
#include "graph/ir.h"
#include "kernels/matmul.h"
#include "model/source.h"

struct weight_store;

/* src must outlive the store; pool (may be NULL) packs. One thread. */
struct weight_store *weight_store_create(const struct source *src, struct pool *pool);
void weight_store_destroy(struct weight_store *s); /* NULL is fine */

/* A build takes its weights between begin and end. Each tensor may be taken once (a shared one more
 * often); end names the first tensor that nobody took. Errors carry the tensor's name. */
void weight_store_begin(struct weight_store *s);
int weight_store_matrix(
    struct weight_store *s, const struct ir_weight *w, struct wmat *out, struct err *err);
int weight_store_vector(
    struct weight_store *s, const struct ir_weight *w, const float **out, struct err *err);
int weight_store_end(struct weight_store *s, struct err *err);

size_t weight_store_bytes(const struct weight_store *s);   /* packed so far */
int64_t weight_store_params(const struct weight_store *s); /* numbers in the file's tensors */

#endif
