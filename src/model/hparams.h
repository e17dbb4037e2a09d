/* hparams.h - what a file says about the model's shape, checked. Version differences are fields
 * here. */
#ifndef MODEL_HPARAMS_H
#define MODEL_HPARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "gemmad/err.h"
#include "model/source.h"

enum gemma_arch {
    GEMMA_1,
    GEMMA_2,
    GEMMA_3,
    GEMMA_3N,
    GEMMA_4,
    GEMMA_EMBEDDING,
    GEMMA_EMBEDDING_2,
    GEMMA_4_ASSISTANT
};

enum { HPARAMS_MAX_LAYERS = 256 };

/* One layer's attention and feed-forward shape. */
struct hparams_layer {
    int n_heads, n_kv_heads, head_dim;
    int window;     /* keys a query sees, itself included; 0 = every earlier position */
    int rope_table; /* index into hparams.rope: 0 global, 1 local */
    int ffn;        /* width of gate and up */
    int kv_layer;  /* whose K and V it attends to: itself, an earlier layer that has its own, or -1:
                      the target's last layer of the same kind (a drafter) */
    bool v_from_k; /* V is the raw K projection, before its norm and rotation */
    bool moe;      /* has experts: beside the dense feed-forward when that is there, else alone */
    bool scaled;   /* the whole residual stream is multiplied by a number at the end (Gemma 4) */
    float
        sparsity; /* gate values below mean + sparsity * std are cut to 0; 0 = no cut (Gemma 3n) */
};

struct rope_spec {
    float freq_base;
    float freq_scale; /* 1/factor of linear scaling; 1 = none */
    int n_dims;       /* rotary dimensions: the head dimension for every family here */
    bool factors; /* inverse frequencies are divided by the tensor rope_freqs.weight, n_dims / 2 */
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
    bool v_norm;        /* per-head RMSNorm of v without a weight (Gemma 3n, 4) */
    bool separate_head; /* output.weight is there and not tied */
    /* Per-layer input embeddings (Gemma 3n, 4 E2B and E4B); 0 = none. */
    int per_layer_width;
    int per_layer_vocab; /* rows of the table: an id beyond them reads row 0; 0 = no table, they
                            are projected from the embedding alone (EmbeddingGemma 2) */
    /* AltUp residual streams and the Laurel rank (Gemma 3n); 0 = none. Stream 0 is the active one.
     */
    int n_streams, laurel_rank;
    /* Experts: how many, how many a token uses, width of one, and whether a dense feed-forward
     * stands beside. */
    int n_experts, n_experts_used, expert_ffn;
    bool dense_beside_experts, fused_gate_up; /* gate and up of an expert in one tensor */
    bool router_scaled, expert_scaled; /* Gemma 4: the router reads its own norm of the residual;
                                          weights are scaled */
    /* Embedding models: every token sees both ways; the mean of the final states goes through dense
     * maps. */
    bool bidirectional;
    int n_dense, dense_out[2]; /* widths after dense_2 and dense_3 */
    int token_proj; /* width that token_proj.weight maps every final state to before the mean; 0 =
                       none (EmbeddingGemma 2) */
    /* Drafters (Gemma 4 assistants): width of the target model whose embeddings, final states, K
     * and V they read; they have no K and V of their own. 0 = no drafter. Some files count the
     * projections to the first block. */
    int backbone_width;
    bool projections_in_block;
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
