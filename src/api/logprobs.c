/* logprobs.c - a token may be part of a character. Such bytes cannot stand in a JSON string, so
 * they are shown as OpenAI shows them: \xf0\x9f as text, with "bytes:" before it in completions. */
#include "api/logprobs.h"

#include <stdio.h>
#include <string.h>

#include "api/write.h"
#include "base/utf8.h"

static void write_hex(struct buf *out, const struct token_view *view, const char *piece, size_t n)
{
    buf_puts(out, view->shape->chat ? "\"" : "\"bytes:");
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "\\\\x%02x", (unsigned char)piece[i]);
    buf_putc(out, '"');
}

static void write_token(struct buf *out, const struct token_view *view, int32_t id)
{
    size_t n = 0;
    const char *piece = view->piece(view->ud, id, &n);

    if (view->shape->ids_as_tokens) {
        buf_puts(out, "\"token_id:");
        write_int(out, id);
        buf_putc(out, '"');
    } else if (utf8_valid(piece, n)) {
        write_string(out, piece, n);
    } else {
        write_hex(out, view, piece, n);
    }
}

static void comma(struct buf *b)
{
    if (b->len)
        buf_putc(b, ',');
}

/* ---- completions */

static bool same_text(const struct token_view *view, int32_t a, int32_t b)
{
    size_t n_a = 0, n_b = 0;
    const char *text_a, *text_b;

    if (a == b || view->shape->ids_as_tokens)
        return a == b;
    text_a = view->piece(view->ud, a, &n_a);
    text_b = view->piece(view->ud, b, &n_b);
    return n_a == n_b && memcmp(text_a, text_b, n_a) == 0;
}

/* A map by text: tokens of one text collapse, and the chosen one and the likelier ones win. */
static void write_map(struct buf *out, const struct token_view *view, const struct event_token *t)
{
    buf_putc(out, '{');
    write_token(out, view, t->id);
    buf_putc(out, ':');
    write_logprob(out, t->logprob);
    for (int i = 0; i < t->n_top; i++) {
        bool taken = same_text(view, t->id, t->top[i].id);

        for (int j = 0; j < i && !taken; j++)
            taken = same_text(view, t->top[j].id, t->top[i].id);
        if (taken)
            continue;
        buf_putc(out, ',');
        write_token(out, view, t->top[i].id);
        buf_putc(out, ':');
        write_logprob(out, t->top[i].logprob);
    }
    buf_putc(out, '}');
}

static void add_legacy(struct logprobs *lp, const struct token_view *view,
    const struct event_token *t, size_t offset, bool known)
{
    comma(&lp->tokens);
    comma(&lp->values);
    comma(&lp->top);
    comma(&lp->offsets);
    write_token(&lp->tokens, view, t->id);
    write_int(&lp->offsets, (int64_t)offset);
    if (known) {
        write_logprob(&lp->values, t->logprob);
        write_map(&lp->top, view, t);
    } else {
        buf_puts(&lp->values, "null");
        buf_puts(&lp->top, "null");
    }
}

/* ---- chat */

static void write_entry(struct buf *out, const struct token_view *view, int32_t id, float logprob)
{
    size_t n = 0;
    const char *piece = view->piece(view->ud, id, &n);

    buf_puts(out, "{\"token\":");
    write_token(out, view, id);
    buf_puts(out, ",\"logprob\":");
    write_logprob(out, logprob);
    buf_puts(out, ",\"bytes\":");
    if (n)
        write_bytes(out, piece, n);
    else
        buf_puts(out, "null");
}

static void add_chat(
    struct logprobs *lp, const struct token_view *view, const struct event_token *t)
{
    struct buf *out = &lp->tokens;

    comma(out);
    write_entry(out, view, t->id, t->logprob);
    buf_puts(out, ",\"top_logprobs\":[");
    for (int i = 0; i < t->n_top; i++) {
        if (i)
            buf_putc(out, ',');
        write_entry(out, view, t->top[i].id, t->top[i].logprob);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

void logprobs_add(struct logprobs *lp, const struct token_view *view, const struct event_token *t,
    size_t offset, bool known)
{
    if (view->shape->chat)
        add_chat(lp, view, t);
    else
        add_legacy(lp, view, t, offset, known);
    lp->n++;
}

static void write_list(
    struct buf *out, const char *name, const struct buf *first, const struct buf *second)
{
    buf_puts(out, name);
    buf_append(out, first->data, first->len);
    if (first->len && second->len)
        buf_putc(out, ',');
    buf_append(out, second->data, second->len);
    buf_putc(out, ']');
}

void logprobs_write(struct buf *out, const struct token_view *view, const struct logprobs *first,
    const struct logprobs *second)
{
    static const struct logprobs none;

    first = first ? first : &none;
    second = second ? second : &none;
    if (first->n + second->n == 0) {
        buf_puts(out, "null");
    } else if (view->shape->chat) {
        write_list(out, "{\"content\":[", &first->tokens, &second->tokens);
        buf_puts(out, ",\"refusal\":null}");
    } else {
        write_list(out, "{\"tokens\":[", &first->tokens, &second->tokens);
        write_list(out, ",\"token_logprobs\":[", &first->values, &second->values);
        write_list(out, ",\"top_logprobs\":[", &first->top, &second->top);
        write_list(out, ",\"text_offset\":[", &first->offsets, &second->offsets);
        buf_putc(out, '}');
    }
}

void logprobs_clear(struct logprobs *lp)
{
    buf_clear(&lp->tokens);
    buf_clear(&lp->values);
    buf_clear(&lp->top);
    buf_clear(&lp->offsets);
    lp->n = 0;
}

void logprobs_free(struct logprobs *lp)
{
    buf_free(&lp->tokens);
    buf_free(&lp->values);
    buf_free(&lp->top);
    buf_free(&lp->offsets);
}
