/* embeddings.h - POST /v1/embeddings, in OpenAI's shape. As pure as api.h.
 *
 *     api_parse_embeddings(&e, body, len, &limits, &err)
 *     for each i: job_submit(api_embeddings_job(e, i))
 *     for each i in order: api_embeddings_add(e, vector, n, usage.prompt_tokens, &out)
 *     api_embeddings_end(e, &out)
 *
 * Fields: input (string, strings, ids, lists of ids; nothing empty), model, dimensions (the first
 * so many floats, made a unit vector again), encoding_format ("float", or "base64": little-endian
 * 32-bit floats), timeout_ms; the rest as api.h says. */
#ifndef API_EMBEDDINGS_H
#define API_EMBEDDINGS_H

#include "api/api.h"

struct api_embeddings;

int api_parse_embeddings(struct api_embeddings **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
void api_embeddings_free(struct api_embeddings *e); /* NULL is fine */

/* One job per input; what a job points to lives until api_embeddings_free(). */
size_t api_embeddings_jobs(const struct api_embeddings *e);
const struct job_params *api_embeddings_job(const struct api_embeddings *e, size_t i);
/* As api_request_ignored(). */
const char *api_embeddings_ignored(const struct api_embeddings *e);

/* Appends the next input's vector, of n floats, to the answer. */
void api_embeddings_add(
    struct api_embeddings *e, const float *vector, int n, int prompt_tokens, struct buf *out);
/* Vectors added, and their prompts' tokens together. */
size_t api_embeddings_added(const struct api_embeddings *e);
int64_t api_embeddings_tokens(const struct api_embeddings *e);
/* After the last vector: completes the answer. */
void api_embeddings_end(struct api_embeddings *e, struct buf *out);

/* The first n_out (<= n) floats of a unit vector, of length 1 again; unchanged when all are taken.
 */
void api_embedding_cut(const float *vector, int n, float *out, int n_out);

#endif
