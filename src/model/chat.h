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

enum chat_format {
    CHAT_NONE,
    CHAT_GEMMA,              /* 1 and 2 */
    CHAT_GEMMA3,             /* 3 and 3n */
    CHAT_GEMMA4,             /* 12B and more: an empty thought is written when thinking is off */
    CHAT_GEMMA4_SMALL,       /* E2B, E4B */
    CHAT_GEMMA4_INTERLEAVED, /* the first published template, kept for comparison */
    CHAT_FUNCTIONGEMMA
};

/* setting: "auto" looks at tokenizer.chat_template of the file; a name ("gemma3", "none") forces
 * that format. The first template of Gemma 4 gives CHAT_GEMMA4, its successor: the older one writes
 * tools' results as turns, which the model was not trained on. No template gives CHAT_NONE; an
 * unknown template or name is GD_ENOTSUP with a sentence that says which names exist. */
int chat_format_pick(
    enum chat_format *out, const char *setting, const struct source *src, struct err *err);
const char *chat_format_name(enum chat_format f);
bool chat_has_tools(enum chat_format f);
bool chat_has_thinking(enum chat_format f);

struct chat_options {
    bool add_generation_prompt;
    bool continue_final_message; /* the last message is left open */
    bool enable_thinking;
    const struct chat_tool *tools;
    size_t n_tools;
};

/* Rendering appends to `out` the prompt with <bos>; errors name the message ("messages[2].role").
 * Where the templates fail, so does this, with the same words: a system message for CHAT_GEMMA,
 * roles that do not alternate. CHAT_NONE is GD_ENOTSUP. A developer message counts as a system
 * message (the templates do not know that role); a system message in the middle is a turn of its
 * own, a system message alone renders no turn, as in the templates. Tools, calls and thinking where
 * a format has none are GD_ENOTSUP; JSON texts that are no objects are GD_EINVAL. A tool's result
 * stands with the call it answers; one that follows no call is left out, as the template does. */
int chat_render(enum chat_format f, const struct chat_message *messages, size_t n,
    const struct chat_options *o, struct buf *out, struct err *err);

/* The same prompt as ids: the frames are control tokens, the messages' text never makes one. For
 * text without control tokens the ids are those of the rendered prompt. */
int chat_encode(enum chat_format f, const struct tokenizer *t, const struct chat_message *messages,
    size_t n, const struct chat_options *o, struct token_list *out, struct err *err);

#endif
