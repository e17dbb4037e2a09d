#include "engine/partial.h"

#include <math.h>

#include "gemmad/engine.h"
#include "graph/draw.h"

/* More than sums of the same numbers differ by, in float32 or in double, in one order or another.
 */
static const double sums_differ = 1e-4;

/* How many masses come before they reach target together, at least 1, at most n. */
static int n_to_reach(const float *mass, double target, int n)
{
    double sum = 0;
    int kept = 0;

    while (kept < n && (kept == 0 || sum < target))
        sum += mass[kept++];
    return kept;
}

/* Of the first n, which are what is left of the row. */
static int draw(const struct shortlist *list, int n)
{
    struct logit drawn = {-1, -INFINITY};
    int at = 0;

    for (int i = 0; i < n; i++) {
        draw_take_one(&list->draw, list->best[i].id, list->best[i].value, &drawn);
        if (drawn.id == list->best[i].id)
            at = i;
    }
    return at;
}

/* What is not in the list comes after best[i]. So min_p leaves best[0..n_min) and perhaps what
 * comes after best[i]; top_p leaves more the larger the sum is that it is a share of: no less than
 * what is known, and no more than if all that top_k lets in after best[i] were as large. */
int partial_draw(const struct shortlist *list, int i)
{
    const struct sampling *p = list->user;
    float mass[SHORTLIST_MAX] = {0}; /* as the sampler weighs them */
    double least = 0, most = 0;
    int n_min = 0, n_least, n_most;

    while (n_min <= i &&
           (p->min_p <= 0 || list->best[n_min].value >= list->best[0].value + logf(p->min_p)))
        n_min++;
    if (p->top_p == 1)
        return n_min > i ? i : draw(list, n_min);
    for (int j = 0; j < list->n; j++) {
        mass[j] = expf(list->best[j].value - list->best[0].value);
        least += mass[j];
        most += j < i ? mass[j] : 0;
    }
    most = p->top_k > 0 ? most + mass[i] * (p->top_k - i) : INFINITY;
    n_least = n_to_reach(mass, p->top_p * least * (1 - sums_differ), n_min);
    n_most = n_to_reach(mass, p->top_p * most * (1 + sums_differ), n_min);
    if (n_least > i)
        return i;
    return n_least == n_most ? draw(list, n_least) : -1;
}
