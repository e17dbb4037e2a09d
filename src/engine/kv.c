#include "engine/kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/pages.h"
#include "engine/prefix.h"

struct kv {
    struct pages group[KV_GROUPS];
    struct prefix prefix;
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
        /* A kept beginning is of use only with its last window: as many more as sequences, twice.
         * (Its global pages are found among those that the sequences do not need yet.) */
        if (!need->no_prefixes && layout->group[g].window)
            all[g] += 2 * need->max_sequences * (double)most_pages(&layout->group[g], ctx, 1);
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
    struct pages *p = &kv->group[g];

    p->page_bytes = layout->group[g].page_bytes;
    p->window = layout->group[g].window;
    pages_init(p, layout->group[g].n_layers ? n_pages : 0);
    if (!mem_mul(p->n, p->page_bytes, &p->bytes))
        return err_set(err, GD_ENOMEM, "more memory for keys and values than there can be");
    if (p->bytes == 0)
        return 0;
    kv->mem.base[g] = mem_aligned(p->bytes);
    if (!kv->mem.base[g])
        return err_set(err, GD_ENOMEM, "cannot get %.1f MB of memory for keys and values",
            (double)p->bytes / 1e6);
    mem_small_pages(kv->mem.base[g], p->bytes);
    return 0;
}

int kv_open(struct kv **out, const struct kv_layout *layout, const struct kv_plan *plan,
    bool keep_prefixes, struct err *err)
{
    struct kv *kv = xcalloc(1, sizeof(*kv));

    for (int g = 0; g < KV_GROUPS; g++) {
        int r = open_group(kv, g, layout, plan->n_pages[g], err);

        if (r < 0) {
            kv_close(kv);
            return r;
        }
    }
    kv->prefix =
        (struct prefix){.global = &kv->group[KV_GLOBAL], .sliding = &kv->group[KV_SLIDING]};
    if (keep_prefixes && kv->group[KV_GLOBAL].n)
        prefix_init(&kv->prefix, &kv->group[KV_GLOBAL], &kv->group[KV_SLIDING]);
    *out = kv;
    return 0;
}

void kv_close(struct kv *kv)
{
    if (!kv)
        return;
    for (int g = 0; g < KV_GROUPS; g++) {
        mem_aligned_free(kv->mem.base[g], kv->group[g].bytes);
        pages_finish(&kv->group[g]);
    }
    prefix_finish(&kv->prefix);
    free(kv);
}

const struct kv_memory *kv_memory(const struct kv *kv)
{
    return &kv->mem;
}

uint32_t kv_free_pages(const struct kv *kv, int group)
{
    return pages_available(&kv->group[group]);
}

uint32_t kv_total_pages(const struct kv *kv, int group)
{
    return kv->group[group].n;
}

double kv_used(const struct kv *kv)
{
    double used = 0;

    for (int g = 0; g < KV_GROUPS; g++) {
        const struct pages *p = &kv->group[g];
        double part = p->n ? 1 - (double)pages_available(p) / p->n : 0;

        used = part > used ? part : used;
    }
    return used;
}

uint32_t kv_pages_for(const struct kv *kv, int group, int n, int max_chunk)
{
    const struct pages *p = &kv->group[group];
    struct kv_group g = {.n_layers = p->n > 0, .window = p->window};

    return most_pages(&g, n, max_chunk);
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
static uint32_t missing(const struct pages *p, const struct kv_table *t, int g, int past, int end)
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
        struct pages *p = &kv->group[g];

        if (p->n && missing(p, t, g, past, end) > pages_available(p))
            return false;
    }
    for (int g = 0; g < KV_GROUPS; g++) {
        struct pages *p = &kv->group[g];

        if (p->n == 0)
            continue;
        assert(pages_up_to(end) <= t->cap && t->first[g] <= page_of(past));
        for (int i = page_of(past); i < t->n[g] && i < pages_up_to(end); i++) {
            uint32_t old = t->pages[g][i];

            if (p->refs[old] == 1)
                continue;
            t->pages[g][i] = prefix_take(&kv->prefix, g);
            copy_page(kv, g, t->pages[g][i], old);
            prefix_give_back(&kv->prefix, g, old, false);
        }
        while (t->n[g] < pages_up_to(end))
            t->pages[g][t->n[g]++] = prefix_take(&kv->prefix, g);
    }
    return true;
}

void kv_trim(struct kv *kv, struct kv_table *t, int next)
{
    struct pages *p = &kv->group[KV_SLIDING];
    int lowest = next - p->window + 1; /* what the query at `next` still reads */

    if (p->n == 0 || p->window == 0 || lowest <= 0)
        return;
    while (t->first[KV_SLIDING] < page_of(lowest) && t->first[KV_SLIDING] < t->n[KV_SLIDING])
        prefix_give_back(
            &kv->prefix, KV_SLIDING, t->pages[KV_SLIDING][t->first[KV_SLIDING]++], true);
}

void kv_share(struct kv *kv, struct kv_table *dst, const struct kv_table *src)
{
    for (int g = 0; g < KV_GROUPS; g++) {
        assert(dst->n[g] == dst->first[g] && src->n[g] <= dst->cap);
        for (int i = src->first[g]; i < src->n[g]; i++) {
            dst->pages[g][i] = src->pages[g][i];
            pages_hold(&kv->group[g], src->pages[g][i]);
        }
        dst->n[g] = src->n[g];
        dst->first[g] = src->first[g];
    }
    dst->n_known = src->n_known;
    dst->known = src->known;
}

void kv_drop(struct kv *kv, struct kv_table *t)
{
    for (int g = 0; g < KV_GROUPS; g++) {
        /* Last page first: what many texts begin with is evicted last. */
        while (t->n[g] > t->first[g])
            prefix_give_back(&kv->prefix, g, t->pages[g][--t->n[g]], false);
        t->n[g] = t->first[g] = 0;
    }
    t->n_known = 0;
    t->known = 0;
}

uint32_t kv_held(const struct kv_table *t, int group)
{
    return (uint32_t)(t->n[group] - t->first[group]);
}

/* ---- beginnings that are known ---- */

/* The page that holds position `pos - window + 1`, the first that a query at pos reads. */
static int first_read(const struct pages *p, int pos)
{
    return p->window == 0 || pos < p->window ? 0 : page_of(pos - p->window + 1);
}

static bool holds(const struct kv_table *t, int g, int i)
{
    return i >= t->first[g] && i < t->n[g];
}

/* Another sequence computed the same text: one page is enough, and it is the same to the bit. */
static void merge_page(struct kv *kv, struct kv_table *t, int i, uint32_t node)
{
    uint32_t own = t->pages[KV_GLOBAL][i];

    if (own == node)
        return;
    pages_hold(&kv->group[KV_GLOBAL], node);
    t->pages[KV_GLOBAL][i] = node;
    prefix_give_back(&kv->prefix, KV_GLOBAL, own, false);
}

void kv_commit(struct kv *kv, struct kv_table *t, const int32_t *tokens, int past)
{
    struct prefix *x = &kv->prefix;

    for (; x->nodes && (t->n_known + 1) * KV_PAGE <= past; t->n_known++) {
        int i = t->n_known;
        const int32_t *page_tokens = tokens + (ptrdiff_t)i * KV_PAGE;
        int32_t node = prefix_find(x, t->known, page_tokens), sliding = NO_PAGE;

        if (holds(t, KV_SLIDING, i) && x->owner[t->pages[KV_SLIDING][i]] == NO_PAGE)
            sliding = (int32_t)t->pages[KV_SLIDING][i];
        if (node == NO_PAGE) {
            node = (int32_t)t->pages[KV_GLOBAL][i];
            prefix_add(x, (uint32_t)node, sliding, t->known, page_tokens);
        } else {
            merge_page(kv, t, i, (uint32_t)node);
            if (sliding != NO_PAGE && x->nodes[node].sliding == NO_PAGE)
                prefix_attach(x, (uint32_t)node, (uint32_t)sliding);
        }
        t->known = x->nodes[node].serial;
    }
}

/* pages[KV_GLOBAL] lists known nodes up to n: the largest number of pages up to n for which the
 * sliding pages of the last window are there, or t->n_known. */
static int usable(const struct kv *kv, const struct kv_table *t, int n)
{
    const struct pages *p = &kv->group[KV_SLIDING];

    for (; p->n && n > t->n_known; n--) {
        int lowest = first_read(p, n * KV_PAGE), i = n - 1;

        while (i >= lowest && i >= t->n_known &&
               kv->prefix.nodes[t->pages[KV_GLOBAL][i]].sliding != NO_PAGE)
            i--;
        if (i < lowest || i < t->n_known)
            break;
    }
    return n;
}

static void take_over(struct kv *kv, struct kv_table *t, int n)
{
    struct pages *sliding = &kv->group[KV_SLIDING];
    int lowest = first_read(sliding, n * KV_PAGE);

    for (int i = t->n_known; i < n; i++) {
        uint32_t node = t->pages[KV_GLOBAL][i];

        pages_hold(&kv->group[KV_GLOBAL], node);
        if (sliding->n == 0 || i < lowest)
            continue;
        t->pages[KV_SLIDING][i] = (uint32_t)kv->prefix.nodes[node].sliding;
        pages_hold(sliding, t->pages[KV_SLIDING][i]);
    }
    t->n[KV_GLOBAL] = n;
    if (sliding->n == 0)
        return;
    kv_trim(kv, t, n * KV_PAGE);
    t->first[KV_SLIDING] = lowest > t->first[KV_SLIDING] ? lowest : t->first[KV_SLIDING];
    t->n[KV_SLIDING] = n;
}

int kv_adopt(struct kv *kv, struct kv_table *t, const int32_t *tokens, int past, int limit)
{
    struct prefix *x = &kv->prefix;
    uint64_t at = t->known;
    int n = t->n_known, found;

    if (!x->nodes || past != n * KV_PAGE || t->n[KV_GLOBAL] != n)
        return past;
    for (int32_t node; (n + 1) * KV_PAGE <= limit; n++) {
        node = prefix_find(x, at, tokens + (ptrdiff_t)n * KV_PAGE);
        if (node == NO_PAGE)
            break;
        t->pages[KV_GLOBAL][n] = (uint32_t)node;
        at = x->nodes[node].serial;
    }
    if (n == t->n_known)
        return past;
    /* Here this text parts from what is known, or ends: others may do so too. */
    for (int i = first_read(&kv->group[KV_SLIDING], n * KV_PAGE); i < n; i++)
        x->nodes[t->pages[KV_GLOBAL][i]].parting = true;
    found = usable(kv, t, n);
    if (found == t->n_known)
        return past;
    take_over(kv, t, found);
    t->n_known = found;
    t->known = x->nodes[t->pages[KV_GLOBAL][found - 1]].serial;
    return found * KV_PAGE;
}

bool kv_same_text(const struct kv *kv, const struct kv_table *a, const struct kv_table *b)
{
    return kv->prefix.nodes && a->known == b->known && a->n_known == b->n_known &&
           b->n[KV_GLOBAL] == b->n_known;
}
