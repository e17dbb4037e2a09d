/* Metadata -> shape of the model. The versions of Gemma differ in defaults and in which keys mean
 * something; what is missing or cannot be is refused here, so that nobody later has to ask. */
#include "model/hparams.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/hparams_private.h"
#include "model/source_show.h"

static const struct family families[] = {
    {.name = "gemma", .arch = GEMMA_1},
    {.name = "gemma2",
        .arch = GEMMA_2,
        .post_norms = true,
        .has_window = true,
        .window = 4096,
        .period = 2,
        .has_softcaps = true,
        .attention_softcap = 50,
        .final_softcap = 30,
        .layers_27b = 46},
    {.name = "gemma3",
        .arch = GEMMA_3,
        .qk_norm = true,
        .post_norms = true,
        .has_window = true,
        .period = 6,
        .has_softcaps = true,
        .has_local_rope = true,
        .layers_27b = 62},
    {.name = "gemma3n",
        .arch = GEMMA_3N,
        .qk_norm = true,
        .post_norms = true,
        .has_window = true,
        .period = 5,
        .has_softcaps = true,
        .final_softcap = 30,
        .has_local_rope = true,
        .unscaled = true,
        .needs_window = true},
    {.name = "gemma4",
        .arch = GEMMA_4,
        .qk_norm = true,
        .post_norms = true,
        .has_window = true,
        .has_softcaps = true,
        .final_softcap = 30,
        .has_local_rope = true,
        .unscaled = true,
        .local_heads = true,
        .needs_window = true,
        .rope_factors = true},
    {.name = "gemma4-assistant",
        .arch = GEMMA_4_ASSISTANT,
        .qk_norm = true,
        .post_norms = true,
        .has_window = true,
        .has_local_rope = true,
        .unscaled = true,
        .local_heads = true,
        .needs_window = true,
        .rope_factors = true,
        .drafter = true},
    {.name = "gemma-embedding",
        .arch = GEMMA_EMBEDDING,
        .qk_norm = true,
        .post_norms = true,
        .has_window = true,
        .period = 6,
        .has_local_rope = true,
        .bidirectional = true,
        .needs_window = true},
    /* Exists as a Hugging Face folder only; the name is ours. */
    {.name = "gemma-embedding2",
        .arch = GEMMA_EMBEDDING_2,
        .qk_norm = true,
        .post_norms = true,
        .has_window = true,
        .has_local_rope = true,
        .unscaled = true,
        .bidirectional = true,
        .local_heads = true,
        .needs_window = true},
};

const char *hparams_key(struct reader *rd, const char *suffix)
{
    snprintf(rd->key, sizeof(rd->key), "%s.%s", rd->family->name, suffix);
    return rd->key;
}

void hparams_complain(struct reader *rd, const char *fmt, ...)
{
    const char *key = source_key_origin(rd->src, rd->key);
    char rest[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(rest, sizeof(rest), fmt, ap);
    va_end(ap);
    err_fill_at(rd->err, GD_EFORMAT, key, "The key %s %s", key, rest);
}

int hparams_missing(struct reader *rd)
{
    return err_set_at(rd->err, GD_EFORMAT, rd->key, "The model file lacks the key %s.", rd->key);
}

static int out_of_range(struct reader *rd, int64_t value, int min, int max)
{
    return refuse(rd, "is %lld, but must lie between %d and %d.", (long long)value, min, max);
}

/* 1 and *out set, 0 when the key is absent, or an error. */
int hparams_int(struct reader *rd, const char *suffix, int min, int max, int *out)
{
    uint32_t u;
    int r = source_u32(rd->src, hparams_key(rd, suffix), &u, rd->err);

    if (r <= 0)
        return r;
    if ((int64_t)u < min || (int64_t)u > max)
        return out_of_range(rd, u, min, max);
    *out = (int)u;
    return 1;
}

int hparams_need_int(struct reader *rd, const char *suffix, int min, int max, int *out)
{
    int r = hparams_int(rd, suffix, min, max, out);

    return r == 0 ? hparams_missing(rd) : r;
}

/* A finite float of at least min. As hparams_int(). */
int hparams_float(struct reader *rd, const char *suffix, float min, float *out)
{
    float f;
    int r = source_f32(rd->src, hparams_key(rd, suffix), &f, rd->err);

    if (r <= 0)
        return r;
    if (!isfinite(f) || f < min)
        return refuse(rd, "is %g, but must be a number of at least %g.", (double)f, (double)min);
    *out = f;
    return 1;
}

static bool is_array(struct reader *rd)
{
    struct source_array a;
    struct err ignored;

    return source_array(rd->src, rd->key, &a, &ignored) > 0;
}

/* One integer per layer into out[0..n): a number that holds for all, or an array of n. */
static int read_layers(struct reader *rd, const char *suffix, int min, int max, int *out, int n)
{
    struct source_array a;
    int64_t v;
    int r;

    hparams_key(rd, suffix);
    if (!is_array(rd)) {
        r = hparams_int(rd, suffix, min, max, &out[0]);
        for (int i = 1; r > 0 && i < n; i++)
            out[i] = out[0];
        return r;
    }
    r = source_array(rd->src, rd->key, &a, rd->err);
    if (r < 0)
        return r;
    if (a.n != (uint64_t)n)
        return refuse(
            rd, "has %llu elements, but the model has %d layers.", (unsigned long long)a.n, n);
    for (int i = 0; i < n; i++) {
        if (!source_array_int(&a, (uint64_t)i, &v))
            return refuse(rd, "must be an integer or an array of integers.");
        if (v < min || v > max)
            return out_of_range(rd, v, min, max);
        out[i] = (int)v;
    }
    return 1;
}

static int refuse_architecture(const char *name, size_t len, struct err *err)
{
    struct shown shown;

    show(&shown, name, len);
    if (strcmp(shown.text, "clip") == 0)
        return err_set_at(err, GD_ENOTSUP, "general.architecture",
            "This is an image encoder (mmproj), not a language model; gemmad runs Gemma.");
    return err_set_at(err, GD_ENOTSUP, "general.architecture",
        "The model's architecture is \"%s\", but gemmad runs Gemma only.", shown.text);
}

static int read_architecture(struct reader *rd)
{
    const char *name;
    size_t len;
    int r = source_str(rd->src, "general.architecture", &name, &len, rd->err);

    snprintf(rd->key, sizeof(rd->key), "general.architecture");
    if (r <= 0)
        return r < 0 ? r : hparams_missing(rd);
    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
        if (len == strlen(families[i].name) && memcmp(name, families[i].name, len) == 0)
            rd->family = &families[i];
    if (!rd->family)
        return refuse_architecture(name, len, rd->err);
    rd->hp->arch = rd->family->arch;
    rd->hp->qk_norm = rd->family->qk_norm;
    rd->hp->post_norms = rd->family->post_norms;
    rd->hp->v_norm = rd->family->unscaled;
    rd->hp->bidirectional = rd->family->bidirectional;
    snprintf(rd->hp->arch_name, sizeof(rd->hp->arch_name), "%s", rd->family->name);
    return 0;
}

static int read_name(struct reader *rd)
{
    struct shown file;
    const char *name;
    size_t len;
    int r = source_str(rd->src, "general.name", &name, &len, rd->err);

    if (r < 0)
        return r;
    if (r == 0 || len == 0) {
        name = show_file(&file, source_path(rd->src));
        len = strlen(name);
    }
    show_text(rd->hp->name, sizeof(rd->hp->name), name, len);
    return 0;
}

static int read_sizes(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    int r = hparams_need_int(rd, "block_count", 1, HPARAMS_MAX_LAYERS, &hp->n_layers);

    if (r >= 0)
        r = hparams_need_int(rd, "embedding_length", 1, MAX_WIDTH, &hp->width);
    if (r >= 0)
        r = hparams_need_int(rd, "context_length", 1, MAX_CONTEXT, &hp->context);
    if (r < 0)
        return r;
    hp->embed_scale = sqrtf((float)hp->width);

    r = hparams_float(rd, "attention.layer_norm_rms_epsilon", 0, &hp->norm_eps);
    if (r == 0)
        return hparams_missing(rd);
    if (r > 0 && (hp->norm_eps <= 0 || hp->norm_eps >= 1))
        return refuse(rd, "is %g, but must lie between 0 and 1.", (double)hp->norm_eps);
    return r < 0 ? r : 0;
}

/* Heads and the feed-forward width, layer by layer. */
static int read_heads(struct reader *rd)
{
    int heads[HPARAMS_MAX_LAYERS], kv_heads[HPARAMS_MAX_LAYERS], ffn[HPARAMS_MAX_LAYERS];
    struct hparams *hp = rd->hp;
    int n = hp->n_layers;
    int r = read_layers(rd, "attention.head_count", 1, MAX_HEADS, heads, n);

    if (r <= 0)
        return r < 0 ? r : hparams_missing(rd);
    r = read_layers(rd, "feed_forward_length", 1, MAX_FFN, ffn, n);
    if (r <= 0)
        return r < 0 ? r : hparams_missing(rd);
    r = read_layers(rd, "attention.head_count_kv", 1, MAX_HEADS, kv_heads, n);
    if (r < 0)
        return r;
    if (r == 0)
        memcpy(kv_heads, heads, sizeof(kv_heads));
    for (int i = 0; i < n; i++) {
        if (heads[i] % kv_heads[i] != 0)
            return refuse(rd, "is %d in layer %d, which does not divide the %d attention heads.",
                kv_heads[i], i, heads[i]);
        hp->layers[i].n_heads = heads[i];
        hp->layers[i].n_kv_heads = kv_heads[i];
        hp->layers[i].ffn = ffn[i];
    }
    return 0;
}

/* The dimension of the heads of one kind of layer: of the keys with this ending. *dim is the
 * default. */
static int read_dim(struct reader *rd, const char *ending, int *dim)
{
    char key[64], value_key[64];
    int value = 0, r;

    snprintf(key, sizeof(key), "attention.key_length%s", ending);
    snprintf(value_key, sizeof(value_key), "attention.value_length%s", ending);
    r = hparams_int(rd, value_key, 1, MAX_HEAD_DIM, &value);
    if (r >= 0)
        r = hparams_int(rd, key, 1, MAX_HEAD_DIM, dim);
    if (r < 0)
        return r;
    if (*dim == 0)
        return hparams_missing(rd);
    if (*dim % 2 != 0 || *dim > MAX_HEAD_DIM)
        return refuse(rd, "makes heads of %d values, but they must be an even number up to %d.",
            *dim, MAX_HEAD_DIM);
    if (value != 0 && value != *dim) {
        hparams_key(rd, value_key);
        return refuse(rd, "is %d, but must equal the key length, %d.", value, *dim);
    }
    return 0;
}

/* Sliding layers may have smaller heads: comes after the windows. */
static int read_head_dim(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    int dim = hp->width % hp->layers[0].n_heads ? 0 : hp->width / hp->layers[0].n_heads, sliding;
    int r = read_dim(rd, "", &dim);

    sliding = dim;
    if (r >= 0 && rd->family->local_heads)
        r = read_dim(rd, "_swa", &sliding);
    for (int i = 0; r >= 0 && i < hp->n_layers; i++)
        hp->layers[i].head_dim = hp->layers[i].window ? sliding : dim;
    return r;
}

/* A period ("every n-th layer is global") or an array ("true = sliding") says which layers slide.
 */
static int read_window(struct reader *rd)
{
    const struct family *f = rd->family;
    struct hparams *hp = rd->hp;
    int window = f->window, period = f->period, sliding[HPARAMS_MAX_LAYERS];
    int r;

    if (!f->has_window)
        return 0;
    r = hparams_int(rd, "attention.sliding_window", 0, MAX_CONTEXT, &window);
    if (r < 0)
        return r;
    if (r == 0 && f->needs_window)
        return hparams_missing(rd);
    hparams_key(rd, "attention.sliding_window_pattern");
    if (is_array(rd)) {
        r = read_layers(rd, "attention.sliding_window_pattern", 0, 1, sliding, hp->n_layers);
    } else {
        r = hparams_int(rd, "attention.sliding_window_pattern", 1, HPARAMS_MAX_LAYERS, &period);
        if (r == 0 && period == 0)
            return hparams_missing(rd);
        for (int i = 0; r >= 0 && i < hp->n_layers; i++)
            sliding[i] = (i + 1) % period != 0;
    }
    for (int i = 0; r >= 0 && i < hp->n_layers; i++)
        hp->layers[i].window = sliding[i] ? window : 0;
    return r < 0 ? r : 0;
}

static int read_attention(struct reader *rd)
{
    const struct family *f = rd->family;
    struct hparams *hp = rd->hp;
    int r;

    hp->attention_softcap = f->attention_softcap;
    hp->final_softcap = f->final_softcap;
    if (f->has_softcaps) {
        r = hparams_float(rd, "attn_logit_softcapping", 0, &hp->attention_softcap);
        if (r >= 0)
            r = hparams_float(rd, "final_logit_softcapping", 0, &hp->final_softcap);
        if (r < 0)
            return r;
    }
    /* GGUF files do not carry Hugging Face's query_pre_attn_scalar: only the 27B models have one
     * that is not the head dimension. Folders say it, in this key. */
    r = hparams_float(rd, "attention.scale", 1e-6f, &hp->attention_scale);
    if (r == 0 && f->unscaled)
        hp->attention_scale = 1;
    else if (r == 0 && f->layers_27b && hp->n_layers == f->layers_27b)
        hp->attention_scale = 1 / sqrtf((float)hp->width / (float)hp->layers[0].n_heads);
    else if (r == 0)
        hp->attention_scale = 1 / sqrtf((float)hp->layers[0].head_dim);
    return r < 0 ? r : 0;
}

/* Published quantisations of the larger Gemma 3 exist whose converter forgot the factor. */
static bool factor_forgotten(const struct hparams *hp)
{
    return hp->arch == GEMMA_3 && hp->context == 131072 &&
           (hp->n_layers == 34 || hp->n_layers == 48 || hp->n_layers == 62);
}

/* *factor of linear scaling, 1 = none. */
static int read_rope_factor(struct reader *rd, float *factor)
{
    struct shown shown;
    const char *type;
    size_t len;
    int r = source_str(rd->src, hparams_key(rd, "rope.scaling.type"), &type, &len, rd->err);

    *factor = 1;
    if (r < 0)
        return r;
    if (r > 0 && len == 4 && memcmp(type, "none", 4) == 0)
        return 0;
    if (r > 0 && (len != 6 || memcmp(type, "linear", 6) != 0))
        return err_set_at(rd->err, GD_ENOTSUP, rd->key,
            "The key %s is \"%s\", but gemmad knows \"none\" and \"linear\" only.", rd->key,
            show(&shown, type, len));
    r = hparams_float(rd, "rope.scaling.factor", 1, factor);
    if (r == 0)
        r = hparams_float(rd, "rope.scale_linear", 1, factor);
    if (r == 0 && factor_forgotten(rd->hp)) {
        *factor = 8;
        snprintf(rd->hp->warning, sizeof(rd->hp->warning),
            "The file lacks %s.rope.scaling.factor; a Gemma 3 of this size was trained with 8, "
            "which is used.",
            rd->family->name);
    }
    return r < 0 ? r : 0;
}

/* A file may say how many dimensions are rotated: it must be the whole head. */
static int check_dims(struct reader *rd, const char *suffix, const struct rope_spec *rope)
{
    int n_dims = rope->n_dims;
    int r = hparams_int(rd, suffix, 1, MAX_HEAD_DIM, &n_dims);

    if (r > 0 && rope->n_dims && n_dims != rope->n_dims)
        return refuse(rd, "is %d, but Gemma rotates whole heads, %d values.", n_dims, rope->n_dims);
    return r;
}

static int read_rope(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    struct rope_spec global = {.freq_base = 10000}, local = {.freq_base = 10000, .freq_scale = 1};
    float factor;
    int r = read_rope_factor(rd, &factor);

    if (r >= 0)
        r = hparams_float(rd, "rope.freq_base", 1, &global.freq_base);
    if (r >= 0 && rd->family->has_local_rope)
        r = hparams_float(rd, "rope.freq_base_swa", 1, &local.freq_base);
    global.freq_scale = 1 / factor;
    for (int i = 0; r >= 0 && i < hp->n_layers; i++) {
        bool sliding = rd->family->has_local_rope && hp->layers[i].window > 0;

        hp->layers[i].rope_table = sliding;
        (sliding ? &local : &global)->n_dims = hp->layers[i].head_dim;
    }
    if (global.n_dims == 0)
        global.n_dims = hp->layers[0].head_dim; /* no layer uses it */
    if (r >= 0)
        r = check_dims(rd, "rope.dimension_count", &global);
    if (r >= 0 && rd->family->local_heads)
        r = check_dims(rd, "rope.dimension_count_swa", &local);
    global.factors = source_tensor(rd->src, "rope_freqs.weight") != NULL;
    if (r >= 0 && rd->family->rope_factors && !global.factors && !source_is_folder(rd->src))
        return err_set_at(rd->err, GD_EFORMAT, "rope_freqs.weight",
            "The model file lacks the tensor rope_freqs.weight.");
    hp->rope[0] = global;
    hp->rope[1] = local;
    hp->n_rope = local.n_dims ? 2 : 1;
    return r < 0 ? r : 0;
}

static int read_vocab(struct reader *rd)
{
    static const char name[] = "token_embd.weight";
    char buffer[96];
    const struct tensor *t = source_tensor(rd->src, name);

    if (!t)
        return err_set_at(rd->err, GD_EFORMAT, name, "The model file lacks the tensor %s.",
            source_tensor_origin(rd->src, name, buffer));
    if (t->n_dims != 2 || t->ne[0] != rd->hp->width)
        return err_set_at(rd->err, GD_EFORMAT, name,
            "The tensor %s must be a matrix with rows of %d values.", name, rd->hp->width);
    if (t->ne[1] > MAX_VOCAB)
        return err_set_at(rd->err, GD_EFORMAT, name,
            "The tensor %s has %lld rows; at most %d are allowed.", name, (long long)t->ne[1],
            MAX_VOCAB);
    rd->hp->vocab = (int)t->ne[1];
    /* Gemma 1 and 2 are always tied: an output.weight in their GGUF is a copy of the embedding. */
    rd->hp->separate_head = source_tensor(rd->src, "output.weight") != NULL &&
                            (rd->hp->arch >= GEMMA_3 || source_is_folder(rd->src));
    return 0;
}

int hparams_read(struct hparams *hp, const struct source *src, struct err *err)
{
    static int (*const steps[])(struct reader *) = {read_architecture, read_name, read_sizes,
        read_heads, read_window, read_head_dim, read_attention, read_rope, read_vocab,
        hparams_read_later};
    struct reader rd = {.src = src, .hp = hp, .err = err};
    int r = 0;

    *hp = (struct hparams){0};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps) && r >= 0; i++)
        r = steps[i](&rd);
    return r < 0 ? r : 0;
}
