#include "model/chat_parse.h"

#include <string.h>

static bool is_gemma4(enum chat_format f)
{
    return f == CHAT_GEMMA4 || f == CHAT_GEMMA4_SMALL || f == CHAT_GEMMA4_INTERLEAVED;
}

const char *chat_mark_text(enum chat_format f, enum chat_mark mark)
{
    static const char *const gemma4[N_MARKS] = {NULL, "<|channel>", "<channel|>", "<|tool_call>",
        "<tool_call|>", "<|\"|>", "<|tool_response>"};
    static const char *const function[N_MARKS] = {NULL, NULL, NULL, "<start_function_call>",
        "<end_function_call>", "<escape>", "<start_function_response>"};

    if (is_gemma4(f))
        return gemma4[mark];
    return f == CHAT_FUNCTIONGEMMA ? function[mark] : NULL;
}

void chat_marks_find(struct chat_marks *marks, enum chat_format f, const struct tokenizer *t)
{
    for (int i = 0; i < N_MARKS; i++) {
        const char *text = chat_mark_text(f, (enum chat_mark)i);

        marks->id[i] = text ? tokenizer_find(t, text, strlen(text)) : -1;
    }
}

enum chat_mark chat_marks_which(const struct chat_marks *marks, int32_t id)
{
    for (int i = MARK_NONE + 1; i < N_MARKS; i++) {
        if (marks->id[i] == id)
            return (enum chat_mark)i;
    }
    return MARK_NONE;
}

static void emit(struct chat_parser *p, enum chat_part part, const char *text, size_t len)
{
    if (len)
        p->emit(p->ud, part, NULL, text, len);
}

static void emit_held(struct chat_parser *p, enum chat_part part)
{
    emit(p, part, p->held.data ? p->held.data : "", p->held.len);
    buf_clear(&p->held);
}

bool chat_parser_thinks(const struct chat_parser *p)
{
    return p->state == PARSE_HEADER || p->state == PARSE_BLANKS || p->state == PARSE_THOUGHT;
}

static const char header[] = "thought";
enum { HEADER_LEN = sizeof(header) - 1 };

/* A channel begins with its name, of which one is known, and blanks; a channel without that name is
 * a thought all of which counts. Returns how much of text was taken. */
static size_t take_header(struct chat_parser *p, const char *text, size_t len)
{
    size_t n = HEADER_LEN - p->held.len;

    n = n < len ? n : len;
    if (memcmp(text, header + p->held.len, n) != 0) {
        emit_held(p, CHAT_REASONING);
        p->state = PARSE_THOUGHT;
        return 0;
    }
    buf_append(&p->held, text, n);
    if (p->held.len == HEADER_LEN) {
        buf_clear(&p->held);
        p->state = PARSE_BLANKS;
    }
    return n;
}

static size_t take_blanks(struct chat_parser *p, const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && strchr(" \t\n\v\f\r", text[n]) && text[n])
        n++;
    if (n < len)
        p->state = PARSE_THOUGHT;
    return n;
}

void chat_parser_text(struct chat_parser *p, const char *text, size_t len)
{
    while (len > 0) {
        size_t n = len;

        switch (p->state) {
        case PARSE_TEXT: emit(p, CHAT_CONTENT, text, len); break;
        case PARSE_THOUGHT: emit(p, CHAT_REASONING, text, len); break;
        case PARSE_CALL: buf_append(&p->held, text, len); break;
        case PARSE_HEADER: n = take_header(p, text, len); break;
        case PARSE_BLANKS: n = take_blanks(p, text, len); break;
        }
        text += n;
        len -= n;
    }
}

static bool is_offered(const struct chat_parser *p, const char *name, size_t len)
{
    for (size_t i = 0; i < p->n_tools; i++) {
        if (strlen(p->tools[i]) == len && memcmp(p->tools[i], name, len) == 0)
            return true;
    }
    return false;
}

/* The mark as text. */
static void emit_mark(struct chat_parser *p, enum chat_mark mark)
{
    const char *text = chat_mark_text(p->format, mark);

    emit(p, chat_parser_thinks(p) ? CHAT_REASONING : CHAT_CONTENT, text, strlen(text));
}

/* What was written, with the marks in it, is content. */
static void give_back_call(struct chat_parser *p, bool ended)
{
    const char *quote = chat_mark_text(p->format, MARK_QUOTE);
    const char *body = p->held.data ? p->held.data : "";
    struct buf raw = {0};

    buf_puts(&raw, chat_mark_text(p->format, MARK_CALL));
    for (size_t i = 0; i < p->held.len; i++) {
        if ((unsigned char)body[i] == CHAT_QUOTE)
            buf_puts(&raw, quote);
        else
            buf_putc(&raw, body[i]);
    }
    if (ended)
        buf_puts(&raw, chat_mark_text(p->format, MARK_CALL_END));
    emit(p, CHAT_CONTENT, raw.data, raw.len);
    buf_free(&raw);
}

static void end_call(struct chat_parser *p, bool ended)
{
    struct buf arguments = {0};
    const char *name;
    size_t len;

    if (chat_call_read(
            p->format, p->held.data ? p->held.data : "", p->held.len, &name, &len, &arguments) &&
        is_offered(p, name, len)) {
        p->held.data[name - p->held.data + (ptrdiff_t)len] = 0; /* the brace after it was read */
        p->emit(p->ud, CHAT_CALL, name, arguments.data, arguments.len);
    } else {
        give_back_call(p, ended);
    }
    buf_free(&arguments);
    buf_clear(&p->held);
    p->state = PARSE_TEXT;
}

/* A header that was never finished is part of the thought; "thought" alone is none. */
static void leave_thought(struct chat_parser *p)
{
    if (p->state == PARSE_HEADER)
        emit_held(p, CHAT_REASONING);
    p->state = PARSE_TEXT;
}

static void mark_in_call(struct chat_parser *p, enum chat_mark mark)
{
    switch (mark) {
    case MARK_QUOTE: buf_putc(&p->held, (char)CHAT_QUOTE); return;
    case MARK_CALL_END: end_call(p, true); return;
    case MARK_CHANNEL_END: /* a stray one, as after text */
    case MARK_NONE:
    case N_MARKS: return;
    case MARK_CHANNEL:
    case MARK_CALL:
    case MARK_RESPONSE: break;
    }
    end_call(p, false);
    chat_parser_mark(p, mark);
}

void chat_parser_mark(struct chat_parser *p, enum chat_mark mark) /* NOLINT(misc-no-recursion) */
{
    bool channel = mark == MARK_CHANNEL || mark == MARK_CHANNEL_END;

    if (p->state == PARSE_CALL) {
        mark_in_call(p, mark);
    } else if (mark == MARK_RESPONSE) {
        leave_thought(p);
    } else if (channel && p->split_reasoning) {
        leave_thought(p);
        if (mark == MARK_CHANNEL)
            p->state = PARSE_HEADER;
    } else if (mark == MARK_CALL && p->n_tools) {
        leave_thought(p);
        p->state = PARSE_CALL;
    } else {
        if (p->state == PARSE_HEADER)
            emit_held(p, CHAT_REASONING);
        if (chat_parser_thinks(p))
            p->state = PARSE_THOUGHT;
        emit_mark(p, mark);
    }
}

void chat_parser_end(struct chat_parser *p)
{
    if (p->state == PARSE_CALL)
        end_call(p, false);
    else
        leave_thought(p);
}

void chat_parser_finish(struct chat_parser *p)
{
    buf_free(&p->held);
}
