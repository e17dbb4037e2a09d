/* choice.h - one answer in the making: its tokens, its pages, and the way from a token to text.
 *
 * The first choice of a job computes the prompt; the others come to be when that is done and share
 * its pages. A choice that lost its pages computes prompt and answer again (all but the last token,
 * which the next decode run takes) and goes on; what was drawn stays drawn. Engine thread only. */
#ifndef ENGINE_CHOICE_H
#define ENGINE_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/job.h"
#include "engine/kv.h"
#include "engine/sampler.h"
#include "engine/stop.h"
#include "model/tokenizer.h"

enum choice_state {
    CHOICE_PREFILL,   /* the prefill graph has tokens from past on to compute */
    CHOICE_DECODE,    /* the last token is to be computed, and known ones before it */
    CHOICE_PREEMPTED, /* gave its pages back; waits to compute everything again */
    CHOICE_ENDED
};

/* What sampling gives; the alternatives' ids and log-probabilities. */
struct pick {
    int32_t id; /* -1: no finite logit */
    float logprob;
    int n_top;
    struct token_alternative top[LOGPROBS_MAX];
};

struct choice {
    struct job *job;
    int index;
    enum choice_state state;
    bool forked;     /* the job's other choices exist, or there are none */
    bool stalled;    /* found no pages in this step */
    bool riding;     /* has a piece in this step's decode run */
    bool counted;    /* its prompt is in the statistics */
    int32_t *tokens; /* prompt, then answer */
    int n_tokens, tokens_cap;
    int past; /* positions in the cache */
    struct kv_table kv;
    struct piece prompt_news; /* log-probabilities of the prompt so far */
    struct stop_scan scan;
    struct utf8_stream utf8;
    struct chat_parser parser; /* where the job has a format */
    struct buf raw, text; /* of the current token: whole UTF-8, then what is decided of content */
    const struct event_token *token; /* the current one, until it is posted */
    bool called;                     /* a tool */
    int stop;                        /* index of the stop string that was found, or -1 */
    int n_reasoning;
    int n_cached;
    int64_t last_token_ns;
    struct pick pick;
};

/* ctx_tokens: the longest it can grow. */
struct choice *choice_create(struct job *j, int index, int ctx_tokens);
/* The pages must have been dropped. */
void choice_destroy(struct choice *c);

/* Tokens of the answer. */
int choice_answered(const struct choice *c);

/* Appends the picked token to the answer, posts it with the text it decides, and returns true when
 * the choice has ended with *finish filled in (not posted). */
bool choice_accept(struct choice *c, const struct tokenizer *tok, struct finish *finish);

/* The answer ends between two tokens: counts it in *finish and, when its time is up, posts what was
 * held back of its text. */
void choice_cut(struct choice *c, struct finish *finish);

#endif
