/* config.json -> the keys a GGUF of the same model has.
 *
 * Published files leave out what equals the default of the family's class in transformers, so those
 * defaults are here. An explicit null switches an optional feature off. */
#include "model/hf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/gguf.h"
#include "model/hf_json.h"
#include "model/source_show.h"

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

static const struct family {
    const char *gguf_name;
    enum gemma_arch arch;
    double hidden, intermediate, layers, heads, kv_heads, context, rope_theta;
    double window; /* 0: the family has none */
    int period;
    double query_scalar; /* 0: attention scales by the head dimension */
    double attention_softcap, final_softcap;
} families[] = {
    {"gemma", GEMMA_1, 3072, 24576, 28, 16, 16, 8192, 1e4, 0, 1, 0, 0, 0},
    {"gemma2", GEMMA_2, 2304, 9216, 26, 8, 4, 8192, 1e4, 4096, 2, 256, 50, 30},
    {"gemma3", GEMMA_3, 2304, 9216, 26, 8, 4, 131072, 1e6, 4096, 6, 256, 0, 0},
};

static const struct {
    const char *hf;
    enum gemma_arch arch;
} names[] = {
    {"gemma", GEMMA_1},
    {"gemma2", GEMMA_2},
    {"gemma3_text", GEMMA_3},
    {"gemma3", GEMMA_3},
    {"GemmaForCausalLM", GEMMA_1},
    {"Gemma2ForCausalLM", GEMMA_2},
    {"Gemma3ForCausalLM", GEMMA_3},
    {"Gemma3ForConditionalGeneration", GEMMA_3},
};

struct config {
    const cJSON *top, *text; /* text: where the language model's values are */
    const struct family *family;
    struct source *s;
    struct hf_config *out;
    struct err *err;
};

static int wrong(struct config *c, const char *key, const char *what)
{
    return err_set_at(c->err, GD_EFORMAT, key, "config.json: %s %s.", key, what);
}

static int unsupported(struct config *c, const char *key, const char *what)
{
    return err_set_at(c->err, GD_ENOTSUP, key, "config.json: %s %s.", key, what);
}

/* ---- keys of the source; origin: what config.json calls them */

static void *new_value(
    struct config *c, const char *suffix, const char *origin, enum gguf_type type, size_t bytes)
{
    char key[96];
    struct value *v;
    uint8_t *data = source_alloc(c->s, bytes);

    snprintf(key, sizeof(key), "%s.%s", c->family->gguf_name, suffix);
    v = data ? values_add(&c->s->values, key, strlen(key)) : NULL;
    if (!v)
        return NULL;
    v->type = type;
    v->n = 1;
    v->data = data;
    v->origin = origin;
    return data;
}

static int no_memory(struct config *c)
{
    return err_set(c->err, GD_ENOMEM, "There is no memory for config.json.");
}

static int put_u32(struct config *c, const char *suffix, const char *origin, uint32_t n)
{
    uint32_t *p = new_value(c, suffix, origin, GGUF_U32, sizeof(*p));

    if (!p)
        return no_memory(c);
    *p = n;
    return 0;
}

static int put_f32(struct config *c, const char *suffix, const char *origin, double f)
{
    float *p = new_value(c, suffix, origin, GGUF_F32, sizeof(*p));

    if (!p)
        return no_memory(c);
    *p = (float)f;
    return 0;
}

/* text is a constant and needs no copy. */
static int put_text(struct config *c, const char *key, const char *text)
{
    struct value *v = values_add(&c->s->values, key, strlen(key));

    if (!v)
        return no_memory(c);
    v->type = GGUF_STRING;
    v->n = strlen(text);
    v->data = (const uint8_t *)text;
    return 0;
}

/* ---- values of config.json */

/* A finite number; absent and null give the fallback. */
static int number(
    struct config *c, const cJSON *from, const char *key, double fallback, double *out)
{
    const cJSON *v = hf_json_get(from, key);

    *out = fallback;
    if (!v || cJSON_IsNull(v))
        return 0;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble) || fabs(v->valuedouble) > 1e30)
        return wrong(c, key, "must be a number");
    *out = v->valuedouble;
    return 0;
}

/* The same where null means "off": 0. */
static int feature(struct config *c, const char *key, double fallback, double *out)
{
    return number(c, c->text, key, cJSON_IsNull(hf_json_get(c->text, key)) ? 0 : fallback, out);
}

static bool is_count(double d)
{
    return d >= 0 && d <= UINT32_MAX && d == floor(d);
}

static int copy_count(struct config *c, const char *key, double fallback, const char *suffix)
{
    double d;
    int r = number(c, c->text, key, fallback, &d);

    if (r < 0)
        return r;
    return is_count(d) ? put_u32(c, suffix, key, (uint32_t)d)
                       : wrong(c, key, "must be a whole number");
}

static bool is_true(const cJSON *from, const char *key)
{
    return cJSON_IsTrue(hf_json_get(from, key));
}

/* ---- the parts of config.json */

static int refuse_type(struct config *c, const char *type)
{
    struct shown shown;

    show(&shown, type, strlen(type));
    if (strncmp(type, "gemma", 5) == 0 || strncmp(type, "Gemma", 5) == 0)
        return err_set_at(c->err, GD_ENOTSUP, "model_type",
            "This version of gemmad does not support %s yet; it runs Gemma 1, 2 and 3.",
            shown.text);
    return err_set_at(c->err, GD_ENOTSUP, "model_type",
        "config.json says that the model is a \"%s\", but gemmad runs Gemma 1, 2 and 3 only.",
        shown.text);
}

/* model_type of the object, or else the first of its architectures. */
static const char *type_of(const cJSON *object)
{
    const cJSON *type = hf_json_get(object, "model_type");

    if (!type)
        type = cJSON_GetArrayItem(hf_json_get(object, "architectures"), 0);
    return cJSON_IsString(type) ? type->valuestring : NULL;
}

static const struct family *find_family(const char *type)
{
    for (size_t i = 0; i < LENGTH(names); i++)
        if (strcmp(names[i].hf, type) == 0)
            return &families[names[i].arch];
    return NULL;
}

static int read_family(struct config *c)
{
    const char *type = type_of(c->top), *text_type = c->text != c->top ? type_of(c->text) : NULL;
    const struct family *f;

    if (!type)
        return wrong(c, "model_type", "must be a string");
    f = find_family(type);
    /* Only Gemma 3 nests its text model; others that do (PaliGemma) compute something else. */
    if (!f || (c->text != c->top && f->arch != GEMMA_3))
        return refuse_type(c, type);
    if (text_type)
        f = find_family(text_type);
    if (!f)
        return refuse_type(c, text_type);
    c->family = f;
    c->out->arch = f->arch;
    return put_text(c, "general.architecture", f->gguf_name);
}

/* What would make the model compute something that gemmad does not. */
static int refuse_variants(struct config *c)
{
    static const char *const quantised[] = {"quantization_config", "quantization"}; /* MLX's */
    static const char *const activations[] = {"hidden_activation", "hidden_act"};
    static const char *const tanh_gelu[] = {"gelu", "gelu_pytorch_tanh", "gelu_new"};
    const cJSON *bidirectional = hf_json_get(c->text, "use_bidirectional_attention");

    if (cJSON_IsTrue(bidirectional) || cJSON_IsString(bidirectional))
        return unsupported(c, "use_bidirectional_attention",
            "makes this an embedding model, which this version does not support");
    if (is_true(c->text, "attention_bias"))
        return unsupported(c, "attention_bias", "must be false: no Gemma has biases");
    for (size_t i = 0; i < LENGTH(quantised); i++)
        if (cJSON_IsObject(hf_json_get(c->top, quantised[i])) ||
            cJSON_IsObject(hf_json_get(c->text, quantised[i])))
            return unsupported(c, quantised[i],
                "says that the weights are quantised; gemmad reads BF16, F16 and F32 weights, or "
                "a GGUF file");
    /* Early files say "gelu" and mean the tanh form the model was trained with. */
    for (size_t i = 0; i < LENGTH(activations); i++) {
        const cJSON *v = hf_json_get(c->text, activations[i]);
        const char *name = cJSON_IsString(v) ? v->valuestring : "";
        bool known = !v || cJSON_IsNull(v);

        for (size_t k = 0; k < LENGTH(tanh_gelu); k++)
            known |= strcmp(name, tanh_gelu[k]) == 0;
        if (!known)
            return unsupported(c, activations[i], "must be gelu_pytorch_tanh");
    }
    return 0;
}

static int read_sizes(struct config *c)
{
    const struct family *f = c->family;
    double layers, eps;
    int r = number(c, c->text, "num_hidden_layers", f->layers, &layers);

    if (r < 0)
        return r;
    if (!is_count(layers) || layers < 1 || layers > HPARAMS_MAX_LAYERS)
        return wrong(c, "num_hidden_layers", "must be a whole number from 1 to 256");
    c->out->n_layers = (int)layers;
    r = number(c, c->text, "rms_norm_eps", 1e-6, &eps);
    if (r == 0)
        r = put_f32(c, "attention.layer_norm_rms_epsilon", "rms_norm_eps", eps);
    if (r == 0)
        r = copy_count(c, "num_hidden_layers", f->layers, "block_count");
    if (r == 0)
        r = copy_count(c, "hidden_size", f->hidden, "embedding_length");
    if (r == 0)
        r = copy_count(c, "intermediate_size", f->intermediate, "feed_forward_length");
    if (r == 0)
        r = copy_count(c, "num_attention_heads", f->heads, "attention.head_count");
    if (r == 0)
        r = copy_count(c, "num_key_value_heads", f->kv_heads, "attention.head_count_kv");
    if (r == 0)
        r = copy_count(c, "head_dim", 256, "attention.key_length");
    if (r == 0)
        r = copy_count(c, "max_position_embeddings", f->context, "context_length");
    return r;
}

static int read_head(struct config *c)
{
    const cJSON *tie = hf_json_get(c->top, "tie_word_embeddings");
    double vocab;
    int r = number(c, c->text, "vocab_size", -1, &vocab);

    if (r < 0)
        return r;
    if (vocab != -1 && !is_count(vocab))
        return wrong(c, "vocab_size", "must be a whole number");
    c->out->vocab = (int64_t)vocab;
    if (!tie || cJSON_IsNull(tie))
        tie = hf_json_get(c->text, "tie_word_embeddings");
    if (tie && !cJSON_IsNull(tie) && !cJSON_IsBool(tie))
        return wrong(c, "tie_word_embeddings", "must be true or false");
    c->out->tied = !cJSON_IsFalse(tie);
    return 0;
}

/* sliding[i] of every layer, from the list or a period. */
static int read_layer_types(struct config *c, uint8_t *sliding)
{
    const cJSON *types = hf_json_get(c->text, "layer_types"), *type;
    const char *key = "sliding_window_pattern";
    double period;
    int i = 0, n = c->out->n_layers, r;

    if (!types || cJSON_IsNull(types)) {
        if (!hf_json_get(c->text, key))
            key = "_sliding_window_pattern";
        r = number(c, c->text, key, c->family->period, &period);
        if (r < 0)
            return r;
        if (!is_count(period) || period < 1 || period > HPARAMS_MAX_LAYERS)
            return wrong(c, key, "must be a whole number from 1 to 256");
        for (i = 0; i < n; i++)
            sliding[i] = (i + 1) % (int)period != 0;
        return 0;
    }
    if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != n)
        return wrong(c, "layer_types", "must be an array with one element per layer");
    cJSON_ArrayForEach(type, types)
    {
        const char *name = cJSON_IsString(type) ? type->valuestring : "";

        if (strcmp(name, "sliding_attention") != 0 && strcmp(name, "full_attention") != 0)
            return wrong(
                c, "layer_types", "may hold \"sliding_attention\" and \"full_attention\" only");
        sliding[i++] = name[0] == 's';
    }
    return 0;
}

static int read_window(struct config *c)
{
    uint8_t sliding[HPARAMS_MAX_LAYERS] = {0}, *pattern;
    struct value *v;
    double window = 0;
    bool any = false;
    int n = c->out->n_layers, r = read_layer_types(c, sliding);

    if (r == 0)
        r = feature(c, "sliding_window", c->family->window, &window);
    if (r < 0)
        return r;
    for (int i = 0; i < n; i++)
        any |= sliding[i];
    if (any && c->family->arch == GEMMA_1)
        return unsupported(c, "layer_types", "names sliding layers, which Gemma 1 does not have");
    if (c->family->arch == GEMMA_1)
        return 0;
    if (!is_count(window) || (any && window < 1))
        return wrong(c, "sliding_window", "must be a whole number above 0");
    pattern =
        new_value(c, "attention.sliding_window_pattern", "layer_types", GGUF_ARRAY, (size_t)n);
    if (!pattern)
        return no_memory(c);
    memcpy(pattern, sliding, (size_t)n);
    v = &c->s->values.at[c->s->values.names.n - 1];
    v->elem_type = GGUF_BOOL;
    v->n = (uint64_t)n;
    return put_u32(c, "attention.sliding_window", "sliding_window", (uint32_t)window);
}

static int read_attention(struct config *c)
{
    const struct family *f = c->family;
    double query, attention_softcap, final_softcap;
    int r = number(c, c->text, "query_pre_attn_scalar", f->query_scalar, &query);

    if (r < 0 || f->arch == GEMMA_1)
        return r;
    if (query <= 0)
        return wrong(c, "query_pre_attn_scalar", "must be above 0");
    r = feature(c, "attn_logit_softcapping", f->attention_softcap, &attention_softcap);
    if (r == 0)
        r = feature(c, "final_logit_softcapping", f->final_softcap, &final_softcap);
    if (r == 0)
        r = put_f32(c, "attention.scale", "query_pre_attn_scalar", 1 / sqrt(query));
    if (r == 0)
        r = put_f32(c, "attn_logit_softcapping", "attn_logit_softcapping", attention_softcap);
    if (r == 0)
        r = put_f32(c, "final_logit_softcapping", "final_logit_softcapping", final_softcap);
    return r;
}

/* *factor of an object with rope_type (or, older, type); 1 where it is "default" or says nothing.
 */
static int read_scaling(struct config *c, const char *key, const cJSON *rope, double *factor)
{
    const cJSON *type = hf_json_get(rope, "rope_type");
    double partial;
    int r = number(c, rope, "partial_rotary_factor", 1, &partial);

    *factor = 1;
    if (r < 0)
        return r;
    if (partial != 1)
        return unsupported(c, "partial_rotary_factor", "must be 1: Gemma rotates whole heads");
    if (!type)
        type = hf_json_get(rope, "type");
    if (!type || cJSON_IsNull(type))
        return 0;
    if (cJSON_IsString(type) && strcmp(type->valuestring, "default") == 0)
        return 0;
    if (!cJSON_IsString(type) || strcmp(type->valuestring, "linear") != 0)
        return unsupported(c, key, "has a type other than \"default\" and \"linear\"");
    r = number(c, rope, "factor", 0, factor);
    if (r == 0 && *factor < 1)
        return wrong(c, key, "must have a factor of at least 1");
    return r;
}

/* Older files: rope_theta, rope_local_base_freq, rope_scaling. Newer ones: rope_parameters, for all
 * layers or for each kind of layer. Scaling concerns the global layers. */
static int read_rope(struct config *c)
{
    const char *key = "rope_parameters";
    const cJSON *full = hf_json_get(c->text, key), *sliding = NULL, *nested;
    double theta, local, factor = 1, local_factor = 1;
    int r;

    if (!full || cJSON_IsNull(full)) {
        key = "rope_scaling";
        full = hf_json_get(c->text, key);
    }
    if (full && !cJSON_IsNull(full) && !cJSON_IsObject(full))
        return wrong(c, key, "must be an object");
    nested = hf_json_get(full, "full_attention");
    if (nested || hf_json_get(full, "sliding_attention")) {
        sliding = hf_json_get(full, "sliding_attention");
        full = nested;
        if (c->family->arch != GEMMA_3)
            return unsupported(c, key, "differs between layers, which only Gemma 3 allows");
        if (!cJSON_IsObject(full) || (sliding && !cJSON_IsObject(sliding)))
            return wrong(c, key, "must hold objects");
    }
    r = number(c, c->text, "rope_theta", c->family->rope_theta, &theta);
    if (r == 0)
        r = number(c, full, "rope_theta", theta, &theta);
    if (r == 0)
        r = number(c, c->text, "rope_local_base_freq", 1e4, &local);
    if (r == 0)
        r = number(c, sliding, "rope_theta", local, &local);
    if (r == 0)
        r = read_scaling(c, key, full, &factor);
    if (r == 0)
        r = read_scaling(c, key, sliding, &local_factor);
    if (r < 0)
        return r;
    if (local_factor != 1)
        return unsupported(c, key, "scales the sliding layers, which no Gemma does");
    r = put_f32(c, "rope.freq_base", "rope_theta", theta);
    if (r == 0 && c->family->arch == GEMMA_3)
        r = put_f32(c, "rope.freq_base_swa", "rope_local_base_freq", local);
    if (r == 0 && factor != 1)
        return put_f32(c, "rope.scaling.factor", key, factor);
    if (r == 0) {
        char name[96];

        snprintf(name, sizeof(name), "%s.rope.scaling.type", c->family->gguf_name);
        r = put_text(c, name, "none"); /* said, not forgotten */
    }
    return r;
}

int hf_config_read(
    struct source *s, struct hf_config *out, const void *text, size_t len, struct err *err)
{
    static int (*const steps[])(struct config *) = {read_family, refuse_variants, read_sizes,
        read_head, read_window, read_attention, read_rope};
    struct config c = {.s = s, .out = out, .err = err};
    cJSON *json = NULL;
    int r = hf_json_parse(&json, text, len, "config.json", err);

    if (r < 0)
        return r;
    c.top = json;
    c.text = hf_json_get(json, "text_config");
    if (!c.text || cJSON_IsNull(c.text))
        c.text = json;
    else if (!cJSON_IsObject(c.text))
        r = wrong(&c, "text_config", "must be an object");
    for (size_t i = 0; i < LENGTH(steps) && r == 0; i++)
        r = steps[i](&c);
    cJSON_Delete(json);
    return r;
}
