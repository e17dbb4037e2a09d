/* hparams.h - what a file says about the model's shape, checked. Version differences are fields
 * here. */
#ifndef MODEL_HPARAMS_H
#define MODEL_HPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "gemmad/err.h"
#include "model/source.h"

enum gemma_arch { GEMMA_1, GEMMA_2, GEMMA_3 };

enum { HPARAMS_MAX_LAYERS = 256 };

/* One layer's attention and feed-forward shape. */
struct hparams_layer {
    int n_heads, n_kv_heads, head_dim;
    int window;     /* keys a query sees, itself included; 0 = every earlier position */
    int rope_table; /* index into hparams.rope: 0 global, 1 local */
    int ffn;        /* width of gate and up */
};

struct rope_spec {
    float freq_base;
    float freq_scale; /* 1/factor of linear scaling; 1 = none */
    int n_dims;       /* rotary dimensions: the head dimension for every family here */
};

struct hparams {
    enum gemma_arch arch;
    char arch_name[32];  /* general.architecture */
    char name[128];      /* general.name, or the file's name */
    int n_layers, width; /* width = hidden size D */
    int vocab;           /* rows of token_embd */
    int context;         /* trained context length */
    float norm_eps;
    float embed_scale;                                       /* sqrt(D), unrounded */
    float attention_scale, attention_softcap, final_softcap; /* softcaps: 0 = none */
    bool qk_norm;       /* per-head RMSNorm of q and k before RoPE */
    bool post_norms;    /* norms after attention and after the feed-forward (Gemma 2 and later) */
    bool separate_head; /* output.weight is there and not tied */
    int n_rope;
    struct rope_spec rope[2];
    struct hparams_layer layers[HPARAMS_MAX_LAYERS];
    char warning[256]; /* a sentence the caller should log; "" = none */
};

/* Every missing or nonsensical value is refused with its key in err->param and GD_EFORMAT; an
 * architecture that is not Gemma with GD_ENOTSUP. Tensor shapes are not looked at here except
 * token_embd's rows. */
int hparams_read(struct hparams *hp, const struct source *src, struct err *err);

#endif
