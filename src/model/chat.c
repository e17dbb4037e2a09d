/* chat.c - the door of the chat formats, and the turns of Gemma 1, 2 and 3, as the published
 * templates write them:
 *
 *   <bos><start_of_turn>user\nTEXT<end_of_turn>\n<start_of_turn>model\nTEXT<end_of_turn>\n ...
 *
 * One walk over the messages writes frames and texts to a sink (chat_private.h). */
#include "model/chat.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/chat_private.h"

void sink_text(struct sink *s, const char *text, size_t n)
{
    buf_append(s->text, text, n);
}

void sink_puts(struct sink *s, const char *text)
{
    buf_puts(s->text, text);
}

static void flush_text(struct sink *s)
{
    const char *text = s->text->data ? s->text->data : "";

    if (s->r == 0)
        s->r = tokenizer_encode(s->t, text, s->text->len, false, s->ids, s->err);
    buf_clear(s->text);
}

void sink_frame(struct sink *s, const char *frame)
{
    int32_t id;

    if (!s->t) {
        buf_puts(s->text, frame);
        return;
    }
    flush_text(s);
    if (s->r < 0)
        return;
    id = tokenizer_find(s->t, frame, strlen(frame));
    if (tokenizer_is_control(s->t, id))
        token_list_push(s->ids, id);
    else
        s->r = err_set(s->err, GD_ENOTSUP,
            "the model's vocabulary has no control token %s, which its chat format needs", frame);
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

static bool has_calls(const struct conversation *c)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->m[i].n_tool_calls || c->m[i].role == ROLE_TOOL)
            return true;
    }
    return false;
}

/* What any format can find wrong before it writes. */
static int check(enum chat_format f, const struct conversation *c, struct err *err)
{
    const struct chat_options *o = c->o;

    if (f == CHAT_NONE)
        return err_set_at(err, GD_ENOTSUP, "messages",
            "this model has no chat template: use completions, or set chat_format to gemma or "
            "gemma3 if it was trained on such turns");
    if (c->n == 0)
        return err_set_at(err, GD_EINVAL, "messages", "messages: at least one message is needed");
    if (o->add_generation_prompt && o->continue_final_message)
        return err_set_at(err, GD_EINVAL, "continue_final_message",
            "continue_final_message and add_generation_prompt exclude each other");
    if (!chat_has_tools(f) && (o->n_tools || has_calls(c)))
        return err_set_at(err, GD_ENOTSUP, o->n_tools ? "tools" : "messages",
            "%s: this model's chat format (%s) has no tools", o->n_tools ? "tools" : "messages",
            chat_format_name(f));
    if (!chat_has_thinking(f) && o->enable_thinking)
        return err_set_at(err, GD_ENOTSUP, "enable_thinking",
            "enable_thinking: this model's chat format (%s) has no thinking", chat_format_name(f));
    if (o->continue_final_message &&
        (c->m[c->n - 1].n_tool_calls || c->m[c->n - 1].role == ROLE_TOOL))
        return err_set_at(err, GD_EINVAL, "continue_final_message",
            "continue_final_message: the last message is not text");
    return 0;
}

/* The same for Gemma 1 to 3. first: where the turns begin; Gemma 3 puts a first system message into
 * the first turn. */
static int check_turns(
    enum chat_format f, const struct conversation *c, size_t *first, struct err *err)
{
    const struct chat_message *m = c->m;

    *first = m[0].role == ROLE_SYSTEM;
    if (*first && f == CHAT_GEMMA)
        return role_error(err, 0,
            "System role not supported by this model's template; put it into the first user "
            "message, or set chat_format = gemma3");
    if (c->o->continue_final_message && *first == c->n)
        return err_set_at(err, GD_EINVAL, "continue_final_message",
            "continue_final_message: a system message alone renders no turn to continue");
    for (size_t i = *first; i < c->n; i++) {
        if (!role_name(m[i].role))
            return role_error(err, i, "no such role");
        if ((m[i].role == ROLE_USER) != ((i - *first) % 2 == 0))
            return role_error(
                err, i, "Conversation roles must alternate user/assistant/user/assistant/...");
    }
    return 0;
}

static void put_turn(
    struct sink *s, const struct chat_message *m, const struct chat_message *system, bool open)
{
    const char *text = m->content;
    size_t len = m->content_len;

    sink_frame(s, "<start_of_turn>");
    sink_puts(s, role_name(m->role));
    sink_puts(s, "\n");
    if (system) {
        sink_text(s, system->content, system->content_len); /* not trimmed */
        sink_puts(s, "\n\n");
    }
    utf8_trim(&text, &len);
    sink_text(s, text, len);
    if (open)
        return;
    sink_frame(s, "<end_of_turn>");
    sink_puts(s, "\n");
}

static void format_turns(struct sink *s, enum chat_format f, const struct conversation *c)
{
    size_t first = 0;

    s->r = check_turns(f, c, &first, s->err);
    if (s->r < 0)
        return;
    sink_frame(s, "<bos>");
    for (size_t i = first; i < c->n; i++) {
        bool system = first == 1 && i == 1;

        put_turn(
            s, &c->m[i], system ? &c->m[0] : NULL, c->o->continue_final_message && i + 1 == c->n);
    }
    if (c->o->add_generation_prompt) {
        sink_frame(s, "<start_of_turn>");
        sink_puts(s, "model\n");
    }
}

static void walk(struct sink *s, enum chat_format f, const struct conversation *c)
{
    s->r = check(f, c, s->err);
    if (s->r < 0)
        return;
    switch (f) {
    case CHAT_NONE: break; /* check() refused it */
    case CHAT_GEMMA:
    case CHAT_GEMMA3: format_turns(s, f, c); break;
    case CHAT_GEMMA4:
    case CHAT_GEMMA4_SMALL:
    case CHAT_GEMMA4_INTERLEAVED: format_gemma4(s, f, c); break;
    case CHAT_FUNCTIONGEMMA: format_functiongemma(s, c); break;
    }
}

int chat_render(enum chat_format f, const struct chat_message *messages, size_t n,
    const struct chat_options *o, struct buf *out, struct err *err)
{
    struct sink s = {.text = out, .err = err};
    struct conversation c = {messages, n, o};

    walk(&s, f, &c);
    return s.r;
}

int chat_encode(enum chat_format f, const struct tokenizer *t, const struct chat_message *messages,
    size_t n, const struct chat_options *o, struct token_list *out, struct err *err)
{
    struct buf text = {0};
    struct sink s = {.text = &text, .t = t, .ids = out, .err = err};
    struct conversation c = {messages, n, o};

    walk(&s, f, &c);
    flush_text(&s);
    buf_free(&text);
    return s.r;
}
