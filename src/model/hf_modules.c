/* The sentence-transformers files of an embedder: modules.json lists what follows the model, a
 * pooling over its states, dense maps, and the scaling to length 1. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "model/hf.h"
#include "model/hf_json.h"

enum { MAX_DENSE = 2 };
static const size_t max_json = 1u << 20;
static const char modules_name[] = "modules.json";

static int unsupported(const char *file, const char *what, struct err *err)
{
    return err_set_at(err, GD_ENOTSUP, file, "%s %s.", file, what);
}

/* The JSON object in FOLDER/config.json. */
static int read_config(
    struct hf_files *f, const char *folder, char file[96], cJSON **out, struct err *err)
{
    struct mapping map;
    int r;

    snprintf(file, 96, "%s/config.json", folder);
    r = hf_map_json(f, file, max_json, &map, err);
    return r < 0 ? r : hf_json_parse(out, map.file.data, map.file.size, file, err);
}

/* By the mean, and by nothing else. */
static int read_pooling(struct hf_files *f, const char *folder, struct err *err)
{
    static const char prefix[] = "pooling_mode_", mean[] = "pooling_mode_mean_tokens";
    char file[96];
    const cJSON *item;
    cJSON *config = NULL;
    bool by_mean = false, otherwise = false;
    int r = read_config(f, folder, file, &config, err);

    if (r < 0)
        return r;
    item = hf_json_get(config, "pooling_mode");
    if (cJSON_IsString(item))
        *(strcmp(item->valuestring, "mean") == 0 ? &by_mean : &otherwise) = true;
    cJSON_ArrayForEach(item, config)
    {
        if (cJSON_IsTrue(item) && strncmp(item->string, prefix, strlen(prefix)) == 0)
            *(strcmp(item->string, mean) == 0 ? &by_mean : &otherwise) = true;
    }
    cJSON_Delete(config);
    if (!by_mean || otherwise)
        return unsupported(file, "does not pool by the mean alone, as gemmad does", err);
    return 0;
}

static int take_dense(void *arg, const struct safetensor *from, struct err *err)
{
    struct hf_files *f = arg;
    struct tensor *t;

    if (strcmp(from->name, "linear.weight") != 0)
        return err_set_at(err, GD_ENOTSUP, "linear.weight",
            "%s holds something other than linear.weight.", f->file);
    return hf_add_tensor(f, from, f->dense, 2, &t, err);
}

/* A linear map without bias and activation: number n, counted from 2 as GGUF files do. */
static int read_dense(struct hf_files *f, const char *folder, int n, struct err *err)
{
    char file[96], name[32], weights[96];
    const struct tensor *t;
    const cJSON *bias, *activation, *in, *out;
    cJSON *config = NULL;
    bool plain, fits;
    int r = read_config(f, folder, file, &config, err);

    if (r < 0)
        return r;
    bias = hf_json_get(config, "bias");
    activation = hf_json_get(config, "activation_function");
    plain = !cJSON_IsTrue(bias) && cJSON_IsString(activation) &&
            strstr(activation->valuestring, "Identity");
    snprintf(name, sizeof(name), "dense_%d.weight", n);
    snprintf(weights, sizeof(weights), "%s/model.safetensors", folder);
    f->dense = name;
    if (!plain)
        r = unsupported(file, "asks for a bias or an activation function", err);
    else if (!f->s->given)
        r = hf_read_weights(f, weights, take_dense, err);
    f->dense = NULL;
    in = hf_json_get(config, "in_features");
    out = hf_json_get(config, "out_features");
    t = source_tensor(f->s, name);
    fits = t && cJSON_IsNumber(in) && cJSON_IsNumber(out) && in->valuedouble == (double)t->ne[0] &&
           out->valuedouble == (double)t->ne[1];
    if (r == 0 && !t && !f->s->given)
        r = err_set_at(err, GD_EFORMAT, "linear.weight", "%s lacks linear.weight.", weights);
    else if (r == 0 && !fits && !f->s->given)
        r = err_set_at(err, GD_EFORMAT, "in_features",
            "%s: in_features and out_features are not the shape of linear.weight.", file);
    cJSON_Delete(config);
    return r;
}

/* The last part of a class's name: sentence_transformers.models.Dense. */
static const char *class_of(const cJSON *module)
{
    const cJSON *type = hf_json_get(module, "type");
    const char *name = cJSON_IsString(type) ? type->valuestring : "", *dot = strrchr(name, '.');

    return dot ? dot + 1 : name;
}

/* A folder below this one, or "". NULL: not safe to open. */
static const char *path_of(const cJSON *module)
{
    const cJSON *path = hf_json_get(module, "path");
    const char *p = cJSON_IsString(path) ? path->valuestring : NULL;

    return p && (!*p || (name_valid(p, strlen(p), 40) && !strchr(p, '/') && p[0] != '.')) ? p
                                                                                          : NULL;
}

/* Transformer, Pooling, up to two Dense, Normalize. */
static int read_module(
    struct hf_files *f, const cJSON *module, int i, int n, int *n_dense, struct err *err)
{
    const char *class = class_of(module), *path = path_of(module);
    struct shown shown;

    if (!path)
        return err_set_at(err, GD_EFORMAT, "path",
            "%s: module %d has no path that names a folder of this one.", modules_name, i);
    if (i == 0 && strcmp(class, "Transformer") == 0 && !*path)
        return 0;
    if (i == 1 && strcmp(class, "Pooling") == 0)
        return read_pooling(f, path, err);
    if (i > 1 && i < n - 1 && strcmp(class, "Dense") == 0 && *n_dense < MAX_DENSE)
        return read_dense(f, path, 2 + (*n_dense)++, err);
    if (i > 1 && i == n - 1 && strcmp(class, "Normalize") == 0)
        return 0;
    return err_set_at(err, GD_ENOTSUP, modules_name,
        "%s: module %d is a \"%s\"; gemmad knows Transformer, Pooling, up to two Dense and "
        "Normalize, in this order.",
        modules_name, i, show(&shown, class, strlen(class)));
}

int hf_read_modules(struct hf_files *f, struct err *err)
{
    struct mapping map;
    const cJSON *module;
    cJSON *modules = NULL;
    int i = 0, n, n_dense = 0, r;

    if (!hf_exists(f, modules_name))
        return 0;
    r = hf_map_json(f, modules_name, max_json, &map, err);
    if (r == 0)
        r = hf_json_parse_array(&modules, map.file.data, map.file.size, modules_name, err);
    if (r < 0)
        return r;
    n = cJSON_GetArraySize(modules);
    cJSON_ArrayForEach(module, modules)
    {
        if (r == 0)
            r = read_module(f, module, i++, n, &n_dense, err);
    }
    if (r == 0 && n < 3)
        r = unsupported(modules_name, "lists no Pooling and Normalize after the model", err);
    cJSON_Delete(modules);
    return r;
}
