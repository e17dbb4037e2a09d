#include "engine/job.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/private.h"

void piece_add_token(struct piece *p, const struct event_token *token)
{
    if (p->n_tokens == p->tokens_cap) {
        p->tokens_cap = p->tokens_cap ? 2 * p->tokens_cap : 16;
        p->tokens = xrealloc(p->tokens, p->tokens_cap * sizeof(*p->tokens));
    }
    p->tokens[p->n_tokens] = *token;
    p->tokens[p->n_tokens++].top = NULL;
    for (int i = 0; i < token->n_top; i++) {
        if (p->n_tops == p->tops_cap) {
            p->tops_cap = p->tops_cap ? 2 * p->tops_cap : 32;
            p->tops = xrealloc(p->tops, p->tops_cap * sizeof(*p->tops));
        }
        p->tops[p->n_tops++] = token->top[i];
    }
}

void piece_clear(struct piece *p)
{
    buf_clear(&p->text);
    buf_clear(&p->name);
    p->n_tokens = p->n_tops = 0;
}

void piece_free(struct piece *p)
{
    buf_free(&p->text);
    buf_free(&p->name);
    free(p->tokens);
    free(p->tops);
    *p = (struct piece){0};
}

static void swap_pieces(struct piece *a, struct piece *b)
{
    struct piece t = *a;

    *a = *b;
    *b = t;
}

static void news_free(struct choice_news *c)
{
    piece_free(&c->piece);
    for (size_t i = 0; i < c->n_earlier; i++)
        piece_free(&c->earlier[i]);
    free(c->earlier);
}

void job_unref(struct job *j)
{
    if (atomic_fetch_sub(&j->refs, 1) > 1)
        return;
    for (int i = 0; i < j->params.n; i++)
        news_free(&j->news[i]);
    for (size_t i = 0; i < j->n_tools; i++)
        free(j->tools[i]);
    free(j->tools);
    piece_free(&j->prompt_news);
    piece_free(&j->reading);
    stop_set_destroy(j->stops);
    pthread_mutex_destroy(&j->lock);
    free((void *)j->params.stop_ids);
    free((void *)j->params.sampling.bias);
    free(j->news);
    free(j->vector);
    free(j->prompt);
    free(j);
}

/* ---- posting: engine thread ---- */

void job_post_started(struct job *j)
{
    pthread_mutex_lock(&j->lock);
    j->started = true;
    pthread_mutex_unlock(&j->lock);
}

void job_post_prompt(struct job *j, struct piece *prompt)
{
    pthread_mutex_lock(&j->lock);
    swap_pieces(&j->prompt_news, prompt);
    j->has_prompt = true;
    pthread_mutex_unlock(&j->lock);
}

static bool has_text(const struct piece *p)
{
    return p->n_tokens > 0 || p->text.len > 0 || p->name.len > 0;
}

/* The piece that grows, for this channel; a call always begins a new one. */
static struct piece *grow(struct choice_news *c, enum channel channel, bool call)
{
    struct piece *p = &c->piece;

    if (has_text(p) && (call || p->name.len > 0 || p->channel != channel)) {
        if (c->n_earlier == c->earlier_cap) {
            c->earlier_cap = c->earlier_cap ? 2 * c->earlier_cap : 4;
            c->earlier = xrealloc(c->earlier, c->earlier_cap * sizeof(*c->earlier));
        }
        c->earlier[c->n_earlier++] = *p;
        *p = (struct piece){0};
    }
    p->channel = channel;
    return p;
}

void job_post_text(struct job *j, int choice, enum channel channel, const struct event_token *token,
    const char *text, size_t len)
{
    struct piece *p;

    pthread_mutex_lock(&j->lock);
    p = grow(&j->news[choice], channel, false);
    buf_append(&p->text, text, len);
    if (token)
        piece_add_token(p, token);
    pthread_mutex_unlock(&j->lock);
}

void job_post_call(struct job *j, int choice, const struct event_token *token, const char *name,
    const char *arguments, size_t len)
{
    struct piece *p;

    pthread_mutex_lock(&j->lock);
    p = grow(&j->news[choice], CHANNEL_CONTENT, true);
    buf_puts(&p->name, name);
    buf_append(&p->text, arguments, len);
    if (token)
        piece_add_token(p, token);
    pthread_mutex_unlock(&j->lock);
}

void job_post_finish(struct job *j, int choice, const struct finish *finish)
{
    pthread_mutex_lock(&j->lock);
    j->news[choice].finish = *finish;
    j->news[choice].ended = true;
    pthread_mutex_unlock(&j->lock);
}

/* ---- reading: one thread of the caller's ---- */

static bool has_pieces(const struct choice_news *c)
{
    return c->at < c->n_earlier || has_text(&c->piece);
}

static bool has_news(const struct choice_news *c)
{
    return has_pieces(c) || (c->ended && !c->end_read);
}

/* The first unread piece. */
static struct piece *take(struct choice_news *c)
{
    struct piece *p = &c->piece;

    if (c->at < c->n_earlier)
        p = &c->earlier[c->at++];
    return p;
}

static void hand_out(struct job *j, struct piece *from, struct job_event *ev)
{
    struct token_alternative *top;

    swap_pieces(&j->reading, from);
    top = j->reading.tops;
    for (size_t i = 0; i < j->reading.n_tokens; i++) {
        struct event_token *t = &j->reading.tokens[i];

        if (t->n_top) { /* else there may be no array to step in */
            t->top = top;
            top += t->n_top;
        }
    }
    ev->kind = j->reading.name.len > 0 ? EVENT_CALL : EVENT_TEXT;
    ev->channel = j->reading.channel;
    ev->name = j->reading.name.len > 0 ? j->reading.name.data : NULL;
    ev->text = j->reading.text.data ? j->reading.text.data : "";
    ev->text_len = j->reading.text.len;
    ev->tokens = j->reading.tokens;
    ev->n_tokens = j->reading.n_tokens;
}

static void hand_out_finish(struct job *j, int choice, struct job_event *ev)
{
    struct choice_news *c = &j->news[choice];

    c->end_read = true;
    ev->kind = EVENT_FINISH;
    ev->finish = c->finish.reason;
    ev->stop_string =
        c->finish.stop >= 0 ? stop_set_string(j->stops, (size_t)c->finish.stop) : NULL;
    ev->stop_id = c->finish.stop_id;
    ev->usage = c->finish.usage;
    ev->err = c->finish.err;
    if (j->vector && c->finish.reason == FINISH_STOP) {
        ev->vector = j->vector;
        ev->n_vector = j->engine->info.embed_width;
    }
}

static bool next_of_choices(struct job *j, struct job_event *ev)
{
    for (int i = 0; i < j->params.n; i++) {
        int choice = (j->next_choice + i) % j->params.n;
        struct choice_news *c = &j->news[choice];

        if (!has_news(c))
            continue;
        ev->choice = choice;
        j->next_choice = choice + 1;
        if (has_pieces(c)) {
            hand_out(j, take(c), ev);
        } else {
            hand_out_finish(j, choice, ev);
        }
        return true;
    }
    return false;
}

bool job_next(struct job *j, struct job_event *ev)
{
    bool any = true;

    *ev = (struct job_event){.stop_id = -1, .text = ""};
    piece_clear(&j->reading);
    pthread_mutex_lock(&j->lock);
    if (j->started && !j->started_read) {
        ev->kind = EVENT_STARTED;
        j->started_read = true;
    } else if (j->has_prompt && !j->prompt_read) {
        hand_out(j, &j->prompt_news, ev);
        ev->kind = EVENT_PROMPT;
        j->prompt_read = true;
    } else {
        any = next_of_choices(j, ev);
    }
    pthread_mutex_unlock(&j->lock);
    return any;
}

bool job_ready(struct job *j)
{
    bool ready;

    pthread_mutex_lock(&j->lock);
    ready = (j->started && !j->started_read) || (j->has_prompt && !j->prompt_read);
    for (int i = 0; i < j->params.n && !ready; i++)
        ready = has_news(&j->news[i]);
    pthread_mutex_unlock(&j->lock);
    return ready;
}

void *job_ud(const struct job *j)
{
    return j->ud;
}

int job_prompt_tokens(const struct job *j)
{
    return j->n_prompt;
}

const int32_t *job_prompt_ids(const struct job *j)
{
    return j->prompt;
}
