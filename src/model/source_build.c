/* Tables and mappings for the readers of model files. */
#include "model/source_build.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/dtype.h"

static uint64_t hash(const char *s, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a; SOURCE_MAX_NAMES bounds what collisions can cost */

    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h ^ (h >> 32);
}

/* The slot that holds the name, or the empty one where it belongs. */
static size_t probe(const struct names *t, const char *name, size_t len)
{
    size_t mask = t->n_slots - 1, slot = hash(name, len) & mask;

    while (t->slots[slot]) {
        const char *other = t->at[t->slots[slot] - 1];

        if (strlen(other) == len && memcmp(other, name, len) == 0)
            break;
        slot = (slot + 1) & mask;
    }
    return slot;
}

static void grow(struct names *t)
{
    t->cap = t->cap ? 2 * t->cap : 64;
    t->at = xrealloc(t->at, t->cap * sizeof(*t->at));
    free(t->slots);
    t->n_slots = 2 * t->cap;
    t->slots = xcalloc(t->n_slots, sizeof(*t->slots));
    for (size_t i = 0; i < t->n; i++)
        t->slots[probe(t, t->at[i], strlen(t->at[i]))] = (uint32_t)i + 1;
}

bool names_add(struct names *t, const char *name, size_t len, size_t *i)
{
    size_t slot;
    char *copy;

    if (t->n == t->cap)
        grow(t);
    slot = probe(t, name, len);
    if (t->slots[slot]) {
        *i = t->slots[slot] - 1;
        return false;
    }
    copy = xcalloc(len + 1, 1);
    memcpy(copy, name, len);
    *i = t->n;
    t->at[t->n++] = copy;
    t->slots[slot] = (uint32_t)t->n;
    return true;
}

bool names_find(const struct names *t, const char *name, size_t *i)
{
    size_t slot;

    if (t->n == 0)
        return false;
    slot = probe(t, name, strlen(name));
    if (!t->slots[slot])
        return false;
    *i = t->slots[slot] - 1;
    return true;
}

void names_free(struct names *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->at[i]);
    free(t->at);
    free(t->slots);
    *t = (struct names){0};
}

struct value *values_add(struct values *v, const char *key, size_t len)
{
    size_t i;

    if (!names_add(&v->names, key, len, &i))
        return NULL;
    if (v->cap < v->names.cap) {
        v->cap = v->names.cap;
        v->at = xrealloc(v->at, v->cap * sizeof(*v->at));
    }
    v->at[i] = (struct value){0};
    return &v->at[i];
}

const struct value *values_find(const struct values *v, const char *key)
{
    size_t i;

    return names_find(&v->names, key, &i) ? &v->at[i] : NULL;
}

void values_free(struct values *v)
{
    for (size_t i = 0; i < v->names.n; i++)
        free(v->at[i].strings);
    free(v->at);
    names_free(&v->names);
    *v = (struct values){0};
}

struct tensor *source_add_tensor(struct source *s, const char *name, size_t len)
{
    size_t i;

    if (!names_add(&s->tensor_names, name, len, &i))
        return NULL;
    if (s->tensors_cap < s->tensor_names.cap) {
        s->tensors_cap = s->tensor_names.cap;
        s->tensors = xrealloc(s->tensors, s->tensors_cap * sizeof(*s->tensors));
    }
    s->tensors[i] = (struct tensor){.name = s->tensor_names.at[i], .ne = {1, 1, 1, 1}};
    return &s->tensors[i];
}

void source_drop_tensors(struct source *s)
{
    names_free(&s->tensor_names);
    free(s->tensors);
    s->tensors = NULL;
    s->tensors_cap = 0;
}

static int refuse_type(const char *tensor, uint32_t type, struct err *err)
{
    const char *name = dtype_name(type);

    if (!name)
        return err_set_at(err, GD_EFORMAT, tensor,
            "The tensor %s has type number %u, which GGUF does not know.", tensor, type);
    return err_set_at(err, GD_ENOTSUP, tensor,
        "The tensor %s has type %s, which gemmad cannot compute with; requantise the file to "
        "Q4_K_M, Q8_0 or another type it knows.",
        tensor, name);
}

int source_size_tensor(struct tensor *t, struct err *err)
{
    const struct dtype_info *type = dtype_find(t->type);
    size_t bytes;

    if (!type)
        return refuse_type(t->name, t->type, err);
    if (t->ne[0] % type->block != 0)
        return err_set_at(err, GD_EFORMAT, t->name,
            "The tensor %s has rows of %lld values, but %s comes in blocks of %d.", t->name,
            (long long)t->ne[0], type->name, type->block);
    bytes = (size_t)(t->ne[0] / type->block);
    if (!mem_mul(bytes, (size_t)type->bytes, &bytes) || !mem_mul(bytes, (size_t)t->ne[1], &bytes) ||
        !mem_mul(bytes, (size_t)t->ne[2], &bytes) || !mem_mul(bytes, (size_t)t->ne[3], &bytes))
        return err_set_at(
            err, GD_EFORMAT, t->name, "The tensor %s has a shape too large for any file.", t->name);
    t->bytes = bytes;
    return 0;
}

void *source_alloc(struct source *s, size_t bytes)
{
    void *p = calloc(bytes ? bytes : 1, 1);

    if (!p)
        return NULL;
    s->owned = xrealloc(s->owned, (s->n_owned + 1) * sizeof(*s->owned));
    s->owned[s->n_owned++] = p;
    return p;
}

int source_map(struct source *s, const char *path, struct mapping *out, struct err *err)
{
    struct mapping map;
    int r;

    show_file(&map.name, path);
    r = file_map(&map.file, path, map.name.text, err);
    if (r < 0)
        return r;
    s->maps = xrealloc(s->maps, (s->n_maps + 1) * sizeof(*s->maps));
    s->maps[s->n_maps++] = map;
    *out = map;
    return 0;
}

void source_unmap(struct source *s)
{
    for (size_t i = 0; i < s->n_maps; i++)
        file_unmap(&s->maps[i].file);
    free(s->maps);
}

int source_unchanged(const struct source *s, struct err *err)
{
    int r = 0;

    for (size_t i = 0; i < s->n_maps && r == 0; i++)
        r = file_unchanged(&s->maps[i].file, s->maps[i].name.text, err);
    return r;
}

/* ---- tensors that the caller brings ---- */

/* The divisors of frequencies that a config.json implies give way to the caller's own. */
static struct tensor *place_of(struct source *s, const char *name)
{
    struct tensor *t = source_add_tensor(s, name, strlen(name));
    size_t i;

    if (t || !names_find(&s->tensor_names, name, &i) || s->tensors[i].given)
        return t;
    return &s->tensors[i];
}

static int check_shape(struct tensor *t, struct err *err)
{
    if (t->n_dims < 1 || t->n_dims > 4)
        return err_set_at(err, GD_EFORMAT, t->name,
            "The tensor %s has %d dimensions; 1 to 4 are allowed.", t->name, t->n_dims);
    for (int i = 0; i < 4; i++) {
        if (i >= t->n_dims)
            t->ne[i] = 1;
        if (t->ne[i] < 1)
            return err_set_at(err, GD_EFORMAT, t->name, "The tensor %s has a dimension of %lld.",
                t->name, (long long)t->ne[i]);
    }
    return 0;
}

static int give_one(struct source *s, const struct tensor *given, struct err *err)
{
    struct tensor copy = *given, *t;
    int r;

    if (!copy.name || !name_valid(copy.name, strlen(copy.name), SOURCE_MAX_TENSOR_NAME))
        return err_set_at(err, GD_EFORMAT, "name",
            "The name of a tensor must be 1 to %d printable ASCII characters.",
            SOURCE_MAX_TENSOR_NAME);
    r = check_shape(&copy, err);
    if (r == 0)
        r = source_size_tensor(&copy, err);
    if (r < 0)
        return r;
    if (!given->data || given->bytes != copy.bytes)
        return err_set_at(err, GD_EFORMAT, copy.name,
            "The tensor %s has %zu bytes of data, but its type and shape make %zu.", copy.name,
            given->data ? given->bytes : 0, copy.bytes);
    t = place_of(s, copy.name);
    if (!t)
        return err_set_at(err, GD_EFORMAT, copy.name, "The tensor %s is there twice.", copy.name);
    copy.name = t->name;
    copy.in_memory = copy.given = true;
    *t = copy;
    return 0;
}

int source_give(struct source *s, const struct given_tensors *given, struct err *err)
{
    int r = 0;

    if (given->n > SOURCE_MAX_NAMES)
        return err_set_at(err, GD_EFORMAT, "tensors",
            "There are %zu tensors; at most %d are allowed.", given->n, SOURCE_MAX_NAMES);
    for (size_t i = 0; i < given->n && r == 0; i++)
        r = give_one(s, &given->at[i], err);
    return r;
}
