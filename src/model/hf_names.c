/* Hugging Face's tensor names -> GGUF's. */
#include "model/hf.h"

#include <stdio.h>
#include <string.h>

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

/* Parts of multimodal folders that text does not need. */
static const char *const skipped[] = {"vision_tower.", "vision_model.", "audio_tower.",
    "multi_modal_projector.", "embed_vision.", "embed_audio.", "vision_embedder."};

/* families: bit 1 << enum gemma_arch for each that has the tensor. */
enum { ALL = 7, ONLY_1 = 1, SINCE_2 = 6, SINCE_3 = 4 };

static const struct {
    const char *hf, *gguf;
    int families;
    enum hf_kind kind;
} globals[] =
    {
        {"embed_tokens.weight", "token_embd.weight", ALL, HF_MATRIX},
        {"norm.weight", "output_norm.weight", ALL, HF_NORM},
        {"lm_head.weight", "output.weight", ALL, HF_HEAD},
},
  of_layer[] = {
      {"input_layernorm.weight", "attn_norm.weight", ALL, HF_NORM},
      {"self_attn.q_proj.weight", "attn_q.weight", ALL, HF_MATRIX},
      {"self_attn.k_proj.weight", "attn_k.weight", ALL, HF_MATRIX},
      {"self_attn.v_proj.weight", "attn_v.weight", ALL, HF_MATRIX},
      {"self_attn.o_proj.weight", "attn_output.weight", ALL, HF_MATRIX},
      {"self_attn.q_norm.weight", "attn_q_norm.weight", SINCE_3, HF_NORM},
      {"self_attn.k_norm.weight", "attn_k_norm.weight", SINCE_3, HF_NORM},
      /* Gemma 1 calls the norm before its feed-forward so; later ones have norms on both sides. */
      {"post_attention_layernorm.weight", "ffn_norm.weight", ONLY_1, HF_NORM},
      {"post_attention_layernorm.weight", "post_attention_norm.weight", SINCE_2, HF_NORM},
      {"pre_feedforward_layernorm.weight", "ffn_norm.weight", SINCE_2, HF_NORM},
      {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", SINCE_2, HF_NORM},
      {"mlp.gate_proj.weight", "ffn_gate.weight", ALL, HF_MATRIX},
      {"mlp.up_proj.weight", "ffn_up.weight", ALL, HF_MATRIX},
      {"mlp.down_proj.weight", "ffn_down.weight", ALL, HF_MATRIX},
      {"self_attn.rotary_emb.inv_freq", "", ALL, HF_SKIPPED}, /* old files; computed here */
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

enum hf_kind hf_translate(const char *name, enum gemma_arch arch, char gguf[64], int *layer)
{
    *layer = -1;
    while (strip(&name, "model.") || strip(&name, "language_model.")) {
    }
    for (size_t i = 0; i < LENGTH(skipped); i++)
        if (strncmp(name, skipped[i], strlen(skipped[i])) == 0)
            return HF_SKIPPED;
    for (size_t i = 0; i < LENGTH(globals); i++)
        if (strcmp(name, globals[i].hf) == 0) {
            snprintf(gguf, 64, "%s", globals[i].gguf);
            return globals[i].kind;
        }
    if (!strip(&name, "layers.") || !strip_number(&name, layer))
        return HF_UNKNOWN;
    for (size_t i = 0; i < LENGTH(of_layer); i++)
        if ((of_layer[i].families & (1 << arch)) && strcmp(name, of_layer[i].hf) == 0) {
            snprintf(gguf, 64, "blk.%d.%s", *layer, of_layer[i].gguf);
            return of_layer[i].kind;
        }
    return HF_UNKNOWN;
}
