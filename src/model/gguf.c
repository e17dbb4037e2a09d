/* The GGUF container: a header, metadata, a list of tensors, their bytes.
 *
 * Nothing in the file is believed. Every count and length is compared with what is left of the file
 * before it is used, sums and products are checked for overflow, and memory grows with what was
 * read, not with what was announced. */
#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/dtype.h"
#include "model/gguf_part.h"

/* Alignments beyond a page or two make no sense. */
enum { MAX_DIMS = 4, DEFAULT_ALIGNMENT = 32, MAX_ALIGNMENT = 65536 };

/* Far above any vocabulary: even a file that is truly large must not make us read for minutes. */
enum { MAX_ARRAY = 1 << 24 };

static const struct {
    const char *name;
    uint8_t bytes;
} value_types[GGUF_N_TYPES] = {
    [GGUF_U8] = {"u8", 1},
    [GGUF_I8] = {"i8", 1},
    [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},
    [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},
    [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0},
    [GGUF_U64] = {"u64", 8},
    [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_name(uint32_t type)
{
    return type < GGUF_N_TYPES ? value_types[type].name : "unknown";
}

size_t gguf_type_bytes(uint32_t type)
{
    return type < GGUF_N_TYPES ? value_types[type].bytes : 0;
}

static size_t left(const struct gguf_part *p)
{
    return p->map.file.size - p->at;
}

static bool take(struct gguf_part *p, void *out, size_t n)
{
    if (n > left(p))
        return false;
    memcpy(out, p->map.file.data + p->at, n);
    p->at += n;
    return true;
}

/* The bytes of a string, borrowed from the mapping. */
static bool take_string(struct gguf_part *p, const char **out, uint64_t *len)
{
    uint64_t n;

    if (!take(p, &n, sizeof(n)) || n > left(p))
        return false;
    *out = (const char *)p->map.file.data + p->at;
    *len = n;
    p->at += n;
    return true;
}

/* The file is shorter than its contents say. kind and name tell where: "the key", "gemma3.x". */
static int cut(const struct gguf_part *p, const char *kind, const char *name, struct err *err)
{
    return err_set_at(err, GD_EFORMAT, name, "%s ends after %zu bytes, inside %s %s.", p->name.text,
        p->map.file.size, kind, name);
}

static int refuse_magic(const struct gguf_part *p, const char *magic, struct err *err)
{
    static const char *const ancestors[] = {"lmgg", "tjgg", "fmgg", "algg"};

    for (size_t i = 0; i < sizeof(ancestors) / sizeof(*ancestors); i++)
        if (memcmp(magic, ancestors[i], 4) == 0)
            return err_set_at(err, GD_ENOTSUP, "magic",
                "%s is a GGML file from before GGUF; convert the model again.", p->name.text);
    if (p->map.file.size > 8 && p->map.file.data[8] == '{')
        return err_set_at(err, GD_ENOTSUP, "magic",
            "%s looks like a safetensors file; name the folder it lies in.", p->name.text);
    return err_set_at(err, GD_EFORMAT, "magic",
        "%s is not a GGUF file: it does not begin with the letters GGUF.", p->name.text);
}

static int read_header(struct gguf_part *p, struct err *err)
{
    char magic[4];
    uint32_t version;

    if (p->map.file.size == 0)
        return err_set_at(err, GD_EFORMAT, "magic", "%s is empty.", p->name.text);
    if (!take(p, magic, sizeof(magic)))
        return cut(p, "the header's", "magic", err);
    if (memcmp(magic, "GGUF", 4) != 0)
        return refuse_magic(p, magic, err);
    if (!take(p, &version, sizeof(version)))
        return cut(p, "the header's", "version", err);
    if (version != 0 && (version & 0xffff) == 0)
        return err_set_at(err, GD_ENOTSUP, "version",
            "%s is a big-endian GGUF file; gemmad reads little-endian ones.", p->name.text);
    if (version < 2 || version > 3)
        return err_set_at(err, GD_ENOTSUP, "version",
            "%s has GGUF version %u; gemmad reads versions 2 and 3.", p->name.text, version);
    if (!take(p, &p->n_tensors, sizeof(p->n_tensors)))
        return cut(p, "the header's", "n_tensors", err);
    if (!take(p, &p->n_keys, sizeof(p->n_keys)))
        return cut(p, "the header's", "n_keys", err);
    if (p->n_tensors > SOURCE_MAX_NAMES)
        return err_set_at(err, GD_EFORMAT, "n_tensors",
            "%s announces %llu tensors; at most %d are allowed.", p->name.text,
            (unsigned long long)p->n_tensors, SOURCE_MAX_NAMES);
    if (p->n_keys > SOURCE_MAX_NAMES)
        return err_set_at(err, GD_EFORMAT, "n_keys",
            "%s announces %llu metadata keys; at most %d are allowed.", p->name.text,
            (unsigned long long)p->n_keys, SOURCE_MAX_NAMES);
    return 0;
}

/* Remembers where each string begins, so that looking one up is cheap and bound to this mapping. */
static int read_strings(struct gguf_part *p, struct value *v, const char *key, struct err *err)
{
    const char *s;
    uint64_t len;

    if (v->n > left(p) / sizeof(uint64_t))
        return cut(p, "the key", key, err);
    v->strings = calloc(v->n + 1, sizeof(*v->strings));
    if (!v->strings)
        return err_set_at(err, GD_ENOMEM, key, "There is no memory for the key %s.", key);
    for (uint64_t i = 0; i < v->n; i++) {
        v->strings[i] = p->map.file.data + p->at;
        if (!take_string(p, &s, &len))
            return cut(p, "the key", key, err);
    }
    v->strings[v->n] = p->map.file.data + p->at;
    return 0;
}

static int read_array(struct gguf_part *p, struct value *v, const char *key, struct err *err)
{
    size_t bytes;

    if (!take(p, &v->elem_type, sizeof(v->elem_type)) || !take(p, &v->n, sizeof(v->n)))
        return cut(p, "the key", key, err);
    if (v->elem_type == GGUF_ARRAY)
        return err_set_at(err, GD_EFORMAT, key,
            "The key %s is an array of arrays, which GGUF readers do not accept.", key);
    if (v->elem_type >= GGUF_N_TYPES)
        return err_set_at(err, GD_EFORMAT, key,
            "The key %s is an array of values of type %u, which GGUF does not know.", key,
            v->elem_type);
    if (v->n > MAX_ARRAY)
        return err_set_at(err, GD_EFORMAT, key,
            "The key %s announces an array of %llu elements; at most %d are allowed.", key,
            (unsigned long long)v->n, MAX_ARRAY);
    v->data = p->map.file.data + p->at;
    if (v->elem_type == GGUF_STRING)
        return read_strings(p, v, key, err);
    bytes = gguf_type_bytes(v->elem_type);
    if (v->n > left(p) / bytes)
        return cut(p, "the key", key, err);
    p->at += v->n * bytes;
    return 0;
}

static int read_value(struct gguf_part *p, struct value *v, const char *key, struct err *err)
{
    const char *s;
    int r = 0;

    if (!take(p, &v->type, sizeof(v->type)))
        return cut(p, "the key", key, err);
    if (v->type >= GGUF_N_TYPES)
        return err_set_at(err, GD_EFORMAT, key,
            "The key %s has a value of type %u, which GGUF does not know.", key, v->type);
    if (v->type == GGUF_STRING) {
        if (!take_string(p, &s, &v->n))
            return cut(p, "the key", key, err);
        v->data = (const uint8_t *)s;
    } else if (v->type == GGUF_ARRAY) {
        r = read_array(p, v, key, err);
    } else {
        v->n = 1;
        v->data = p->map.file.data + p->at;
        if (gguf_type_bytes(v->type) > left(p))
            return cut(p, "the key", key, err);
        p->at += gguf_type_bytes(v->type);
    }
    if (r < 0 || (v->type != GGUF_BOOL && v->elem_type != GGUF_BOOL))
        return r;
    for (uint64_t i = 0; i < v->n; i++)
        if (v->data[i] > 1)
            return err_set_at(err, GD_EFORMAT, key,
                "The key %s holds a bool that is %u; only 0 and 1 are allowed.", key, v->data[i]);
    return 0;
}

static int read_keys(struct gguf_part *p, struct err *err)
{
    for (uint64_t i = 0; i < p->n_keys; i++) {
        struct value *v;
        struct shown shown;
        const char *key;
        uint64_t len;
        char number[24];
        int r;

        snprintf(number, sizeof(number), "key %u", (unsigned)i + 1);
        if (!take_string(p, &key, &len))
            return cut(p, "the name of", number, err);
        if (!name_valid(key, len, SOURCE_MAX_NAME))
            return err_set_at(err, GD_EFORMAT, number,
                "%s: the name of %s must be 1 to %d printable ASCII characters.", p->name.text,
                number, SOURCE_MAX_NAME);
        v = values_add(&p->values, key, len);
        if (!v) {
            show(&shown, key, len);
            return err_set_at(
                err, GD_EFORMAT, shown.text, "%s has the key %s twice.", p->name.text, shown.text);
        }
        r = read_value(p, v, p->values.names.at[p->values.names.n - 1], err);
        if (r < 0)
            return r;
    }
    return 0;
}

int gguf_part_open(struct gguf_part *p, struct source *s, const char *path, struct err *err)
{
    int r;

    *p = (struct gguf_part){0};
    show_file(&p->name, path);
    r = source_map(s, path, &p->map, err);
    if (r < 0)
        return r;
    r = read_header(p, err);
    return r < 0 ? r : read_keys(p, err);
}

/* Where a tensor lies in the data section. */
struct span {
    uint64_t offset, bytes;
    size_t i_tensor;
};

static int read_shape(struct gguf_part *p, struct tensor *t, struct err *err)
{
    uint32_t n_dims;

    if (!take(p, &n_dims, sizeof(n_dims)))
        return cut(p, "the tensor", t->name, err);
    if (n_dims < 1 || n_dims > MAX_DIMS)
        return err_set_at(err, GD_EFORMAT, t->name,
            "The tensor %s has %u dimensions; 1 to %d are allowed.", t->name, n_dims, MAX_DIMS);
    t->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < n_dims; i++) {
        if (!take(p, &t->ne[i], sizeof(t->ne[i])))
            return cut(p, "the tensor", t->name, err);
        if (t->ne[i] < 1)
            return err_set_at(err, GD_EFORMAT, t->name, "The tensor %s has a dimension of %lld.",
                t->name, (long long)t->ne[i]);
    }
    return 0;
}

static int read_tensor_info(
    struct gguf_part *p, struct source *s, uint64_t number, struct span *span, struct err *err)
{
    struct shown shown;
    struct tensor *t;
    const char *name;
    uint64_t len;
    char which[24];
    int r;

    snprintf(which, sizeof(which), "tensor %u", (unsigned)number + 1);
    if (!take_string(p, &name, &len))
        return cut(p, "the name of", which, err);
    if (!name_valid(name, len, SOURCE_MAX_TENSOR_NAME))
        return err_set_at(err, GD_EFORMAT, which,
            "%s: the name of %s must be 1 to %d printable ASCII characters.", p->name.text, which,
            SOURCE_MAX_TENSOR_NAME);
    t = source_add_tensor(s, name, len);
    if (!t) {
        show(&shown, name, len);
        return err_set_at(
            err, GD_EFORMAT, shown.text, "%s has the tensor %s twice.", p->name.text, shown.text);
    }
    r = read_shape(p, t, err);
    if (r < 0)
        return r;
    if (!take(p, &t->type, sizeof(t->type)) || !take(p, &span->offset, sizeof(span->offset)))
        return cut(p, "the tensor", t->name, err);
    r = source_size_tensor(t, err);
    span->bytes = t->bytes;
    span->i_tensor = s->tensor_names.n - 1;
    return r;
}

static int by_offset(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int read_alignment(const struct gguf_part *p, size_t *out, struct err *err)
{
    static const char key[] = "general.alignment";
    uint32_t a = DEFAULT_ALIGNMENT;
    int r = values_u32(&p->values, key, &a, err);

    if (r < 0)
        return r;
    if (a == 0 || a > MAX_ALIGNMENT || (a & (a - 1)) != 0)
        return err_set_at(err, GD_EFORMAT, key,
            "The key %s is %u, but must be a power of two up to %d.", key, a, MAX_ALIGNMENT);
    *out = a;
    return 0;
}

/* Every tensor inside the data section, none over another. */
static int place_tensors(struct gguf_part *p, struct source *s, struct span *spans, struct err *err)
{
    size_t alignment, start, end = 0;
    int r = read_alignment(p, &alignment, err);

    if (r < 0)
        return r;
    start = mem_round_up(p->at, alignment);
    qsort(spans, p->n_tensors, sizeof(*spans), by_offset);
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        struct tensor *t = &s->tensors[spans[i].i_tensor];
        uint64_t offset = spans[i].offset;

        if (offset % alignment != 0)
            return err_set_at(err, GD_EFORMAT, t->name,
                "The tensor %s begins at offset %llu, which is no multiple of the alignment %zu.",
                t->name, (unsigned long long)offset, alignment);
        if (start > p->map.file.size || offset > p->map.file.size - start ||
            t->bytes > p->map.file.size - start - offset)
            return err_set_at(err, GD_EFORMAT, t->name,
                "The tensor %s lies beyond the end of %s; the file is incomplete.", t->name,
                p->name.text);
        if (offset < end)
            return err_set_at(err, GD_EFORMAT, t->name, "The tensor %s overlaps the tensor %s.",
                t->name, s->tensors[spans[i - 1].i_tensor].name);
        end = offset + t->bytes;
        t->data = p->map.file.data + start + offset;
    }
    return 0;
}

int gguf_part_tensors(struct gguf_part *p, struct source *s, struct err *err)
{
    struct span *spans;
    int r = 0;

    if (p->n_tensors > SOURCE_MAX_NAMES - s->tensor_names.n)
        return err_set_at(err, GD_EFORMAT, "n_tensors",
            "The parts up to %s announce more than %d tensors.", p->name.text, SOURCE_MAX_NAMES);
    spans = xcalloc(p->n_tensors, sizeof(*spans));
    for (uint64_t i = 0; i < p->n_tensors && r == 0; i++)
        r = read_tensor_info(p, s, i, &spans[i], err);
    if (r == 0)
        r = place_tensors(p, s, spans, err);
    free(spans);
    return r;
}
