/* Opening by what lies at the path, and looking things up. */
#include "model/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "model/gguf.h"
#include "model/hf.h"
#include "model/source_build.h"
#include "model/source_show.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "model files are little endian");

int source_open(struct source **out, const char *path, struct err *err)
{
    return source_open_given(out, path, NULL, err);
}

int source_open_given(
    struct source **out, const char *path, const struct given_tensors *given, struct err *err)
{
    struct source *s;
    struct shown name;
    struct stat st;
    int r;

    show_file(&name, path);
    if (stat(path, &st) < 0)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? GD_ENOENT : GD_EIO,
            "%s cannot be opened: %s.", name.text, strerror(errno));
    s = xcalloc(1, sizeof(*s));
    s->path = xstrdup(path);
    s->is_folder = S_ISDIR(st.st_mode);
    s->given = given != NULL;
    r = s->is_folder ? hf_read(s, path, given, err) : gguf_read(s, path, err);
    if (r == 0 && given && !s->is_folder) {
        source_drop_tensors(s);
        r = source_give(s, given, err);
    }
    if (r == 0)
        r = source_unchanged(s, err);
    if (r < 0) {
        source_close(s);
        return r;
    }
    *out = s;
    return 0;
}

void source_close(struct source *s)
{
    if (!s)
        return;
    values_free(&s->values);
    source_drop_tensors(s);
    for (size_t i = 0; i < s->n_owned; i++)
        free(s->owned[i]);
    free(s->owned);
    source_unmap(s);
    free(s->path);
    free(s);
}

const char *source_path(const struct source *s)
{
    return s->path;
}

bool source_is_folder(const struct source *s)
{
    return s->is_folder;
}

size_t source_n_tensors(const struct source *s)
{
    return s->tensor_names.n;
}

const struct tensor *source_tensor_at(const struct source *s, size_t i)
{
    return i < s->tensor_names.n ? &s->tensors[i] : NULL;
}

const struct tensor *source_tensor(const struct source *s, const char *name)
{
    size_t i;

    return names_find(&s->tensor_names, name, &i) ? &s->tensors[i] : NULL;
}

const char *source_key_at(const struct source *s, size_t i)
{
    return i < s->values.names.n ? s->values.names.at[i] : NULL;
}

const char *source_key_origin(const struct source *s, const char *key)
{
    const struct value *v = values_find(&s->values, key);

    return v && v->origin ? v->origin : key;
}

const char *source_tensor_origin(const struct source *s, const char *name, char out[96])
{
    return s->is_folder && !s->given ? hf_original(name, (enum gemma_arch)s->arch, out) : name;
}

/* A number of any integer type; false for another type, or for a u64 that int64_t cannot hold. */
static bool as_int(uint32_t type, const uint8_t *p, int64_t *out)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    size_t bytes = gguf_type_bytes(type);

    if (bytes == 0 || bytes > sizeof(v))
        return false;
    memcpy(&v, p, bytes);
    switch (type) {
    case GGUF_U8: *out = v.u8; return true;
    case GGUF_I8: *out = (int64_t)v.i8; return true;
    case GGUF_U16: *out = v.u16; return true;
    case GGUF_I16: *out = v.i16; return true;
    case GGUF_U32: *out = v.u32; return true;
    case GGUF_I32: *out = v.i32; return true;
    case GGUF_I64: *out = v.i64; return true;
    case GGUF_U64: *out = v.i64; return v.u64 <= INT64_MAX;
    }
    return false;
}

static bool as_f32(uint32_t type, const uint8_t *p, float *out)
{
    double d;

    if (type == GGUF_F32) {
        memcpy(out, p, sizeof(*out));
        return true;
    }
    if (type != GGUF_F64)
        return false;
    memcpy(&d, p, sizeof(d));
    *out = (float)d;
    return true;
}

static int misfit(const struct value *v, const char *key, const char *want, struct err *err)
{
    return err_set_at(err, GD_EFORMAT, key, "The key %s has type %s, but must be %s.", key,
        gguf_type_name(v->type), want);
}

int values_u32(const struct values *t, const char *key, uint32_t *out, struct err *err)
{
    const struct value *v = values_find(t, key);
    int64_t i;

    if (!v)
        return 0;
    if (gguf_type_bytes(v->type) == 0 || v->type == GGUF_BOOL || v->type == GGUF_F32 ||
        v->type == GGUF_F64)
        return misfit(v, key, "an integer", err);
    if (!as_int(v->type, v->data, &i) || i < 0 || i > UINT32_MAX)
        return err_set_at(
            err, GD_EFORMAT, key, "The key %s must lie between 0 and %u.", key, UINT32_MAX);
    *out = (uint32_t)i;
    return 1;
}

int source_u32(const struct source *s, const char *key, uint32_t *out, struct err *err)
{
    return values_u32(&s->values, key, out, err);
}

int source_f32(const struct source *s, const char *key, float *out, struct err *err)
{
    const struct value *v = values_find(&s->values, key);

    if (!v)
        return 0;
    return as_f32(v->type, v->data, out) ? 1 : misfit(v, key, "a float", err);
}

int source_bool(const struct source *s, const char *key, bool *out, struct err *err)
{
    const struct value *v = values_find(&s->values, key);

    if (!v)
        return 0;
    if (v->type != GGUF_BOOL)
        return misfit(v, key, "a bool", err);
    *out = v->data[0] != 0;
    return 1;
}

int source_str(
    const struct source *s, const char *key, const char **out, size_t *len, struct err *err)
{
    const struct value *v = values_find(&s->values, key);

    if (!v)
        return 0;
    if (v->type != GGUF_STRING)
        return misfit(v, key, "a string", err);
    *out = (const char *)v->data;
    *len = v->n;
    return 1;
}

int source_array(const struct source *s, const char *key, struct source_array *out, struct err *err)
{
    const struct value *v = values_find(&s->values, key);

    if (!v)
        return 0;
    if (v->type != GGUF_ARRAY)
        return misfit(v, key, "an array", err);
    *out = (struct source_array){v->elem_type, v->n, v->data, v->strings};
    return 1;
}

bool source_array_int(const struct source_array *a, uint64_t i, int64_t *out)
{
    if (i >= a->n)
        return false;
    if (a->type == GGUF_BOOL) {
        *out = a->data[i] != 0;
        return true;
    }
    return as_int(a->type, a->data + i * gguf_type_bytes(a->type), out);
}

bool source_array_f32(const struct source_array *a, uint64_t i, float *out)
{
    return i < a->n && as_f32(a->type, a->data + i * gguf_type_bytes(a->type), out);
}

bool source_array_str(const struct source_array *a, uint64_t i, const char **out, size_t *len)
{
    const uint8_t *const *at = a->strings;

    if (a->type != GGUF_STRING || i >= a->n)
        return false;
    *out = (const char *)at[i] + sizeof(uint64_t);
    *len = (size_t)(at[i + 1] - at[i]) - sizeof(uint64_t);
    return true;
}
