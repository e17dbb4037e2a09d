#include "engine/choice.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

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
    return c;
}

void choice_destroy(struct choice *c)
{
    kv_table_finish(&c->kv);
    stop_scan_finish(&c->scan);
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

int choice_target(const struct choice *c)
{
    return choice_answered(c) > 0 ? c->n_tokens - 1 : c->n_tokens;
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

/* c->raw holds new whole UTF-8. Adds to c->text what is decided; returns a stop string's index or
 * -1. Until min_tokens stop strings are not looked for. */
static int decide(struct choice *c)
{
    const struct job_params *p = &c->job->params;

    if (choice_answered(c) > p->min_tokens)
        return stop_scan_push(&c->scan, c->raw.data, c->raw.len, p->include_stop, &c->text);
    buf_append(&c->text, c->raw.data, c->raw.len);
    return -1;
}

static int add_text(struct choice *c, const char *bytes, size_t len)
{
    buf_clear(&c->raw);
    buf_reserve(&c->raw, 3 * (len + sizeof(c->utf8.pending)));
    c->raw.len = utf8_stream_push(&c->utf8, bytes, len, c->raw.data);
    return decide(c);
}

/* The answer ends here: bytes that never became a character, and text held back for a stop string
 * that did not come. */
static int flush_text(struct choice *c)
{
    int stop;

    buf_clear(&c->raw);
    buf_reserve(&c->raw, 3 * sizeof(c->utf8.pending));
    c->raw.len = utf8_stream_end(&c->utf8, c->raw.data);
    stop = decide(c);
    if (stop < 0)
        stop_scan_end(&c->scan, &c->text);
    return stop;
}

/* End tokens make text only when the reader asked to see what stopped the answer. */
static bool shows(const struct job_params *p, const struct tokenizer *tok, int32_t id, bool end)
{
    if (end && !p->include_stop)
        return false;
    return !(p->skip_special && tokenizer_is_control(tok, id));
}

bool choice_accept(struct choice *c, const struct tokenizer *tok, struct finish *finish)
{
    const struct job_params *p = &c->job->params;
    int32_t id = c->pick.id;
    struct event_token token = {
        .id = id, .logprob = c->pick.logprob, .top = c->pick.top, .n_top = c->pick.n_top};
    bool end = ends(p, tok, id);
    int stop = -1;

    append_token(c, id);
    buf_clear(&c->text);
    *finish = (struct finish){.stop = -1, .stop_id = -1};
    if (shows(p, tok, id, end)) {
        size_t len;
        const char *bytes = tokenizer_piece(tok, id, &len);

        stop = add_text(c, bytes, len);
    }
    if (end) {
        finish->reason = FINISH_STOP;
        finish->stop_id = id;
    } else if (choice_answered(c) >= c->job->max_tokens) {
        finish->reason = FINISH_LENGTH;
    }
    if (stop < 0 && finish->reason != FINISH_NONE)
        stop = flush_text(c);
    if (stop >= 0) {
        finish->reason = FINISH_STOP;
        finish->stop = stop;
        finish->stop_id = -1;
    }
    job_post_text(c->job, c->index, &token, c->text.data, c->text.len);
    return finish->reason != FINISH_NONE;
}
