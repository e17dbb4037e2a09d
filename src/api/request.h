/* request.h - a parsed request, and the pieces its parsers share. Private to api. */
#ifndef API_REQUEST_H
#define API_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/api.h"
#include "api/arena.h"
#include "api/json.h"
#include "base/buf.h"
#include "gemmad/engine.h"

/* How the answer is to look. */
struct shape {
    bool chat, stream, include_usage;
    bool echo;          /* completions: the prompt comes first */
    bool return_ids;    /* token_ids and prompt_token_ids in each choice */
    bool ids_as_tokens; /* "token_id:123" in logprobs */
    bool service_tier;  /* the request named one, so the answer does */
    int logprobs;       /* -1 = none */
    int n;
};

struct api_request {
    struct shape shape;
    struct arena arena; /* what the jobs point to */
    cJSON *root;        /* as well: strings are borrowed from the tree */
    struct buf ignored;
    struct job_params *jobs;
    size_t n_jobs;
    char *model, *fingerprint; /* in the arena; fingerprint may be NULL */
};

/* A body while it is being read. */
struct parse {
    const struct api_limits *limits;
    struct json json;
    struct json_object o; /* the body's members */
    struct arena *arena;
    struct buf *ignored;
};

/* Reads the body and checks "model". On success the caller frees p->json.root. */
int parse_open(struct parse *p, const char *body, size_t len, struct err *err);

/* Temperature to logit_bias, on top of the limits' values. */
int parse_sampling(struct parse *p, struct sampling *s, struct err *err);
/* Sampling, stops, lengths: everything both generation endpoints share, apart from max_tokens. */
int parse_common(struct parse *p, struct shape *shape, struct job_params *job, struct err *err);
/* After max_tokens is known: min_tokens, and whether a request for nothing makes sense. */
int parse_lengths(
    struct parse *p, const struct shape *shape, struct job_params *job, struct err *err);

/* A new request with p set up to fill it; parse_finish() judges the members left over, completes
 * the request and hands it out, or frees it when r < 0. */
int parse_begin(struct parse *p, struct api_request **request, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
int parse_finish(
    struct parse *p, struct api_request *request, int r, struct api_request **out, struct err *err);

/* The member "messages" and everything else that is part of the prompt. */
int parse_conversation(struct parse *p, struct prompt *prompt, bool *one_call, struct err *err);

/* An array of token ids, all in the vocabulary. path names it in errors. Arena memory. */
int parse_ids(struct parse *p, const cJSON *array, const char *path, int32_t **ids, size_t *n,
    struct err *err);

/* The member name: a string, a list of strings, a list of ids, or a list of lists of ids, at most
 * max prompts. Arena memory; strings stay in the tree. */
int parse_prompts(struct parse *p, const char *name, int max, struct prompt **prompts, size_t *n,
    struct err *err);

/* timeout_ms, within the limit. */
int parse_timeout(struct parse *p, struct job_params *job, struct err *err);

/* tools.c: the offered functions, whether an answer may hold one call only, the switches of
 * thinking; the members of a message; and that calls and results belong together. */
int parse_tools(struct parse *p, struct prompt *prompt, bool *one_call, struct err *err);
int parse_thinking(struct parse *p, struct prompt *prompt, struct err *err);
int parse_calls(struct parse *p, struct json_object *o, struct chat_message *m, struct err *err);
int parse_reasoning(struct json_object *o, struct chat_message *m, struct err *err);
int parse_check_results(const struct chat_message *m, size_t n, struct err *err);

char *parse_copy(struct parse *p, const char *s); /* NULL when there is no memory */
int parse_no_memory(struct err *err);

#endif
