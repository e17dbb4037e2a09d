/* harness.h - a caller of the engine: waits for wakes and collects answers. */
#ifndef TESTS_ENGINE_HARNESS_H
#define TESTS_ENGINE_HARNESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "gemmad/engine.h"

struct harness {
    struct engine *e;
    pthread_mutex_t lock; /* guards n_wakes */
    pthread_cond_t woken;
    unsigned n_wakes;
};

/* Opens or fails the test. opts may be NULL: defaults with the demo settings below. */
void harness_opts(struct engine_opts *o);
void harness_open(struct harness *h, const struct engine_opts *o);
void harness_close(struct harness *h);

struct answer { /* of one choice */
    struct buf text;
    int32_t *ids;
    float *logprobs;
    struct token_alternative *tops; /* in order; n_tops[i] of token i */
    int *n_tops;
    int n, n_all_tops;
    enum finish_reason finish;
    char stop_string[32];
    int32_t stop_id;
    struct usage usage;
    struct err err;
};

struct result {
    int n;
    struct answer *answers;
    bool started;
    struct answer prompt; /* of EVENT_PROMPT */
};

/* Submits or fails the test. */
struct job *harness_submit(struct harness *h, const struct job_params *p);
/* The next event, waiting for it; fails the test when none comes for 20 seconds. */
void harness_next(struct harness *h, struct job *j, struct job_event *ev);
/* Reads until every choice has ended, checks the order of events, releases the job. */
struct result harness_collect(struct harness *h, struct job *j, int n);
struct result harness_run(struct harness *h, const struct job_params *p);
void result_free(struct result *r);

/* A greedy request for max_tokens after these ids, end tokens ignored. */
struct job_params harness_greedy(int32_t *ids, int n, int max_tokens);
/* n ids that depend on seed, none of them special. */
void harness_prompt(int32_t *ids, int n, unsigned seed);

/* Fails the test when it takes longer than 20 s. */
void harness_wait_idle(struct harness *h);

#endif
