/* contract.h - golden models through gemmad/flow.h alone, as a program sees them that links the
 * library. */
#ifndef TESTS_GRAPH_CONTRACT_H
#define TESTS_GRAPH_CONTRACT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gemmad/flow.h"

enum { VOCAB = 512 }; /* of every golden family */

/* A file below tests/golden/families; good until the next call. */
static inline const char *family_path(const char *below)
{
    static char path[1024];

    snprintf(path, sizeof(path), "%s/tests/golden/families/%s", SOURCE_ROOT, below);
    return path;
}

static inline struct flow_model *open_family(const char *below, int n_threads)
{
    struct flow_model *m;
    struct err err;

    if (flow_model_open(&m, family_path(below), n_threads, &err) < 0)
        fail_msg("%s: %s", below, err.msg);
    return m;
}

static inline int try_build(struct graph **g, struct flow_model *m, const struct flow_options *o,
    const struct flow_profile *p, struct err *err)
{
    struct flow *f;
    int r = flow_create(&f, flow_model_hparams(m), o, err);

    if (r < 0)
        return r;
    r = flow_model_build(g, m, f, p, err);
    flow_destroy(f);
    return r;
}

/* p NULL: the reference profile. */
static inline struct graph *build(
    struct flow_model *m, const struct flow_options *o, const struct flow_profile *p)
{
    struct flow_profile reference;
    struct graph *g = NULL;
    struct err err;

    flow_profile_reference(&reference);
    if (try_build(&g, m, o, p ? p : &reference, &err) < 0)
        fail_msg("%s", err.msg);
    return g;
}

static inline void exec(struct graph *g, const struct graph_io *io)
{
    struct err err;

    if (graph_exec(g, io, &err) < 0)
        fail_msg("%s", err.msg);
}

/* A text of n tokens: bos, then anything. */
static inline void fill_ids(int32_t *ids, int n, uint32_t seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        ids[i] = i == 0 ? 2 : (int32_t)(seed >> 8) % VOCAB;
    }
}

static inline float *new_floats(size_t n)
{
    float *x = calloc(n ? n : 1, sizeof(*x));

    assert_non_null(x);
    return x;
}

static inline bool same_bits(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof(*a)) == 0;
}

/* How often a graph's text says something. */
static inline int says(const struct graph *g, const char *what)
{
    char *text = graph_text(g, false);
    int n = 0;

    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    free(text);
    return n;
}

/* ---- K and V of all layers, (batch, heads, positions, dim) each ---- */

enum { MAX_LAYERS = 64 };

struct tensors {
    float *k[MAX_LAYERS], *v[MAX_LAYERS];
};

static inline size_t head_floats(const struct flow_model *m, int layer)
{
    struct flow_layer_info info;

    flow_model_layer(m, layer, &info);
    return (size_t)info.n_kv_heads * (size_t)info.head_dim;
}

static inline void tensors_init(struct tensors *t, const struct flow_model *m, int positions)
{
    struct flow_model_size size;

    flow_model_size(m, &size);
    *t = (struct tensors){0};
    for (int i = 0; i < size.n_layers; i++) {
        t->k[i] = new_floats(head_floats(m, i) * (size_t)positions);
        t->v[i] = new_floats(head_floats(m, i) * (size_t)positions);
    }
}

static inline void tensors_free(struct tensors *t)
{
    for (int i = 0; i < MAX_LAYERS; i++) {
        free(t->k[i]);
        free(t->v[i]);
    }
}

#endif
