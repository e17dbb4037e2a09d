#include "graph/packed_file.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

enum { ALIGN = 64, MAX_ENTRIES = 65536 };
enum { PIECE = 1 << 20 }; /* of a matrix, hashed by one thread */
enum { BUFFER = 2 << 20 };

static const char magic[8] = {'g', 'e', 'm', 'm', 'a', 'd', 'p', 'w'};
static const uint32_t byte_order = 0x01020304;

/* As in the file; no padding anywhere. */
struct header {
    char magic[8];
    uint32_t order, format;
    uint64_t sum;   /* of all that follows, the directory included */
    uint64_t bytes; /* of the file */
    uint64_t model; /* struct packed_key's */
    uint32_t quantize, head, head_in_planes;
    uint32_t n_entries;
};

struct entry {
    char name[PACKED_NAME]; /* with its NUL */
    uint32_t type, rows, k, n, in_planes;
    float max_scale;
    uint64_t offset, bytes;
    uint64_t sum; /* of the hashes of its pieces, one after the other */
};

_Static_assert(sizeof(struct header) == 56, "the header has no padding");
_Static_assert(sizeof(struct entry) == 112, "an entry has no padding");

/* Header and directory are copies: who writes into the file can spoil weights, not bounds. */
struct packed_file {
    const uint8_t *data;
    struct header header;
    struct entry *entries; /* n_entries */
};

static uint64_t sum_of(const struct header *h, const struct entry *entries)
{
    const size_t from = offsetof(struct header, bytes);
    uint64_t sum = hash_bytes(0, (const char *)h + from, sizeof(*h) - from);

    return hash_bytes(sum, entries, h->n_entries * sizeof(*entries));
}

static size_t n_pieces(const struct entry *e)
{
    return (e->bytes + PIECE - 1) / PIECE;
}

static uint64_t hash_piece(const uint8_t *data, size_t bytes, size_t i)
{
    const size_t at = i * PIECE, left = bytes - at;

    return hash_bytes(i, data + at, left < PIECE ? left : PIECE);
}

/* ---- reading ---- */

bool packed_file_is_one(const uint8_t *data, size_t size)
{
    return size == 0 || (size >= sizeof(magic) && memcmp(data, magic, sizeof(magic)) == 0);
}

static int check_header(
    const struct header *h, size_t size, const struct packed_key *key, struct err *err)
{
    if (h->order != byte_order || h->format != PACKED_FORMAT)
        return err_set(err, GD_EFORMAT, "it was written by another version of gemmad");
    if (h->bytes != size || h->n_entries > MAX_ENTRIES ||
        size - sizeof(*h) < h->n_entries * sizeof(struct entry))
        return err_set(err, GD_EFORMAT, "it is not complete");
    if (h->model != key->model)
        return err_set(
            err, GD_EFORMAT, "it belongs to another model, or to this one before it was changed");
    if (h->quantize != key->quantize || h->head != key->head ||
        h->head_in_planes != key->head_in_planes)
        return err_set(err, GD_EFORMAT,
            "it was packed for other settings (quantize, head, screen_head or profile)");
    return 0;
}

static bool is_valid(const struct entry *e, const struct header *h)
{
    const uint64_t first = sizeof(*h) + h->n_entries * sizeof(*e);

    return e->name[0] && memchr(e->name, 0, sizeof(e->name)) && e->bytes > 0 &&
           e->offset % ALIGN == 0 && e->offset >= first && e->offset <= h->bytes &&
           e->bytes <= h->bytes - e->offset && e->in_planes <= 1 && e->max_scale >= 0;
}

/* Together no larger than the file, so that checking them ends. */
static int check_entries(const struct packed_file *f, size_t *pieces, struct err *err)
{
    uint64_t bytes = 0;

    *pieces = 0;
    for (uint32_t i = 0; i < f->header.n_entries; i++) {
        const struct entry *e = &f->entries[i];

        if (!is_valid(e, &f->header) || (i > 0 && strcmp(e[-1].name, e->name) >= 0) ||
            e->bytes > f->header.bytes - bytes)
            return err_set(err, GD_EFORMAT, "its directory makes no sense at entry %u", i);
        bytes += e->bytes;
        *pieces += n_pieces(e);
    }
    if (*pieces > INT_MAX)
        return err_set(err, GD_EFORMAT, "it is too large");
    return 0;
}

struct checking {
    const struct packed_file *f;
    uint64_t *hashes; /* of all pieces */
    int n;
};

static void hash_share(void *arg, int thread, int n_threads)
{
    const struct checking *c = arg;
    int first, last, at = 0;

    pool_share(c->n, thread, n_threads, &first, &last);
    for (uint32_t i = 0; i < c->f->header.n_entries; i++) {
        const struct entry *e = &c->f->entries[i];
        const int n = (int)n_pieces(e);

        for (int p = first > at ? first : at; p < last && p < at + n; p++)
            c->hashes[p] = hash_piece(c->f->data + e->offset, (size_t)e->bytes, (size_t)(p - at));
        at += n;
    }
}

static int check_payload(
    const struct packed_file *f, size_t pieces, struct pool *pool, struct err *err)
{
    struct checking c = {.f = f, .n = (int)pieces};
    const uint64_t *at;
    int r = 0;

    c.hashes = xcalloc(pieces, sizeof(*c.hashes));
    pool_run(pool, hash_share, &c);
    at = c.hashes;
    for (uint32_t i = 0; i < f->header.n_entries && r == 0; i++) {
        const struct entry *e = &f->entries[i];

        if (hash_bytes(0, at, n_pieces(e) * sizeof(*at)) != e->sum)
            r = err_set(err, GD_EFORMAT, "the weights of entry %u in it are damaged", i);
        at += n_pieces(e);
    }
    free(c.hashes);
    return r;
}

/* The order matters: nothing is believed before what vouches for it. */
static int check(struct packed_file *f, size_t size, const struct packed_key *key,
    struct pool *pool, struct err *err)
{
    const struct header *h = &f->header;
    size_t pieces;
    int r = check_header(h, size, key, err);

    if (r < 0)
        return r;
    f->entries = xcalloc(h->n_entries, sizeof(*f->entries));
    memcpy(f->entries, f->data + sizeof(*h), h->n_entries * sizeof(*f->entries));
    if (sum_of(h, f->entries) != h->sum)
        return err_set(err, GD_EFORMAT, "its directory is damaged");
    r = check_entries(f, &pieces, err);
    return r < 0 ? r : check_payload(f, pieces, pool, err);
}

int packed_file_open(struct packed_file **out, const uint8_t *data, size_t size,
    const struct packed_key *key, struct pool *pool, struct err *err)
{
    struct packed_file *f;
    int r;

    if (size == 0 || !packed_file_is_one(data, size))
        return err_set(err, GD_EFORMAT, "it is no file of packed weights");
    if (size < sizeof(f->header))
        return err_set(err, GD_EFORMAT, "it is not complete");
    f = xcalloc(1, sizeof(*f));
    f->data = data;
    memcpy(&f->header, data, sizeof(f->header));
    r = check(f, size, key, pool, err);
    if (r == 0)
        *out = f;
    else
        packed_file_close(f);
    return r;
}

void packed_file_close(struct packed_file *f)
{
    if (!f)
        return;
    free(f->entries);
    free(f);
}

static int by_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct entry *)entry)->name);
}

bool packed_file_find(const struct packed_file *f, struct packed_matrix *m)
{
    const struct entry *e = bsearch(m->name, f->entries, f->header.n_entries, sizeof(*e), by_name);

    if (!e || e->type != m->type || e->rows != (uint32_t)m->rows || e->k != (uint32_t)m->k ||
        e->n != (uint32_t)m->n || e->in_planes != m->in_planes || e->bytes != m->bytes)
        return false;
    m->data = f->data + e->offset;
    m->max_scale = e->max_scale;
    return true;
}

/* ---- writing ---- */

static int by_names(const void *a, const void *b)
{
    return strcmp(((const struct packed_matrix *)a)->name, ((const struct packed_matrix *)b)->name);
}

/* Everything but the sums. Names have been checked where they were read from. */
static void describe(struct header *h, struct entry *entries, const struct packed_matrix *m)
{
    uint64_t at = sizeof(*h) + h->n_entries * sizeof(*entries);

    for (uint32_t i = 0; i < h->n_entries; i++, m++) {
        struct entry *e = &entries[i];

        *e = (struct entry){.type = m->type,
            .rows = (uint32_t)m->rows,
            .k = (uint32_t)m->k,
            .n = (uint32_t)m->n,
            .in_planes = m->in_planes,
            .max_scale = m->max_scale,
            .offset = mem_round_up(at, ALIGN),
            .bytes = m->bytes};
        strncpy(e->name, m->name, sizeof(e->name) - 1);
        at = e->offset + e->bytes;
    }
    h->bytes = at;
}

/* What is written goes through a buffer, so that the file comes in whole large pages: then file
 * systems that have them keep them in the page cache, and the weights are read through as few
 * address translations as anonymous memory needs (decoding is 5 % slower without). */
struct stream {
    struct file_draft draft;
    const atomic_bool *stop;
    uint8_t *buffer; /* of BUFFER bytes, for the file's from at / BUFFER * BUFFER on */
    uint64_t at;
};

static int flush(struct stream *s, struct err *err)
{
    const size_t n = (s->at - 1) % BUFFER + 1;

    if (atomic_load(s->stop))
        return err_set(err, GD_ECANCELED, "gemmad stopped before it was complete");
    return file_draft_write(&s->draft, s->at - n, s->buffer, n, err);
}

/* data NULL: zeros. */
static int put(struct stream *s, const uint8_t *data, size_t n, struct err *err)
{
    int r = 0;

    while (n > 0 && r == 0) {
        const size_t in = s->at % BUFFER, room = BUFFER - in, part = n < room ? n : room;

        if (data) {
            memcpy(s->buffer + in, data, part);
            data += part;
        } else {
            memset(s->buffer + in, 0, part);
        }
        n -= part;
        s->at += part;
        if (s->at % BUFFER == 0)
            r = flush(s, err);
    }
    return r;
}

static int put_matrix(struct stream *s, struct entry *e, const uint8_t *data, struct err *err)
{
    const size_t n = n_pieces(e);
    uint64_t *hashes = xcalloc(n, sizeof(*hashes));
    int r = put(s, NULL, (size_t)(e->offset - s->at), err);

    for (size_t i = 0; i < n && r == 0; i++) {
        const size_t at = i * PIECE, left = (size_t)e->bytes - at;

        hashes[i] = hash_piece(data, (size_t)e->bytes, i);
        r = put(s, data + at, left < PIECE ? left : PIECE, err);
    }
    e->sum = hash_bytes(0, hashes, n * sizeof(*hashes));
    free(hashes);
    return r;
}

/* The header comes last: without it the file is none. */
static int put_all(struct stream *s, struct header *h, struct entry *entries,
    const struct packed_matrix *m, struct err *err)
{
    const size_t directory = h->n_entries * sizeof(*entries);
    int r = put(s, NULL, sizeof(*h) + directory, err);

    for (uint32_t i = 0; i < h->n_entries && r == 0; i++)
        r = put_matrix(s, &entries[i], m[i].data, err);
    if (r == 0 && s->at % BUFFER != 0)
        r = flush(s, err);
    h->sum = sum_of(h, entries);
    if (r == 0)
        r = file_draft_write(&s->draft, sizeof(*h), entries, directory, err);
    return r < 0 ? r : file_draft_write(&s->draft, 0, h, sizeof(*h), err);
}

int packed_file_write(const char *path, bool is_public, const struct packed_key *key,
    struct packed_matrix *m, size_t n, const atomic_bool *stop, struct err *err)
{
    struct entry *entries = xcalloc(n, sizeof(*entries));
    struct stream s = {.stop = stop, .buffer = xcalloc(BUFFER, 1)};
    struct header h = {.order = byte_order,
        .format = PACKED_FORMAT,
        .model = key->model,
        .quantize = key->quantize,
        .head = key->head,
        .head_in_planes = key->head_in_planes,
        .n_entries = (uint32_t)n};
    int r;

    memcpy(h.magic, magic, sizeof(magic));
    qsort(m, n, sizeof(*m), by_names);
    describe(&h, entries, m);
    r = file_draft_open(&s.draft, path, is_public ? 0644 : 0600, (size_t)h.bytes, err);
    if (r == 0)
        r = put_all(&s, &h, entries, m, err);
    if (r == 0)
        r = file_draft_commit(&s.draft, err);
    file_draft_abandon(&s.draft);
    free(s.buffer);
    free(entries);
    return r;
}
