/* pace.h - how many prompt tokens a step may compute.
 *
 * While answers run, a step's time is the gap between their tokens: prompts get what the target
 * leaves after the decode run, by the speed measured lately. A model whose decode run alone comes
 * near the target, or exceeds it, still spends a third of its time on prompts: otherwise a prompt
 * would wait for the answers to end. While nothing runs the piece is as large as the prefill graph
 * takes, but not longer than a cancel may take. */
#ifndef ENGINE_PACE_H
#define ENGINE_PACE_H

#include <stdbool.h>

struct pace {
    int fixed;     /* tokens per step beside answers; 0 = by time */
    int max_chunk; /* of the prefill graph */
    double target_ms;
    double tokens, ms; /* prefill lately: sums in which older steps fade */
    double decode_ms;  /* a decode run without prompts lately; 0 = none yet */
    int n_ridden;      /* decode runs with prompts since then */
};

/* So many tokens take about as long to multiply as the weights take to read. */
enum { PACE_SMALLEST = 16 };

/* Answers grow while prompts ride: after so many runs one without tells what it costs by now. */
enum { PACE_RIDES = 16 };

/* decode_ms: of this step's decode run; 0 when nothing decodes. */
int pace_budget(const struct pace *p, double decode_ms);
void pace_measured(struct pace *p, int tokens, double ms);
/* A decode run took so long, with so many tokens of prompts in it. */
void pace_decoded(struct pace *p, int tokens, double ms);

#endif
