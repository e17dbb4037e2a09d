/* tokenizer_private.h - what the tokenizer's files share. */
#ifndef MODEL_TOKENIZER_PRIVATE_H
#define MODEL_TOKENIZER_PRIVATE_H

#include "model/tokenizer.h"
#include "model/vocab.h"

enum { TOKENIZER_MAX_EOG = 16 };

struct tokenizer {
    struct vocab *vocab;
    struct tokenizer_special special;
    int32_t eog[TOKENIZER_MAX_EOG];
    int n_eog;
};

/* How a piece that a file calls special, or not, is treated (see tokenizer.c). */
enum piece_kind tokenizer_kind(const char *text, size_t len, bool special);

/* Adds id to the tokens that end a generation; -1 and ids that are there already are fine. */
int tokenizer_add_eog(struct tokenizer *t, int32_t id, const char *key, struct err *err);
/* Fills eot and the end tokens that are known by their text, when the vocabulary is complete. */
int tokenizer_settle(struct tokenizer *t, struct err *err);

/* Room for n more ids; GD_ENOMEM. */
int token_list_reserve(struct token_list *l, size_t n, struct err *err);

/* tokenizer_merge.c: the ids of text[0..len), which is valid UTF-8 without a place to cut, are
 * appended to out. */
int merge_unit(
    const struct vocab *v, const char *text, size_t len, struct token_list *out, struct err *err);

#endif
