/* fake.h - a model for tests of the engine, linked in place of the runtime, the graphs and the
 * tokenizer.
 *
 * Running it writes every token into the pages that the engine names, then reads the whole history
 * back through the same page tables: the logits of a position are a function of all tokens before
 * it, as found in the pages. A page that is shared by mistake, given back too early or copied wrong
 * changes the answer, and reads of pages that were never written are counted.
 *
 * Tokens: 0 pad, 1 eos, 2 bos, 3 end of turn (all control; 1 and 3 end an answer), then one for
 * each byte: 4 + byte. */
#ifndef TESTS_ENGINE_FAKE_H
#define TESTS_ENGINE_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "gemmad/engine.h"

enum { FAKE_VOCAB = 260, FAKE_EOS = 1, FAKE_BOS = 2, FAKE_EOT = 3, FAKE_BYTE = 4 };
enum { FAKE_PAGE_BYTES = 256, FAKE_RUNS_MAX = 8192 };

struct fake_run {
    bool decode;          /* answers', whichever graph it is */
    int n_seqs, n_tokens; /* tokens of all sequences */
    int n_riding;         /* those of prompts beside answers */
    int past;             /* of the first */
    int32_t first_id;     /* the first token of its prompt */
    int n_allocs;         /* of the engine's thread, since it began */
};

struct fake {
    /* Set before engine_open(). */
    int context, window;
    bool no_sliding, no_bos;
    bool embeds; /* the vector of a sequence is what its logits would be */
    /* An answer's token is the end of turn about once in so many; 0 = never. */
    int end_every;
    bool nan_logits;
    bool no_lists;      /* always the row, even where a list would do */
    bool graphs_differ; /* as with OpenBLAS in one of them; the fake's bits are the same */
    int us_per_run, us_per_token;
    int open_error;

    /* Filled by runs. */
    int n_bad; /* positions found unwritten or different in the two groups */
    int n_runs;
    struct fake_run runs[FAKE_RUNS_MAX];
};
extern struct fake fake;

void fake_reset(void);

/* The gate: closed, each run waits for one fake_pass(). */
void fake_close_gate(void);
void fake_pass(int n_runs);
void fake_open_gate(void);
/* Returns when a run waits at the gate. */
void fake_wait_blocked(void);

/* At the beginning of a test: everything as at first, *opts the harness's, no engine yet. */
struct harness;
void fake_begin(struct harness *h, struct engine_opts *opts);
/* At its end: opens the gate, waits for the engine (if h->e) and closes it, and fails the
 * test when a page has not come back or one was read wrong. */
void fake_close(struct harness *h);

/* Greedy answer of the model to tokens[0..n), written to tokens[n..n + max); stops after an end
 * token unless ignore_eos. Returns its length. tokens has room for n + max. */
int fake_answer(int32_t *tokens, int n, int max, bool ignore_eos);
/* Fails the test unless it is max tokens of that answer to ids[0..n), end tokens ignored. */
struct answer;
void fake_assert_answer(const struct answer *a, const int32_t *ids, int n, int max);
/* The logits after tokens[0..n). */
void fake_logits(const int32_t *tokens, int n, float *out);

#endif
