/* scheduler.h - who computes next. Engine thread only.
 *
 * One step: forget what was canceled or ran out of time; let preempted choices start again; one
 * decode run over every running choice (up to max_sequences, the oldest first); then prompts,
 * within the budget of pace.h. Half of that budget goes to the prompt that came first, so that a
 * long one always moves; the other half to those with the least left, so that a short one behind it
 * does not wait for it. A prompt that goes on like an older one in progress lets that one compute
 * and takes over its pages. Tokens are published as soon as they are drawn.
 *
 * A model that makes vectors instead of text runs everything that was admitted as whole sequences
 * in one step (embed.c); more is admitted only as far as that step has room.
 *
 * When pages run out, the youngest choice gives its pages back and computes again later. The oldest
 * can therefore always go on, and a plan of pages holds at least one sequence of ctx_tokens: every
 * admitted job ends. */
#ifndef ENGINE_SCHEDULER_H
#define ENGINE_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/job.h"
#include "engine/kv.h"
#include "engine/runtime.h"

struct sched_opts {
    int ctx_tokens, max_sequences;
    int prefill_chunk, itl_target_ms;
    void (*wake)(void *ud); /* a job has news */
    void *wake_ud;
};

struct sched;

/* rt and kv are borrowed. NULL when there is no memory for the logits. */
struct sched *sched_create(struct runtime *rt, struct kv *kv, const struct sched_opts *o);
/* Nothing may be running. */
void sched_destroy(struct sched *s);

/* Room for this job now: choices, pages, and nobody preempted waits. Always true when nothing runs.
 */
bool sched_has_room(const struct sched *s, const struct job *j);
/* Starts the job; the caller's reference becomes the scheduler's. */
void sched_admit(struct sched *s, struct job *j);
/* Ends a job that was never admitted: every choice with this reason. */
void sched_turn_away(struct sched *s, struct job *j, enum finish_reason reason);
/* Does one step; something must be running. */
void sched_step(struct sched *s);
/* Ends everything that runs. */
void sched_end_all(struct sched *s, enum finish_reason reason);

/* Choices admitted and not ended. */
int sched_running(const struct sched *s);
const struct engine_stats *sched_stats(struct sched *s);

#endif
