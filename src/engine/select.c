#include "engine/select.h"

#include <math.h>

/* Values looked at with one branch. */
enum { STRIDE = 16 };

/* Up to here a heap of the best is kept while the row goes by; above, selection is cheaper. */
enum { HEAP_MAX = 4096 };

bool select_before(const struct candidate *a, const struct candidate *b)
{
    return a->key < b->key || (a->key == b->key && a->id < b->id);
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate t = *a;

    *a = *b;
    *b = t;
}

static struct candidate make(float logit, int id)
{
    return (struct candidate){.logit = logit, .mass = 1, .key = -logit, .id = id};
}

/* True when some value of row[0..STRIDE) is at least `threshold`: no branch inside, so that the
 * compiler turns it into a few vector compares. */
static bool any_reaches(const float *row, float threshold)
{
    int any = 0;

    for (int i = 0; i < STRIDE; i++)
        any |= row[i] >= threshold;
    return any != 0;
}

int select_above(const float *row, int n, float threshold, struct candidate *out)
{
    int n_out = 0;

    for (int i = 0; i < n; i++) {
        if (i % STRIDE == 0 && i + STRIDE <= n && !any_reaches(row + i, threshold)) {
            i += STRIDE - 1;
            continue;
        }
        if (row[i] >= threshold)
            out[n_out++] = make(row[i], i);
    }
    return n_out;
}

/* The root of the heap is the one to lose next: the last in select_before order. */
static void sift_down(struct candidate *heap, int n, int i)
{
    for (;;) {
        int child = 2 * i + 1;

        if (child >= n)
            return;
        if (child + 1 < n && select_before(&heap[child], &heap[child + 1]))
            child++;
        if (!select_before(&heap[i], &heap[child]))
            return;
        swap(&heap[i], &heap[child]);
        i = child;
    }
}

static int largest_by_heap(const float *row, int n, int k, struct candidate *heap)
{
    int i = 0, n_heap = 0;

    for (; i < n && n_heap < k; i++) {
        if (!isnan(row[i]))
            heap[n_heap++] = make(row[i], i);
    }
    for (int root = n_heap / 2 - 1; root >= 0; root--)
        sift_down(heap, n_heap, root);
    while (i < n) {
        if (i % STRIDE == 0 && i + STRIDE <= n && !any_reaches(row + i, heap[0].logit)) {
            i += STRIDE;
            continue;
        }
        /* An equal value with a higher id comes after the root, so > is the whole order. */
        if (row[i] > heap[0].logit) {
            heap[0] = make(row[i], i);
            sift_down(heap, n_heap, 0);
        }
        i++;
    }
    return n_heap;
}

int select_largest(const float *row, int n, int k, struct candidate *out)
{
    int n_out;

    if (k <= HEAP_MAX)
        return largest_by_heap(row, n, k, out);
    n_out = select_above(row, n, -INFINITY, out); /* every mass is 1 */
    return n_out ? select_mass(out, n_out, k) : 0;
}

/* Splits c[0..n), n >= 2, around a pivot: returns m, 0 < m < n, with every c[i < m] before every
 * c[i >= m]. */
static int split(struct candidate *c, int n)
{
    struct candidate *lo = &c[0], *mid = &c[n / 2], *hi = &c[n - 1];
    int m = 0;

    /* The median of three goes to the end and is the pivot. */
    if (select_before(mid, lo))
        swap(mid, lo);
    if (select_before(hi, lo))
        swap(hi, lo);
    if (select_before(mid, hi))
        swap(mid, hi);
    for (int i = 0; i < n - 1; i++) {
        if (select_before(&c[i], hi))
            swap(&c[i], &c[m++]);
    }
    swap(&c[m], hi);
    return m ? m : 1;
}

int select_mass(struct candidate *c, int n, double target)
{
    int lo = 0, hi = n; /* c[0..lo) is kept, c[hi..n) is not */
    double kept = 0;

    while (hi - lo > 1) {
        int m = lo + split(c + lo, hi - lo);
        double mass = 0;

        for (int i = lo; i < m; i++)
            mass += c[i].mass;
        if (kept + mass >= target) {
            hi = m;
        } else {
            kept += mass;
            lo = m;
        }
    }
    return hi;
}
