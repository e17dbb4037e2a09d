/* hf.h - a Hugging Face folder (config.json and safetensors) as a source: names, keys and norm
 * weights become what a GGUF of the same weights holds. Called by source_open(). */
#ifndef MODEL_HF_H
#define MODEL_HF_H

#include <stdbool.h>
#include <stdint.h>

#include "gemmad/err.h"
#include "model/hparams.h"
#include "model/safetensors.h"
#include "model/source_build.h"
#include "model/source_show.h"

/* Fills an empty source from the folder; the tensors are its own or, where given is not NULL,
 * those. On failure s is half filled and source_close() cleans it up. Nothing is read of the
 * tokenizer. */
int hf_read(
    struct source *s, const char *folder, const struct given_tensors *given, struct err *err);

/* ---- parts of the reader */

/* What the tensors' reader must know of config.json. */
struct hf_config {
    enum gemma_arch arch;
    int n_layers;
    int64_t vocab, per_layer_vocab; /* -1: config.json does not say */
    bool tied;                      /* the head is the embedding, whatever lm_head.weight holds */
};

/* config.json's text as metadata of s; missing values become the defaults of the family's class. */
int hf_config_read(
    struct source *s, struct hf_config *out, const void *text, size_t len, struct err *err);

enum hf_kind {
    HF_UNKNOWN,
    HF_SKIPPED, /* of the vision or audio tower, or a constant */
    HF_HEAD,    /* lm_head.weight */
    HF_NORM,    /* stored as w where the GGUF holds 1 + w */
    HF_FLOATS,  /* small; f32 in a GGUF whatever the other tensors are */
    HF_STACK,   /* a matrix that is one slice of a GGUF's tensor */
    HF_EXPERTS, /* three dimensions */
    HF_MATRIX
};

enum { HF_SLICES = 3, HF_STACKS = 2 }; /* Gemma 3n: one per stream that is not the active one */

/* What a tensor is, whatever prefix the folder uses. */
struct hf_name {
    enum hf_kind kind;
    char gguf[64]; /* its name in a GGUF */
    int layer;     /* -1: of none */
    int slice;     /* HF_STACK: which one */
};
struct hf_name hf_translate(const char *name, enum gemma_arch arch);
/* The way back, without a prefix; the name itself where a folder has no such tensor. */
const char *hf_original(const char *gguf, enum gemma_arch arch, char out[96]);

/* The folder being read. */
struct hf_files {
    struct source *s;
    const char *path;
    struct shown name;
    struct hf_config config;
    const char *file;  /* the one being read */
    const char *dense; /* the GGUF name of the dense map being read */
    struct hf_stack {
        const char *gguf;                /* NULL: not seen yet */
        const uint8_t *slice[HF_SLICES]; /* where they lie in the files; NULL: not seen yet */
    } stacks[HF_STACKS];
};

bool hf_exists(const struct hf_files *f, const char *file);
/* Maps a JSON file of the folder. */
int hf_map_json(
    struct hf_files *f, const char *file, size_t max, struct mapping *map, struct err *err);
/* Reads a file of weights of the folder. */
int hf_read_weights(struct hf_files *f, const char *file, safetensors_fn *take, struct err *err);
/* A matrix, a vector, or up to max_dims dimensions, in the source under its GGUF name. */
int hf_add_tensor(struct hf_files *f, const struct safetensor *from, const char *gguf, int max_dims,
    struct tensor **out, struct err *err);

/* Embedders: pooling and the dense maps that modules.json lists become dense_2.weight and
 * dense_3.weight. Nothing where there is no modules.json. */
int hf_read_modules(struct hf_files *f, struct err *err);

#endif
