/* fingerprint.c - which model this is, without reading all of it. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/source.h"
#include "model/source_build.h"

enum { SAMPLE = 4096, SAMPLES = 4 };

/* All of a small thing; of a large one pieces from its first byte to its last. */
static uint64_t sample(uint64_t h, const uint8_t *p, size_t n)
{
    if (n <= (size_t)SAMPLES * SAMPLE)
        return hash_bytes(h, p, n);
    for (size_t i = 0; i < SAMPLES; i++)
        h = hash_bytes(h, p + (n - SAMPLE) / (SAMPLES - 1) * i, SAMPLE);
    return hash_bytes(h, p + n - SAMPLE, SAMPLE);
}

static uint64_t add_file(uint64_t h, const struct file_map *f)
{
    const int64_t facts[] = {f->st.st_size, f->st.st_mtim.tv_sec, f->st.st_mtim.tv_nsec};

    return sample(hash_bytes(h, facts, sizeof(facts)), f->data, f->size);
}

/* Where in which file; 0 and 0 for what a reader put together. */
static void locate(const struct source *s, const struct tensor *t, uint64_t *file, uint64_t *offset)
{
    *file = *offset = 0;
    for (size_t i = 0; i < s->n_maps && !t->in_memory; i++) {
        const struct file_map *f = &s->maps[i].file;

        if (t->data >= f->data && t->data < f->data + f->size) {
            *file = i + 1;
            *offset = (uint64_t)(t->data - f->data);
        }
    }
}

uint64_t source_fingerprint(const struct source *s)
{
    uint64_t h = hash_bytes(s->n_maps, NULL, 0);

    for (size_t i = 0; i < s->n_maps; i++)
        h = add_file(h, &s->maps[i].file);
    for (size_t i = 0; i < source_n_tensors(s); i++) {
        const struct tensor *t = source_tensor_at(s, i);
        uint64_t facts[8] = {t->type, t->bytes};

        for (int d = 0; d < 4; d++)
            facts[2 + d] = (uint64_t)t->ne[d];
        locate(s, t, &facts[6], &facts[7]);
        h = hash_bytes(h, facts, sizeof(facts));
        h = hash_bytes(h, t->name, strlen(t->name));
        h = sample(h, t->data, t->bytes);
    }
    for (size_t i = 0; i < s->n_maps; i++)
        mem_forget(s->maps[i].file.data, s->maps[i].file.size);
    return h;
}

bool source_is_public(const struct source *s)
{
    for (size_t i = 0; i < s->n_maps; i++)
        if (!(s->maps[i].file.st.st_mode & S_IROTH))
            return false;
    return true;
}
