#include "engine/pages.h"

#include <assert.h>
#include <stdlib.h>

#include "base/mem.h"

void pages_init(struct pages *p, uint32_t n)
{
    p->n = p->n_free = n;
    p->free = xcalloc(n, sizeof(*p->free));
    p->refs = xcalloc(n, sizeof(*p->refs));
    p->older = xcalloc(n, sizeof(*p->older));
    p->newer = xcalloc(n, sizeof(*p->newer));
    p->oldest = p->newest = NO_PAGE;
    for (uint32_t i = 0; i < n; i++)
        p->free[i] = n - 1 - i;
}

void pages_finish(struct pages *p)
{
    free(p->free);
    free(p->refs);
    free(p->older);
    free(p->newer);
}

uint32_t pages_available(const struct pages *p)
{
    return p->n_free + p->n_idle;
}

uint32_t pages_take_free(struct pages *p)
{
    uint32_t page;

    assert(p->n_free > 0);
    page = p->free[--p->n_free];
    assert(p->refs[page] == 0);
    p->refs[page] = 1;
    return page;
}

void pages_free(struct pages *p, uint32_t page)
{
    p->free[p->n_free++] = page;
}

void pages_hold(struct pages *p, uint32_t page)
{
    if (p->refs[page] == 0)
        pages_unlink(p, page);
    p->refs[page]++;
}

void pages_idle(struct pages *p, uint32_t page, bool evict_first)
{
    int32_t at = (int32_t)page;

    p->older[page] = evict_first ? NO_PAGE : p->newest;
    p->newer[page] = evict_first ? p->oldest : NO_PAGE;
    if (p->older[page] != NO_PAGE)
        p->newer[p->older[page]] = at;
    else
        p->oldest = at;
    if (p->newer[page] != NO_PAGE)
        p->older[p->newer[page]] = at;
    else
        p->newest = at;
    p->n_idle++;
}

void pages_unlink(struct pages *p, uint32_t page)
{
    int32_t older = p->older[page], newer = p->newer[page];

    if (older != NO_PAGE)
        p->newer[older] = newer;
    else
        p->oldest = newer;
    if (newer != NO_PAGE)
        p->older[newer] = older;
    else
        p->newest = older;
    p->n_idle--;
}
