/* matmul_tiles.c - see matmul_tiles.h. */
#include "kernels/matmul_tiles.h"

enum {
    CHUNK_BYTES = 384 << 10, /* of prepared columns; half of a small L2 cache is 256 to 512 KB */
    CHUNK_MIN_COLS = 48,
};

/* Columns c0 .. c1 - 1 of one strip, in tiles as equal as possible. They share the fetching of the
 * next strip evenly, so that the memory never rests; a panel asked for alone has none. */
static void strip(
    const struct tiling *how, struct tile t, const struct act *x, int c0, int c1, bool alone)
{
    float *y = t.y;
    int n_tiles = (c1 - c0 + how->cols - 1) / how->cols;

    if (!alone && n_tiles >= how->fetch_from && n_tiles <= how->fetch_to) {
        const size_t lines = (size_t)t.n_panels * t.panel_bytes / 64;
        const size_t blocks = (size_t)n_tiles * (size_t)((t.k + BLOCK_K - 1) / BLOCK_K);

        t.fetch = t.panel + (size_t)t.n_panels * t.panel_bytes;
        t.fetch_lines = (int)((lines + blocks - 1) / blocks);
    }
    for (; n_tiles > 0; n_tiles--) {
        t.n_cols = (c1 - c0 + n_tiles - 1) / n_tiles;
        t.x = act_col(x, c0);
        t.y = y + (size_t)c0 * t.ldy;
        how->tile(&t);
        c0 += t.n_cols;
        if (t.fetch_lines)
            t.fetch += (size_t)t.fetch_lines * (size_t)(t.k / BLOCK_K) * 64;
    }
}

void matmul_tiles(const struct tiling *how, const struct wmat *w, const struct act *x, float *y,
    size_t ldy, int first, int last)
{
    const int panels = x->n_cols == 1 ? how->alone : how->panels;
    const int fit = (int)(CHUNK_BYTES / x->col_bytes) / how->cols * how->cols;
    const int chunk = fit > CHUNK_MIN_COLS ? fit : CHUNK_MIN_COLS;

    for (int c0 = 0; c0 < x->n_cols; c0 += chunk) {
        const int c1 = c0 + chunk < x->n_cols ? c0 + chunk : x->n_cols;

        for (int p = first; p < last;) {
            const int n = p + panels <= last ? panels : 1;
            const int left = w->rows - p * PANEL_ROWS;
            const struct tile t = {
                .panel = w->data + (size_t)p * w->panel_bytes,
                .panel_bytes = w->panel_bytes,
                .fine = wmat_fine(w, p),
                .n_panels = n,
                .col_bytes = x->col_bytes,
                .k = w->k,
                .y = y + (size_t)p * PANEL_ROWS,
                .ldy = ldy,
                .n_rows = left < n * PANEL_ROWS ? left : n * PANEL_ROWS,
            };

            strip(how, t, x, c0, c1, last - first == 1);
            p += n;
        }
    }
}
