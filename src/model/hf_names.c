/* Hugging Face's tensor names -> GGUF's. */
#include "model/hf.h"

#include <stdio.h>
#include <string.h>

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

/* Parts of multimodal folders that text does not need. */
static const char *const skipped[] = {"vision_tower.", "vision_model.", "audio_tower.",
    "multi_modal_projector.", "embed_vision.", "embed_audio.", "vision_embedder."};

/* Sets of families, a bit for each. */
enum {
    ONLY_1 = 1 << GEMMA_1,
    ONLY_3N = 1 << GEMMA_3N,
    ONLY_4 = 1 << GEMMA_4,
    EMBEDDER_2 = 1 << GEMMA_EMBEDDING_2,
    DRAFTER = 1 << GEMMA_4_ASSISTANT,
    ALL = (1 << (GEMMA_4_ASSISTANT + 1)) - 1,
    SINCE_2 = ALL & ~ONLY_1,
    SINCE_3 = SINCE_2 & ~(1 << GEMMA_2),
    INPUTS = ONLY_3N | ONLY_4, /* per-layer inputs */
    SCALED = ONLY_4 | EMBEDDER_2 | DRAFTER,
    PLUS_1 = ONLY_1 | 1 << GEMMA_2 | 1 << GEMMA_3 | 1 << GEMMA_EMBEDDING /* norms store w - 1 */
};

struct row {
    const char *hf, *gguf;
    int families;
    enum hf_kind kind;
};

static const struct row
    globals[] =
        {
            {"embed_tokens.weight", "token_embd.weight", ALL, HF_MATRIX},
            {"norm.weight", "output_norm.weight", ALL, HF_NORM},
            {"lm_head.weight", "output.weight", ALL, HF_HEAD},
            {"embed_tokens_per_layer.weight", "per_layer_token_embd.weight", INPUTS, HF_MATRIX},
            {"per_layer_model_projection.weight", "per_layer_model_proj.weight", INPUTS, HF_MATRIX},
            {"per_layer_projection_norm.weight", "per_layer_proj_norm.weight", INPUTS, HF_NORM},
            {"ple.per_layer_model_projection.weight", "per_layer_model_proj.weight", EMBEDDER_2,
                HF_MATRIX},
            {"ple.per_layer_projection_norm.weight", "per_layer_proj_norm.weight", EMBEDDER_2,
                HF_NORM},
            {"embedding_projection.weight", "token_proj.weight", EMBEDDER_2, HF_MATRIX},
            {"pre_projection.weight", "nextn.pre_projection.weight", DRAFTER, HF_MATRIX},
            {"post_projection.weight", "nextn.post_projection.weight", DRAFTER, HF_MATRIX},
            /* A short cut to the likely tokens; the whole head is computed instead. */
            {"masked_embedding.centroids.weight", "", DRAFTER, HF_SKIPPED},
            {"masked_embedding.token_ordering", "", DRAFTER, HF_SKIPPED},
},
    of_layer[] = {
        {"input_layernorm.weight", "attn_norm.weight", ALL, HF_NORM},
        {"self_attn.q_proj.weight", "attn_q.weight", ALL, HF_MATRIX},
        {"self_attn.k_proj.weight", "attn_k.weight", ALL, HF_MATRIX},
        {"self_attn.v_proj.weight", "attn_v.weight", ALL, HF_MATRIX},
        {"self_attn.o_proj.weight", "attn_output.weight", ALL, HF_MATRIX},
        {"self_attn.q_norm.weight", "attn_q_norm.weight", SINCE_3, HF_NORM},
        {"self_attn.k_norm.weight", "attn_k_norm.weight", SINCE_3, HF_NORM},
        /* Gemma 1 calls the norm before its feed-forward so; later ones have norms on both sides.
         */
        {"post_attention_layernorm.weight", "ffn_norm.weight", ONLY_1, HF_NORM},
        {"post_attention_layernorm.weight", "post_attention_norm.weight", SINCE_2, HF_NORM},
        {"pre_feedforward_layernorm.weight", "ffn_norm.weight", SINCE_2, HF_NORM},
        {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", SINCE_2, HF_NORM},
        {"mlp.gate_proj.weight", "ffn_gate.weight", ALL, HF_MATRIX},
        {"mlp.up_proj.weight", "ffn_up.weight", ALL, HF_MATRIX},
        {"mlp.down_proj.weight", "ffn_down.weight", ALL, HF_MATRIX},
        {"self_attn.rotary_emb.inv_freq", "", ALL, HF_SKIPPED}, /* old files; computed here */
        /* per-layer inputs */
        {"per_layer_input_gate.weight", "inp_gate.weight", INPUTS, HF_MATRIX},
        {"per_layer_projection.weight", "proj.weight", INPUTS, HF_MATRIX},
        {"post_per_layer_input_norm.weight", "post_norm.weight", INPUTS, HF_NORM},
        {"ple_block.per_layer_input_gate.weight", "inp_gate.weight", EMBEDDER_2, HF_MATRIX},
        {"ple_block.per_layer_projection.weight", "proj.weight", EMBEDDER_2, HF_MATRIX},
        {"ple_block.post_per_layer_input_norm.weight", "post_norm.weight", EMBEDDER_2, HF_NORM},
        {"layer_scalar", "layer_output_scale.weight", SCALED, HF_FLOATS},
        /* AltUp and Laurel */
        {"altup.modality_router.weight", "altup_router.weight", ONLY_3N, HF_MATRIX},
        {"altup.router_norm.weight", "altup_router_norm.weight", ONLY_3N, HF_NORM},
        {"altup.prediction_coefs.weight", "altup_predict_coef.weight", ONLY_3N, HF_FLOATS},
        {"altup.correction_coefs.weight", "altup_correct_coef.weight", ONLY_3N, HF_FLOATS},
        {"altup.correct_output_scale", "altup_correct_scale.weight", ONLY_3N, HF_FLOATS},
        {"laurel.linear_left.weight", "laurel_l.weight", ONLY_3N, HF_MATRIX},
        {"laurel.linear_right.weight", "laurel_r.weight", ONLY_3N, HF_MATRIX},
        {"laurel.post_laurel_norm.weight", "laurel_post_norm.weight", ONLY_3N, HF_NORM},
        /* experts */
        {"router.proj.weight", "ffn_gate_inp.weight", ONLY_4, HF_FLOATS},
        {"router.scale", "ffn_gate_inp.scale", ONLY_4, HF_FLOATS},
        {"router.per_expert_scale", "ffn_down_exps.scale", ONLY_4, HF_FLOATS},
        {"experts.gate_up_proj", "ffn_gate_up_exps.weight", ONLY_4, HF_EXPERTS},
        {"experts.down_proj", "ffn_down_exps.weight", ONLY_4, HF_EXPERTS},
        {"pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight", ONLY_4, HF_NORM},
        {"post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight", ONLY_4, HF_NORM},
        {"post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight", ONLY_4, HF_NORM},
};

static bool strip(const char **name, const char *prefix)
{
    size_t n = strlen(prefix);

    if (strncmp(*name, prefix, n) != 0)
        return false;
    *name += n;
    return true;
}

/* The number before a dot, without leading zeros, small enough for any model. */
static bool strip_number(const char **name, int *out)
{
    const char *p = *name;
    int n = 0;

    while (*p >= '0' && *p <= '9' && p - *name < 4)
        n = n * 10 + (*p++ - '0');
    if (p == *name || *p != '.' || (**name == '0' && p - *name > 1))
        return false;
    *name = p + 1;
    *out = n;
    return true;
}

static const struct row *find(const struct row *rows, size_t n, const char *name, int family)
{
    for (size_t i = 0; i < n; i++)
        if ((rows[i].families & family) && strcmp(name, rows[i].hf) == 0)
            return &rows[i];
    return NULL;
}

/* altup_projections.1.weight: slice 1 of a GGUF's altup_proj.weight. */
static bool is_slice(const char *name, struct hf_name *out)
{
    const char *gguf = strip(&name, "altup_projections.")           ? "altup_proj.weight"
                       : strip(&name, "altup_unembed_projections.") ? "altup_unembd_proj.weight"
                                                                    : NULL;

    if (!gguf || !strip_number(&name, &out->slice) || strcmp(name, "weight") != 0 ||
        out->slice >= HF_SLICES)
        return false;
    out->kind = HF_STACK;
    snprintf(out->gguf, sizeof(out->gguf), "%s", gguf);
    return true;
}

struct hf_name hf_translate(const char *name, enum gemma_arch arch)
{
    struct hf_name out = {.kind = HF_UNKNOWN, .layer = -1};
    const struct row *row;
    int family = 1 << arch;

    while (strip(&name, "model.") || strip(&name, "language_model.")) {
    }
    for (size_t i = 0; i < LENGTH(skipped); i++)
        if (strncmp(name, skipped[i], strlen(skipped[i])) == 0)
            return (struct hf_name){.kind = HF_SKIPPED, .layer = -1};
    if (arch == GEMMA_3N && is_slice(name, &out))
        return out;
    row = find(globals, LENGTH(globals), name, family);
    if (row) {
        snprintf(out.gguf, sizeof(out.gguf), "%s", row->gguf);
    } else if (strip(&name, "layers.") && strip_number(&name, &out.layer)) {
        row = find(of_layer, LENGTH(of_layer), name, family);
        if (row)
            snprintf(out.gguf, sizeof(out.gguf), "blk.%d.%s", out.layer, row->gguf);
    }
    if (row)
        out.kind = row->kind == HF_NORM && !(family & PLUS_1) ? HF_FLOATS : row->kind;
    return out;
}

static const struct row *find_gguf(const struct row *rows, size_t n, const char *name, int family)
{
    for (size_t i = 0; i < n; i++)
        if ((rows[i].families & family) && strcmp(name, rows[i].gguf) == 0)
            return &rows[i];
    return NULL;
}

const char *hf_original(const char *gguf, enum gemma_arch arch, char out[96])
{
    const struct row *row = find_gguf(globals, LENGTH(globals), gguf, 1 << arch);
    const char *name = gguf;
    int layer;

    if (row)
        return row->hf;
    if (!strip(&name, "blk.") || !strip_number(&name, &layer))
        return gguf;
    row = find_gguf(of_layer, LENGTH(of_layer), name, 1 << arch);
    if (!row)
        return gguf;
    snprintf(out, 96, "layers.%d.%s", layer, row->hf);
    return out;
}
