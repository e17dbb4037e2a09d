/* chat.h - messages -> prompt. Rendered natively, byte for byte what the published templates give.
 */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "gemmad/chat.h"
#include "gemmad/err.h"
#include "model/source.h"
#include "model/tokenizer.h"

enum chat_format { CHAT_NONE, CHAT_GEMMA, CHAT_GEMMA3 };

/* setting: "auto" looks at tokenizer.chat_template of the file; a name forces that format. No
 * template gives CHAT_NONE; an unknown template or name is GD_ENOTSUP with a sentence that says
 * which names exist. */
int chat_format_pick(
    enum chat_format *out, const char *setting, const struct source *src, struct err *err);
const char *chat_format_name(enum chat_format f);

struct chat_options {
    bool add_generation_prompt;
    bool continue_final_message; /* the last message is left open */
};

/* Rendering appends to `out` the prompt with <bos>; errors name the message ("messages[2].role").
 */
int chat_render(enum chat_format f, const struct chat_message *messages, size_t n,
    const struct chat_options *o, struct buf *out, struct err *err);

/* The same prompt as ids. The frame's control tokens are recognised, the messages' text never is.
 */
int chat_encode(enum chat_format f, const struct tokenizer *t, const struct chat_message *messages,
    size_t n, const struct chat_options *o, struct token_list *out, struct err *err);

#endif
