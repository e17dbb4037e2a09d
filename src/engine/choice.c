#include "engine/choice.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static void take_part(
    void *ud, enum chat_part part, const char *name, const char *text, size_t len);

struct choice *choice_create(struct job *j, int index, int ctx_tokens)
{
    struct choice *c = xcalloc(1, sizeof(*c));

    c->job = j;
    c->index = index;
    c->tokens_cap = j->n_prompt + 64;
    c->tokens = xcalloc((size_t)c->tokens_cap, sizeof(*c->tokens));
    memcpy(c->tokens, j->prompt, (size_t)j->n_prompt * sizeof(*c->tokens));
    c->n_tokens = j->n_prompt;
    kv_table_init(&c->kv, ctx_tokens);
    stop_scan_init(&c->scan, j->stops);
    c->stop = -1;
    c->parser = (struct chat_parser){.format = j->format,
        .tools = (const char *const *)j->tools,
        .n_tools = j->n_tools,
        .split_reasoning = j->params.skip_special,
        .emit = take_part,
        .ud = c};
    return c;
}

void choice_destroy(struct choice *c)
{
    kv_table_finish(&c->kv);
    stop_scan_finish(&c->scan);
    chat_parser_finish(&c->parser);
    piece_free(&c->prompt_news);
    buf_free(&c->raw);
    buf_free(&c->text);
    free(c->tokens);
    free(c);
}

int choice_answered(const struct choice *c)
{
    return c->n_tokens - c->job->n_prompt;
}

static void append_token(struct choice *c, int32_t id)
{
    if (c->n_tokens == c->tokens_cap) {
        c->tokens_cap *= 2;
        c->tokens = xrealloc(c->tokens, (size_t)c->tokens_cap * sizeof(*c->tokens));
    }
    c->tokens[c->n_tokens++] = id;
}

static bool ends(const struct job_params *p, const struct tokenizer *tok, int32_t id)
{
    if (!p->ignore_eos && tokenizer_is_eog(tok, id))
        return true;
    for (size_t i = 0; i < p->n_stop_ids; i++) {
        if (p->stop_ids[i] == id)
            return true;
    }
    return false;
}

/* Adds to c->text what is decided of new content. Until min_tokens stop strings are not looked for;
 * after one nothing is content. */
static void take_content(struct choice *c, const char *text, size_t len)
{
    const struct job_params *p = &c->job->params;

    if (c->stop >= 0)
        return;
    if (choice_answered(c) > p->min_tokens)
        c->stop = stop_scan_push(&c->scan, text, len, p->include_stop, &c->text);
    else
        buf_append(&c->text, text, len);
}

static void post_content(struct choice *c)
{
    job_post_text(c->job, c->index, CHANNEL_CONTENT, c->token, c->text.data, c->text.len);
    buf_clear(&c->text);
    c->token = NULL;
}

/* Of the parser. Thoughts and calls are posted at once, after the content before them, in which no
 * stop string can begin any more: stop strings are looked for in content. */
static void take_part(void *ud, enum chat_part part, const char *name, const char *text, size_t len)
{
    struct choice *c = ud;

    if (part == CHAT_CONTENT) {
        take_content(c, text, len);
        return;
    }
    if (c->stop >= 0 || (c->called && c->job->params.one_call))
        return;
    stop_scan_cut(&c->scan, &c->text);
    if (c->text.len)
        post_content(c);
    if (part == CHAT_REASONING) {
        job_post_text(c->job, c->index, CHANNEL_REASONING, c->token, text, len);
    } else {
        job_post_call(c->job, c->index, c->token, name, text, len);
        c->called = true;
    }
    c->token = NULL;
}

/* New whole characters. */
static void take_text(struct choice *c)
{
    if (c->job->format != CHAT_NONE)
        chat_parser_text(&c->parser, c->raw.data, c->raw.len);
    else
        take_content(c, c->raw.data, c->raw.len);
}

static void add_bytes(struct choice *c, const char *bytes, size_t len)
{
    buf_clear(&c->raw);
    buf_reserve(&c->raw, 3 * (len + sizeof(c->utf8.pending)));
    c->raw.len = utf8_stream_push(&c->utf8, bytes, len, c->raw.data);
    take_text(c);
}

/* Bytes that never became a character. */
static void end_bytes(struct choice *c)
{
    buf_clear(&c->raw);
    buf_reserve(&c->raw, 3 * sizeof(c->utf8.pending));
    c->raw.len = utf8_stream_end(&c->utf8, c->raw.data);
    take_text(c);
}

/* The answer ends here: gives all that was held back, for a mark or a stop string to come. */
static void flush_text(struct choice *c)
{
    end_bytes(c);
    if (c->job->format != CHAT_NONE)
        chat_parser_end(&c->parser);
    if (c->stop < 0)
        stop_scan_end(&c->scan, &c->text);
}

/* End tokens make text only when the reader asked to see what stopped the answer. */
static bool shows(const struct job_params *p, const struct tokenizer *tok, int32_t id, bool end)
{
    if (end && !p->include_stop)
        return false;
    return !(p->skip_special && tokenizer_is_control(tok, id));
}

static void add_token(struct choice *c, const struct tokenizer *tok, int32_t id, bool end)
{
    enum chat_mark mark = MARK_NONE;
    size_t len;
    const char *bytes = tokenizer_piece(tok, id, &len);

    if (c->job->format != CHAT_NONE)
        mark = chat_marks_which(c->job->marks, id);
    if (mark != MARK_NONE && !end) {
        end_bytes(c);
        chat_parser_mark(&c->parser, mark);
    } else if (shows(&c->job->params, tok, id, end)) {
        add_bytes(c, bytes, len);
    }
}

bool choice_accept(struct choice *c, const struct tokenizer *tok, struct finish *finish)
{
    const struct job_params *p = &c->job->params;
    int32_t id = c->pick.id;
    const struct event_token token = {
        .id = id, .logprob = c->pick.logprob, .top = c->pick.top, .n_top = c->pick.n_top};
    bool end = ends(p, tok, id), thought = chat_parser_thinks(&c->parser);

    append_token(c, id);
    buf_clear(&c->text);
    c->token = &token;
    *finish = (struct finish){.stop = -1, .stop_id = -1};
    add_token(c, tok, id, end);
    thought = thought || chat_parser_thinks(&c->parser);
    c->n_reasoning += thought && !end;
    if (end) {
        finish->reason = FINISH_STOP;
        finish->stop_id = id;
    } else if (c->called && p->one_call) {
        finish->reason = FINISH_STOP;
    } else if (choice_answered(c) >= c->job->max_tokens) {
        finish->reason = FINISH_LENGTH;
    }
    if (c->stop < 0 && finish->reason != FINISH_NONE)
        flush_text(c);
    if (c->stop >= 0) {
        finish->reason = FINISH_STOP;
        finish->stop = c->stop;
        finish->stop_id = -1;
    }
    finish->usage.reasoning_tokens = c->n_reasoning;
    if (c->text.len)
        post_content(c);
    if (c->token) /* it made no text */
        job_post_text(
            c->job, c->index, thought ? CHANNEL_REASONING : CHANNEL_CONTENT, c->token, "", 0);
    c->token = NULL;
    return finish->reason != FINISH_NONE;
}

void choice_cut(struct choice *c, struct finish *finish)
{
    finish->usage.reasoning_tokens = c->n_reasoning;
    if (finish->reason != FINISH_TIMEOUT)
        return;
    buf_clear(&c->text);
    flush_text(c);
    if (c->text.len)
        post_content(c);
}
