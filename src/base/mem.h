/* mem.h - allocation. Small bookkeeping aborts when memory is out; anything sized by a
 * request or a model file goes through the functions that can fail. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t bytes);
char *xstrdup(const char *s);

/* Zeroed, 64-byte aligned; regions of 2 MB and more are mapped and advised to use huge pages.
 * NULL when there is no memory. Give back with mem_aligned_free(p, the same bytes). */
void *mem_aligned(size_t bytes);
void mem_aligned_free(void *p, size_t bytes);

/* Takes the huge pages of a mem_aligned() region back, before it is written. For memory that is
 * first touched bit by bit while somebody waits: the kernel clears a huge page in one go, which
 * takes 0.2 ms, and 4.5 ms in a virtual machine whose host had to find the memory as well. */
void mem_small_pages(void *p, size_t bytes);

/* Lets the kernel drop the pages of a read-only file mapping that lie wholly in [p, p + bytes):
 * they no longer count as resident and come back from the file when touched. */
void mem_forget(const void *p, size_t bytes);

/* Overflow-checked size arithmetic: false, and *out untouched, on overflow. */
static inline bool mem_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool mem_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline size_t mem_round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

#endif
