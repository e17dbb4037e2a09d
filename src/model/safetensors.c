#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/hf_json.h"
#include "model/source_show.h"

/* The format allows 100 MB; Gemma's largest header has 200 KB. */
static const uint64_t max_header = 16u << 20;

static const struct {
    const char *name;
    int bits;
} dtypes[] = {{"BOOL", 8}, {"U8", 8}, {"I8", 8}, {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
    {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32}, {"U32", 32}, {"F32", 32},
    {"I64", 64}, {"U64", 64}, {"F64", 64}, {"C64", 64}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}};

struct reader {
    struct mapping map;
    size_t data_at; /* where the tensors' bytes begin */
    struct shown file;
    struct span *spans; /* one per tensor */
    size_t n_spans;
};

struct span {
    uint64_t begin, end;
    const char *name;
};

static int refuse(
    const struct safetensor *t, const struct reader *rd, const char *why, struct err *err)
{
    struct shown name;

    show(&name, t->name, strlen(t->name));
    return err_set_at(
        err, GD_EFORMAT, name.text, "%s: the tensor %s %s.", rd->file.text, name.text, why);
}

/* A whole number from 0 to 2^53, beyond which JSON numbers are not exact. */
static bool whole(const cJSON *json, uint64_t *out)
{
    double d = cJSON_IsNumber(json) ? json->valuedouble : -1;

    if (!(d >= 0 && d <= 9007199254740992.) || d != floor(d))
        return false;
    *out = (uint64_t)d;
    return true;
}

static int dtype_bits(const char *name)
{
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(*dtypes); i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bits;
    return 0;
}

/* Shape and type of one entry, and how many bytes they make. */
static int read_shape(
    const struct reader *rd, const cJSON *entry, struct safetensor *t, struct err *err)
{
    const cJSON *dtype = hf_json_get(entry, "dtype"), *shape = hf_json_get(entry, "shape"), *dim;
    uint64_t n;
    size_t bits;

    if (!cJSON_IsString(dtype))
        return refuse(t, rd, "has no dtype", err);
    t->dtype = dtype->valuestring;
    bits = (size_t)dtype_bits(t->dtype);
    if (bits == 0)
        return refuse(t, rd, "has a dtype that safetensors does not know", err);
    if (!cJSON_IsArray(shape))
        return refuse(t, rd, "has no shape", err);
    cJSON_ArrayForEach(dim, shape)
    {
        if (t->n_dims == SAFETENSORS_MAX_DIMS)
            return refuse(t, rd, "has more than 8 dimensions", err);
        if (!whole(dim, &n))
            return refuse(t, rd, "has a dimension that is no whole number", err);
        if (!mem_mul(bits, n, &bits))
            return refuse(t, rd, "has a shape too large for any file", err);
        t->shape[t->n_dims++] = (int64_t)n;
    }
    if (bits % 8 != 0)
        return refuse(t, rd, "does not end at a whole byte", err);
    t->bytes = bits / 8;
    return 0;
}

static int read_entry(struct reader *rd, const cJSON *entry, struct safetensor *t, struct err *err)
{
    const cJSON *offsets = hf_json_get(entry, "data_offsets");
    size_t room = rd->map.file.size - rd->data_at;
    uint64_t begin, end;
    int r;

    *t = (struct safetensor){.name = entry->string};
    if (!cJSON_IsObject(entry))
        return refuse(t, rd, "is not described by an object", err);
    r = read_shape(rd, entry, t, err);
    if (r < 0)
        return r;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !whole(offsets->child, &begin) || !whole(offsets->child->next, &end) || end < begin)
        return refuse(t, rd, "has no proper data_offsets", err);
    if (end > room)
        return refuse(t, rd, "lies beyond the end of the file; the file is incomplete", err);
    if (end - begin != t->bytes)
        return refuse(t, rd, "has data_offsets that do not fit its shape and dtype", err);
    t->data = rd->map.file.data + rd->data_at + begin;
    rd->spans[rd->n_spans++] = (struct span){begin, end, entry->string};
    return 0;
}

static int by_begin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end); /* empty tensors first */
}

static int check_spans(struct reader *rd, struct err *err)
{
    uint64_t at = 0;

    qsort(rd->spans, rd->n_spans, sizeof(*rd->spans), by_begin);
    for (size_t i = 0; i < rd->n_spans; i++) {
        const struct safetensor t = {.name = rd->spans[i].name};

        if (rd->spans[i].begin < at)
            return refuse(&t, rd, "overlaps another tensor", err);
        if (rd->spans[i].begin > at)
            return refuse(&t, rd, "leaves a hole before its bytes", err);
        at = rd->spans[i].end;
    }
    if (at != rd->map.file.size - rd->data_at)
        return err_set_at(err, GD_EFORMAT, "data_offsets",
            "%s goes on after the bytes of its last tensor.", rd->file.text);
    return 0;
}

static int read_header(struct reader *rd, cJSON **header, struct err *err)
{
    char name[128];
    uint64_t len;

    if (rd->map.file.size < sizeof(len))
        return err_set_at(err, GD_EFORMAT, "header", "%s ends after %zu bytes, inside its header.",
            rd->file.text, rd->map.file.size);
    memcpy(&len, rd->map.file.data, sizeof(len));
    if (len > max_header)
        return err_set_at(err, GD_EFORMAT, "header",
            "%s announces a header of %llu bytes; at most %llu are allowed.", rd->file.text,
            (unsigned long long)len, (unsigned long long)max_header);
    if (len > rd->map.file.size - sizeof(len))
        return err_set_at(err, GD_EFORMAT, "header", "%s ends after %zu bytes, inside its header.",
            rd->file.text, rd->map.file.size);
    rd->data_at = sizeof(len) + len;
    snprintf(name, sizeof(name), "The header of %s", rd->file.text);
    return hf_json_parse(header, rd->map.file.data + sizeof(len), len, name, err);
}

int safetensors_read(
    struct source *s, const char *path, safetensors_fn *fn, void *arg, struct err *err)
{
    struct reader rd = {.data_at = 0};
    cJSON *header = NULL;
    const cJSON *entry;
    int r;

    show_file(&rd.file, path);
    r = source_map(s, path, &rd.map, err);
    if (r == 0)
        r = read_header(&rd, &header, err);
    if (r == 0) {
        rd.spans = calloc((size_t)cJSON_GetArraySize(header) + 1, sizeof(*rd.spans));
        if (!rd.spans)
            r = err_set(err, GD_ENOMEM, "There is no memory for %s.", rd.file.text);
    }
    cJSON_ArrayForEach(entry, header)
    {
        struct safetensor t;

        if (r < 0)
            break;
        if (strcmp(entry->string, "__metadata__") == 0)
            continue;
        r = read_entry(&rd, entry, &t, err);
        if (r == 0)
            r = fn(arg, &t, err);
    }
    if (r >= 0)
        r = check_spans(&rd, err);
    free(rd.spans);
    cJSON_Delete(header);
    return r < 0 ? r : 0;
}
