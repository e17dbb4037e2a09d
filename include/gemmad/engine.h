/* engine.h - the one door between the server and the model.
 *
 * An engine is a loaded model plus the thread that runs it. A job is one prompt and its n choices.
 * The server submits jobs and reads events; it never sees a tensor or a KV page, and the engine
 * never sees a socket or JSON.
 *
 * Threads: engine_open and engine_close belong to one thread. job_submit, the text functions and
 * the statistics may be called from any thread and never wait for the engine. The events of one job
 * are read by one thread at a time. `wake` runs on the engine thread when some job has news; it may
 * only poke the loop (one write). */
#ifndef GEMMAD_ENGINE_H
#define GEMMAD_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/chat.h"
#include "gemmad/err.h"

struct engine;
struct job;

struct engine_opts {
    const char *model_path;
    const char *chat_format; /* "auto" or a name */
    const char *profile;     /* "default", "precise" or "reference" */
    const char *isa;         /* "auto" or a name */
    const char *kv_type;     /* "auto", "f32" or "bf16" */
    const char *quantize;    /* float matrices, while loading: "none", "q8_0" or "q4_0" */
    const char *head;        /* a float head, while loading: "file", "q8_0", "q6_k" or "q4_0" */
    const char *matmul_prefill, *matmul_decode; /* "auto", "native" or "blas" */
    int n_threads;                              /* 0 = every CPU this process may use */
    int ctx_tokens;    /* longest prompt + answer; 0 = the model's, bounded by memory */
    int max_sequences; /* sequences decoded together */
    int prefill_chunk; /* prompt tokens per step while others decode; 0 = adapt to itl_target_ms */
    int itl_target_ms; /* inter-token latency to keep while prompts come in */
    size_t kv_bytes;   /* 0 = from memory */
    int queue_max;     /* waiting jobs before GD_EBUSY */
    int64_t queue_tokens_max; /* prompt tokens of waiting jobs before GD_EBUSY */
    const char *packed_file;  /* keeps the packed weights for the next start; "": none does */
    bool screen_head;         /* keep a Q8_0 head so that tokens are found in a part of it */
    bool prefix_cache; /* keep computed prompts and answers for prompts that begin the same */
    void (*wake)(void *ud);
    void *wake_ud;
};

/* Fills everything but model_path and wake with the defaults. */
void engine_opts_default(struct engine_opts *o);

/* open() loads the model, builds both graphs and starts the thread; *out is set on success only.
 * close() ends what is running, joins the thread and accepts NULL. Release every job first. */
int engine_open(struct engine **out, const struct engine_opts *opts, struct err *err);
void engine_close(struct engine *e);

struct engine_info {
    const char *arch;             /* "gemma3" */
    const char *name;             /* as the file says */
    const char *chat_format;      /* "none", "gemma", "gemma3", "gemma4" ... */
    bool has_tools, has_thinking; /* of the chat format */
    int64_t n_params;
    int64_t weight_bytes, kv_bytes;
    int vocab, width, n_layers;
    int ctx_train, ctx_tokens; /* trained with; longest prompt + answer here */
    int max_sequences;
    int n_threads;
    int prefill_steps, prefill_tokens; /* the prefill graph: steps, most tokens in one run */
    int decode_steps;                  /* 0: an embedding model has no decode graph */
    const char *isa, *profile, *kv_type;
    int embed_width; /* 0: the model generates text; else it makes vectors of so many floats */
};
const struct engine_info *engine_info(const struct engine *e);

/* ---- text
 * ----------------------------------------------------------------------------------------------------------
 */

/* Caller frees *ids with free(). add_special: bos (and eos, where the file says so) as for a
 * prompt. */
int engine_tokenize(struct engine *e, const char *text, size_t len, bool add_special,
    bool parse_special, int32_t **ids, size_t *n, struct err *err);
/* Bytes of one token, borrowed; "" for ids out of range. They need not be valid UTF-8 alone. */
const char *engine_piece(const struct engine *e, int32_t id, size_t *len);
/* Lossy UTF-8 text of ids; caller frees *text. GD_EINVAL names the first id out of range. */
int engine_detokenize(
    struct engine *e, const int32_t *ids, size_t n, char **text, size_t *len, struct err *err);

/* ---- jobs
 * ----------------------------------------------------------------------------------------------------------
 */

enum prompt_kind { PROMPT_TEXT, PROMPT_TOKENS, PROMPT_CHAT };

struct prompt {
    enum prompt_kind kind;
    const char
        *text; /* PROMPT_TEXT; bos is added as the file says, specials in the text are recognised */
    size_t text_len;
    const int32_t *ids;                  /* PROMPT_TOKENS: taken as they are */
    const struct chat_message *messages; /* PROMPT_CHAT */
    size_t n;                            /* ids or messages */
    bool add_generation_prompt, continue_final_message;
    bool enable_thinking;          /* GD_ENOTSUP where the chat format has none */
    const struct chat_tool *tools; /* likewise */
    size_t n_tools;
};

/* The text of a PROMPT_CHAT, bos included; caller frees *text. */
int engine_apply_template(
    struct engine *e, const struct prompt *p, char **text, size_t *len, struct err *err);

struct logit_bias {
    int32_t id;
    float bias; /* -100 and below bans */
};

struct sampling {
    float temperature;             /* 0 = greedy */
    int top_k;                     /* 0 = off */
    float top_p, min_p, typical_p; /* 1, 0, 1 = off */
    float repeat_penalty; /* 1 = off; over the last repeat_last_n tokens of prompt and answer */
    int repeat_last_n;    /* -1 = all */
    float presence_penalty, frequency_penalty; /* over the answer */
    bool has_seed;
    uint64_t seed; /* choice i draws from (seed, i): whoever else is served, the same text */
    const struct logit_bias *bias;
    size_t n_bias;
};

/* Greedy off, no truncation: OpenAI's defaults (temperature 1, top_p 1). */
void sampling_default(struct sampling *s);

struct job_params { /* everything is copied by job_submit() */
    struct prompt prompt;
    struct sampling sampling;
    int n;          /* choices over one shared prefill, >= 1 */
    int max_tokens; /* -1 = until the context is full; 0 = only evaluate the prompt (echo) */
    int min_tokens; /* until then end tokens and stop ids are not drawn, stop strings not heeded */
    const char *const *stop; /* stop strings, not part of the answer */
    size_t n_stop;
    const int32_t *stop_ids;
    size_t n_stop_ids;
    bool include_stop;    /* keep the matched stop string, or the stop token's text, in the text */
    bool ignore_eos;      /* end tokens are drawn and passed over (stop_ids still end) */
    int logprobs;         /* -1 = none; 0..20 alternatives beside the chosen token */
    bool prompt_logprobs; /* log-probabilities of the prompt's own tokens (echo with logprobs) */
    bool skip_special;    /* control tokens make no text, thoughts are told apart (default true) */
    bool one_call;        /* the answer ends with its first tool call */
    int64_t timeout_ms;   /* 0 = none; after it the job finishes with FINISH_TIMEOUT */
    /* The vector of a prompt (text or tokens) instead of an answer: EVENT_STARTED, then
     * EVENT_FINISH with FINISH_STOP and the vector. n is 1; sampling, lengths and stops have no
     * meaning. Jobs that wait are computed together, and no vector depends on that. */
    bool embed;
    bool follows; /* belongs to a request whose first job was taken: no GD_EBUSY for this one */
};
void job_params_default(struct job_params *p);

enum finish_reason {
    FINISH_NONE,
    FINISH_STOP,   /* end token, stop string or stop id */
    FINISH_LENGTH, /* max_tokens or the context is full */
    FINISH_TIMEOUT,
    FINISH_CANCELED, /* the engine is closing */
    FINISH_ERROR     /* see event.err */
};

struct token_alternative {
    int32_t id;
    float logprob; /* natural; floored at -9999 */
};

struct event_token {
    int32_t id;
    float logprob;                       /* of this token; valid when logprobs were asked for */
    const struct token_alternative *top; /* n_top of them, most likely first */
    int n_top;
};

enum event_kind {
    EVENT_STARTED, /* the prompt was admitted and its prefill begins; first event of a job, choice
                      0. A job that ends in the queue (timeout, closing) has FINISH events only */
    EVENT_PROMPT,  /* prompt tokens with log-probabilities (prompt_logprobs), once, before any text;
                      the first has none (0, no alternatives): nothing comes before it */
    EVENT_TEXT,    /* text and the tokens that made it; text may be empty while bytes or a possible
                      stop are held back. Every token drawn comes once, also the one that ends the
                      answer, which makes no text: together they are usage.completion_tokens */
    EVENT_CALL,  /* the answer to a PROMPT_CHAT calls a tool: name, and in text the arguments, JSON
                    text of an object */
    EVENT_FINISH /* the last event of a choice */
};

/* Where the text of a PROMPT_CHAT's answer belongs, in formats that have thinking. */
enum channel { CHANNEL_CONTENT, CHANNEL_REASONING };

struct usage {
    int prompt_tokens, cached_tokens, completion_tokens; /* cached: of the prompt, not computed */
    int reasoning_tokens;                                /* of the completion_tokens */
};

struct job_event {
    enum event_kind kind;
    int choice;
    enum channel channel; /* EVENT_TEXT */
    const char *name;     /* EVENT_CALL: of the function; borrowed as text is */
    const char *text;     /* whole UTF-8, borrowed until the next job_next() */
    size_t text_len;
    const struct event_token *tokens; /* borrowed likewise */
    size_t n_tokens;
    enum finish_reason finish; /* EVENT_FINISH */
    const char *stop_string;   /* EVENT_FINISH by a stop string: which one; else NULL */
    int32_t stop_id;           /* EVENT_FINISH by a token: which one; else -1 */
    struct usage usage;        /* EVENT_FINISH: of this choice */
    struct err err;            /* FINISH_ERROR */
    const float *vector;       /* EVENT_FINISH of an embedding: (n_vector), of length 1, borrowed
                                  until job_release(); else NULL */
    int n_vector;
};

/* Renders, tokenises and queues. GD_EBUSY when the queue is full, GD_ECONTEXT with the numbers when
 * prompt + max_tokens cannot fit, GD_ESTOPPING after engine_stop(), GD_EINVAL naming the field,
 * GD_ENOTSUP for an answer from a model that makes vectors, or the other way round.
 * Costs the caller the text work, so hand long prompts to a helper thread. The caller owns *out and
 * gives it back with job_release() on every path. ud comes back from job_ud(). */
int job_submit(
    struct job **out, struct engine *e, const struct job_params *p, void *ud, struct err *err);
void *job_ud(const struct job *j);

/* True and *ev filled with the next event; false when there is none now: wait for wake(). After the
 * FINISH of every choice nothing follows. Several pending TEXT events of one choice may come
 * joined. */
bool job_next(struct job *j, struct job_event *ev);
/* True when job_next() would return something. */
bool job_ready(struct job *j);
int job_prompt_tokens(const struct job *j);
/* The prompt's ids, borrowed (echo, return_token_ids). */
const int32_t *job_prompt_ids(const struct job *j);

/* Forget the job. An unfinished one is canceled within one step. NULL is fine. */
void job_release(struct job *j);

/* No new jobs from here on (GD_ESTOPPING); running ones go on. */
void engine_stop(struct engine *e);
/* Ends every running and waiting job with FINISH_CANCELED. */
void engine_cancel_all(struct engine *e);

/* ---- statistics
 * ----------------------------------------------------------------------------------------------------
 */

enum { HISTOGRAM_BUCKETS = 24 };

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS + 1]; /* not cumulative; the last one is +Inf */
    uint64_t n;
    double sum; /* seconds */
};
/* Upper bounds in seconds, HISTOGRAM_BUCKETS of them, ascending. */
extern const double histogram_bounds[HISTOGRAM_BUCKETS];

struct engine_stats {
    int running, waiting;                     /* choices in decode or prefill; jobs in the queue */
    int64_t waiting_tokens;                   /* prompt tokens of waiting jobs */
    uint64_t jobs_finished[FINISH_ERROR + 1]; /* by the reason of the choice that ended last */
    uint64_t jobs_refused, jobs_canceled;     /* GD_EBUSY; released before their end */
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
    uint64_t preemptions, steps;
    uint64_t head_bytes_read, head_bytes_whole; /* what the runs read of the head, and would have
                                                   read to know all logits */
    double kv_used;                             /* 0..1 of the pages */
    double retry_after_s; /* estimate until the queue has room again; 0 when it has */
    int64_t
        last_step_ms_ago; /* since the engine thread last made progress or found nothing to do */
    struct histogram ttft, inter_token, end_to_end, queue_time;
};
void engine_stats(struct engine *e, struct engine_stats *out);

#endif
