/* Values out of config.json, keys into the source. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/gguf.h"
#include "model/hf_config_private.h"

int hf_wrong(struct hf_reader *c, const char *key, const char *what)
{
    return err_set_at(c->err, GD_EFORMAT, key, "config.json: %s %s.", key, what);
}

int hf_unsupported(struct hf_reader *c, const char *key, const char *what)
{
    return err_set_at(c->err, GD_ENOTSUP, key, "config.json: %s %s.", key, what);
}

int hf_no_memory(struct hf_reader *c)
{
    return err_set(c->err, GD_ENOMEM, "There is no memory for config.json.");
}

/* ---- keys of the source */

/* n values of `size` bytes, copied; n < 0: one that is no array. */
static int put(struct hf_reader *c, const char *suffix, const char *origin, enum gguf_type type,
    const void *values, size_t size, int n)
{
    size_t bytes = size * (n < 0 ? 1 : (size_t)n);
    char key[96];
    struct value *v;
    uint8_t *data = source_alloc(c->s, bytes);

    if (!data)
        return hf_no_memory(c);
    memcpy(data, values, bytes);
    snprintf(key, sizeof(key), "%s.%s", c->family.gguf_name, suffix);
    v = values_add(&c->s->values, key, strlen(key));
    if (!v) /* two steps wrote the same key */
        return hf_wrong(c, origin, "is said in two ways");
    v->type = n < 0 ? type : GGUF_ARRAY;
    v->elem_type = type;
    v->n = n < 0 ? 1 : (uint64_t)n;
    v->data = data;
    v->origin = origin;
    return 0;
}

int hf_put_u32(struct hf_reader *c, const char *suffix, const char *origin, uint32_t n)
{
    return put(c, suffix, origin, GGUF_U32, &n, sizeof(n), -1);
}

int hf_put_f32(struct hf_reader *c, const char *suffix, const char *origin, double f)
{
    const float value = (float)f;

    return put(c, suffix, origin, GGUF_F32, &value, sizeof(value), -1);
}

int hf_put_bool(struct hf_reader *c, const char *suffix, const char *origin, bool b)
{
    const uint8_t value = b;

    return put(c, suffix, origin, GGUF_BOOL, &value, 1, -1);
}

int hf_put_text(struct hf_reader *c, const char *key, const char *text)
{
    struct value *v = values_add(&c->s->values, key, strlen(key));

    if (!v)
        return hf_no_memory(c);
    v->type = GGUF_STRING;
    v->n = strlen(text);
    v->data = (const uint8_t *)text;
    return 0;
}

int hf_put_bools(struct hf_reader *c, const char *suffix, const char *origin, const uint8_t *b)
{
    return put(c, suffix, origin, GGUF_BOOL, b, 1, c->out->n_layers);
}

int hf_put_floats(struct hf_reader *c, const char *suffix, const char *origin, const float *f)
{
    return put(c, suffix, origin, GGUF_F32, f, sizeof(*f), c->out->n_layers);
}

int hf_put_counts(struct hf_reader *c, const char *suffix, const char *origin, const uint32_t *n)
{
    for (int i = 1; i < c->out->n_layers; i++)
        if (n[i] != n[0])
            return put(c, suffix, origin, GGUF_U32, n, sizeof(*n), c->out->n_layers);
    return hf_put_u32(c, suffix, origin, n[0]);
}

/* ---- values of config.json */

bool hf_is_null(const cJSON *v)
{
    return !v || cJSON_IsNull(v);
}

bool hf_is_true(const cJSON *from, const char *key)
{
    return cJSON_IsTrue(hf_json_get(from, key));
}

int hf_number(struct hf_reader *c, const cJSON *from, const char *key, double fallback, double *out)
{
    const cJSON *v = hf_json_get(from, key);

    *out = fallback;
    if (hf_is_null(v))
        return 0;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble) || fabs(v->valuedouble) > 1e30)
        return hf_wrong(c, key, "must be a number");
    *out = v->valuedouble;
    return 0;
}

int hf_feature(struct hf_reader *c, const char *key, double fallback, double *out)
{
    return hf_number(c, c->text, key, cJSON_IsNull(hf_json_get(c->text, key)) ? 0 : fallback, out);
}

int hf_count(struct hf_reader *c, const char *key, double fallback, uint32_t *out)
{
    double d;
    int r = hf_number(c, c->text, key, fallback, &d);

    if (r < 0)
        return r;
    if (d < 0 || d > UINT32_MAX || d != floor(d))
        return hf_wrong(c, key, "must be a whole number");
    *out = (uint32_t)d;
    return 0;
}

int hf_copy_count(struct hf_reader *c, const char *key, double fallback, const char *suffix)
{
    uint32_t n = 0;
    int r = hf_count(c, key, fallback, &n);

    return r < 0 ? r : hf_put_u32(c, suffix, key, n);
}
