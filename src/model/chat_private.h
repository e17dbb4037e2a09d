/* chat_private.h - what the chat formats share: where they write to, and how tools are written. */
#ifndef MODEL_CHAT_PRIVATE_H
#define MODEL_CHAT_PRIVATE_H

#include "model/chat.h"
#include "model/json_value.h"

/* Everything a format writes is text or a frame. Rendering joins them. Encoding looks the frames up
 * and encodes each text between two of them in one piece, without control tokens: so nothing that
 * a request brings can make one, and the ids are those of the rendered prompt, for a control token
 * cuts the text there, too. The first error stays; what is written after it does not matter. */
struct sink {
    struct buf *text;          /* rendering: everything; encoding: what came since the last frame */
    const struct tokenizer *t; /* NULL: rendering */
    struct token_list *ids;
    struct err *err;
    int r;
};
void sink_text(struct sink *s, const char *text, size_t n);
void sink_puts(struct sink *s, const char *text);
void sink_frame(struct sink *s, const char *frame);

/* The messages of a request and where a format is in them. */
struct conversation {
    const struct chat_message *m;
    size_t n;
    const struct chat_options *o;
};

/* The marks of a format with tools; all are frames. */
struct tool_marks {
    const char *quote; /* around strings */
    const char *declaration, *declaration_end;
    const char *call, *call_end;
    const char *response, *response_end;
    bool interleaved; /* the older order of a property's fields, with its commas */
};

void tools_declare(struct sink *s, const struct tool_marks *marks, const struct chat_options *o);
/* The calls of message i. */
void tools_call(
    struct sink *s, const struct tool_marks *marks, const struct conversation *c, size_t i);

/* Sets and returns an error at "messages[i].field". */
int message_error(struct sink *s, int code, size_t i, const char *field, const char *sentence);

void format_gemma4(struct sink *s, enum chat_format f, const struct conversation *c);
void format_functiongemma(struct sink *s, const struct conversation *c);

/* A tool's result as one string, and as what a value of the tree says (an object: its members). */
void tools_response_text(
    struct sink *s, const struct tool_marks *marks, const char *name, const char *text, size_t len);
void tools_response_value(struct sink *s, const struct tool_marks *marks, const char *name,
    size_t name_len, const struct json_value *value);

/* The name of the function that message i, a tool's result, answers: that of the call of message
 * `caller` with the same id, else the message's own name; NULL and an error when there is none. */
const char *tools_answered(struct sink *s, const struct conversation *c, size_t caller, size_t i);

#endif
