/* http_totals.c - percentiles and how they are printed. */
#include "bench/http_load.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

void samples_add(struct samples *s, double v)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 256;
        s->v = xrealloc(s->v, (size_t)s->cap * sizeof(*s->v));
    }
    s->v[s->n++] = v;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* q from 0 to 1 of sorted samples; 0 when there are none. */
static double quantile(const struct samples *s, double q)
{
    return s->n ? s->v[(int)(q * (s->n - 1) + 0.5)] : 0;
}

static void print_samples(const char *name, struct samples *s, const char *unit, bool json)
{
    qsort(s->v, (size_t)s->n, sizeof(*s->v), by_value);
    if (json)
        printf(",\"%s\":{\"n\":%d,\"min\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,"
               "\"max\":%.3f}",
            name, s->n, quantile(s, 0), quantile(s, 0.5), quantile(s, 0.9), quantile(s, 0.99),
            quantile(s, 1));
    else
        printf("%-16s p50 %9.2f  p90 %9.2f  p99 %9.2f  max %9.2f  %s\n", name, quantile(s, 0.5),
            quantile(s, 0.9), quantile(s, 0.99), quantile(s, 1), unit);
}

void totals_print(struct totals *t, const struct options *o)
{
    double seconds = (double)(t->ended - t->began) / 1e9;
    double in = (double)t->prompt_tokens / seconds, out = (double)t->tokens / seconds;

    if (o->json)
        printf("{\"clients\":%d,\"requests\":%d,\"prompt\":%d,\"gen\":%d,\"seconds\":%.3f,"
               "\"complete\":%d,\"refused\":%d,\"broken\":%d,\"prompt_per_s\":%.1f,"
               "\"tokens_per_s\":%.1f",
            o->clients, o->requests, o->prompt, o->gen, seconds, t->n_ok, t->n_refused, t->n_broken,
            in, out);
    else
        printf("%d clients, %d requests of %d words + %d tokens in %.2f s: %d complete, %d "
               "refused, %d "
               "broken\n%-16s %.1f prompt, %.1f generated tokens/s\n",
            o->clients, o->requests, o->prompt, o->gen, seconds, t->n_ok, t->n_refused, t->n_broken,
            "all together", in, out);
    print_samples("first_token_ms", &t->first, "ms", o->json);
    print_samples("between_ms", &t->between, "ms", o->json);
    print_samples("whole_ms", &t->whole, "ms", o->json);
    print_samples("stream_per_s", &t->rate, "tokens/s of one stream after its first", o->json);
    if (o->json)
        puts("}");
    if (t->first_bad_status)
        fprintf(stderr, "http_load: the first refusal had status %d\n", t->first_bad_status);
}

void totals_free(struct totals *t)
{
    free(t->first.v);
    free(t->between.v);
    free(t->whole.v);
    free(t->rate.v);
}
