/* http_answer.c - just enough HTTP/1.1 for our own server: a header block, then a body that is
 * chunked or has a length, with server-sent events in it. */
#include "bench/http_load.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_LAST };

void answer_begin(struct answer *a, int64_t now)
{
    struct buf head = a->head, line = a->line;

    buf_clear(&head);
    buf_clear(&line);
    *a = (struct answer){.head = head, .line = line, .sent = now, .keep_alive = true};
}

void answer_free(struct answer *a)
{
    buf_free(&a->head);
    buf_free(&a->line);
}

static void take_count(const char *line, const char *name, int *count)
{
    const char *at = strstr(line, name);

    if (at)
        *count = atoi(at + strlen(name));
}

/* One line of the event stream. */
static void take_line(struct answer *a, int64_t now, struct totals *t)
{
    if (strncmp(a->line.data, "data: ", 6) != 0)
        return;
    if (strncmp(a->line.data + 6, "[DONE]", 6) == 0) {
        a->done_event = true;
        return;
    }
    take_count(a->line.data, "\"prompt_tokens\":", &a->prompt_tokens);
    take_count(a->line.data, "\"completion_tokens\":", &a->tokens);
    if (strstr(a->line.data, "\"text\":\"\"") || !strstr(a->line.data, "\"text\":"))
        return; /* the end of a choice, or the usage */
    if (a->events++ == 0) {
        a->first = now;
        samples_add(&t->first, (double)(now - a->sent) / 1e6);
    } else {
        samples_add(&t->between, (double)(now - a->last) / 1e6);
    }
    a->last = now;
}

static void take_text(struct answer *a, const char *data, size_t n, int64_t now, struct totals *t)
{
    while (n > 0) {
        const char *end = memchr(data, '\n', n);
        size_t part = end ? (size_t)(end - data) : n;

        buf_append(&a->line, data, part);
        if (!end)
            return;
        take_line(a, now, t);
        buf_clear(&a->line);
        data += part + 1;
        n -= part + 1;
    }
}

/* The lines around chunks: a size, the end of the data, the end of the body. */
static void take_chunk_line(struct answer *a)
{
    a->size_line[a->size_len] = 0;
    a->size_len = 0;
    if (a->chunk_state == CHUNK_SIZE) {
        a->left = strtoll(a->size_line, NULL, 16);
        a->chunk_state = a->left > 0 ? CHUNK_DATA : CHUNK_LAST;
    } else if (a->chunk_state == CHUNK_END) {
        a->chunk_state = CHUNK_SIZE;
    } else if (a->size_line[0] == '\r' || a->size_line[0] == 0) {
        a->left = 0;
        a->chunk_state = -1; /* complete */
    }
}

static bool take_body(struct answer *a, const char *data, size_t n, int64_t now, struct totals *t)
{
    while (n > 0 && !(a->chunked && a->chunk_state < 0)) {
        size_t part;

        if (a->chunked && a->chunk_state != CHUNK_DATA) {
            if (*data == '\n')
                take_chunk_line(a);
            else if (a->size_len < (int)sizeof(a->size_line) - 1)
                a->size_line[a->size_len++] = *data;
            data++;
            n--;
            continue;
        }
        part = (int64_t)n < a->left ? n : (size_t)a->left;
        take_text(a, data, part, now, t);
        data += part;
        n -= part;
        a->left -= (int64_t)part;
        if (a->chunked && a->left == 0)
            a->chunk_state = CHUNK_END;
        else if (part == 0)
            break; /* more than the announced length */
    }
    return a->chunked ? a->chunk_state < 0 : a->left == 0;
}

static const char *header(const struct answer *a, const char *name)
{
    const char *at = strcasestr(a->head.data, name);

    return at ? at + strlen(name) : NULL;
}

bool answer_take(struct answer *a, const char *data, size_t n, int64_t now, struct totals *t)
{
    const char *end, *length;
    size_t before = a->head.len, used;

    if (a->in_body)
        return take_body(a, data, n, now, t);
    buf_append(&a->head, data, n);
    end = strstr(a->head.data, "\r\n\r\n");
    if (!end)
        return false;
    used = (size_t)(end + 4 - a->head.data) - before;
    a->head.len -= n - used;
    a->head.data[a->head.len] = 0;
    a->in_body = true;
    a->status = atoi(a->head.data + strlen("HTTP/1.1 "));
    a->chunked = header(a, "\r\ntransfer-encoding: chunked") != NULL;
    a->keep_alive = header(a, "\r\nconnection: close") == NULL;
    length = header(a, "\r\ncontent-length:");
    a->left = length ? strtoll(length, NULL, 10) : 0;
    return take_body(a, data + used, n - used, now, t) || (!a->chunked && a->left == 0);
}

void answer_end(struct answer *a, struct totals *t)
{
    if (a->status != 200) {
        t->n_refused += a->status != 0;
        t->n_broken += a->status == 0;
        if (!t->first_bad_status)
            t->first_bad_status = a->status;
        return;
    }
    if (!a->done_event || a->tokens == 0) {
        t->n_broken++;
        return;
    }
    t->n_ok++;
    t->prompt_tokens += a->prompt_tokens;
    t->tokens += a->tokens;
    samples_add(&t->whole, (double)(a->last - a->sent) / 1e6);
    if (a->tokens > 1 && a->last > a->first)
        samples_add(&t->rate, (a->tokens - 1) * 1e9 / (double)(a->last - a->first));
}
