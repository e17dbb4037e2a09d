#include "engine/stop.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct pattern {
    char *text;
    size_t len;
    /* border[i]: length of the longest proper beginning of text[0..i] that is also its end. */
    size_t *border;
};

struct stop_set {
    struct pattern *patterns;
    size_t n, longest;
};

static size_t advance(const struct pattern *p, size_t matched, char c)
{
    while (matched > 0 && p->text[matched] != c)
        matched = p->border[matched - 1];
    return p->text[matched] == c ? matched + 1 : 0;
}

struct stop_set *stop_set_create(const char *const *strings, size_t n)
{
    struct stop_set *set = xcalloc(1, sizeof(*set));

    set->n = n;
    set->patterns = xcalloc(n, sizeof(*set->patterns));
    for (size_t i = 0; i < n; i++) {
        struct pattern *p = &set->patterns[i];

        p->text = xstrdup(strings[i]);
        p->len = strlen(strings[i]);
        p->border = xcalloc(p->len, sizeof(*p->border));
        for (size_t j = 1; j < p->len; j++)
            p->border[j] = advance(p, p->border[j - 1], p->text[j]);
        set->longest = p->len > set->longest ? p->len : set->longest;
    }
    return set;
}

void stop_set_destroy(struct stop_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n; i++) {
        free(set->patterns[i].text);
        free(set->patterns[i].border);
    }
    free(set->patterns);
    free(set);
}

const char *stop_set_string(const struct stop_set *set, size_t i)
{
    return set->patterns[i].text;
}

void stop_scan_init(struct stop_scan *scan, const struct stop_set *set)
{
    scan->set = set;
    scan->matched = xcalloc(set->n, sizeof(*scan->matched));
    scan->held = xcalloc(set->longest, 1);
    scan->n_held = 0;
}

void stop_scan_finish(struct stop_scan *scan)
{
    free(scan->matched);
    free(scan->held);
    *scan = (struct stop_scan){0};
}

/* Index of the longest string that c completes, or -1. */
static int take(struct stop_scan *scan, char c)
{
    int complete = -1;

    for (size_t i = 0; i < scan->set->n; i++) {
        const struct pattern *p = &scan->set->patterns[i];

        scan->matched[i] = advance(p, scan->matched[i], c);
        if (scan->matched[i] == p->len &&
            (complete < 0 || p->len > scan->set->patterns[complete].len))
            complete = (int)i;
    }
    return complete;
}

static void shorten(struct buf *b, size_t by)
{
    b->len -= by;
    if (b->data)
        b->data[b->len] = 0;
}

int stop_scan_push(
    struct stop_scan *scan, const char *text, size_t len, bool include, struct buf *out)
{
    size_t hold = 0;

    if (len == 0)
        return -1;
    stop_scan_end(scan, out);
    for (size_t i = 0; i < len; i++) {
        int complete = take(scan, text[i]);

        buf_putc(out, text[i]);
        if (complete >= 0) {
            if (!include)
                shorten(out, scan->set->patterns[complete].len);
            return complete;
        }
    }
    for (size_t i = 0; i < scan->set->n; i++)
        hold = scan->matched[i] > hold ? scan->matched[i] : hold;
    if (hold > 0)
        memcpy(scan->held, out->data + out->len - hold, hold);
    shorten(out, hold);
    scan->n_held = hold;
    return -1;
}

void stop_scan_end(struct stop_scan *scan, struct buf *out)
{
    buf_append(out, scan->held, scan->n_held);
    scan->n_held = 0;
}

void stop_scan_cut(struct stop_scan *scan, struct buf *out)
{
    stop_scan_end(scan, out);
    for (size_t i = 0; i < scan->set->n; i++)
        scan->matched[i] = 0;
}
