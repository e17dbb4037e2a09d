/* chat.c - the turns of Gemma 1, 2 and 3, as the published templates write them:
 *
 *   <bos><start_of_turn>user\nTEXT<end_of_turn>\n<start_of_turn>model\nTEXT<end_of_turn>\n ...
 *
 * One walk over the messages writes frames and texts to a sink. Rendering joins them. Encoding
 * looks up the frames and encodes each text between two frames in one piece, without control
 * tokens: so a message cannot make one, and the ids are those of the rendered prompt, for a control
 * token cuts the text there, too ("user\n" and a system text that begins with line breaks merge in
 * both). */
#include "model/chat.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

struct sink {
    struct buf *text;          /* rendering: everything; encoding: what came since the last frame */
    const struct tokenizer *t; /* NULL: rendering */
    struct token_list *ids;
    struct err *err;
};

static void put_text(struct sink *s, const char *text, size_t n)
{
    buf_append(s->text, text, n);
}

static int flush_text(struct sink *s)
{
    int r = tokenizer_encode(
        s->t, s->text->data ? s->text->data : "", s->text->len, false, s->ids, s->err);

    buf_clear(s->text);
    return r;
}

static int put_frame(struct sink *s, const char *frame)
{
    int32_t id;
    int r;

    if (!s->t) {
        buf_puts(s->text, frame);
        return 0;
    }
    r = flush_text(s);
    if (r < 0)
        return r;
    id = tokenizer_find(s->t, frame, strlen(frame));
    if (!tokenizer_is_control(s->t, id))
        return err_set(s->err, GD_ENOTSUP,
            "the model's vocabulary has no control token %s, so it cannot chat", frame);
    token_list_push(s->ids, id);
    return 0;
}

/* The white space of Python's str.strip(), which the templates' trim is. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

void chat_trim(const char **text, size_t *len)
{
    const char *s = *text, *end = s + *len;
    size_t bad, n;
    uint32_t c;

    while ((n = utf8_decode(s, (size_t)(end - s), &c, &bad)) > 0 && is_space(c))
        s += n;
    while (s < end) {
        size_t back = 1;

        while (back < 3 && (size_t)(end - s) > back && (end[-(ptrdiff_t)back] & 0xc0) == 0x80)
            back++;
        if (utf8_decode(end - back, back, &c, &bad) != back || !is_space(c))
            break;
        end -= back;
    }
    *text = s;
    *len = (size_t)(end - s);
}

static const char *role_name(enum chat_role role)
{
    switch (role) {
    case ROLE_SYSTEM: return "system";
    case ROLE_USER: return "user";
    case ROLE_ASSISTANT: return "model";
    case ROLE_TOOL: return "tool";
    }
    return NULL;
}

static int role_error(struct err *err, size_t i, const char *sentence)
{
    char param[48];

    snprintf(param, sizeof(param), "messages[%zu].role", i);
    return err_set_at(err, GD_EINVAL, param, "%s: %s", param, sentence);
}

/* Everything that can be wrong with the messages, before anything is written. first: where the
 * turns begin; Gemma 3 puts a first system message into the first turn. */
static int check(enum chat_format f, const struct chat_message *m, size_t n,
    const struct chat_options *o, size_t *first, struct err *err)
{
    if (f == CHAT_NONE)
        return err_set_at(err, GD_ENOTSUP, "messages",
            "this model has no chat template: use completions, or set chat_format to gemma or "
            "gemma3 if it was trained on such turns");
    if (n == 0)
        return err_set_at(err, GD_EINVAL, "messages", "messages: at least one message is needed");
    if (o->add_generation_prompt && o->continue_final_message)
        return err_set_at(err, GD_EINVAL, "continue_final_message",
            "continue_final_message and add_generation_prompt exclude each other");
    *first = m[0].role == ROLE_SYSTEM;
    if (*first && f == CHAT_GEMMA)
        return role_error(err, 0,
            "System role not supported by this model's template; put it into the first user "
            "message, or set chat_format = gemma3");
    if (o->continue_final_message && *first == n)
        return err_set_at(err, GD_EINVAL, "continue_final_message",
            "continue_final_message: a system message alone renders no turn to continue");
    for (size_t i = *first; i < n; i++) {
        if (!role_name(m[i].role))
            return role_error(err, i, "no such role");
        if ((m[i].role == ROLE_USER) != ((i - *first) % 2 == 0))
            return role_error(
                err, i, "Conversation roles must alternate user/assistant/user/assistant/...");
    }
    return 0;
}

static int put_turn(
    struct sink *s, const struct chat_message *m, const struct chat_message *system, bool open)
{
    const char *text = m->content, *role = role_name(m->role);
    size_t len = m->content_len;
    int r = put_frame(s, "<start_of_turn>");

    if (r < 0)
        return r;
    put_text(s, role, strlen(role));
    put_text(s, "\n", 1);
    if (system) {
        put_text(s, system->content, system->content_len); /* not trimmed */
        put_text(s, "\n\n", 2);
    }
    chat_trim(&text, &len);
    put_text(s, text, len);
    if (open)
        return 0;
    r = put_frame(s, "<end_of_turn>");
    put_text(s, "\n", 1);
    return r;
}

static int walk(struct sink *s, enum chat_format f, const struct chat_message *m, size_t n,
    const struct chat_options *o)
{
    size_t first = 0;
    int r = check(f, m, n, o, &first, s->err);

    if (r == 0)
        r = put_frame(s, "<bos>");
    for (size_t i = first; r == 0 && i < n; i++) {
        bool system = first == 1 && i == 1;

        r = put_turn(s, &m[i], system ? &m[0] : NULL, o->continue_final_message && i + 1 == n);
    }
    if (r == 0 && o->add_generation_prompt) {
        r = put_frame(s, "<start_of_turn>");
        put_text(s, "model\n", 6);
    }
    return r;
}

int chat_render(enum chat_format f, const struct chat_message *messages, size_t n,
    const struct chat_options *o, struct buf *out, struct err *err)
{
    struct sink s = {.text = out, .err = err};

    return walk(&s, f, messages, n, o);
}

int chat_encode(enum chat_format f, const struct tokenizer *t, const struct chat_message *messages,
    size_t n, const struct chat_options *o, struct token_list *out, struct err *err)
{
    struct buf text = {0};
    struct sink s = {.text = &text, .t = t, .ids = out, .err = err};
    int r = walk(&s, f, messages, n, o);

    if (r == 0)
        r = flush_text(&s);
    buf_free(&text);
    return r;
}
