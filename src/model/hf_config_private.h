/* hf_config_private.h - reading config.json value by value; shared by the files that do. */
#ifndef MODEL_HF_CONFIG_PRIVATE_H
#define MODEL_HF_CONFIG_PRIVATE_H

#include "model/hf.h"
#include "model/hf_json.h"

/* The defaults of a class in transformers: what its config.json may leave out. */
struct hf_family {
    const char *gguf_name;
    enum gemma_arch arch;
    double hidden, intermediate, layers, heads, kv_heads, context, rope_theta;
    double window;       /* 0: the family has none */
    int period;          /* every period-th layer is global */
    double query_scalar; /* 0: attention scales by the head dimension, or not at all */
    double attention_softcap, final_softcap;
    double per_layer_width, shared; /* per-layer inputs; layers that share K and V */
    double width_out;               /* backbone of a drafter, embedding_dim of an embedder */
};

/* Gemma 4 and what is built from its layers. */
static inline bool hf_is_4(enum gemma_arch arch)
{
    return arch == GEMMA_4 || arch == GEMMA_4_ASSISTANT || arch == GEMMA_EMBEDDING_2;
}

struct hf_reader {
    const cJSON *top, *text; /* text: where the language model's values are */
    struct hf_family family;
    struct source *s;
    struct hf_config *out;
    uint8_t sliding[HPARAMS_MAX_LAYERS];
    uint32_t global_dim; /* head dimension of global layers */
    struct err *err;
};

int hf_wrong(struct hf_reader *c, const char *key, const char *what);       /* GD_EFORMAT */
int hf_unsupported(struct hf_reader *c, const char *key, const char *what); /* GD_ENOTSUP */
int hf_no_memory(struct hf_reader *c);

/* Keys of the source, suffixes of the architecture's name; origin: what config.json calls them. */
int hf_put_u32(struct hf_reader *c, const char *suffix, const char *origin, uint32_t n);
int hf_put_f32(struct hf_reader *c, const char *suffix, const char *origin, double f);
int hf_put_bool(struct hf_reader *c, const char *suffix, const char *origin, bool b);
/* text is a constant; key is whole. */
int hf_put_text(struct hf_reader *c, const char *key, const char *text);
/* One value per layer. */
int hf_put_bools(struct hf_reader *c, const char *suffix, const char *origin, const uint8_t *b);
int hf_put_floats(struct hf_reader *c, const char *suffix, const char *origin, const float *f);
/* A number where all layers have the same. */
int hf_put_counts(struct hf_reader *c, const char *suffix, const char *origin, const uint32_t *n);

/* Values of config.json. */
bool hf_is_null(const cJSON *v); /* or absent */
bool hf_is_true(const cJSON *from, const char *key);
/* A finite number; absent and null give the fallback. */
int hf_number(
    struct hf_reader *c, const cJSON *from, const char *key, double fallback, double *out);
/* The same of the text model, where null means "off": 0. */
int hf_feature(struct hf_reader *c, const char *key, double fallback, double *out);
/* A whole number of the text model. */
int hf_count(struct hf_reader *c, const char *key, double fallback, uint32_t *out);
int hf_copy_count(struct hf_reader *c, const char *key, double fallback, const char *suffix);

/* Steps of hf_config_read() for what differs between layers and what came after Gemma 3. */
int hf_config_layers(struct hf_reader *c); /* heads, their dimensions, feed-forward widths */
int hf_config_later(struct hf_reader *c);

#endif
