#include "graph/best.h"

#include <math.h>
#include <stdlib.h>

enum { STRIDE = 16 }; /* values looked at with one branch */

bool best_before(const struct logit *a, const struct logit *b)
{
    return a->value > b->value || (a->value == b->value && a->id < b->id);
}

static void sift_down(struct best *b, int i)
{
    const struct logit moved = b->heap[i];

    for (int child; (child = 2 * i + 1) < b->n; i = child) {
        if (child + 1 < b->n && best_before(&b->heap[child], &b->heap[child + 1]))
            child++;
        if (!best_before(&moved, &b->heap[child]))
            break;
        b->heap[i] = b->heap[child];
    }
    b->heap[i] = moved;
}

void best_add(struct best *b, int k, struct logit new)
{
    if (b->n == k) {
        if (best_before(&new, &b->heap[0])) {
            b->heap[0] = new;
            sift_down(b, 0);
        }
        return;
    }
    b->heap[b->n++] = new;
    if (b->n == k)
        for (int i = k / 2 - 1; i >= 0; i--)
            sift_down(b, i);
}

float best_floor(const struct best *b, int k)
{
    return b->n > 0 && b->n == k ? b->heap[0].value : -INFINITY;
}

void best_add_rows(struct best *b, int k, int id, const float *values, int n)
{
    float least = best_floor(b, k);

    for (int i = 0; i < n; i += STRIDE) {
        const int m = n - i < STRIDE ? n - i : STRIDE;
        bool any = false;

        for (int j = i; j < i + m; j++)
            any |= values[j] >= least;
        for (int j = i; any && j < i + m; j++)
            if (values[j] >= least) {
                best_add(b, k, (struct logit){id + j, values[j]});
                least = best_floor(b, k);
            }
    }
}

static int by_order(const void *a, const void *b)
{
    return best_before(a, b) ? -1 : 1;
}

void best_sort(struct best *b)
{
    qsort(b->heap, (size_t)b->n, sizeof(*b->heap), by_order);
}
