/* scheduler_private.h - the scheduler's state, shared by scheduler.c (who runs), prefill.c (what a
 * step computes of prompts) and draw.c (what becomes of the logits). */
#ifndef ENGINE_SCHEDULER_PRIVATE_H
#define ENGINE_SCHEDULER_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/choice.h"
#include "engine/pace.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"

/* Prompt positions whose logits are kept at once when a prompt is scored. */
enum { PROMPT_ROWS = 16 };

struct sched {
    struct runtime *rt;
    struct kv *kv;
    struct sched_opts o;
    struct pace pace;

    struct choice **live; /* oldest first; the choices of a job stand together */
    int n_live, live_cap;
    int n_running; /* choices admitted and not ended, those included that wait for their prompt */

    /* The decode run in progress. */
    struct choice **rows;   /* (max_sequences) */
    struct graph_seq *seqs; /* (max_sequences) the rows, then the riders */
    struct choice **riders; /* (max_sequences) whose prompts have a piece in it */
    int n_rows, n_riders;
    float *logits; /* (max(max_sequences, PROMPT_ROWS), vocab); none when it embeds */
    size_t logits_bytes;
    struct shortlist *lists; /* (max_sequences) what a run may give instead of rows */
    struct logit *best;      /* (max_sequences, SHORTLIST_MAX) */

    struct sampler **samplers; /* one per thread of the pool */
    int n_samplers;
    int32_t *end_tokens; /* every token that ends an answer */
    size_t n_end_tokens;

    bool embeds;  /* the model makes vectors: embed.c */
    bool replays; /* the graphs have different bits: an answer is the decode graph's alone */
    bool news;    /* a job has something to read that wake() was not called for */
    struct engine_stats stats;
};

/* ---- scheduler.c ---- */
void sched_end(struct sched *s, struct choice *c, const struct finish *finish);
/* Between two tokens, with what was answered. */
void sched_end_plainly(struct sched *s, struct choice *c, enum finish_reason reason);
bool sched_any_in(const struct sched *s, enum choice_state state);
void sched_insert_live(struct sched *s, int at, struct choice *c);
/* Makes the next n positions of c writable, at the cost of younger choices. False: c waits, with
 * what it has, for older ones to end. */
bool sched_make_room(struct sched *s, struct choice *c, int n);
/* The next n tokens of c as a part of a run, without logits. */
struct graph_seq sched_part(const struct choice *c, int n);
/* The next n positions of c are computed. */
void sched_advance(struct sched *s, struct choice *c, int n);
/* Wakes the reader if there is news for it. */
void sched_publish(struct sched *s);

/* ---- prefill.c ---- */
/* Computes about `budget` tokens of prompts, at least some; prompts that are complete begin to
 * answer. */
void sched_prefill(struct sched *s, int budget);
/* Puts pieces of prompts into the decode run, which reads the weights anyway: what the
 * target leaves for them. Returns their tokens; 0, and no riders, where prompts are to be computed
 * by themselves. */
int sched_ride(struct sched *s);
/* That run is over. */
void sched_rode(struct sched *s);

/* ---- embed.c ---- */
/* Room in the run that comes next. */
bool sched_embed_has_room(const struct sched *s, const struct job *j);
/* Everything that was admitted, in one run; all of it ends. */
void sched_embed(struct sched *s);

/* ---- draw.c ---- */
/* Rows, lists and samplers; 0 or GD_ENOMEM. sched_close_drawing() may follow either. */
int sched_open_drawing(struct sched *s);
void sched_close_drawing(struct sched *s);
/* Fills in the statistics of the head. */
void sched_count_head(struct sched *s);
/* Draws the next token of each row that does not know it into its pick, spread over the pool. */
void sched_sample(struct sched *s);
/* Asks a run for what c's next token can be drawn from, in the place of row `row`. */
void sched_ask(struct sched *s, const struct choice *c, int row, struct graph_seq *seq);
/* Draws it for one choice, from what the run gave. */
void sched_sample_seq(
    struct sched *s, struct choice *c, struct sampler *sampler, const struct graph_seq *seq);
/* Adds the picked token to the answer; ends the choice where it must end. */
void sched_accept(struct sched *s, struct choice *c);
/* The last n positions of c were computed with all their logits: scores the tokens after them. */
void sched_score_prompt(struct sched *s, struct choice *c, int n);
/* Posts the scores. */
void sched_post_prompt(struct sched *s, struct choice *c);

#endif
