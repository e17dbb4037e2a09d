/* api.h - the wire formats: JSON bodies to job_params, job events to JSON and SSE bytes.
 *
 * Pure functions: no socket, no thread, no model. Everything may run on any thread as long as one
 * object is used by one thread at a time; parsing a large body belongs on a helper thread. Bodies
 * are untrusted: whatever they hold, the answer is a request or one sentence naming the field.
 *
 * Typical use by the server:
 *     api_parse_chat(&req, body, len, &limits, &err)        else api_status(), api_error_body()
 *     rsp = api_response_create(req, id, time, piece, ud)
 *     for each i: job_submit(api_request_job(req, i));
 *                 api_response_prompt(rsp, i, job_prompt_ids(), job_prompt_tokens())
 *     api_request_free(req)                                 both sides have copied what they need
 *     for each event: api_response_feed(rsp, i, &ev, &out)  until api_response_done()
 *     streamed: out held the SSE bytes; else: status = api_response_body(rsp, &out)
 *
 * Fields of a request, by fate:
 *  - supported: see request.c, completion.c, chat.c, tools.c. null means absent everywhere.
 *  - known to OpenAI or other servers, with an effect that we do not have (suffix, ...):
 *    400 with "param", unless the value asks for nothing (params.c has the list).
 *  - accepted without effect, because OpenAI promises none for the answer: user, metadata,
 *    safety_identifier, prompt_cache_{key,retention,options}, store false, service_tier auto or
 *    default. Their types are checked.
 *  - anything else: named in api_request_ignored(), or a 400 when limits.strict. */
#ifndef API_API_H
#define API_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "gemmad/engine.h"
#include "gemmad/err.h"

struct api_limits {
    const char *model;       /* the served id, borrowed; any other name in "model" is a 404 */
    const char *fingerprint; /* system_fingerprint, borrowed; NULL = not sent */
    size_t body_max;         /* bytes; longer is GD_ETOOBIG */
    size_t values_max;       /* JSON values in one body */
    int vocab;               /* token ids are 0..vocab-1 */
    int ctx_tokens;          /* a longer token prompt is GD_ECONTEXT */
    int n_max, prompts_max;
    int inputs_max;  /* of one request for embeddings */
    int embed_width; /* floats of an embedding; 0: the model makes none, and the engine says so */
    int choices_max; /* prompts * n */
    int messages_max;
    int stop_max, stop_ids_max, bias_max;
    int logprobs_max;
    int max_tokens_completion, max_tokens_chat; /* of a request that names none; -1 = no limit */
    int64_t timeout_ms;       /* of a request that names none, and the most one may ask; 0 = none */
    struct sampling sampling; /* of a request that names none; no bias, no seed */
    bool strict;              /* an unknown field is a 400 */
    bool tools, thinking;     /* the model's chat format has them */
};
/* OpenAI's defaults and generous bounds. The caller sets model, vocab and ctx_tokens. */
void api_limits_default(struct api_limits *l);

struct api_request;

int api_parse_completion(struct api_request **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
int api_parse_chat(struct api_request **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
void api_request_free(struct api_request *r); /* NULL is fine */

/* One job per prompt; what a job points to lives until api_request_free(). */
size_t api_request_jobs(const struct api_request *r);
const struct job_params *api_request_job(const struct api_request *r, size_t i);
bool api_request_stream(const struct api_request *r);
/* Value for the header X-Ignored-Params: printable ASCII, a comma list; "" when empty. */
const char *api_request_ignored(const struct api_request *r);

/* Bytes of a token, borrowed. */
typedef const char *api_piece(void *ud, int32_t id, size_t *len);

struct api_response;
/* id: the random part, [A-Za-z0-9]{1,40}; created: unix seconds. Nothing of r is kept. */
struct api_response *api_response_create(
    const struct api_request *r, const char *id, int64_t created, api_piece *piece, void *piece_ud);
void api_response_free(struct api_response *rsp); /* NULL is fine */
/* "cmpl-..." or "chatcmpl-...", for logs and X-Request-Id. Borrowed. */
const char *api_response_id(const struct api_response *rsp);

/* The prompt's ids of a job (copied where the request needs them: echo, return_token_ids). Before
 * the job's first event is fed. */
void api_response_prompt(struct api_response *rsp, size_t job, const int32_t *ids, size_t n);

/* Takes in one event. Streamed: appends whole SSE events to out, often none; the last event of the
 * last choice brings the finish chunk, the usage chunk if asked for, and [DONE]. Not streamed: out
 * is left alone. An event of kind FINISH_ERROR or FINISH_CANCELED fails the whole response:
 * streamed, an error event and [DONE] follow at once; the other jobs are to be released. */
void api_response_feed(
    struct api_response *rsp, size_t job, const struct job_event *ev, struct buf *out);
/* Ends an unfinished response with an error (a job that could not be submitted, a drain). */
void api_response_fail(struct api_response *rsp, const struct err *err, struct buf *out);
/* True when nothing more will come: every choice has finished, or it failed. */
bool api_response_done(const struct api_response *rsp);
/* Not streamed and done: appends the JSON body, returns the HTTP status. */
int api_response_body(struct api_response *rsp, struct buf *out);
/* Sums over all choices so far, as in the answer. */
struct usage api_response_usage(const struct api_response *rsp);

/* A comment that keeps proxies and clients awake while nothing is to be said. */
#define API_SSE_KEEPALIVE ":\n\n"
#define API_SSE_TYPE "text/event-stream; charset=utf-8"
#define API_JSON_TYPE "application/json"

/* ---- /tokenize, /detokenize, /apply-template ---- */

struct api_text {
    const char *ignored; /* as api_request_ignored(); the object owns everything here */
    const char *content; /* /tokenize */
    size_t content_len, n_ids;
    bool add_special, parse_special, with_pieces; /* /tokenize; default false, true, false */
    int32_t *ids;                                 /* /detokenize, n_ids of them */
    struct prompt prompt;                         /* /apply-template */
};
int api_parse_tokenize(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
int api_parse_detokenize(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
int api_parse_template(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
void api_text_free(struct api_text *t); /* NULL is fine */

/* {"tokens":[1,2]} or {"tokens":[{"id":1,"piece":"a"}]}; a piece that is no UTF-8 is a byte list */
void api_tokenize_body(struct buf *out, const struct api_text *t, const int32_t *ids, size_t n,
    api_piece *piece, void *piece_ud);
/* {"content":text}; {"prompt":text}. Invalid UTF-8 is shown as U+FFFD. */
void api_detokenize_body(struct buf *out, const char *text, size_t len);
void api_template_body(struct buf *out, const char *text, size_t len);

/* GET /v1/models, and one model of it. created: unix seconds (of the file, or of the start). */
void api_models_body(struct buf *out, const char *id, int64_t created, const struct engine_info *i);
void api_model_body(struct buf *out, const char *id, int64_t created, const struct engine_info *i);

enum api_health { API_READY, API_LOADING, API_DRAINING, API_STUCK };
/* Appends the body, returns the status: 200, or 503 for all others. */
int api_health_body(struct buf *out, enum api_health health);

/* HTTP status of a GD_E... code: the only such switch. 503 goes with a Retry-After header. */
int api_status(int code);
/* {"error":{"message","type","param","code"}} */
void api_error_body(struct buf *out, const struct err *err);
/* The same for what HTTP alone refuses (404 path, 405, 408, 411, 413, 415, 429, 431, ...). */
void api_http_error_body(struct buf *out, int status, const char *message);
/* Whole seconds for Retry-After from an estimate: 1..300. */
int api_retry_after(double seconds);

#endif
