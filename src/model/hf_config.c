/* config.json -> the keys a GGUF of the same model has.
 *
 * Published files leave out what equals the default of the family's class in transformers, so those
 * defaults are here. An explicit null switches an optional feature off. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/hf_config_private.h"
#include "model/source_show.h"

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

enum family_row {
    F_1,
    F_2,
    F_3,
    F_3N,
    F_4,
    F_4_UNIFIED,
    F_EMBEDDING,
    F_EMBEDDING_2,
    F_DRAFTER,
    F_DRAFTER_UNIFIED
};

static const struct hf_family families[] = {
    [F_1] = {"gemma", GEMMA_1, 3072, 24576, 28, 16, 16, 8192, 1e4, .period = 1},
    [F_2] = {"gemma2", GEMMA_2, 2304, 9216, 26, 8, 4, 8192, 1e4, 4096, 2, 256, 50, 30},
    [F_3] = {"gemma3", GEMMA_3, 2304, 9216, 26, 8, 4, 131072, 1e6, 4096, 6, 256},
    [F_3N] = {"gemma3n", GEMMA_3N, 2048, 16384, 35, 8, 2, 32768, 1e6, 512, 5, .final_softcap = 30,
        .per_layer_width = 256, .shared = 15},
    [F_4] = {"gemma4", GEMMA_4, 2304, 9216, 30, 8, 4, 131072, 1e6, 512, 6, .per_layer_width = 256},
    [F_4_UNIFIED] = {"gemma4", GEMMA_4, 2304, 9216, 30, 8, 4, 262144, 1e6, 1024, 6},
    [F_EMBEDDING] = {"gemma-embedding", GEMMA_EMBEDDING, 2304, 9216, 26, 8, 4, 131072, 1e6, 4096, 6,
        256},
    [F_EMBEDDING_2] = {"gemma-embedding2", GEMMA_EMBEDDING_2, 512, 2048, 24, 4, 2, 262144, 1e6, 512,
        6, .per_layer_width = 512, .width_out = 768},
    [F_DRAFTER] = {"gemma4-assistant", GEMMA_4_ASSISTANT, .width_out = 1536},
    [F_DRAFTER_UNIFIED] = {"gemma4-assistant", GEMMA_4_ASSISTANT, .width_out = 3840},
};

static const struct {
    const char *hf;
    enum family_row family;
} names[] = {
    {"gemma", F_1},
    {"gemma2", F_2},
    {"gemma3_text", F_3},
    {"gemma3", F_3},
    {"gemma3n", F_3N},
    {"gemma3n_text", F_3N},
    {"gemma4", F_4},
    {"gemma4_text", F_4},
    {"gemma4_unified", F_4_UNIFIED},
    {"gemma4_unified_text", F_4_UNIFIED},
    {"embedding_gemma2", F_EMBEDDING_2},
    {"embedding_gemma2_text", F_EMBEDDING_2},
    {"gemma4_assistant", F_DRAFTER},
    {"gemma4_unified_assistant", F_DRAFTER_UNIFIED},
    {"GemmaForCausalLM", F_1},
    {"Gemma2ForCausalLM", F_2},
    {"Gemma3ForCausalLM", F_3},
    {"Gemma3TextModel", F_3},
    {"Gemma3ForConditionalGeneration", F_3},
    {"Gemma3nForCausalLM", F_3N},
    {"Gemma3nForConditionalGeneration", F_3N},
    {"Gemma4ForCausalLM", F_4},
    {"Gemma4ForConditionalGeneration", F_4},
    {"Gemma4UnifiedForConditionalGeneration", F_4_UNIFIED},
    {"EmbeddingGemma2Model", F_EMBEDDING_2},
    {"Gemma4AssistantForCausalLM", F_DRAFTER},
};

/* ---- which Gemma */

static int refuse_type(struct hf_reader *c, const char *type)
{
    struct shown shown;

    show(&shown, type, strlen(type));
    if (strncmp(type, "gemma", 5) == 0 || strncmp(type, "Gemma", 5) == 0)
        return err_set_at(c->err, GD_ENOTSUP, "model_type",
            "This version of gemmad does not support %s.", shown.text);
    return err_set_at(c->err, GD_ENOTSUP, "model_type",
        "config.json says that the model is a \"%s\", but gemmad runs Gemma only.", shown.text);
}

/* model_type of the object, or else the first of its architectures. */
static const char *type_of(const cJSON *object)
{
    const cJSON *type = hf_json_get(object, "model_type");

    if (!type)
        type = cJSON_GetArrayItem(hf_json_get(object, "architectures"), 0);
    return cJSON_IsString(type) ? type->valuestring : NULL;
}

static const struct hf_family *find_family(const char *type)
{
    for (size_t i = 0; i < LENGTH(names); i++)
        if (strcmp(names[i].hf, type) == 0)
            return &families[names[i].family];
    return NULL;
}

/* A drafter takes what it does not say from the text model that it nests. */
static void set_drafter(
    struct hf_reader *c, const struct hf_family *f, const struct hf_family *text)
{
    c->family = *text;
    c->family.gguf_name = f->gguf_name;
    c->family.arch = f->arch;
    c->family.width_out = f->width_out;
    c->family.per_layer_width = 0;
}

static int read_family(struct hf_reader *c)
{
    const char *type = type_of(c->top), *text_type = c->text != c->top ? type_of(c->text) : NULL;
    const struct hf_family *f, *text;

    if (!type || (c->text != c->top && !text_type && hf_json_get(c->text, "model_type")))
        return hf_wrong(c, "model_type", "must be a string");
    f = find_family(type);
    /* Gemma 1 and 2 do not nest their text model; what does so (PaliGemma) is another model. */
    if (!f || (c->text != c->top && f->arch < GEMMA_3))
        return refuse_type(c, type);
    text = text_type ? find_family(text_type) : f->arch == GEMMA_4_ASSISTANT ? &families[F_4] : f;
    if (!text || text->arch != (f->arch == GEMMA_4_ASSISTANT ? GEMMA_4 : f->arch))
        return refuse_type(c, text_type ? text_type : type);
    if (f->arch == GEMMA_4_ASSISTANT)
        set_drafter(c, f, text);
    else if (text->arch == GEMMA_3 && hf_is_true(c->text, "use_bidirectional_attention"))
        c->family = families[F_EMBEDDING];
    else
        c->family = *text;
    c->out->arch = c->family.arch;
    return hf_put_text(c, "general.architecture", c->family.gguf_name);
}

/* Whether tokens see what follows them. "vision" concerns images only. */
static int refuse_bidirectional(struct hf_reader *c)
{
    static const char key[] = "use_bidirectional_attention";
    const cJSON *v = hf_json_get(c->text, key);
    bool both_ways = c->out->arch == GEMMA_EMBEDDING || c->out->arch == GEMMA_EMBEDDING_2;

    if (hf_is_null(v) || cJSON_IsFalse(v) || (both_ways && cJSON_IsTrue(v)))
        return 0;
    if (hf_is_4(c->out->arch) && cJSON_IsString(v) && strcmp(v->valuestring, "vision") == 0)
        return 0;
    return hf_unsupported(
        c, key, "makes this an embedding model of a kind that this version does not support");
}

/* What would make the model compute something that gemmad does not. */
static int refuse_variants(struct hf_reader *c)
{
    static const char *const quantised[] = {"quantization_config", "quantization"}; /* MLX's */
    static const char *const activations[] = {"hidden_activation", "hidden_act"};
    static const char *const tanh_gelu[] = {"gelu", "gelu_pytorch_tanh", "gelu_new"};

    if (hf_is_true(c->text, "attention_bias"))
        return hf_unsupported(c, "attention_bias", "must be false: no Gemma has biases");
    for (size_t i = 0; i < LENGTH(quantised); i++)
        if (cJSON_IsObject(hf_json_get(c->top, quantised[i])) ||
            cJSON_IsObject(hf_json_get(c->text, quantised[i])))
            return hf_unsupported(c, quantised[i],
                "says that the weights are quantised; gemmad reads BF16, F16 and F32 weights, or "
                "a GGUF file");
    /* Early files say "gelu" and mean the tanh form the model was trained with. */
    for (size_t i = 0; i < LENGTH(activations); i++) {
        const cJSON *v = hf_json_get(c->text, activations[i]);
        const char *name = cJSON_IsString(v) ? v->valuestring : "";
        bool known = hf_is_null(v);

        for (size_t k = 0; k < LENGTH(tanh_gelu); k++)
            known |= strcmp(name, tanh_gelu[k]) == 0;
        if (!known)
            return hf_unsupported(c, activations[i], "must be gelu_pytorch_tanh");
    }
    return refuse_bidirectional(c);
}

/* ---- sizes */

static int read_sizes(struct hf_reader *c)
{
    const struct hf_family *f = &c->family;
    double layers, eps;
    int r = hf_number(c, c->text, "num_hidden_layers", f->layers, &layers);

    if (r < 0)
        return r;
    if (layers < 1 || layers > HPARAMS_MAX_LAYERS || layers != floor(layers))
        return hf_wrong(c, "num_hidden_layers", "must be a whole number from 1 to 256");
    c->out->n_layers = (int)layers;
    r = hf_number(c, c->text, "rms_norm_eps", 1e-6, &eps);
    if (r == 0)
        r = hf_put_f32(c, "attention.layer_norm_rms_epsilon", "rms_norm_eps", eps);
    if (r == 0)
        r = hf_copy_count(c, "num_hidden_layers", f->layers, "block_count");
    if (r == 0)
        r = hf_copy_count(c, "hidden_size", f->hidden, "embedding_length");
    if (r == 0)
        r = hf_copy_count(c, "num_attention_heads", f->heads, "attention.head_count");
    if (r == 0)
        r = hf_copy_count(c, "max_position_embeddings", f->context, "context_length");
    return r;
}

/* The rows of a table: -1 when config.json does not say. */
static int read_rows(struct hf_reader *c, const char *key, int64_t *rows)
{
    uint32_t n;
    int r = 0;

    *rows = -1;
    if (hf_is_null(hf_json_get(c->text, key)))
        return 0;
    r = hf_count(c, key, 0, &n);
    if (r == 0)
        *rows = n;
    return r;
}

static int read_head(struct hf_reader *c)
{
    const cJSON *tie = hf_json_get(c->top, "tie_word_embeddings");
    int r = read_rows(c, "vocab_size", &c->out->vocab);

    if (r == 0)
        r = read_rows(c, "vocab_size_per_layer_input", &c->out->per_layer_vocab);
    if (r < 0)
        return r;
    if (hf_is_null(tie))
        tie = hf_json_get(c->text, "tie_word_embeddings");
    if (!hf_is_null(tie) && !cJSON_IsBool(tie))
        return hf_wrong(c, "tie_word_embeddings", "must be true or false");
    c->out->tied = !cJSON_IsFalse(tie);
    return 0;
}

/* ---- windows */

/* c->sliding of every layer, from the list or a period. */
static int read_layer_types(struct hf_reader *c)
{
    const cJSON *types = hf_json_get(c->text, "layer_types"), *type;
    const char *key = "sliding_window_pattern";
    double period;
    int i = 0, n = c->out->n_layers, r;

    if (hf_is_null(types)) {
        if (!hf_json_get(c->text, key))
            key = "_sliding_window_pattern";
        r = hf_number(c, c->text, key, c->family.period, &period);
        if (r < 0)
            return r;
        if (period < 1 || period > HPARAMS_MAX_LAYERS || period != floor(period))
            return hf_wrong(c, key, "must be a whole number from 1 to 256");
        for (i = 0; i < n; i++)
            c->sliding[i] = (i + 1) % (int)period != 0;
        return 0;
    }
    if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != n)
        return hf_wrong(c, "layer_types", "must be an array with one element per layer");
    cJSON_ArrayForEach(type, types)
    {
        const char *name = cJSON_IsString(type) ? type->valuestring : "";

        if (strcmp(name, "sliding_attention") != 0 && strcmp(name, "full_attention") != 0)
            return hf_wrong(
                c, "layer_types", "may hold \"sliding_attention\" and \"full_attention\" only");
        c->sliding[i++] = name[0] == 's';
    }
    return 0;
}

static int read_window(struct hf_reader *c)
{
    double window = 0;
    bool any = false;
    int n = c->out->n_layers, r = read_layer_types(c);

    if (r == 0)
        r = hf_feature(c, "sliding_window", c->family.window, &window);
    if (r < 0)
        return r;
    if (hf_is_4(c->out->arch))
        c->sliding[n - 1] = 0; /* transformers makes the last layer global, whatever it was */
    for (int i = 0; i < n; i++)
        any |= c->sliding[i];
    if (any && c->out->arch == GEMMA_1)
        return hf_unsupported(
            c, "layer_types", "names sliding layers, which Gemma 1 does not have");
    if (c->out->arch == GEMMA_1)
        return 0;
    if (window < 0 || window > UINT32_MAX || window != floor(window) || (any && window < 1))
        return hf_wrong(c, "sliding_window", "must be a whole number above 0");
    r = hf_put_bools(c, "attention.sliding_window_pattern", "layer_types", c->sliding);
    if (r < 0)
        return r;
    return hf_put_u32(c, "attention.sliding_window", "sliding_window", (uint32_t)window);
}

static int read_attention(struct hf_reader *c)
{
    const struct hf_family *f = &c->family;
    double query, attention_softcap, final_softcap;
    int r = 0;

    if (f->query_scalar > 0) {
        r = hf_number(c, c->text, "query_pre_attn_scalar", f->query_scalar, &query);
        if (r < 0)
            return r;
        if (query <= 0)
            return hf_wrong(c, "query_pre_attn_scalar", "must be above 0");
        r = hf_feature(c, "attn_logit_softcapping", f->attention_softcap, &attention_softcap);
        if (r == 0)
            r = hf_put_f32(
                c, "attention.scale", "query_pre_attn_scalar", (double)(1 / sqrtf((float)query)));
        if (r == 0 && f->arch != GEMMA_EMBEDDING)
            r = hf_put_f32(
                c, "attn_logit_softcapping", "attn_logit_softcapping", attention_softcap);
    }
    /* Embedders have no logits, and drafters do not cap theirs. */
    if (r < 0 || f->arch == GEMMA_1 || f->arch >= GEMMA_EMBEDDING)
        return r;
    r = hf_feature(c, "final_logit_softcapping", f->final_softcap, &final_softcap);
    return r < 0
               ? r
               : hf_put_f32(c, "final_logit_softcapping", "final_logit_softcapping", final_softcap);
}

/* ---- rotation */

/* Proportional rotation: only the first part of the angles turn, by the frequencies of the whole
 * head. A GGUF says so with divisors of the frequencies, as large as makes an angle vanish. */
static int put_rope_factors(struct hf_reader *c, double partial, double factor)
{
    static const char name[] = "rope_freqs.weight";
    int half = (int)c->global_dim / 2, turning = (int)(partial * half);
    struct tensor *t = source_add_tensor(c->s, name, strlen(name));
    float *divisors = source_alloc(c->s, (size_t)half * sizeof(*divisors));

    if (!t || !divisors)
        return hf_no_memory(c);
    for (int i = 0; i < half; i++)
        divisors[i] = i < turning ? (float)factor : 1e30f;
    t->n_dims = 1;
    t->ne[0] = half;
    t->data = (const uint8_t *)divisors;
    t->bytes = (size_t)half * sizeof(*divisors);
    t->in_memory = true;
    return 0; /* t->type is 0, F32 */
}

static int read_proportional(struct hf_reader *c, const char *key, const cJSON *rope)
{
    double partial = 1, factor = 1;
    int r = hf_number(c, rope, "partial_rotary_factor", 1, &partial);

    if (r == 0)
        r = hf_number(c, rope, "factor", 1, &factor);
    if (r < 0)
        return r;
    if (partial <= 0 || partial > 1)
        return hf_wrong(c, "partial_rotary_factor", "must lie above 0 and at most at 1");
    if (factor < 1)
        return hf_wrong(c, key, "must have a factor of at least 1");
    return put_rope_factors(c, partial, factor);
}

/* *factor of an object with rope_type (or, older, type); 1 where it is "default" or says nothing.
 */
static int read_scaling(
    struct hf_reader *c, const char *key, const cJSON *rope, bool global, double *factor)
{
    const cJSON *type = hf_json_get(rope, "rope_type");
    const char *name;
    double partial;
    int r = hf_number(c, rope, "partial_rotary_factor", 1, &partial);

    *factor = 1;
    if (r < 0)
        return r;
    if (!type)
        type = hf_json_get(rope, "type");
    name = cJSON_IsString(type) ? type->valuestring : hf_is_null(type) ? "default" : "";
    if (global && strcmp(name, "proportional") == 0 &&
        (c->out->arch == GEMMA_4 || c->out->arch == GEMMA_4_ASSISTANT))
        return read_proportional(c, key, rope);
    if (partial != 1)
        return hf_unsupported(c, "partial_rotary_factor", "must be 1: Gemma rotates whole heads");
    if (strcmp(name, "default") == 0)
        return 0;
    if (strcmp(name, "linear") != 0)
        return hf_unsupported(c, key, "has a type other than those that this Gemma knows");
    r = hf_number(c, rope, "factor", 0, factor);
    if (r == 0 && *factor < 1)
        return hf_wrong(c, key, "must have a factor of at least 1");
    return r;
}

/* The objects that say how global and sliding layers rotate; NULL where there is none. */
static int find_rope(
    struct hf_reader *c, const char **key, const cJSON **global, const cJSON **sliding)
{
    const cJSON *rope, *nested;

    *key = "rope_parameters";
    rope = hf_json_get(c->text, *key);
    if (hf_is_null(rope)) {
        *key = "rope_scaling";
        rope = hf_json_get(c->text, *key);
    }
    *sliding = NULL;
    *global = hf_is_null(rope) ? NULL : rope;
    if (*global && !cJSON_IsObject(*global))
        return hf_wrong(c, *key, "must be an object");
    nested = hf_json_get(rope, "full_attention");
    if (nested || hf_json_get(rope, "sliding_attention")) {
        *sliding = hf_json_get(rope, "sliding_attention");
        *global = nested;
        if (c->out->arch < GEMMA_3)
            return hf_unsupported(
                c, *key, "differs between layers, which only Gemma 3 and later allow");
        if (!cJSON_IsObject(nested) || (*sliding && !cJSON_IsObject(*sliding)))
            return hf_wrong(c, *key, "must hold objects");
    } else if (*global && hf_is_4(c->out->arch)) {
        return hf_wrong(c, *key, "must have full_attention and sliding_attention");
    }
    return 0;
}

/* Older files: rope_theta, rope_local_base_freq, rope_scaling. Newer ones: rope_parameters, for all
 * layers or for each kind of layer. Scaling concerns the global layers. */
static int read_rope(struct hf_reader *c)
{
    const cJSON *global, *sliding;
    const char *key;
    double theta = 0, local = 0, factor = 1, local_factor = 1;
    int r = find_rope(c, &key, &global, &sliding);

    if (r == 0)
        r = hf_number(c, c->text, "rope_theta", c->family.rope_theta, &theta);
    if (r == 0)
        r = hf_number(c, global, "rope_theta", theta, &theta);
    if (r == 0)
        r = hf_number(c, c->text, "rope_local_base_freq", 1e4, &local);
    if (r == 0)
        r = hf_number(c, sliding, "rope_theta", local, &local);
    if (r == 0 && !global && (c->out->arch == GEMMA_4 || c->out->arch == GEMMA_4_ASSISTANT))
        r = put_rope_factors(c, 0.25, 1); /* the class's default */
    else if (r == 0)
        r = read_scaling(c, key, global, true, &factor);
    if (r == 0)
        r = read_scaling(c, key, sliding, false, &local_factor);
    if (r < 0)
        return r;
    if (local_factor != 1)
        return hf_unsupported(c, key, "scales the sliding layers, which no Gemma does");
    r = hf_put_f32(c, "rope.freq_base", "rope_theta", theta);
    if (r == 0 && c->out->arch >= GEMMA_3)
        r = hf_put_f32(c, "rope.freq_base_swa", "rope_local_base_freq", local);
    if (r == 0 && factor != 1)
        return hf_put_f32(c, "rope.scaling.factor", key, factor);
    if (r == 0) {
        char name[96];

        snprintf(name, sizeof(name), "%s.rope.scaling.type", c->family.gguf_name);
        r = hf_put_text(c, name, "none"); /* said, not forgotten */
    }
    return r;
}

int hf_config_read(
    struct source *s, struct hf_config *out, const void *text, size_t len, struct err *err)
{
    static int (*const steps[])(struct hf_reader *) = {read_family, refuse_variants, read_sizes,
        read_head, read_window, hf_config_layers, read_attention, read_rope, hf_config_later};
    struct hf_reader c = {.s = s, .out = out, .err = err};
    cJSON *json = NULL;
    int r = hf_json_parse(&json, text, len, "config.json", err);

    if (r < 0)
        return r;
    c.top = json;
    c.text = hf_json_get(json, "text_config");
    if (hf_is_null(c.text))
        c.text = json;
    else if (!cJSON_IsObject(c.text))
        r = hf_wrong(&c, "text_config", "must be an object");
    for (size_t i = 0; i < LENGTH(steps) && r == 0; i++)
        r = steps[i](&c);
    cJSON_Delete(json);
    return r;
}
