/* One GGUF file, or all parts of a split one.
 *
 * A split model is name-00001-of-00003.gguf and so on. Part 1 holds the metadata; every part holds
 * split.no (from 0) and split.count, and tensors of its own. */
#include "model/gguf_part.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum { MAX_PARTS = 1024, DIGITS = 5 };

/* -00002-of-00003.gguf at the end of a path. */
static const char tail_form[] = "-00000-of-00000.gguf";

static bool parse_tail(const char *path, size_t *stem, unsigned *no, unsigned *count)
{
    size_t len = strlen(path), tail = sizeof(tail_form) - 1;
    unsigned numbers[2] = {0, 0}, i_number = 0;

    if (len < tail)
        return false;
    *stem = len - tail;
    for (size_t i = 0; i < tail; i++) {
        char c = path[*stem + i];

        if (tail_form[i] == '0') {
            if (c < '0' || c > '9')
                return false;
            numbers[i_number] = numbers[i_number] * 10 + (unsigned)(c - '0');
        } else {
            if (c != tail_form[i])
                return false;
            if (i == DIGITS + 1)
                i_number = 1;
        }
    }
    *no = numbers[0];
    *count = numbers[1];
    return true;
}

static int need_u32(const struct gguf_part *p, const char *key, uint32_t *out, struct err *err)
{
    int r = values_u32(&p->values, key, out, err);

    if (r == 0)
        return err_set_at(err, GD_EFORMAT, key,
            "%s is a part of a split file but lacks the key %s.", p->name.text, key);
    return r;
}

static int check_part(const struct gguf_part *p, unsigned no, unsigned count, struct err *err)
{
    uint32_t its_no, its_count;
    int r = need_u32(p, "split.no", &its_no, err);

    if (r > 0)
        r = need_u32(p, "split.count", &its_count, err);
    if (r < 0)
        return r;
    if (its_count != count)
        return err_set_at(err, GD_EFORMAT, "split.count",
            "%s says in split.count that it is one of %u parts, but %u were expected.",
            p->name.text, its_count, count);
    if (its_no != no - 1)
        return err_set_at(err, GD_EFORMAT, "split.no",
            "%s says in split.no that it is part %llu, but its name says %u.", p->name.text,
            (unsigned long long)its_no + 1, no);
    return 0;
}

/* Opens part `no`, whose path shares the stem of `path`. */
static int open_sibling(struct gguf_part *p, struct source *s, const char *path, size_t stem,
    unsigned no, unsigned count, struct err *err)
{
    struct buf name = {0};
    int r;

    buf_append(&name, path, stem);
    buf_printf(&name, "-%05u-of-%05u.gguf", no, count);
    r = gguf_part_open(p, s, name.data, err);
    if (r == GD_ENOENT)
        r = err_set_at(err, GD_ENOENT, p->name.text, "Part %u of %u of the model is missing: %s.",
            no, count, p->name.text);
    buf_free(&name);
    return r;
}

static int read_split(
    struct source *s, struct gguf_part *opened, const char *path, uint32_t count, struct err *err)
{
    unsigned no, name_count;
    uint32_t n_tensors = 0;
    size_t stem;

    if (count > MAX_PARTS)
        return err_set_at(err, GD_EFORMAT, "split.count",
            "The key split.count is %u; at most %d parts are allowed.", count, MAX_PARTS);
    if (!parse_tail(path, &stem, &no, &name_count) || name_count != count || no < 1 || no > count)
        return err_set_at(err, GD_EFORMAT, "split.count",
            "%s is one of %u parts, so its name must end in -NNNNN-of-%05u.gguf.",
            opened->name.text, count, count);
    for (unsigned i = 1; i <= count; i++) {
        struct gguf_part sibling = {0}, *p = i == no ? opened : &sibling;
        int r = i == no ? 0 : open_sibling(p, s, path, stem, i, count, err);

        if (r >= 0)
            r = check_part(p, i, count, err);
        if (r >= 0 && i == 1)
            r = need_u32(p, "split.tensors.count", &n_tensors, err);
        if (r >= 0)
            r = gguf_part_tensors(p, s, err);
        if (r >= 0 && i == 1) {
            s->values = p->values;
            p->values = (struct values){0};
        }
        values_free(&sibling.values);
        if (r < 0)
            return r;
    }
    if (n_tensors != s->tensor_names.n)
        return err_set_at(err, GD_EFORMAT, "split.tensors.count",
            "The key split.tensors.count says %u, but the parts hold %zu tensors.", n_tensors,
            s->tensor_names.n);
    return 0;
}

int gguf_read(struct source *s, const char *path, struct err *err)
{
    struct gguf_part p;
    uint32_t count = 1;
    int r = gguf_part_open(&p, s, path, err);

    if (r == 0)
        r = values_u32(&p.values, "split.count", &count, err);
    if (r >= 0 && count > 1) {
        r = read_split(s, &p, path, count, err);
    } else if (r >= 0) {
        r = gguf_part_tensors(&p, s, err);
        s->values = p.values;
        p.values = (struct values){0};
    }
    values_free(&p.values);
    return r;
}
