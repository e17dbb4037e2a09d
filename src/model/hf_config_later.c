/* What differs between layers, and what came after Gemma 3: shared K and V, per-layer inputs,
 * AltUp, activation sparsity, experts, embedders and drafters. */
#include <math.h>
#include <string.h>

#include "model/hf_config_private.h"

enum { MAX_DIM = 65536 };

struct sizes {
    uint32_t kv_heads[HPARAMS_MAX_LAYERS], dim[HPARAMS_MAX_LAYERS], ffn[HPARAMS_MAX_LAYERS];
};

static void fill(uint32_t *out, int n, uint32_t value)
{
    for (int i = 0; i < n; i++)
        out[i] = value;
}

/* ---- sizes of each layer */

/* One width, or a list of one per layer. */
static int read_widths(struct hf_reader *c, uint32_t *ffn)
{
    static const char key[] = "intermediate_size";
    const cJSON *v = hf_json_get(c->text, key), *item;
    int i = 0, r;

    if (!cJSON_IsArray(v)) {
        r = hf_count(c, key, c->family.intermediate, &ffn[0]);
        fill(ffn, c->out->n_layers, ffn[0]);
        return r;
    }
    if (cJSON_GetArraySize(v) != c->out->n_layers)
        return hf_wrong(c, key, "must have one number per layer");
    cJSON_ArrayForEach(item, v)
    {
        double d = cJSON_IsNumber(item) ? item->valuedouble : -1;

        if (!(d >= 0 && d <= UINT32_MAX) || d != floor(d))
            return hf_wrong(c, key, "must hold whole numbers");
        ffn[i++] = (uint32_t)d;
    }
    return 0;
}

/* Gemma 4: global layers have heads of their own, layers that share K and V may be twice as wide.
 */
static int read_global_layers(struct hf_reader *c, struct sizes *s)
{
    const cJSON *global_heads = hf_json_get(c->text, "num_global_key_value_heads");
    bool listed = cJSON_IsObject(hf_json_get(c->text, "per_layer_config"));
    bool replace = !hf_is_null(global_heads) && hf_is_true(c->text, "attention_k_eq_v");
    uint32_t dim, heads = 0, shared = 0;
    int n = c->out->n_layers;
    /* Where each layer says what is its own, the class's default for global layers is gone. */
    bool same = listed || c->out->arch == GEMMA_EMBEDDING_2 ||
                cJSON_IsNull(hf_json_get(c->text, "global_head_dim"));
    int r = hf_count(c, "global_head_dim", same ? s->dim[0] : 512, &dim);

    if (r == 0 && replace)
        r = hf_count(c, "num_global_key_value_heads", 0, &heads);
    if (r == 0)
        r = hf_count(c, "num_kv_shared_layers", c->family.shared, &shared);
    for (int i = 0; r == 0 && i < n; i++) {
        if (!c->sliding[i])
            s->dim[i] = dim;
        if (!c->sliding[i] && replace)
            s->kv_heads[i] = heads;
        if (hf_is_true(c->text, "use_double_wide_mlp") && (uint32_t)(n - i) <= shared)
            s->ffn[i] = s->ffn[i] < UINT32_MAX / 2 ? 2 * s->ffn[i] : UINT32_MAX;
    }
    return r;
}

/* per_layer_config: {"5": {"head_dim": 512}}, what differs from the common value. */
static int read_exceptions(struct hf_reader *c, struct sizes *s)
{
    static const char key[] = "per_layer_config";
    const cJSON *layers = hf_json_get(c->text, key), *layer, *item;

    if (hf_is_null(layers))
        return 0;
    if (!cJSON_IsObject(layers))
        return hf_wrong(c, key, "must be an object");
    cJSON_ArrayForEach(layer, layers)
    {
        size_t digits = strspn(layer->string, "0123456789");
        int i = 0;

        for (size_t k = 0; k < digits && k < 4; k++)
            i = i * 10 + (layer->string[k] - '0');
        if (digits == 0 || digits > 3 || layer->string[digits] || i >= c->out->n_layers ||
            !cJSON_IsObject(layer))
            return hf_wrong(c, key, "must have an object for each layer that it names");
        cJSON_ArrayForEach(item, layer)
        {
            double d = cJSON_IsNumber(item) ? item->valuedouble : -1;
            uint32_t *to = strcmp(item->string, "head_dim") == 0              ? &s->dim[i]
                           : strcmp(item->string, "num_key_value_heads") == 0 ? &s->kv_heads[i]
                           : strcmp(item->string, "intermediate_size") == 0   ? &s->ffn[i]
                                                                              : NULL;

            if (!to)
                return hf_unsupported(c, key,
                    "changes something other than head_dim, num_key_value_heads and "
                    "intermediate_size");
            if (!(d >= 0 && d <= UINT32_MAX) || d != floor(d))
                return hf_wrong(c, key, "must hold whole numbers");
            *to = (uint32_t)d;
        }
    }
    return 0;
}

/* One head dimension for all layers, or one for the global and one for the sliding ones. */
static int put_dims(struct hf_reader *c, const uint32_t *dim)
{
    uint32_t of[2] = {0, 0}; /* global, sliding */
    int r;

    for (int i = 0; i < c->out->n_layers; i++) {
        uint32_t *mine = &of[hf_is_4(c->out->arch) && c->sliding[i]];

        if (*mine && *mine != dim[i])
            return hf_unsupported(c, "head_dim", "differs between layers of the same kind");
        *mine = dim[i];
    }
    if (of[0] > MAX_DIM)
        return hf_wrong(c, "head_dim", "is too large");
    c->global_dim = of[0];
    r = hf_put_u32(c, "attention.key_length", "head_dim", of[0]);
    return r < 0 || !hf_is_4(c->out->arch)
               ? r
               : hf_put_u32(c, "attention.key_length_swa", "head_dim", of[1] ? of[1] : of[0]);
}

int hf_config_layers(struct hf_reader *c)
{
    struct sizes s;
    int n = c->out->n_layers;
    int r = hf_count(c, "num_key_value_heads", c->family.kv_heads, &s.kv_heads[0]);

    if (r == 0)
        r = hf_count(c, "head_dim", 256, &s.dim[0]);
    if (r < 0)
        return r;
    fill(s.kv_heads, n, s.kv_heads[0]);
    fill(s.dim, n, s.dim[0]);
    r = read_widths(c, s.ffn);
    if (r == 0 && hf_is_4(c->out->arch))
        r = read_global_layers(c, &s);
    if (r == 0 && hf_is_4(c->out->arch))
        r = read_exceptions(c, &s);
    if (r == 0)
        r = hf_put_counts(c, "feed_forward_length", "intermediate_size", s.ffn);
    if (r == 0)
        r = hf_put_counts(c, "attention.head_count_kv", "num_key_value_heads", s.kv_heads);
    return r < 0 ? r : put_dims(c, s.dim);
}

/* ---- Gemma 3n */

/* The x with erf(x) = p, 0 <= p < 1, by bisection. */
static double inverse_erf(double p)
{
    double low = 0, high = 6; /* erf(6) is 1 in double */

    for (int i = 0; i < 80; i++) {
        double middle = (low + high) / 2;

        *(erf(middle) < p ? &low : &high) = middle;
    }
    return low;
}

/* How many deviations above its mean a gate value must lie so that `share` of them fall below:
 * sqrt(2) erfinv(2 share - 1), rounded where transformers rounds. -inf for layers that cut none. */
static float cut(double share)
{
    const float p = 2 * (float)share - 1;

    return share > 0 ? (float)inverse_erf((double)p) * (float)M_SQRT2 : -INFINITY;
}

static int read_sparsity(struct hf_reader *c)
{
    static const char key[] = "activation_sparsity_pattern";
    const cJSON *list = hf_json_get(c->text, key), *item;
    float cuts[HPARAMS_MAX_LAYERS];
    int n = c->out->n_layers, i = 0;

    if (hf_is_null(list)) {
        for (i = 0; i < n; i++)
            cuts[i] = cut(i < 10 && n > 10 ? 0.95 : 0);
    } else if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n) {
        return hf_wrong(c, key, "must be an array with one element per layer");
    }
    cJSON_ArrayForEach(item, list)
    {
        double share = cJSON_IsNumber(item) ? item->valuedouble : -1;

        if (!(share >= 0 && share < 1))
            return hf_wrong(c, key, "must hold numbers from 0 to below 1");
        if (share > 0 && share <= 0.5)
            return hf_unsupported(c, key, "must hold 0 or more than 0.5");
        cuts[i++] = cut(share);
    }
    return hf_put_floats(c, "activation_sparsity_scale", key, cuts);
}

static int read_3n(struct hf_reader *c)
{
    const cJSON *scale = hf_json_get(c->text, "altup_correct_scale");
    int r;

    if (!hf_is_null(scale) && !cJSON_IsTrue(scale))
        return hf_unsupported(c, "altup_correct_scale", "must be true");
    r = hf_copy_count(c, "altup_num_inputs", 4, "altup.num_inputs");
    if (r == 0)
        r = hf_copy_count(c, "altup_active_idx", 0, "altup.active_idx");
    return r < 0 ? r : read_sparsity(c);
}

/* ---- Gemma 4 */

static int read_experts(struct hf_reader *c)
{
    static const char *const keys[][2] = {{"num_experts", "expert_count"},
        {"top_k_experts", "expert_used_count"},
        {"moe_intermediate_size", "expert_feed_forward_length"}};
    int r = 0;

    if (!hf_is_true(c->text, "enable_moe_block"))
        return 0;
    for (int i = 0; r == 0 && i < 3; i++) {
        if (hf_is_null(hf_json_get(c->text, keys[i][0])))
            return hf_wrong(c, keys[i][0], "is missing, but enable_moe_block is true");
        r = hf_copy_count(c, keys[i][0], 0, keys[i][1]);
    }
    return r;
}

static int read_drafter(struct hf_reader *c)
{
    double width;
    uint32_t shared;
    int r = hf_number(c, c->top, "backbone_hidden_size", c->family.width_out, &width);

    if (r == 0)
        r = hf_count(c, "num_kv_shared_layers", 0, &shared);
    if (r < 0)
        return r;
    if (!(width >= 1 && width <= UINT32_MAX) || width != floor(width))
        return hf_wrong(c, "backbone_hidden_size", "must be a whole number above 0");
    r = hf_put_u32(c, "embedding_length_out", "backbone_hidden_size", (uint32_t)width);
    return r < 0 ? r : hf_put_u32(c, "attention.shared_kv_layers", "num_kv_shared_layers", shared);
}

int hf_config_later(struct hf_reader *c)
{
    const struct hf_family *f = &c->family;
    int r;

    if (f->arch == GEMMA_EMBEDDING)
        return hf_put_u32(c, "pooling_type", "modules.json", 1);
    if (f->arch < GEMMA_3N)
        return 0;
    r = hf_copy_count(c, "hidden_size_per_layer_input",
        cJSON_IsNull(hf_json_get(c->text, "hidden_size_per_layer_input")) ? 0 : f->per_layer_width,
        "embedding_length_per_layer_input");
    if (r == 0 && f->arch == GEMMA_4_ASSISTANT)
        return read_drafter(c);
    if (r == 0 && f->arch == GEMMA_EMBEDDING_2)
        return hf_copy_count(c, "embedding_dim", f->width_out, "embedding_length_out");
    if (r == 0)
        r = hf_copy_count(c, "num_kv_shared_layers", f->shared, "attention.shared_kv_layers");
    if (r == 0 && f->arch == GEMMA_3N)
        return read_3n(c);
    if (r == 0)
        r = hf_put_bool(
            c, "attention.k_eq_v", "attention_k_eq_v", hf_is_true(c->text, "attention_k_eq_v"));
    return r < 0 ? r : read_experts(c);
}
