/* attention.c - walks a task's keys: queries in groups, segments and blocks in ascending order.
 *
 * What makes a query's result independent of its company: it folds exactly the blocks that hold a
 * key it sees, each by the same arithmetic, and a block's other keys enter with p = 0, which leaves
 * a sum as it is (up to the sign of zero, which finish() removes). */
#include "kernels/attention_impl.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

size_t kv_layer_bytes(enum kv_type type, int n_kv_heads, int head_dim)
{
    return 2 * (size_t)n_kv_heads * KV_PAGE * (size_t)head_width(head_dim) * value_bytes(type);
}

/* One thread's scratch. */
struct room {
    float *query, *part, *total, *scores, *padded, *rescale;
};

static size_t room_floats(int width)
{
    return MAX_QUERIES * ((size_t)width + 2 * part_stride(width) + ROW_FLOATS + 1) + (size_t)width;
}

size_t attention_scratch(const struct attention_spec *spec)
{
    return mem_round_up(room_floats(head_width(spec->head_dim)) * sizeof(float), 64);
}

static struct room room_in(void *scratch, int width)
{
    struct room r;

    r.query = scratch;
    r.part = r.query + (size_t)MAX_QUERIES * (size_t)width;
    r.total = r.part + MAX_QUERIES * part_stride(width);
    r.scores = r.total + MAX_QUERIES * part_stride(width);
    r.padded = r.scores + MAX_QUERIES * ROW_FLOATS;
    r.rescale = r.padded + width;
    return r;
}

/* Some rows of a task, MAX_QUERIES queries at most; query i is row i / n_heads of the piece. */
struct piece {
    const struct attention_task *task;
    const struct attention_math *math;
    struct room room;
    int width, pos, n_rows;
    int end; /* of the positions it goes over */
};

/* The first key a query at pos sees. */
static int first_key(const struct attention_spec *spec, int pos)
{
    return spec->window > 0 && pos >= spec->window ? pos - spec->window + 1 : 0;
}

static int at_least(int x, int low)
{
    return x < low ? low : x;
}

static int at_most(int x, int high)
{
    return x > high ? high : x;
}

/* One more than the last key a query at pos sees. */
static int end_key(const struct attention_task *t, int pos)
{
    if (t->n_keys == 0)
        return pos + 1;
    return t->spec->window > 0 ? at_most(pos + t->spec->window, t->n_keys) : t->n_keys;
}

void attention_segments(const struct attention_task *t, int *first, int *last)
{
    *first = first_key(t->spec, t->pos) / ATTENTION_SEGMENT;
    *last = (end_key(t, t->pos + t->n_rows - 1) - 1) / ATTENTION_SEGMENT + 1;
}

static size_t part_floats(const struct attention_task *t)
{
    return (size_t)t->n_rows * (size_t)t->n_heads * part_stride(head_width(t->spec->head_dim));
}

size_t attention_part_bytes(const struct attention_task *t)
{
    return part_floats(t) * sizeof(float);
}

static void load_queries(const struct piece *p)
{
    const struct attention_task *t = p->task;
    size_t head_dim = (size_t)t->spec->head_dim, width = (size_t)p->width;
    uint8_t *dst = (uint8_t *)p->room.query;

    for (int i = 0; i < p->n_rows * t->n_heads; i++, dst += width * p->math->query_bytes) {
        int row = p->pos - t->pos + i / t->n_heads, head = t->head + i % t->n_heads;
        const float *q = t->q + (size_t)row * t->ld + (size_t)head * head_dim;

        if (head_dim < width) {
            memset(p->room.padded, 0, width * sizeof(float));
            memcpy(p->room.padded, q, head_dim * sizeof(float));
            q = p->room.padded;
        }
        p->math->load_query(dst, q, p->width);
    }
}

/* Folds the block of positions [start, start + 64) into the parts of the rows that see it. */
static void fold_block(const struct piece *p, int start, float *part)
{
    const struct attention_spec *spec = p->task->spec;
    const struct kv_view *kv = p->task->kv;
    const struct room *room = &p->room;
    int first_row = 0, last_row = p->n_rows;
    int n_heads = p->task->n_heads;
    int kv_head = p->task->head / (spec->n_heads / spec->n_kv_heads);
    int next = start + KV_PAGE < p->end ? start + KV_PAGE : start;
    size_t stride = part_stride(p->width);

    while (end_key(p->task, p->pos + first_row) <= start)
        first_row++;
    while (first_key(spec, p->pos + last_row - 1) >= start + KV_PAGE)
        last_row--;

    const struct block b = {.width = p->width,
        .first = at_least(first_key(spec, p->pos + first_row) - start, 0),
        .last = at_most(end_key(p->task, p->pos + last_row - 1) - start, KV_PAGE),
        .next = key_plane(kv, next, kv_head)};
    int skipped = first_row * n_heads, n = (last_row - first_row) * n_heads;
    const uint8_t *query =
        (const uint8_t *)room->query + (size_t)skipped * (size_t)p->width * p->math->query_bytes;
    const uint8_t *k = key_plane(kv, start, kv_head);

    part += (size_t)skipped * stride;
    p->math->scores(room->scores, query, n, k, &b);
    for (int i = 0; i < n; i++) {
        int pos = p->pos + first_row + i / n_heads;

        room->rescale[i] = p->math->softmax(spec, room->scores + (size_t)i * ROW_FLOATS,
            at_least(first_key(spec, pos) - start, 0),
            at_most(end_key(p->task, pos) - start, KV_PAGE),
            state_of(part + (size_t)i * stride, p->width));
    }
    p->math->accumulate(part, room->scores, room->rescale, n, k + plane_bytes(kv), &b);
}

/* The piece's queries over one segment alone. */
static void fold_segment(const struct piece *p, int segment, float *part)
{
    const struct attention_spec *spec = p->task->spec;
    size_t stride = part_stride(p->width);
    int first = at_least(first_key(spec, p->pos), segment * ATTENTION_SEGMENT);
    int last = at_most(end_key(p->task, p->pos + p->n_rows - 1), (segment + 1) * ATTENTION_SEGMENT);

    for (int i = 0; i < p->n_rows * p->task->n_heads; i++) {
        float *sum = part + (size_t)i * stride;

        memset(sum, 0, (size_t)p->width * sizeof(float));
        *state_of(sum, p->width) = (struct part_state){.max = -INFINITY, .sum = 0};
    }
    for (int start = first / KV_PAGE * KV_PAGE; start < last; start += KV_PAGE)
        fold_block(p, start, part);
}

/* Adds a later segment's part to the total of the earlier ones, for n queries. */
static void merge(float *total, float *part, int n, int width,
    void (*combine)(float *, float, const float *, float, int))
{
    size_t stride = part_stride(width);

    for (int i = 0; i < n; i++, total += stride, part += stride) {
        struct part_state *to = state_of(total, width), *from = state_of(part, width);
        float max = fmaxf(to->max, from->max);

        if (from->sum == 0) /* sees no key of this segment */
            continue;
        if (to->sum == 0) {
            memcpy(total, part, stride * sizeof(float));
            continue;
        }

        float a = to->max < max ? expf(to->max - max) : 1;
        float b = from->max < max ? expf(from->max - max) : 1;

        combine(total, a, part, b, width);
        *to = (struct part_state){.max = max, .sum = to->sum * a + from->sum * b};
    }
}

static void write_out(
    const struct piece *p, float *total, void (*finish)(float *, const float *, float, int))
{
    const struct attention_task *t = p->task;
    int head_dim = t->spec->head_dim;

    for (int i = 0; i < p->n_rows * t->n_heads; i++, total += part_stride(p->width)) {
        int row = p->pos - t->pos + i / t->n_heads, head = t->head + i % t->n_heads;

        finish(t->out + (size_t)row * t->ld + (size_t)head * (size_t)head_dim, total,
            1.0f / state_of(total, p->width)->sum, head_dim);
    }
}

static void run_piece(struct piece *p)
{
    struct attention_task rows = *p->task;
    int first, last;

    p->end = end_key(p->task, p->pos + p->n_rows - 1);
    rows.pos = p->pos;
    rows.n_rows = p->n_rows;
    attention_segments(&rows, &first, &last);
    load_queries(p);
    fold_segment(p, first, p->room.total);
    for (int s = first + 1; s < last; s++) {
        fold_segment(p, s, p->room.part);
        merge(p->room.total, p->room.part, p->n_rows * rows.n_heads, p->width, p->math->combine);
    }
    write_out(p, p->room.total, p->math->finish);
}

static struct piece first_piece(const struct attention_task *t, const struct attention_math *math)
{
    assert(t->n_heads >= 1 && t->n_heads <= MAX_QUERIES);
    int width = head_width(t->spec->head_dim);

    return (struct piece){
        .task = t,
        .math = math,
        .room = room_in(t->scratch, width),
        .width = width,
        .pos = t->pos,
        .n_rows = at_most(MAX_QUERIES / t->n_heads, t->n_rows),
    };
}

/* False after the task's last row. */
static bool next_piece(struct piece *p)
{
    const struct attention_task *t = p->task;

    p->pos += p->n_rows;
    p->n_rows = at_most(p->n_rows, t->pos + t->n_rows - p->pos);
    return p->n_rows > 0;
}

void attention_run(const struct attention_task *t, const struct attention_math *math)
{
    struct piece p = first_piece(t, math);

    do
        run_piece(&p);
    while (next_piece(&p));
}

void attention_run_segments(const struct attention_task *t, const struct attention_math *math,
    int first, int last, float *parts)
{
    struct piece p = first_piece(t, math);

    do {
        p.end = at_most(end_key(t, p.pos + p.n_rows - 1), last * ATTENTION_SEGMENT);
        load_queries(&p);
        for (int i = first; i < last; i++)
            fold_segment(&p, i, parts + (size_t)(i - first) * part_floats(t));
        parts += (size_t)(p.n_rows * t->n_heads) * part_stride(p.width);
    } while (next_piece(&p));
}

void attention_combine(float *dst, float a, const float *src, float b, int n)
{
    for (int i = 0; i < n; i++)
        dst[i] = dst[i] * a + src[i] * b;
}

void attention_finish(float *out, const float *acc, float factor, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = acc[i] * factor + 0.0f;
}

void attention_merge(const struct attention_task *t, float *parts)
{
    const struct piece all = {
        .task = t, .width = head_width(t->spec->head_dim), .pos = t->pos, .n_rows = t->n_rows};
    int first, last;

    attention_segments(t, &first, &last);
    for (int s = first + 1; s < last; s++)
        merge(parts, parts + (size_t)(s - first) * part_floats(t), t->n_rows * t->n_heads,
            all.width, attention_combine);
    write_out(&all, parts, attention_finish);
}
