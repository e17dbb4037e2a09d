#include "engine/job.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

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
    p->n_tokens = p->n_tops = 0;
}

void piece_free(struct piece *p)
{
    buf_free(&p->text);
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

void job_unref(struct job *j)
{
    if (atomic_fetch_sub(&j->refs, 1) > 1)
        return;
    for (int i = 0; i < j->params.n; i++)
        piece_free(&j->news[i].piece);
    piece_free(&j->prompt_news);
    piece_free(&j->reading);
    stop_set_destroy(j->stops);
    pthread_mutex_destroy(&j->lock);
    free((void *)j->params.stop_ids);
    free((void *)j->params.sampling.bias);
    free(j->news);
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

void job_post_text(
    struct job *j, int choice, const struct event_token *token, const char *text, size_t len)
{
    struct piece *p = &j->news[choice].piece;

    pthread_mutex_lock(&j->lock);
    buf_append(&p->text, text, len);
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

static bool has_text(const struct choice_news *c)
{
    return c->piece.n_tokens > 0 || c->piece.text.len > 0;
}

static bool has_news(const struct choice_news *c)
{
    return has_text(c) || (c->ended && !c->end_read);
}

static void hand_out(struct job *j, struct piece *from, struct job_event *ev)
{
    struct token_alternative *top;

    swap_pieces(&j->reading, from);
    top = j->reading.tops;
    for (size_t i = 0; i < j->reading.n_tokens; i++) {
        struct event_token *t = &j->reading.tokens[i];

        t->top = t->n_top ? top : NULL;
        top += t->n_top;
    }
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
        if (has_text(c)) {
            ev->kind = EVENT_TEXT;
            hand_out(j, &c->piece, ev);
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
        ev->kind = EVENT_PROMPT;
        hand_out(j, &j->prompt_news, ev);
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
