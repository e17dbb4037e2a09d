/* http_load.h - the parts of the load generator: clients (http_load.c), the answer each of them
 * reads (http_answer.c), and the figures of all together (http_totals.c). */
#ifndef BENCH_HTTP_LOAD_H
#define BENCH_HTTP_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct options {
    const char *host, *key; /* key NULL: none */
    int port, clients, requests, prompt, gen;
    unsigned seed;
    bool json;
};

struct samples { /* milliseconds */
    double *v;
    int n, cap;
};

struct totals {
    int64_t began, ended;          /* clock_ns() */
    struct samples first;          /* request to first token */
    struct samples between;        /* between two events of a stream */
    struct samples whole;          /* request to end */
    struct samples rate;           /* tokens per second after the first, per request */
    int64_t prompt_tokens, tokens; /* read and generated, as the server's usage says */
    int n_ok, n_refused, n_broken; /* complete; a status other than 200; cut off */
    int first_bad_status;
};

/* One HTTP answer as it comes in. */
struct answer {
    struct buf head, line;     /* header block; the body's unfinished line */
    int64_t sent, first, last; /* clock_ns(); 0 = not yet */
    int status, prompt_tokens, tokens, events;
    bool in_body, chunked, keep_alive, done_event;
    int64_t left; /* bytes of the chunk or body to come */
    int chunk_state;
    char size_line[24];
    int size_len;
};

struct client {
    int fd; /* -1 while not connected */
    struct answer answer;
};

void answer_begin(struct answer *a, int64_t now); /* the first time on a zeroed struct */
/* True when the answer is complete. */
bool answer_take(struct answer *a, const char *data, size_t n, int64_t now, struct totals *t);
void answer_end(struct answer *a, struct totals *t); /* counts it */
void answer_free(struct answer *a);

void samples_add(struct samples *s, double v);
void totals_print(struct totals *t, const struct options *o);
void totals_free(struct totals *t);

#endif
