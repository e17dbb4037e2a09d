/* head.h - the head's part of a plan: logits into the caller's rows, or only what is to be known of
 * each row. Private to the graph layer.
 *
 * A row's k best are found in one of two ways, with the same result bit for bit:
 *
 *   plain      all logits; each thread keeps the best of its panels while they are in the cache
 *   screened   for a head in planes (kernels/planes.h): what each panel can at most give, from the
 *              coarse plane; a few of the most promising panels exactly; then exactly those whose
 *              bound reaches the k-th best so far, and no others
 *
 * A draw is the largest with noise (kernels/noise.h), found in the same ways. A draw from a part of
 * the row is screened in rounds: what is drawn from all, then all before it, then, if that does not
 * settle it, the k best; without a screen the k best are found at once. Rows are written only where
 * somebody wants one, or needs it in the end. Threads meet between rounds, and when lists are put
 * together. */
#ifndef GRAPH_HEAD_H
#define GRAPH_HEAD_H

#include "graph/best.h"
#include "graph/plan.h"

struct head_thread {
    struct best *best;   /* (HEAD_COLS) */
    struct logit *drawn; /* (HEAD_COLS): the largest with noise */
    struct best *seeds;  /* (SCREEN_MAX): panels with the largest bounds */
    int *survivors;      /* (n_panels) */
    float *tile;         /* (HEAD_COLS, HEAD_ROWS) */
    uint8_t *columns;    /* (SCREEN_MAX) of the bound */
};

struct head {
    struct step *step;
    bool lists;   /* the result is this step's: its best are the result's best */
    bool screens; /* the matrix is in planes and has a bound */
    /* In this run: lists are taken, rows written, most panels left out. */
    bool takes_now, rows_now, screens_now;
    atomic_bool lacks;   /* rows are needed after all: some numbers were none */
    int n_vain, pause;   /* screened in vain so often in a row; runs still to do without */
    atomic_long n_exact; /* panels a screened run computed exactly */
    struct wmat coarse;
    float *bound; /* (SCREEN_MAX, n_panels): what a panel may give; NaN once it is known */
    float *noisy; /* (SCREEN_MAX, n_panels): the same of a draw, with noise */
    struct head_thread *threads;
    void *memory;
    size_t bytes;
    atomic_llong read, whole; /* bytes of the matrix: read so far, and without the screen */
};

/* Columns that can have lists, and how many of them, with lists of what lengths together, are
 * screened: with more, too many panels survive. */
enum { HEAD_COLS = STATIC_ROWS, SCREEN_MAX = 4, SCREEN_LENGTHS = 8 };

enum { HEAD_ROWS = 256 }; /* logits of a column that stay in the cache */

/* For the step whose result is in the caller's memory. */
int head_create(struct graph *g, struct step *s, struct err *err);
/* Before a run: which of the ways it goes. */
void head_begin(struct graph *g);
void head_destroy(struct head *h); /* NULL is fine */

/* ---- for screen.c ---- */
/* The next panels that no thread has yet. False: there are none. */
bool head_pull(struct step *s, int most, int *first, int *last);
void head_softcap(const struct graph *g, const struct step *s, float *values, int n);
/* Takes what is wanted of n logits of column c, from row on. */
void head_take(const struct graph *g, int c, int row, const float *logits, int n, int thread);
/* All threads' best of column c together. */
void head_gather(const struct graph *g, int c, struct best *out);
/* What all threads together would draw from the row of column c, with its noise. */
struct logit head_drawn(const struct graph *g, int c);
/* All threads' best of column c in order. Returns which of them is drawn, -1: that is not known. */
int head_chosen(const struct graph *g, int c, struct best *all);

#endif
