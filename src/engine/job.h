/* job.h - one request: what was asked, and what there is to read.
 *
 * Everything a reader may still want is kept per choice: text that waits is joined, so a slow
 * reader costs memory for the rest of its answer (bounded by max_tokens) and never time. The engine
 * thread posts, one reader takes, each under the job's lock for a moment; nobody ever waits for the
 * other.
 *
 * Two references: the caller's, given back by job_release(), and the engine's, held while the job
 * waits or runs. */
#ifndef ENGINE_JOB_H
#define ENGINE_JOB_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "engine/stop.h"
#include "gemmad/engine.h"
#include "model/chat_parse.h"

/* Text and tokens in order. tops holds the alternatives of all tokens; event_token.top is set when
 * an event is handed out, because the array moves as it grows. */
struct piece {
    struct buf text;
    enum channel channel;
    struct buf name; /* of a call; empty: text */
    struct event_token *tokens;
    size_t n_tokens, tokens_cap;
    struct token_alternative *tops;
    size_t n_tops, tops_cap;
};

/* token->top may be NULL only when n_top is 0; the alternatives are copied. */
void piece_add_token(struct piece *p, const struct event_token *token);
void piece_clear(struct piece *p);
void piece_free(struct piece *p);

struct finish {
    enum finish_reason reason;
    int stop;        /* index of the stop string, or -1 */
    int32_t stop_id; /* or -1 */
    struct usage usage;
    struct err err;
};

/* What waits for the reader: `earlier` pieces in their order, and the one that grows. */
struct choice_news {
    struct piece piece;
    struct piece *earlier;
    size_t n_earlier, earlier_cap, at; /* earlier[at..n_earlier) are unread */
    bool ended, end_read;
    struct finish finish;
};

struct job {
    /* Fixed by job_submit(); any thread may read. */
    struct engine *engine;
    void *ud;
    struct job_params params; /* prompt and stop are empty: they are here as */
    int32_t *prompt;          /* (n_prompt) */
    int n_prompt;
    struct stop_set *stops;
    int max_tokens;                 /* never -1 */
    enum chat_format format;        /* how the answer is to be split; CHAT_NONE: not at all */
    const struct chat_marks *marks; /* of that format; the engine's */
    char **tools;                   /* names of the functions that were offered */
    size_t n_tools;
    uint64_t seed;
    int64_t submit_ns, deadline_ns; /* deadline 0 = none */

    atomic_int refs;
    atomic_bool released; /* the caller has gone: stop */
    atomic_bool ended;    /* the engine has forgotten the job */

    /* Guarded by the queue's lock. */
    struct job *prev, *next;
    bool waiting;

    float *vector; /* of an embedding job, (engine_info.embed_width): complete when it has ended */

    pthread_mutex_t lock; /* guards the news below */
    bool started, started_read;
    bool has_prompt, prompt_read;
    struct piece prompt_news;
    struct choice_news *news; /* (params.n) */

    /* The reader's. */
    struct piece reading;
    int next_choice;

    /* The engine thread's. */
    int n_left; /* choices not ended */
};

void job_unref(struct job *j);

/* Posts of the engine thread. */
void job_post_started(struct job *j);
/* Takes the content of *prompt and leaves it empty. */
void job_post_prompt(struct job *j, struct piece *prompt);
/* token may be NULL. */
void job_post_text(struct job *j, int choice, enum channel channel, const struct event_token *token,
    const char *text, size_t len);
void job_post_call(struct job *j, int choice, const struct event_token *token, const char *name,
    const char *arguments, size_t len);
void job_post_finish(struct job *j, int choice, const struct finish *finish);

#endif
