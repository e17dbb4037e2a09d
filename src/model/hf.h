/* hf.h - a Hugging Face folder (config.json and safetensors) as a source: names, keys and norm
 * weights become what a GGUF of the same weights holds. Called by source_open(). */
#ifndef MODEL_HF_H
#define MODEL_HF_H

#include <stdbool.h>
#include <stdint.h>

#include "gemmad/err.h"
#include "model/hparams.h"
#include "model/source_build.h"

/* Fills an empty source from the folder. On failure s is half filled and source_close() cleans it
 * up. Nothing is read of the tokenizer. */
int hf_read(struct source *s, const char *folder, struct err *err);

/* ---- parts of the reader */

/* What the tensors' reader must know of config.json. */
struct hf_config {
    enum gemma_arch arch;
    int n_layers;
    int64_t vocab; /* -1: config.json does not say */
    bool tied;     /* the head is the embedding, whatever lm_head.weight holds */
};

/* config.json's text as metadata of s; missing values become the defaults of the family's class. */
int hf_config_read(
    struct source *s, struct hf_config *out, const void *text, size_t len, struct err *err);

enum hf_kind {
    HF_UNKNOWN,
    HF_SKIPPED, /* of the vision or audio tower, or a constant */
    HF_HEAD,    /* lm_head.weight */
    HF_NORM,    /* stored as w where the GGUF holds 1 + w */
    HF_MATRIX
};

/* The GGUF name of a tensor, whatever prefix the folder uses. *layer is -1 for tensors of none. */
enum hf_kind hf_translate(const char *name, enum gemma_arch arch, char gguf[64], int *layer);

#endif
