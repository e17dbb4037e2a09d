/* prompt.h - what a caller asks, as ids the model can read. Any thread. */
#ifndef ENGINE_PROMPT_H
#define ENGINE_PROMPT_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/private.h"
#include "model/tokenizer.h"

/* Appends to out (freed by the caller, also after an error) the ids of text. add_special: bos and
 * eos where the file asks for them; a text that begins with bos gets no second one. */
int prompt_encode(struct engine *e, const char *text, size_t len, bool add_special,
    bool parse_special, struct token_list *out, struct err *err);

struct chat_options prompt_options(const struct prompt *p);

/* The ids of a prompt of any kind, each in the vocabulary, at least one. */
int prompt_ids(struct engine *e, const struct prompt *p, struct token_list *out, struct err *err);

/* Refuses, naming the field, what a request must not ask. max_tokens and prompt lengths are judged
 * by job_submit(). */
int params_check(const struct engine *e, const struct job_params *p, struct err *err);

#endif
