/* A Hugging Face folder: config.json, then model.safetensors, or the shards that
 * model.safetensors.index.json names. */
#include "model/hf.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "kernels/dtype.h"
#include "model/hf_json.h"
#include "model/safetensors.h"
#include "model/source_show.h"

enum { MAX_SHARDS = 1024, MAX_NORM = 65536 };
static const size_t max_config = 1u << 20, max_index = 16u << 20;
static const char index_name[] = "model.safetensors.index.json";

struct folder {
    struct source *s;
    const char *path;
    struct shown name;
    struct hf_config config;
    const char *file; /* the one being read */
};

static bool exists(const struct folder *f, const char *file)
{
    struct buf path = {0};
    struct stat st;
    bool yes;

    buf_printf(&path, "%s/%s", f->path, file);
    yes = stat(path.data, &st) == 0;
    buf_free(&path);
    return yes;
}

static int map_json(
    struct folder *f, const char *file, size_t max, struct mapping *map, struct err *err)
{
    struct buf path = {0};
    int r;

    buf_printf(&path, "%s/%s", f->path, file);
    r = source_map(f->s, path.data, map, err);
    buf_free(&path);
    if (r == 0 && map->size > max)
        return err_set_at(err, GD_EFORMAT, file, "%s has %zu bytes; at most %zu are allowed.", file,
            map->size, max);
    return r;
}

/* A tensor's place in the source under its GGUF name, shaped; the bytes are the caller's. */
static int add_tensor(struct folder *f, const struct safetensor *from, const char *gguf,
    struct tensor **out, struct err *err)
{
    struct tensor *t;
    struct shown hf;

    show(&hf, from->name, strlen(from->name));
    if (from->n_dims < 1 || from->n_dims > 2)
        return err_set_at(err, GD_EFORMAT, hf.text, "%s: the tensor %s has %d dimensions.", f->file,
            hf.text, from->n_dims);
    for (int i = 0; i < from->n_dims; i++)
        if (from->shape[i] == 0)
            return err_set_at(err, GD_EFORMAT, hf.text, "%s: the tensor %s has a dimension of 0.",
                f->file, hf.text);
    t = source_add_tensor(f->s, gguf, strlen(gguf));
    if (!t)
        return err_set_at(err, GD_EFORMAT, hf.text,
            "%s: the tensor %s is there twice (prefixes do not count).", f->file, hf.text);
    if (strcmp(from->dtype, "BF16") == 0)
        t->type = DTYPE_BF16;
    else if (strcmp(from->dtype, "F16") == 0)
        t->type = DTYPE_F16;
    else if (strcmp(from->dtype, "F32") == 0)
        t->type = DTYPE_F32;
    else
        return err_set_at(err, GD_ENOTSUP, hf.text,
            "%s: the tensor %s has dtype %s, but gemmad reads BF16, F16 and F32.", f->file, hf.text,
            from->dtype);
    t->n_dims = from->n_dims;
    for (int i = 0; i < from->n_dims; i++)
        t->ne[i] = from->shape[from->n_dims - 1 - i];
    t->data = from->data;
    t->bytes = from->bytes;
    *out = t;
    return 0;
}

/* Gemma multiplies by 1 + w; GGUF files store that sum, folders w. The sum is taken here, in f32,
 * so that nobody later needs to know where a norm came from. */
static int add_norm(
    struct folder *f, const struct safetensor *from, const char *gguf, struct err *err)
{
    struct tensor *t = NULL;
    float *sum;
    int r = add_tensor(f, from, gguf, &t, err);

    if (r < 0)
        return r;
    if (t->n_dims != 1 || t->ne[0] > MAX_NORM)
        return err_set_at(err, GD_EFORMAT, from->name,
            "%s: the norm %s must be a vector of at most %d values.", f->file, gguf, MAX_NORM);
    sum = source_alloc(f->s, (size_t)t->ne[0] * sizeof(*sum));
    if (!sum)
        return err_set(err, GD_ENOMEM, "There is no memory for the norms.");
    dtype_find(t->type)->to_float(t->data, sum, (size_t)t->ne[0]);
    for (int64_t i = 0; i < t->ne[0]; i++)
        sum[i] += 1;
    t->type = DTYPE_F32;
    t->data = (const uint8_t *)sum;
    t->bytes = (size_t)t->ne[0] * sizeof(*sum);
    return 0;
}

static int take_tensor(void *arg, const struct safetensor *from, struct err *err)
{
    struct folder *f = arg;
    struct tensor *t;
    struct shown hf;
    char gguf[64];
    int layer;
    enum hf_kind kind = hf_translate(from->name, f->config.arch, gguf, &layer);

    if (kind == HF_SKIPPED || (kind == HF_HEAD && f->config.tied))
        return 0;
    show(&hf, from->name, strlen(from->name));
    if (kind == HF_UNKNOWN)
        return err_set_at(err, GD_ENOTSUP, hf.text,
            "%s: %s is no tensor of this Gemma, and ignoring it would change the answers.", f->file,
            hf.text);
    if (layer >= f->config.n_layers)
        return err_set_at(err, GD_EFORMAT, hf.text,
            "%s: the tensor %s is of layer %d, but config.json says that there are %d layers.",
            f->file, hf.text, layer, f->config.n_layers);
    if (kind == HF_NORM)
        return add_norm(f, from, gguf, err);
    return add_tensor(f, from, gguf, &t, err);
}

static int read_weights(struct folder *f, const char *file, struct err *err)
{
    struct buf path = {0};
    struct shown shown;
    int r;

    buf_printf(&path, "%s/%s", f->path, file);
    f->file = show(&shown, file, strlen(file));
    r = safetensors_read(f->s, path.data, take_tensor, f, err);
    buf_free(&path);
    return r;
}

/* The distinct files of the index, in order. */
static int list_shards(const cJSON *index, struct names *shards, struct err *err)
{
    const cJSON *map = hf_json_get(index, "weight_map"), *entry;
    size_t i;

    if (!cJSON_IsObject(map))
        return err_set_at(
            err, GD_EFORMAT, "weight_map", "%s has no object weight_map.", index_name);
    cJSON_ArrayForEach(entry, map)
    {
        const char *file = cJSON_IsString(entry) ? entry->valuestring : "";
        size_t len = strlen(file), tail = strlen(".safetensors");
        struct shown shown;

        if (!name_valid(file, len, SOURCE_MAX_NAME) || strchr(file, '/') || file[0] == '.' ||
            len <= tail || strcmp(file + len - tail, ".safetensors") != 0)
            return err_set_at(err, GD_EFORMAT, show(&shown, entry->string, strlen(entry->string)),
                "%s does not name a safetensors file of this folder for %s.", index_name,
                shown.text);
        names_add(shards, file, len, &i);
        if (shards->n > MAX_SHARDS)
            return err_set_at(err, GD_EFORMAT, "weight_map", "%s names more than %d files.",
                index_name, MAX_SHARDS);
    }
    return 0;
}

/* Every language tensor that the index promises has been found. */
static int check_promises(const struct folder *f, const cJSON *index, struct err *err)
{
    const cJSON *entry;

    cJSON_ArrayForEach(entry, hf_json_get(index, "weight_map"))
    {
        struct shown hf;
        char gguf[64];
        int layer;
        enum hf_kind kind = hf_translate(entry->string, f->config.arch, gguf, &layer);

        if (kind == HF_SKIPPED || (kind == HF_HEAD && f->config.tied))
            continue;
        show(&hf, entry->string, strlen(entry->string));
        if (kind == HF_UNKNOWN || !source_tensor(f->s, gguf))
            return err_set_at(err, GD_EFORMAT, hf.text,
                "%s names the tensor %s, but no file has it.", index_name, hf.text);
    }
    return 0;
}

static int read_shards(struct folder *f, struct err *err)
{
    struct names shards = {0};
    struct mapping map;
    cJSON *index = NULL;
    int r = map_json(f, index_name, max_index, &map, err);

    if (r == 0)
        r = hf_json_parse(&index, map.data, map.size, index_name, err);
    if (r == 0)
        r = list_shards(index, &shards, err);
    for (size_t i = 0; i < shards.n && r == 0; i++) {
        r = read_weights(f, shards.at[i], err);
        if (r == GD_ENOENT)
            r = err_set_at(err, GD_ENOENT, shards.at[i], "%s names %s, but that file is missing.",
                index_name, shards.at[i]);
    }
    if (r == 0)
        r = check_promises(f, index, err);
    names_free(&shards);
    cJSON_Delete(index);
    return r;
}

static int find_weights(struct folder *f, struct err *err)
{
    if (exists(f, "model.safetensors"))
        return read_weights(f, "model.safetensors", err);
    if (exists(f, index_name))
        return read_shards(f, err);
    if (exists(f, "pytorch_model.bin") || exists(f, "pytorch_model.bin.index.json"))
        return err_set(err, GD_ENOTSUP,
            "%s holds PyTorch weights; gemmad reads safetensors, so convert them.", f->name.text);
    return err_set_at(err, GD_ENOENT, "model.safetensors",
        "%s has neither model.safetensors nor %s; a GGUF file must be named itself.", f->name.text,
        index_name);
}

static int check_head(const struct folder *f, struct err *err)
{
    const struct tensor *embd = source_tensor(f->s, "token_embd.weight");

    if (!f->config.tied && !source_tensor(f->s, "output.weight"))
        return err_set_at(err, GD_EFORMAT, "lm_head.weight",
            "config.json says in tie_word_embeddings that the head is separate, but there is no "
            "lm_head.weight.");
    if (embd && f->config.vocab >= 0 && embd->ne[1] != f->config.vocab)
        return err_set_at(err, GD_EFORMAT, "vocab_size",
            "config.json: vocab_size is %lld, but embed_tokens.weight has %lld rows.",
            (long long)f->config.vocab, (long long)embd->ne[1]);
    return 0;
}

int hf_read(struct source *s, const char *folder, struct err *err)
{
    struct folder f = {.s = s, .path = folder};
    struct mapping config;
    int r;

    show_file(&f.name, folder);
    if (!exists(&f, "config.json"))
        return err_set_at(err, GD_ENOENT, "config.json",
            "%s has no config.json; name a GGUF file or a Hugging Face folder.", f.name.text);
    r = map_json(&f, "config.json", max_config, &config, err);
    if (r == 0)
        r = hf_config_read(s, &f.config, config.data, config.size, err);
    if (r == 0)
        r = find_weights(&f, err);
    return r < 0 ? r : check_head(&f, err);
}
