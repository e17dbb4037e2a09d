#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CACHE_LINE = 64 };
static const size_t huge_page = 2u << 20;

static void out_of_memory(void)
{
    fputs("gemmad: out of memory\n", stderr);
    abort();
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);

    if (!p)
        out_of_memory();
    return p;
}

void *xrealloc(void *p, size_t bytes)
{
    p = realloc(p, bytes ? bytes : 1);
    if (!p)
        out_of_memory();
    return p;
}

char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;

    return memcpy(xcalloc(n, 1), s, n);
}

void *mem_aligned(size_t bytes)
{
    void *p;

    if (bytes >= huge_page) {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return NULL;
        madvise(p, bytes, MADV_HUGEPAGE);
        return p;
    }
    bytes = mem_round_up(bytes ? bytes : 1, CACHE_LINE);
    p = aligned_alloc(CACHE_LINE, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void mem_aligned_free(void *p, size_t bytes)
{
    if (p && bytes >= huge_page)
        munmap(p, bytes);
    else
        free(p);
}

void mem_small_pages(void *p, size_t bytes)
{
    if (bytes >= huge_page)
        madvise(p, bytes, MADV_NOHUGEPAGE);
}

void mem_forget(const void *p, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = mem_round_up((uintptr_t)p, page), end = ((uintptr_t)p + bytes) / page * page;

    if (end > first)
        madvise((void *)first, end - first, MADV_DONTNEED);
}
