/* models.h - small models that the graph tests run on, and one way to run them. */
#ifndef TESTS_GRAPH_MODELS_H
#define TESTS_GRAPH_MODELS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/plain.h"
#include "gemmad/flow.h"
#include "graph/weights.h"

/* Paths below the source root, which the build passes in. */
static const char *const test_models[] = {
    "tests/golden/families/gemma1/model-bf16.gguf",
    "tests/golden/families/gemma2/model-f16.gguf",
    "tests/golden/families/gemma3/model-bf16.gguf",
    "tests/golden/families/gemma3/model-q8_0.gguf",
    "tests/golden/families/gemma3/model-q4_0.gguf",
    "tests/golden/families/mixed/model-mixed.gguf",
    "tests/golden/families/gemma3n/model-bf16.gguf",
    "tests/golden/families/gemma4-e2b/model-bf16.gguf",
    "tests/golden/families/gemma4-moe/model-bf16.gguf",
};
enum { N_TEST_MODELS = sizeof(test_models) / sizeof(test_models[0]), TEST_CHUNK = 512 };

static inline struct runtime *open_model(
    const char *model, const char *profile, const char *isa, int n_threads, const char *matmul)
{
    struct runtime_opts o;
    struct runtime *rt;
    char path[1024];
    struct err err;

    snprintf(path, sizeof(path), "%s/%s", SOURCE_ROOT, model);
    runtime_opts_default(&o);
    o.model_path = path;
    o.profile = profile;
    o.isa = isa;
    o.n_threads = n_threads;
    o.matmul_prefill = o.matmul_decode = matmul;
    o.max_sequences = 8;
    o.max_chunk = TEST_CHUNK;
    o.ids_only = true;
    if (runtime_open(&rt, &o, &err) < 0)
        fail_msg("%s: %s", model, err.msg);
    return rt;
}

/* A text of n tokens: bos, then anything. */
static inline void fill_ids(int32_t *ids, int n, uint32_t seed, int vocab)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        ids[i] = i == 0 ? 2 : (int32_t)(seed >> 8) % vocab;
    }
}

#endif
