/* matmul_tiles.h - cuts a product into register tiles: strips of a few panels, under chunks of
 * columns that stay in the L2 cache while all rows stream past. Every tile computes each output in
 * the same order, so the cut never shows in the result. */
#ifndef KERNELS_MATMUL_TILES_H
#define KERNELS_MATMUL_TILES_H

#include "kernels/matmul_impl.h"

/* Loops over a tile's constant panels, columns and groups unroll, so that its arrays become
 * registers. Through SIMDe, where each intrinsic is a function, and under sanitizers they stay
 * loops with variable bounds: compiling would take minutes, and nobody times those builds. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TILES_AS_LOOPS
#endif
#endif
#if defined(USE_SIMDE) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TILES_AS_LOOPS
#endif

#ifdef TILES_AS_LOOPS
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

struct tile {
    const uint8_t *panel;
    size_t panel_bytes;  /* to the next panel */
    const uint8_t *fine; /* in planes: lower halves of the first panel; else anything */
    int n_panels, n_cols;
    const uint8_t *x; /* first column */
    size_t col_bytes;
    int k;
    const uint8_t *fetch; /* where to go on fetching the next strip into the cache */
    int fetch_lines;      /* cache lines per block of 32 k; 0 when computing hides the memory */
    float *y;             /* first row of the first column */
    size_t ldy;
    int n_rows; /* rows to write */
};

struct tiling {
    int panels, cols; /* largest tile */
    int alone;        /* panels per tile when there is one column */
    /* Strips of so many tiles fetch the next strip while they compute. With more, computing hides
     * the memory and fetching only costs load slots; with one, some kernels read fast enough by
     * themselves. */
    int fetch_from, fetch_to;
    void (*tile)(const struct tile *t); /* n_panels is `panels`, `alone` or 1, n_cols 1 .. `cols` */
};

/* The two tile functions of a quantised type, for columns of one plane and of two. */
#define DEFINE_TILES(type)                           \
    static void tile_8_##type(const struct tile *t)  \
    {                                                \
        tile_any(type, 1, t);                        \
    }                                                \
    static void tile_16_##type(const struct tile *t) \
    {                                                \
        tile_any(type, 2, t);                        \
    }
#define TILE_OF(type, planes) ((planes) == 1 ? tile_8_##type : tile_16_##type)

void matmul_tiles(const struct tiling *how, const struct wmat *w, const struct act *x, float *y,
    size_t ldy, int first, int last);

/* Writes the 16 * n_panels sums of column c that exist; sums lie together in memory. */
static inline void tile_store(const struct tile *t, int c, const float *sums, int n_rows)
{
    memcpy(t->y + (size_t)c * t->ldy, sums, (size_t)n_rows * sizeof(float));
}

/* Fetches this tile's share of the next strip. */
static inline const uint8_t *tile_fetch(const uint8_t *at, int n_lines)
{
    for (; n_lines > 0; n_lines--, at += 64)
        __builtin_prefetch(at);
    return at;
}

#endif
