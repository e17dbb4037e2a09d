/* chat_parse.h - what a model writes -> content, reasoning and tool calls, as it comes.
 *
 * Marks are single tokens, so the reader of tokens knows them from text that only looks like them:
 * it hands over marks as marks and everything else as text. Nothing of a mark's text is ever part
 * of what comes out, unless the mark means nothing where it stands; then all of it is. A call comes
 * out whole, when it is complete, its name is one that was offered and its arguments are valid;
 * otherwise all that was written is content. Used by one thread. */
#ifndef MODEL_CHAT_PARSE_H
#define MODEL_CHAT_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "model/chat.h"
#include "model/tokenizer.h"

enum chat_mark {
    MARK_NONE,
    MARK_CHANNEL,
    MARK_CHANNEL_END,
    MARK_CALL,
    MARK_CALL_END,
    MARK_QUOTE,
    MARK_RESPONSE, /* where the model stops to get its results */
    N_MARKS
};

/* The text of a mark in a format; NULL when the format has none such. */
const char *chat_mark_text(enum chat_format f, enum chat_mark mark);

/* The ids of a format's marks in a vocabulary; -1 where there is none. */
struct chat_marks {
    int32_t id[N_MARKS];
};
void chat_marks_find(struct chat_marks *marks, enum chat_format f, const struct tokenizer *t);
enum chat_mark chat_marks_which(const struct chat_marks *marks, int32_t id);

enum chat_part { CHAT_CONTENT, CHAT_REASONING, CHAT_CALL };

/* CHAT_CALL: name is the function's, text its arguments, JSON text of an object. Otherwise name is
 * NULL. text is borrowed. */
typedef void chat_emit(
    void *ud, enum chat_part part, const char *name, const char *text, size_t len);

struct chat_parser {
    enum chat_format format;
    const char *const *tools; /* names that were offered; none: calls are content */
    size_t n_tools;
    bool split_reasoning; /* false: thoughts stay in the content, with their marks */
    chat_emit *emit;
    void *ud;

    enum { PARSE_TEXT, PARSE_HEADER, PARSE_BLANKS, PARSE_THOUGHT, PARSE_CALL } state;
    struct buf held; /* header: what may become "thought"; call: what was written */
};

/* Fill the first members, zero the rest. finish() frees. */
void chat_parser_finish(struct chat_parser *p);
/* Whole characters. */
void chat_parser_text(struct chat_parser *p, const char *text, size_t len);
void chat_parser_mark(struct chat_parser *p, enum chat_mark mark);
/* Nothing more comes: gives what was held back. A complete call that only lacks its end mark
 * counts. */
void chat_parser_end(struct chat_parser *p);
/* True while what is read is a thought (for counting its tokens). */
bool chat_parser_thinks(const struct chat_parser *p);

/* body: what stands between the marks of a call, quote marks as the byte CHAT_QUOTE. True with the
 * name's length (it follows "call:") and the arguments appended as JSON. */
enum { CHAT_QUOTE = 0xff };
bool chat_call_read(enum chat_format f, const char *body, size_t len, const char **name,
    size_t *name_len, struct buf *arguments);

#endif
