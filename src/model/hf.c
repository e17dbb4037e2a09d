/* A Hugging Face folder: config.json, then model.safetensors, or the shards that
 * model.safetensors.index.json names. */
#include "model/hf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "kernels/dtype.h"
#include "model/hf_json.h"

enum { MAX_SHARDS = 1024, MAX_NORM = 65536, MAX_FLOATS = 1 << 22 };
static const size_t max_config = 1u << 20, max_index = 16u << 20;
static const char index_name[] = "model.safetensors.index.json";

bool hf_exists(const struct hf_files *f, const char *file)
{
    struct buf path = {0};
    struct stat st;
    bool yes;

    buf_printf(&path, "%s/%s", f->path, file);
    yes = stat(path.data, &st) == 0;
    buf_free(&path);
    return yes;
}

int hf_map_json(
    struct hf_files *f, const char *file, size_t max, struct mapping *map, struct err *err)
{
    struct buf path = {0};
    int r;

    buf_printf(&path, "%s/%s", f->path, file);
    r = source_map(f->s, path.data, map, err);
    buf_free(&path);
    if (r == 0 && map->file.size > max)
        return err_set_at(err, GD_EFORMAT, file, "%s has %zu bytes; at most %zu are allowed.", file,
            map->file.size, max);
    return r;
}

/* ---- tensors */

/* "FILE: the tensor NAME why" */
static int refuse(
    const struct hf_files *f, const struct safetensor *t, const char *why, struct err *err)
{
    struct shown hf;

    show(&hf, t->name, strlen(t->name));
    return err_set_at(err, GD_EFORMAT, hf.text, "%s: the tensor %s %s.", f->file, hf.text, why);
}

static int find_type(
    const struct hf_files *f, const struct safetensor *t, uint32_t *type, struct err *err)
{
    struct shown hf;

    if (strcmp(t->dtype, "BF16") == 0)
        *type = DTYPE_BF16;
    else if (strcmp(t->dtype, "F16") == 0)
        *type = DTYPE_F16;
    else if (strcmp(t->dtype, "F32") == 0)
        *type = DTYPE_F32;
    else
        return err_set_at(err, GD_ENOTSUP, show(&hf, t->name, strlen(t->name)),
            "%s: the tensor %s has dtype %s, but gemmad reads BF16, F16 and F32.", f->file, hf.text,
            t->dtype);
    return 0;
}

int hf_add_tensor(struct hf_files *f, const struct safetensor *from, const char *gguf, int max_dims,
    struct tensor **out, struct err *err)
{
    struct tensor *t;
    struct shown hf;
    uint32_t type = 0;
    int r;

    if (from->n_dims < 1 || from->n_dims > max_dims)
        return err_set_at(err, GD_EFORMAT, show(&hf, from->name, strlen(from->name)),
            "%s: the tensor %s has %d dimensions.", f->file, hf.text, from->n_dims);
    for (int i = 0; i < from->n_dims; i++)
        if (from->shape[i] == 0)
            return refuse(f, from, "has a dimension of 0", err);
    r = find_type(f, from, &type, err);
    if (r < 0)
        return r;
    t = source_add_tensor(f->s, gguf, strlen(gguf));
    if (!t)
        return refuse(f, from, "is there twice (prefixes do not count)", err);
    t->type = type;
    t->n_dims = from->n_dims;
    for (int i = 0; i < from->n_dims; i++)
        t->ne[i] = from->shape[from->n_dims - 1 - i];
    t->data = from->data;
    t->bytes = from->bytes;
    *out = t;
    return 0;
}

/* Small tensors, as f32 with `plus` added. Gemma 1 to 3 multiply by 1 + w; GGUF files store that
 * sum, folders w. The sum is taken here, in f32, so that nobody later needs to know where a norm
 * came from. */
static int add_floats(struct hf_files *f, const struct safetensor *from, const struct hf_name *name,
    float plus, struct err *err)
{
    size_t n = 1, max = name->kind == HF_NORM ? MAX_NORM : MAX_FLOATS;
    struct tensor *t = NULL;
    float *floats;
    int r = hf_add_tensor(f, from, name->gguf, 2, &t, err);

    if (r < 0)
        return r;
    if (name->kind == HF_NORM && t->n_dims != 1)
        return refuse(f, from, "must be a vector", err);
    for (int i = 0; i < t->n_dims; i++) {
        if ((uint64_t)t->ne[i] > max / n)
            return refuse(f, from, "is larger than any Gemma's", err);
        n *= (size_t)t->ne[i];
    }
    floats = source_alloc(f->s, n * sizeof(*floats));
    if (!floats)
        return err_set(err, GD_ENOMEM, "There is no memory for the norms.");
    dtype_find(t->type)->to_float(t->data, floats, n);
    for (size_t i = 0; i < n; i++)
        floats[i] += plus;
    t->type = DTYPE_F32;
    t->data = (const uint8_t *)floats;
    t->bytes = n * sizeof(*floats);
    t->in_memory = true;
    return 0;
}

/* Matrices of their own here, slices of one tensor in a GGUF: the first one seen adds the tensor,
 * finish_stack() its bytes. */
static int add_slice(
    struct hf_files *f, const struct safetensor *from, const struct hf_name *name, struct err *err)
{
    struct hf_stack *s = f->stacks;
    const struct tensor *t;
    struct tensor *added;
    uint32_t type = 0;
    int r = find_type(f, from, &type, err);

    while (s->gguf && strcmp(s->gguf, name->gguf) != 0)
        s++;
    if (r == 0 && !s->gguf) {
        r = hf_add_tensor(f, from, name->gguf, 2, &added, err);
        if (r == 0)
            s->gguf = added->name;
    }
    if (r < 0)
        return r;
    t = source_tensor(f->s, name->gguf);
    if (s->slice[name->slice])
        return refuse(f, from, "is there twice (prefixes do not count)", err);
    if (from->n_dims != 2 || from->shape[1] != t->ne[0] || from->shape[0] != t->ne[1] ||
        type != t->type)
        return refuse(f, from, "has another shape or dtype than its siblings", err);
    s->slice[name->slice] = from->data;
    return 0;
}

/* All slices are there: in a row in the file, as most tools write them, or copied together. */
static int finish_stack(struct hf_files *f, struct hf_stack *s, struct err *err)
{
    struct tensor *t = &f->s->tensors[source_tensor(f->s, s->gguf) - f->s->tensors];
    size_t bytes = t->bytes;
    bool in_a_row = true;
    uint8_t *copy;

    for (int k = 0; k < HF_SLICES; k++) {
        if (!s->slice[k]) {
            char name[64];

            snprintf(name, sizeof(name), "altup_%sprojections.%d.weight",
                strcmp(s->gguf, "altup_proj.weight") == 0 ? "" : "unembed_", k);
            return err_set_at(err, GD_EFORMAT, name, "The folder lacks the tensor %s.", name);
        }
        in_a_row &= s->slice[k] == s->slice[0] + (size_t)k * bytes;
    }
    t->n_dims = 3;
    t->ne[2] = HF_SLICES;
    t->data = s->slice[0];
    t->bytes = HF_SLICES * bytes;
    if (in_a_row)
        return 0;
    copy = source_alloc(f->s, t->bytes);
    if (!copy)
        return err_set(err, GD_ENOMEM, "There is no memory for %s.", s->gguf);
    for (int k = 0; k < HF_SLICES; k++)
        memcpy(copy + (size_t)k * bytes, s->slice[k], bytes);
    t->data = copy;
    t->in_memory = true;
    return 0;
}

static int finish_stacks(struct hf_files *f, struct err *err)
{
    int r = 0;

    for (int i = 0; r == 0 && i < HF_STACKS && f->stacks[i].gguf; i++)
        r = finish_stack(f, &f->stacks[i], err);
    return r;
}

static bool is_needless(const struct hf_files *f, const struct hf_name *name)
{
    return name->kind == HF_SKIPPED || (name->kind == HF_HEAD && f->config.tied);
}

static int take_tensor(void *arg, const struct safetensor *from, struct err *err)
{
    struct hf_files *f = arg;
    struct hf_name name = hf_translate(from->name, f->config.arch);
    struct tensor *t;
    struct shown hf;

    if (is_needless(f, &name))
        return 0;
    show(&hf, from->name, strlen(from->name));
    if (name.kind == HF_UNKNOWN)
        return err_set_at(err, GD_ENOTSUP, hf.text,
            "%s: %s is no tensor of this Gemma, and ignoring it would change the answers.", f->file,
            hf.text);
    if (name.layer >= f->config.n_layers)
        return err_set_at(err, GD_EFORMAT, hf.text,
            "%s: the tensor %s is of layer %d, but config.json says that there are %d layers.",
            f->file, hf.text, name.layer, f->config.n_layers);
    switch (name.kind) {
    case HF_NORM: return add_floats(f, from, &name, 1, err);
    case HF_FLOATS: return add_floats(f, from, &name, 0, err);
    case HF_STACK: return add_slice(f, from, &name, err);
    default: return hf_add_tensor(f, from, name.gguf, name.kind == HF_EXPERTS ? 3 : 2, &t, err);
    }
}

/* ---- files */

int hf_read_weights(struct hf_files *f, const char *file, safetensors_fn *take, struct err *err)
{
    struct buf path = {0};
    struct shown shown;
    int r;

    buf_printf(&path, "%s/%s", f->path, file);
    f->file = show(&shown, file, strlen(file));
    r = safetensors_read(f->s, path.data, take, f, err);
    f->file = NULL;
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
static int check_promises(const struct hf_files *f, const cJSON *index, struct err *err)
{
    const cJSON *entry;

    cJSON_ArrayForEach(entry, hf_json_get(index, "weight_map"))
    {
        struct hf_name name = hf_translate(entry->string, f->config.arch);
        struct shown hf;

        if (is_needless(f, &name))
            continue;
        show(&hf, entry->string, strlen(entry->string));
        if (name.kind == HF_UNKNOWN || !source_tensor(f->s, name.gguf))
            return err_set_at(err, GD_EFORMAT, hf.text,
                "%s names the tensor %s, but no file has it.", index_name, hf.text);
    }
    return 0;
}

static int read_shards(struct hf_files *f, struct err *err)
{
    struct names shards = {0};
    struct mapping map;
    cJSON *index = NULL;
    int r = hf_map_json(f, index_name, max_index, &map, err);

    if (r == 0)
        r = hf_json_parse(&index, map.file.data, map.file.size, index_name, err);
    if (r == 0)
        r = list_shards(index, &shards, err);
    for (size_t i = 0; i < shards.n && r == 0; i++) {
        r = hf_read_weights(f, shards.at[i], take_tensor, err);
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

static int find_weights(struct hf_files *f, struct err *err)
{
    if (hf_exists(f, "model.safetensors"))
        return hf_read_weights(f, "model.safetensors", take_tensor, err);
    if (hf_exists(f, index_name))
        return read_shards(f, err);
    if (hf_exists(f, "pytorch_model.bin") || hf_exists(f, "pytorch_model.bin.index.json"))
        return err_set(err, GD_ENOTSUP,
            "%s holds PyTorch weights; gemmad reads safetensors, so convert them.", f->name.text);
    return err_set_at(err, GD_ENOENT, "model.safetensors",
        "%s has neither model.safetensors nor %s; a GGUF file must be named itself.", f->name.text,
        index_name);
}

/* The rows of a table are as many as config.json says. */
static int check_rows(const struct hf_files *f, const char *gguf, const char *hf, const char *key,
    int64_t rows, struct err *err)
{
    const struct tensor *t = source_tensor(f->s, gguf);

    if (t && rows >= 0 && t->ne[1] != rows)
        return err_set_at(err, GD_EFORMAT, key, "config.json: %s is %lld, but %s has %lld rows.",
            key, (long long)rows, f->s->given ? gguf : hf, (long long)t->ne[1]);
    return 0;
}

static int check_tables(const struct hf_files *f, struct err *err)
{
    const char *head = f->s->given ? "output.weight" : "lm_head.weight";
    int r;

    if (!f->config.tied && !source_tensor(f->s, "output.weight"))
        return err_set_at(err, GD_EFORMAT, head,
            "config.json says in tie_word_embeddings that the head is separate, but there is no "
            "%s.",
            head);
    if (f->config.tied && source_tensor(f->s, "output.weight"))
        return err_set_at(err, GD_EFORMAT, head,
            "The tensor %s is not part of this model: config.json ties the head to the embedding.",
            head);
    r = check_rows(
        f, "token_embd.weight", "embed_tokens.weight", "vocab_size", f->config.vocab, err);
    return r < 0 ? r
                 : check_rows(f, "per_layer_token_embd.weight", "embed_tokens_per_layer.weight",
                       "vocab_size_per_layer_input", f->config.per_layer_vocab, err);
}

int hf_read(
    struct source *s, const char *folder, const struct given_tensors *given, struct err *err)
{
    struct hf_files f = {.s = s, .path = folder};
    struct mapping config;
    int r;

    show_file(&f.name, folder);
    if (!hf_exists(&f, "config.json"))
        return err_set_at(err, GD_ENOENT, "config.json",
            "%s has no config.json; name a GGUF file or a Hugging Face folder.", f.name.text);
    r = hf_map_json(&f, "config.json", max_config, &config, err);
    if (r == 0)
        r = hf_config_read(s, &f.config, config.file.data, config.file.size, err);
    s->arch = (int)f.config.arch;
    if (r == 0)
        r = given ? source_give(s, given, err) : find_weights(&f, err);
    if (r == 0)
        r = finish_stacks(&f, err);
    if (r == 0 && f.config.arch == GEMMA_EMBEDDING)
        r = hf_read_modules(&f, err);
    return r < 0 ? r : check_tables(&f, err);
}
