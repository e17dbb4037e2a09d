#include "engine/kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct group {
    size_t page_bytes;
    int window; /* 0: sees everything */
    uint32_t n_pages, n_free;
    uint32_t *free; /* a stack: the page given back last is handed out first, its memory is warm */
    uint32_t *refs;
    size_t bytes;
};

struct kv {
    struct group group[KV_GROUPS];
    struct kv_memory mem;
};

static int page_of(int pos)
{
    return pos / KV_PAGE;
}

static int pages_up_to(int pos)
{
    return (pos + KV_PAGE - 1) / KV_PAGE;
}

/* ---- how much ---- */

/* Pages of a sequence of n positions computed in pieces of up to `chunk`. The first query of a
 * piece reaches back window - 1 positions, and both ends may lie inside a page. */
static uint32_t most_pages(const struct kv_group *g, int n, int chunk)
{
    int all = pages_up_to(n), span;

    if (g->n_layers == 0)
        return 0;
    if (g->window == 0 || g->window >= n)
        return (uint32_t)all;
    span = pages_up_to(g->window - 1 + chunk) + 1;
    return (uint32_t)(span < all ? span : all);
}

/* Bytes, as a double: a plan for absurd settings must not overflow. */
static double bytes_for(const struct kv_layout *l, const double pages[KV_GROUPS])
{
    double bytes = 0;

    for (int g = 0; g < KV_GROUPS; g++)
        bytes += pages[g] * (double)l->group[g].page_bytes;
    return bytes;
}

static double bytes_for_one(const struct kv_layout *l, int ctx, int chunk)
{
    double pages[KV_GROUPS];

    for (int g = 0; g < KV_GROUPS; g++)
        pages[g] = most_pages(&l->group[g], ctx, chunk);
    return bytes_for(l, pages);
}

int kv_plan(struct kv_plan *out, const struct kv_layout *layout, const struct kv_need *need,
    size_t budget, struct err *err)
{
    int ctx = need->ctx_tokens;
    double one[KV_GROUPS], all[KV_GROUPS], share;
    size_t bytes = 0;

    while (need->shrink_ctx && ctx > KV_PAGE &&
           bytes_for_one(layout, ctx, need->max_chunk) > (double)budget)
        ctx = ctx - ctx / 16 - 1;
    if (need->shrink_ctx && ctx < need->ctx_tokens && ctx > KV_PAGE)
        ctx -= ctx % KV_PAGE;
    if (bytes_for_one(layout, ctx, need->max_chunk) > (double)budget)
        return err_set_at(err, GD_ENOMEM, "ctx_tokens",
            "one sequence of %d tokens needs %.1f MB of keys and values, but %.1f MB are there",
            ctx, bytes_for_one(layout, ctx, need->max_chunk) / 1e6, (double)budget / 1e6);
    for (int g = 0; g < KV_GROUPS; g++) {
        one[g] = most_pages(&layout->group[g], ctx, need->max_chunk);
        /* One piece of prompt is computed at a time: the others hold their windows alone. */
        all[g] = one[g] + (need->max_sequences - 1) * (double)most_pages(&layout->group[g], ctx, 1);
    }
    /* One sequence always fits; what is left goes to the others in proportion to their need. */
    share = bytes_for(layout, all) > bytes_for(layout, one)
                ? ((double)budget - bytes_for(layout, one)) /
                      (bytes_for(layout, all) - bytes_for(layout, one))
                : 0;
    share = share > 1 ? 1 : share;
    for (int g = 0; g < KV_GROUPS; g++) {
        double pages = one[g] + (all[g] - one[g]) * share;

        out->n_pages[g] = pages < UINT32_MAX / 2 ? (uint32_t)pages : UINT32_MAX / 2;
        bytes += out->n_pages[g] * layout->group[g].page_bytes;
    }
    out->ctx_tokens = ctx;
    out->bytes = bytes;
    return 0;
}

/* ---- pages ---- */

static int open_group(
    struct kv *kv, int g, const struct kv_layout *layout, uint32_t n_pages, struct err *err)
{
    struct group *p = &kv->group[g];

    p->page_bytes = layout->group[g].page_bytes;
    p->window = layout->group[g].window;
    p->n_pages = p->n_free = layout->group[g].n_layers ? n_pages : 0;
    if (!mem_mul(p->n_pages, p->page_bytes, &p->bytes))
        return err_set(err, GD_ENOMEM, "more memory for keys and values than there can be");
    p->free = xcalloc(p->n_pages, sizeof(*p->free));
    p->refs = xcalloc(p->n_pages, sizeof(*p->refs));
    for (uint32_t i = 0; i < p->n_pages; i++)
        p->free[i] = p->n_pages - 1 - i;
    if (p->bytes == 0)
        return 0;
    kv->mem.base[g] = mem_aligned(p->bytes);
    if (!kv->mem.base[g])
        return err_set(err, GD_ENOMEM, "cannot get %.1f MB of memory for keys and values",
            (double)p->bytes / 1e6);
    return 0;
}

int kv_open(
    struct kv **out, const struct kv_layout *layout, const struct kv_plan *plan, struct err *err)
{
    struct kv *kv = xcalloc(1, sizeof(*kv));

    for (int g = 0; g < KV_GROUPS; g++) {
        int r = open_group(kv, g, layout, plan->n_pages[g], err);

        if (r < 0) {
            kv_close(kv);
            return r;
        }
    }
    *out = kv;
    return 0;
}

void kv_close(struct kv *kv)
{
    if (!kv)
        return;
    for (int g = 0; g < KV_GROUPS; g++) {
        mem_aligned_free(kv->mem.base[g], kv->group[g].bytes);
        free(kv->group[g].free);
        free(kv->group[g].refs);
    }
    free(kv);
}

const struct kv_memory *kv_memory(const struct kv *kv)
{
    return &kv->mem;
}

uint32_t kv_free_pages(const struct kv *kv, int group)
{
    return kv->group[group].n_free;
}

uint32_t kv_total_pages(const struct kv *kv, int group)
{
    return kv->group[group].n_pages;
}

double kv_used(const struct kv *kv)
{
    double used = 0;

    for (int g = 0; g < KV_GROUPS; g++) {
        const struct group *p = &kv->group[g];
        double part = p->n_pages ? 1 - (double)p->n_free / p->n_pages : 0;

        used = part > used ? part : used;
    }
    return used;
}

uint32_t kv_pages_for(const struct kv *kv, int group, int n, int max_chunk)
{
    const struct group *p = &kv->group[group];
    struct kv_group g = {.n_layers = p->n_pages > 0, .window = p->window};

    return most_pages(&g, n, max_chunk);
}

static uint32_t take(struct group *p)
{
    uint32_t page;

    assert(p->n_free > 0);
    page = p->free[--p->n_free];
    assert(p->refs[page] == 0);
    p->refs[page] = 1;
    return page;
}

static void give_back(struct group *p, uint32_t page)
{
    assert(p->refs[page] > 0);
    if (--p->refs[page] == 0)
        p->free[p->n_free++] = page;
}

/* ---- tables ---- */

void kv_table_init(struct kv_table *t, int ctx_tokens)
{
    *t = (struct kv_table){.cap = pages_up_to(ctx_tokens)};
    for (int g = 0; g < KV_GROUPS; g++)
        t->pages[g] = xcalloc((size_t)t->cap, sizeof(*t->pages[g]));
}

void kv_table_finish(struct kv_table *t)
{
    for (int g = 0; g < KV_GROUPS; g++) {
        assert(t->n[g] == t->first[g]);
        free(t->pages[g]);
    }
    *t = (struct kv_table){0};
}

/* Pages that positions [past, end) lack in a group: new ones and copies. */
static uint32_t missing(const struct group *p, const struct kv_table *t, int g, int past, int end)
{
    int need = pages_up_to(end);
    uint32_t n = need > t->n[g] ? (uint32_t)(need - t->n[g]) : 0;

    for (int i = page_of(past); i < t->n[g] && i < need; i++)
        n += p->refs[t->pages[g][i]] > 1;
    return n;
}

static void copy_page(struct kv *kv, int g, uint32_t to, uint32_t from)
{
    size_t bytes = kv->group[g].page_bytes;

    memcpy(kv->mem.base[g] + to * bytes, kv->mem.base[g] + from * bytes, bytes);
}

bool kv_reserve(struct kv *kv, struct kv_table *t, int past, int end)
{
    for (int g = 0; g < KV_GROUPS; g++) {
        struct group *p = &kv->group[g];

        if (p->n_pages && missing(p, t, g, past, end) > p->n_free)
            return false;
    }
    for (int g = 0; g < KV_GROUPS; g++) {
        struct group *p = &kv->group[g];

        if (p->n_pages == 0)
            continue;
        assert(pages_up_to(end) <= t->cap && t->first[g] <= page_of(past));
        for (int i = page_of(past); i < t->n[g] && i < pages_up_to(end); i++) {
            uint32_t old = t->pages[g][i];

            if (p->refs[old] == 1)
                continue;
            t->pages[g][i] = take(p);
            copy_page(kv, g, t->pages[g][i], old);
            give_back(p, old);
        }
        while (t->n[g] < pages_up_to(end))
            t->pages[g][t->n[g]++] = take(p);
    }
    return true;
}

void kv_trim(struct kv *kv, struct kv_table *t, int next)
{
    struct group *p = &kv->group[KV_SLIDING];
    int lowest = next - p->window + 1; /* what the query at `next` still reads */

    if (p->n_pages == 0 || p->window == 0 || lowest <= 0)
        return;
    while (t->first[KV_SLIDING] < page_of(lowest) && t->first[KV_SLIDING] < t->n[KV_SLIDING])
        give_back(p, t->pages[KV_SLIDING][t->first[KV_SLIDING]++]);
}

void kv_share(struct kv *kv, struct kv_table *dst, const struct kv_table *src)
{
    for (int g = 0; g < KV_GROUPS; g++) {
        assert(dst->n[g] == dst->first[g] && src->n[g] <= dst->cap);
        for (int i = src->first[g]; i < src->n[g]; i++) {
            dst->pages[g][i] = src->pages[g][i];
            kv->group[g].refs[src->pages[g][i]]++;
        }
        dst->n[g] = src->n[g];
        dst->first[g] = src->first[g];
    }
}

void kv_drop(struct kv *kv, struct kv_table *t)
{
    for (int g = 0; g < KV_GROUPS; g++) {
        while (t->n[g] > t->first[g])
            give_back(&kv->group[g], t->pages[g][--t->n[g]]);
        t->n[g] = t->first[g] = 0;
    }
}

uint32_t kv_held(const struct kv_table *t, int group)
{
    return (uint32_t)(t->n[group] - t->first[group]);
}
