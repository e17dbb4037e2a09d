#include "graph/pack.h"

#include "base/mem.h"
#include "kernels/planes.h"

struct packing {
    const struct wmat *w;
    uint8_t *dst;
    const uint8_t *src;
    const struct dtype_info *from; /* of src; another than the packed type: quantised */
    uint8_t *scratch; /* of all threads, share_bytes() each; NULL: packed straight from src */
};

/* One thread's part of the scratch. */
struct share {
    float *max_scale; /* of the panels it stored in planes */
    uint8_t *panel;   /* packed, before it is split */
    float *row;       /* in f32 */
    uint8_t *rows;    /* a panel's, quantised */
};

static size_t row_bytes(const struct dtype_info *type, int k)
{
    return (size_t)(k / type->block) * (size_t)type->bytes;
}

static size_t share_bytes(const struct wmat *w)
{
    return mem_round_up(64 + wmat_packed_bytes(w) + (size_t)w->k * sizeof(float) +
                            PANEL_ROWS * row_bytes(w->type, w->k),
        64);
}

static struct share share_of(const struct packing *p, int thread)
{
    uint8_t *at = p->scratch + (size_t)thread * share_bytes(p->w);
    struct share s = {.max_scale = (float *)(void *)at, .panel = at + 64};

    s.row = (float *)(void *)(s.panel + wmat_packed_bytes(p->w));
    s.rows = (uint8_t *)(s.row + p->w->k);
    return s;
}

/* The rows of panel i, as the packed type has them. */
static void store_panel(
    const struct packing *p, const struct share *mine, int i, const uint8_t *rows)
{
    const struct wmat *w = p->w;
    int left = w->rows - i * PANEL_ROWS;
    struct wmat one = wmat_init(w->type, left < PANEL_ROWS ? left : PANEL_ROWS, w->k, NULL);
    float scale;

    if (!w->fine) {
        wmat_pack(&one, p->dst + (size_t)i * w->panel_bytes, rows, 0, 1);
        return;
    }
    wmat_pack(&one, mine->panel, rows, 0, 1);
    scale = planes_store(w, p->dst, i, mine->panel);
    *mine->max_scale = scale > *mine->max_scale ? scale : *mine->max_scale;
}

static void (*quantize(enum dtype type))(const float *x, void *dst, size_t n)
{
    return type == DTYPE_Q8_0   ? dtype_quantize_q8_0
           : type == DTYPE_Q6_K ? dtype_quantize_q6_k
                                : dtype_quantize_q4_0;
}

static void pack_share(void *arg, int thread, int n_threads)
{
    struct packing *p = arg;
    const struct wmat *w = p->w;
    struct share mine;
    int first, last;

    pool_share(w->n_panels, thread, n_threads, &first, &last);
    if (!p->scratch) {
        wmat_pack(w, p->dst, p->src, first, last);
        return;
    }
    mine = share_of(p, thread);
    *mine.max_scale = 0;
    for (int i = first; i < last; i++) {
        int at = i * PANEL_ROWS, n = w->rows - at < PANEL_ROWS ? w->rows - at : PANEL_ROWS;
        const uint8_t *src = p->src + (size_t)at * row_bytes(p->from, w->k);

        if (p->from == w->type) {
            store_panel(p, &mine, i, src);
            continue;
        }
        for (int r = 0; r < n; r++) {
            uint8_t *dst = mine.rows + (size_t)r * row_bytes(w->type, w->k);

            p->from->to_float(src + (size_t)r * row_bytes(p->from, w->k), mine.row, (size_t)w->k);
            quantize(w->type->type)(mine.row, dst, (size_t)w->k);
        }
        store_panel(p, &mine, i, mine.rows);
    }
}

int pack_matrices(
    struct pool *pool, const struct tensor *t, struct wmat *w, int n, uint8_t *dst, struct err *err)
{
    struct packing p = {.w = w, .from = dtype_find(t->type)};
    int n_threads = pool ? pool_threads(pool) : 1;
    bool straight = p.from == w->type && !w->fine;
    size_t scratch = straight ? 0 : (size_t)n_threads * share_bytes(w);

    p.scratch = straight ? NULL : mem_aligned(scratch);
    if (!straight && !p.scratch)
        return err_set_at(err, GD_ENOMEM, t->name, "no memory to pack tensor %s", t->name);
    for (int i = 0; i < n; i++) {
        p.dst = dst + (size_t)i * wmat_bytes(w);
        p.src = t->data + (size_t)i * (t->bytes / (size_t)n);
        pool_run(pool, pack_share, &p);
    }
    for (int i = 0; !straight && i < n_threads; i++) {
        float scale = *share_of(&p, i).max_scale;

        w->max_scale = scale > w->max_scale ? scale : w->max_scale;
    }
    mem_aligned_free(p.scratch, scratch);
    if (!t->in_memory)
        mem_forget(t->data, t->bytes);
    return 0;
}
