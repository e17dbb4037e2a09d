/* sampler.h - from a row of logits to a token.
 *
 * The order, llama.cpp's: logit_bias, repeat penalty, frequency and presence penalty, top_k,
 * typical_p, top_p, min_p, temperature, draw. Each truncation works on the probabilities left by
 * the one before it, always keeps at least one token, and breaks ties towards the lower id.
 * Temperatures below 1e-5 count as 0: the most likely token, the first one on ties.
 *
 * A pick depends on the row, the settings, the tokens so far and (seed, choice, number of tokens
 * drawn before): no state is kept between picks, so a sequence that is computed again goes on as if
 * nothing had happened.
 *
 * A vocabulary of 262144 is never sorted: a threshold finds the few tokens that matter, and a
 * selection by mass cuts them in linear time. NaN counts as impossible.
 *
 * One sampler is scratch memory for one thread at a time. */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/engine.h"
#include "graph/graph.h"
#include "kernels/kernels.h"

enum { LOGPROBS_MAX = 20 };

struct sampler;

/* k is borrowed. */
struct sampler *sampler_create(const struct kernels *k, int vocab);
void sampler_destroy(struct sampler *s); /* NULL is fine */

struct sampler_input {
    const struct sampling *params;
    uint64_t seed; /* params->seed, or what was drawn for a job without one */
    int choice;
    const int32_t *tokens; /* prompt and answer so far, every id in the vocabulary */
    int n_tokens, n_prompt;
    struct {
        const int32_t *ids;
        size_t n;
    } banned[2]; /* must not be drawn now */
};

/* The token, or -1 when the row holds no finite logit that is not banned. The row is patched while
 * the call runs and restored before it returns. */
int32_t sampler_pick(struct sampler *s, float *logits, const struct sampler_input *in);

/* What a shortlist must be asked for (graph.h) for sampler_pick_from() to give what sampler_pick()
 * gives: the k best once penalties and bans have taken some out, or a draw. False: the whole row is
 * needed. */
bool sampler_shortlist(const struct sampler_input *in, int vocab, struct shortlist *list);

/* As sampler_pick(), from what a run gave. */
int32_t sampler_pick_from(
    struct sampler *s, const struct shortlist *list, const struct sampler_input *in);

/* What truncation leaves of a row, in no particular order; *out is borrowed until the next call.
 * -1: nothing is truncated, every token is in. */
struct candidate {
    float logit;
    float mass; /* exp(logit - the row's largest) */
    float key;  /* tokens with smaller keys are kept first */
    int32_t id;
};
int sampler_survivors(
    struct sampler *s, const float *logits, const struct sampling *p, const struct candidate **out);

/* Natural log-probability of id in the softmax of the row as the model gave it (before bias,
 * penalties and temperature), and of the n_top (<= LOGPROBS_MAX) most likely tokens, most likely
 * first. Floored at -9999. Returns how many were written to top. */
int sampler_logprobs(struct sampler *s, const float *logits, int32_t id, int n_top, float *logprob,
    struct token_alternative *top);

#endif
