/* scheduler_private.h - the scheduler's state, shared by scheduler.c (who computes) and draw.c
 * (what becomes of the logits). */
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
    struct graph_seq *seqs; /* (max_sequences) */
    float *logits;          /* (max(max_sequences, PROMPT_ROWS), vocab); none when it embeds */
    size_t logits_bytes;

    struct sampler **samplers; /* one per thread of the pool */
    int n_samplers;
    int32_t *end_tokens; /* every token that ends an answer */
    size_t n_end_tokens;

    bool embeds; /* the model makes vectors: embed.c */
    bool news;   /* a job has something to read that wake() was not called for */
    struct engine_stats stats;
};

/* ---- scheduler.c ---- */
void sched_end(struct sched *s, struct choice *c, const struct finish *finish);

/* ---- embed.c ---- */
/* Room in the run that comes next. */
bool sched_embed_has_room(const struct sched *s, const struct job *j);
/* Everything that was admitted, in one run; all of it ends. */
void sched_embed(struct sched *s);

/* ---- draw.c ---- */
void sched_find_end_tokens(struct sched *s);
/* Draws the next token of each of s->rows[0..n) into its pick, spread over the pool. */
void sched_sample(struct sched *s, int n);
/* The same for one choice from one row. */
void sched_sample_row(struct sched *s, struct choice *c, struct sampler *sampler, float *row);
/* Adds the picked token to the answer; ends the choice where it must end. */
void sched_accept(struct sched *s, struct choice *c);
/* The last n positions of c were computed with all their logits: scores the tokens after them. */
void sched_score_prompt(struct sched *s, struct choice *c, int n);
/* Posts the scores. */
void sched_post_prompt(struct sched *s, struct choice *c);

#endif
