/* response.c - job events in, SSE chunks or one body out.
 *
 * A choice collects what came since it was last written: everything, or with a stream one event.
 * The text is escaped when it arrives, so a streamed token is a handful of copies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/logprobs.h"
#include "api/request.h"
#include "api/write.h"
#include "base/mem.h"

struct choice {
    struct buf text;    /* escaped */
    struct buf thought; /* escaped */
    struct buf calls;   /* objects, with commas between */
    int n_calls;
    struct buf ids;     /* comma list; kept when return_ids */
    struct buf stopped; /* the value of stop_reason */
    struct logprobs logprobs;
    size_t chars; /* of the text, before the next token; echo included */
    bool begun, prompt_sent, finished;
    enum finish_reason finish;
};

struct prompt_part {
    struct buf text; /* raw; kept when echo */
    struct buf ids;  /* comma list; kept when return_ids */
    struct logprobs logprobs;
    size_t chars;
    bool from_text;
};

struct api_response {
    struct shape shape;
    struct token_view view;
    struct buf head; /* {"id":...,"choices":[ of every chunk */
    char id[56];
    size_t n_jobs;
    struct prompt_part *prompts; /* n_jobs */
    struct choice *choices;      /* n_jobs * shape.n */
    size_t n_choices, n_finished;
    int32_t *stop_ids; /* the request's: only these are a stop_reason */
    size_t n_stop_ids;
    struct usage usage;
    struct err err; /* code 0 while all is well */
};

static void write_head(struct api_response *rsp, const struct api_request *r, int64_t created)
{
    static const char *const objects[2][2] = {
        {"text_completion", "text_completion"}, {"chat.completion", "chat.completion.chunk"}};
    struct buf *b = &rsp->head;

    buf_printf(b, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", rsp->id,
        objects[rsp->shape.chat][rsp->shape.stream], (long long)created);
    write_string(b, r->model, strlen(r->model));
    if (rsp->shape.service_tier)
        buf_puts(b, ",\"service_tier\":\"default\"");
    if (r->fingerprint) {
        buf_puts(b, ",\"system_fingerprint\":");
        write_string(b, r->fingerprint, strlen(r->fingerprint));
    }
    buf_puts(b, ",\"choices\":[");
}

struct api_response *api_response_create(
    const struct api_request *r, const char *id, int64_t created, api_piece *piece, void *piece_ud)
{
    struct api_response *rsp = xcalloc(1, sizeof(*rsp));
    const struct job_params *job = r->jobs;

    rsp->shape = r->shape;
    rsp->view = (struct token_view){.shape = &rsp->shape, .piece = piece, .ud = piece_ud};
    snprintf(rsp->id, sizeof(rsp->id), "%s-%s", r->shape.chat ? "chatcmpl" : "cmpl", id);
    write_head(rsp, r, created);
    rsp->n_jobs = r->n_jobs;
    rsp->prompts = xcalloc(r->n_jobs, sizeof(*rsp->prompts));
    rsp->n_choices = r->n_jobs * (size_t)r->shape.n;
    rsp->choices = xcalloc(rsp->n_choices, sizeof(*rsp->choices));
    if (job->n_stop_ids) {
        rsp->stop_ids = xcalloc(job->n_stop_ids, sizeof(*rsp->stop_ids));
        memcpy(rsp->stop_ids, job->stop_ids, job->n_stop_ids * sizeof(*rsp->stop_ids));
        rsp->n_stop_ids = job->n_stop_ids;
    }
    for (size_t i = 0; i < r->n_jobs && r->shape.echo; i++) {
        const struct prompt *prompt = &r->jobs[i].prompt;

        rsp->prompts[i].from_text = prompt->kind == PROMPT_TEXT;
        if (prompt->kind == PROMPT_TEXT)
            buf_append(&rsp->prompts[i].text, prompt->text, prompt->text_len);
    }
    return rsp;
}

void api_response_free(struct api_response *rsp)
{
    if (!rsp)
        return;
    for (size_t i = 0; i < rsp->n_jobs; i++) {
        buf_free(&rsp->prompts[i].text);
        buf_free(&rsp->prompts[i].ids);
        logprobs_free(&rsp->prompts[i].logprobs);
    }
    for (size_t i = 0; i < rsp->n_choices; i++) {
        buf_free(&rsp->choices[i].text);
        buf_free(&rsp->choices[i].thought);
        buf_free(&rsp->choices[i].calls);
        buf_free(&rsp->choices[i].ids);
        buf_free(&rsp->choices[i].stopped);
        logprobs_free(&rsp->choices[i].logprobs);
    }
    free(rsp->prompts);
    free(rsp->choices);
    free(rsp->stop_ids);
    buf_free(&rsp->head);
    free(rsp);
}

const char *api_response_id(const struct api_response *rsp)
{
    return rsp->id;
}

bool api_response_done(const struct api_response *rsp)
{
    return rsp->err.code || rsp->n_finished == rsp->n_choices;
}

struct usage api_response_usage(const struct api_response *rsp)
{
    return rsp->usage;
}

static void append_id(struct buf *ids, int32_t id)
{
    if (ids->len)
        buf_putc(ids, ',');
    write_int(ids, id);
}

/* Characters that begin in s: every byte but the continuations of UTF-8. */
static size_t count_chars(const char *s, size_t n)
{
    size_t chars = 0;

    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)s[i] & 0xc0) != 0x80;
    return chars;
}

void api_response_prompt(struct api_response *rsp, size_t job, const int32_t *ids, size_t n)
{
    struct prompt_part *part = &rsp->prompts[job];

    for (size_t i = 0; i < n && rsp->shape.return_ids; i++)
        append_id(&part->ids, ids[i]);
    if (!rsp->shape.echo)
        return;
    for (size_t i = 0; i < n && !part->from_text; i++) {
        size_t len = 0;
        const char *piece = rsp->view.piece(rsp->view.ud, ids[i], &len);

        buf_append(&part->text, piece, len);
    }
    part->chars = count_chars(part->text.data, part->text.len);
    for (int i = 0; i < rsp->shape.n; i++)
        rsp->choices[job * (size_t)rsp->shape.n + (size_t)i].chars = part->chars;
}

/* Where a token begins, given the characters that began before it; moves *chars past it. A token
 * that opens with a continuation byte belongs to the character before. */
static size_t token_offset(const struct api_response *rsp, int32_t id, size_t *chars)
{
    size_t n = 0, at = *chars;
    const char *piece = rsp->view.piece(rsp->view.ud, id, &n);

    *chars += count_chars(piece, n);
    return at > 0 && n > 0 && ((unsigned char)piece[0] & 0xc0) == 0x80 ? at - 1 : at;
}

/* bos stands before a text prompt, but not in its text. */
static bool in_text(const struct api_response *rsp, const struct prompt_part *part, int32_t id)
{
    size_t n = 0;
    const char *piece = rsp->view.piece(rsp->view.ud, id, &n);

    return !part->from_text ||
           (n > 0 && n <= part->text.len && memcmp(part->text.data, piece, n) == 0);
}

static void feed_prompt(
    struct api_response *rsp, struct prompt_part *part, const struct job_event *ev)
{
    size_t chars = 0, offset;

    if (!rsp->shape.echo || rsp->shape.logprobs < 0)
        return;
    for (size_t i = 0; i < ev->n_tokens; i++) {
        offset = chars;
        if (i > 0 || in_text(rsp, part, ev->tokens[i].id))
            offset = token_offset(rsp, ev->tokens[i].id, &chars);
        logprobs_add(&part->logprobs, &rsp->view, &ev->tokens[i], offset, i > 0);
    }
}

/* The id is a name of this call only: of the answer, the choice, and which call of it. */
static void feed_call(struct api_response *rsp, struct choice *c, const struct job_event *ev)
{
    buf_puts(&c->calls, c->calls.len ? ",{" : "{");
    if (rsp->shape.stream)
        buf_printf(&c->calls, "\"index\":%d,", c->n_calls);
    buf_printf(&c->calls, "\"id\":\"call_%s_%zu_%d\",\"type\":\"function\",\"function\":{\"name\":",
        rsp->id + strlen("chatcmpl-"), (size_t)(c - rsp->choices), c->n_calls);
    write_string(&c->calls, ev->name, strlen(ev->name));
    buf_puts(&c->calls, ",\"arguments\":");
    write_string(&c->calls, ev->text, ev->text_len);
    buf_puts(&c->calls, "}}");
    c->n_calls++;
}

static void feed_text(struct api_response *rsp, struct choice *c, const struct job_event *ev)
{
    if (ev->kind == EVENT_CALL)
        feed_call(rsp, c, ev);
    else
        write_escaped(
            ev->channel == CHANNEL_REASONING ? &c->thought : &c->text, ev->text, ev->text_len);
    for (size_t i = 0; i < ev->n_tokens; i++) {
        if (rsp->shape.return_ids)
            append_id(&c->ids, ev->tokens[i].id);
        if (rsp->shape.logprobs >= 0) {
            size_t offset = token_offset(rsp, ev->tokens[i].id, &c->chars);

            logprobs_add(&c->logprobs, &rsp->view, &ev->tokens[i], offset, true);
        }
    }
}

/* ---- writing */

static void write_usage(struct buf *out, const struct usage *u)
{
    buf_printf(out,
        "{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%lld,"
        "\"prompt_tokens_details\":{\"cached_tokens\":%d},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":%d}}",
        u->prompt_tokens, u->completion_tokens, (long long)u->prompt_tokens + u->completion_tokens,
        u->cached_tokens, u->reasoning_tokens);
}

/* Everything of a choice from "logprobs" on. */
static void write_tail(struct api_response *rsp, struct choice *c, const struct prompt_part *part,
    const struct logprobs *echoed, struct buf *out)
{
    buf_puts(out, ",\"logprobs\":");
    logprobs_write(out, &rsp->view, echoed, &c->logprobs);
    buf_puts(out, ",\"finish_reason\":");
    if (!c->finished) {
        buf_puts(out, "null");
    } else {
        buf_puts(out, c->finish != FINISH_STOP ? "\"length\""
                      : c->n_calls > 0         ? "\"tool_calls\""
                                               : "\"stop\"");
        buf_puts(out, ",\"stop_reason\":");
        buf_append(out, c->stopped.data, c->stopped.len);
    }
    if (rsp->shape.return_ids && !c->prompt_sent) {
        buf_puts(out, ",\"prompt_token_ids\":[");
        buf_append(out, part->ids.data, part->ids.len);
        buf_putc(out, ']');
        c->prompt_sent = true;
    }
    if (rsp->shape.return_ids) {
        buf_puts(out, ",\"token_ids\":[");
        buf_append(out, c->ids.data, c->ids.len);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

static void write_index(const struct api_response *rsp, const struct choice *c, struct buf *out)
{
    buf_puts(out, "\"index\":");
    write_int(out, c - rsp->choices);
}

static void end_chunk(const struct api_response *rsp, struct buf *out)
{
    buf_puts(out, rsp->shape.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

enum chunk { CHUNK_BEGIN, CHUNK_TEXT, CHUNK_END };

/* An event brings one of the three. */
static void write_delta(const struct choice *c, enum chunk kind, struct buf *out)
{
    buf_puts(out, ",\"delta\":{");
    if (kind == CHUNK_BEGIN)
        buf_puts(out, "\"role\":\"assistant\",");
    if (c->calls.len) {
        buf_puts(out, "\"tool_calls\":[");
        buf_append(out, c->calls.data, c->calls.len);
        buf_putc(out, ']');
    } else if (c->thought.len) {
        buf_puts(out, "\"reasoning_content\":\"");
        buf_append(out, c->thought.data, c->thought.len);
        buf_putc(out, '"');
    } else if (kind != CHUNK_END) {
        buf_puts(out, "\"content\":\"");
        buf_append(out, c->text.data, c->text.len);
        buf_putc(out, '"');
    }
    buf_putc(out, '}');
}

/* One event of a stream: what c has collected, or its beginning or end. */
static void write_chunk(
    struct api_response *rsp, struct choice *c, enum chunk kind, struct buf *out)
{
    const struct prompt_part *part = &rsp->prompts[(c - rsp->choices) / rsp->shape.n];
    bool echo = kind == CHUNK_BEGIN && rsp->shape.echo;

    buf_puts(out, "data: ");
    buf_append(out, rsp->head.data, rsp->head.len);
    buf_putc(out, '{');
    if (rsp->shape.chat) {
        write_index(rsp, c, out);
        write_delta(c, kind, out);
    } else {
        buf_puts(out, "\"text\":\"");
        if (echo)
            write_escaped(out, part->text.data, part->text.len);
        buf_append(out, c->text.data, c->text.len);
        buf_puts(out, "\",");
        write_index(rsp, c, out);
    }
    write_tail(rsp, c, part, echo ? &part->logprobs : NULL, out);
    end_chunk(rsp, out);
    buf_clear(&c->text);
    buf_clear(&c->thought);
    buf_clear(&c->calls);
    buf_clear(&c->ids);
    logprobs_clear(&c->logprobs);
}

static void write_error_event(const struct api_response *rsp, struct buf *out)
{
    buf_puts(out, "data: ");
    api_error_body(out, &rsp->err);
    buf_puts(out, "\n\ndata: [DONE]\n\n");
}

static void write_last_chunks(const struct api_response *rsp, struct buf *out)
{
    if (rsp->shape.include_usage) {
        buf_puts(out, "data: ");
        buf_append(out, rsp->head.data, rsp->head.len);
        buf_puts(out, "],\"usage\":");
        write_usage(out, &rsp->usage);
        buf_puts(out, "}\n\n");
    }
    buf_puts(out, "data: [DONE]\n\n");
}

/* content is null where there is nothing but calls, as with OpenAI. */
static void write_message(const struct choice *c, struct buf *out)
{
    bool null = c->text.len == 0 && c->n_calls > 0;

    buf_puts(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    buf_puts(out, null ? "null" : "\"");
    buf_append(out, c->text.data, c->text.len);
    buf_puts(out, null ? ",\"refusal\":null" : "\",\"refusal\":null");
    if (c->thought.len) {
        buf_puts(out, ",\"reasoning_content\":\"");
        buf_append(out, c->thought.data, c->thought.len);
        buf_putc(out, '"');
    }
    if (c->n_calls) {
        buf_puts(out, ",\"tool_calls\":[");
        buf_append(out, c->calls.data, c->calls.len);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

static void write_choice(struct api_response *rsp, struct choice *c, struct buf *out)
{
    const struct prompt_part *part = &rsp->prompts[(c - rsp->choices) / rsp->shape.n];

    if (rsp->shape.chat) {
        buf_putc(out, '{');
        write_index(rsp, c, out);
        write_message(c, out);
    } else {
        buf_puts(out, "{\"text\":\"");
        if (rsp->shape.echo)
            write_escaped(out, part->text.data, part->text.len);
        buf_append(out, c->text.data, c->text.len);
        buf_puts(out, "\",");
        write_index(rsp, c, out);
    }
    write_tail(rsp, c, part, rsp->shape.echo ? &part->logprobs : NULL, out);
}

int api_response_body(struct api_response *rsp, struct buf *out)
{
    if (rsp->err.code) {
        api_error_body(out, &rsp->err);
        return api_status(rsp->err.code);
    }
    buf_append(out, rsp->head.data, rsp->head.len);
    for (size_t i = 0; i < rsp->n_choices; i++) {
        if (i)
            buf_putc(out, ',');
        write_choice(rsp, &rsp->choices[i], out);
    }
    buf_puts(out, "],\"usage\":");
    write_usage(out, &rsp->usage);
    buf_putc(out, '}');
    return 200;
}

/* ---- events */

/* What ended the answer, beside the end of the text: a stop string, one of the request's stop ids,
 * or the clock. An end token is null, as with vLLM. */
static void note_stop(struct api_response *rsp, struct choice *c, const struct job_event *ev)
{
    if (ev->finish == FINISH_TIMEOUT) {
        buf_puts(&c->stopped, "\"timeout\"");
        return;
    }
    if (ev->finish == FINISH_STOP && ev->stop_string) {
        write_string(&c->stopped, ev->stop_string, strlen(ev->stop_string));
        return;
    }
    for (size_t i = 0; i < rsp->n_stop_ids && ev->finish == FINISH_STOP; i++) {
        if (rsp->stop_ids[i] == ev->stop_id) {
            write_int(&c->stopped, ev->stop_id);
            return;
        }
    }
    buf_puts(&c->stopped, "null");
}

static void finish(
    struct api_response *rsp, struct choice *c, const struct job_event *ev, struct buf *out)
{
    note_stop(rsp, c, ev);
    c->finished = true;
    c->finish = ev->finish;
    rsp->n_finished++;
    rsp->usage.completion_tokens += ev->usage.completion_tokens;
    rsp->usage.reasoning_tokens += ev->usage.reasoning_tokens;
    if (ev->choice == 0) { /* one prefill serves all choices of a prompt */
        rsp->usage.prompt_tokens += ev->usage.prompt_tokens;
        rsp->usage.cached_tokens += ev->usage.cached_tokens;
    }
    if (!rsp->shape.stream)
        return;
    write_chunk(rsp, c, CHUNK_END, out);
    if (rsp->n_finished == rsp->n_choices)
        write_last_chunks(rsp, out);
}

static bool worth_a_chunk(const struct api_response *rsp, const struct choice *c)
{
    return c->text.len || c->thought.len || c->calls.len || c->logprobs.n ||
           (rsp->shape.return_ids && c->ids.len);
}

static void begin(struct api_response *rsp, struct choice *c, struct buf *out)
{
    if (!c->begun && rsp->shape.stream && (rsp->shape.chat || rsp->shape.echo))
        write_chunk(rsp, c, CHUNK_BEGIN, out);
    c->begun = true;
}

void api_response_feed(
    struct api_response *rsp, size_t job, const struct job_event *ev, struct buf *out)
{
    struct choice *c;

    if (api_response_done(rsp) || job >= rsp->n_jobs || ev->choice < 0 ||
        ev->choice >= rsp->shape.n)
        return;
    c = &rsp->choices[job * (size_t)rsp->shape.n + (size_t)ev->choice];
    if (c->finished || ev->kind == EVENT_STARTED)
        return;
    if (ev->kind == EVENT_PROMPT) {
        feed_prompt(rsp, &rsp->prompts[job], ev);
        return;
    }
    if (ev->kind == EVENT_FINISH && ev->finish == FINISH_ERROR) {
        api_response_fail(rsp, &ev->err, out);
        return;
    }
    if (ev->kind == EVENT_FINISH && ev->finish == FINISH_CANCELED) {
        struct err err = {0};

        err_fill(&err, GD_ECANCELED, "the server is shutting down");
        api_response_fail(rsp, &err, out);
        return;
    }
    begin(rsp, c, out);
    feed_text(rsp, c, ev);
    if (rsp->shape.stream && worth_a_chunk(rsp, c))
        write_chunk(rsp, c, CHUNK_TEXT, out);
    if (ev->kind == EVENT_FINISH)
        finish(rsp, c, ev, out);
}

void api_response_fail(struct api_response *rsp, const struct err *err, struct buf *out)
{
    if (api_response_done(rsp))
        return;
    rsp->err = *err;
    if (rsp->err.code == 0)
        rsp->err.code = GD_EINTERNAL;
    if (rsp->shape.stream)
        write_error_event(rsp, out);
}
