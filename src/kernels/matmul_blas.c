/* matmul_blas.c - the product through OpenBLAS: a few panels at a time become floats, and sgemm
 * multiplies them with the columns as they lie.
 *
 * Batch invariance: what sgemm makes of a row and a column may depend on the shape of the call and
 * on where in the shape they lie. So every call has the same shape, BLAS_ROWS x n x k, filled up
 * with zeros, and n is the largest that passes a test: equal rows and columns must give equal bits
 * everywhere. (OpenBLAS 0.3.21's Haswell kernel fails it for 12 columns and more.) */
#include "kernels/matmul.h"

#include <pthread.h>
#include <string.h>

#include <cblas.h>

#include "base/mem.h"
#include "kernels/matmul_impl.h"

enum { BLAS_PANELS = 8, BLAS_ROWS = BLAS_PANELS * PANEL_ROWS, MAX_COLS = 48 };

static int call_cols; /* columns per call; set once */

static void multiply(int n_cols, int k, const float *w, const float *x, int ldx, float *y)
{
    cblas_sgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, BLAS_ROWS, n_cols, k, 1, w, BLAS_ROWS, x,
        ldx, 0, y, BLAS_ROWS);
}

/* Whether all places of a call of this shape give the same bits. buffer: MAX_COLS + BLAS_ROWS
 * floats per k, and the results. */
static bool places_are_equal(int n_cols, int k, float *buffer)
{
    float *w = buffer, *x = w + (size_t)k * BLAS_ROWS, *y = x + (size_t)k * MAX_COLS;

    for (int i = 0; i < k; i++) {
        const float a = (float)(i * 7919 % 1009 - 500) / 997, b = (float)(i * 104729 % 997) / 1013;

        for (int r = 0; r < BLAS_ROWS; r++)
            w[i * BLAS_ROWS + r] = a;
        for (int c = 0; c < n_cols; c++)
            x[c * k + i] = b;
    }
    multiply(n_cols, k, w, x, k, y);
    for (int i = 1; i < n_cols * BLAS_ROWS; i++)
        if (f32_bits(y[i]) != f32_bits(y[0]))
            return false;
    return true;
}

/* Our own threads cut the rows, so OpenBLAS gets one. */
static void set_up(void)
{
    static const int choices[] = {MAX_COLS, 24, 8}, ks[] = {57, 640, 1000};
    const size_t bytes = (1000 * (BLAS_ROWS + MAX_COLS) + BLAS_ROWS * MAX_COLS) * sizeof(float);
    float *buffer = mem_aligned(bytes);

    openblas_set_num_threads(1);
    call_cols = 4; /* what is left if nothing larger passes: one step of any kernel */
    for (int i = 2; buffer && i >= 0; i--)
        if (places_are_equal(choices[i], ks[0], buffer) &&
            places_are_equal(choices[i], ks[1], buffer) &&
            places_are_equal(choices[i], ks[2], buffer))
            call_cols = choices[i];
    if (buffer)
        mem_aligned_free(buffer, bytes);
}

size_t matmul_blas_scratch(int k)
{
    return (size_t)BLAS_ROWS * (size_t)k * sizeof(float) + MAX_COLS * act_col_bytes(ACT_F32, k) +
           BLAS_ROWS * MAX_COLS * sizeof(float);
}

/* All columns against BLAS_ROWS rows, of which the first n_rows go to y. */
static void strip(
    const struct act *x, const float *weights, int n_rows, float *y, size_t ldy, float *columns)
{
    const size_t ldx = x->col_bytes / sizeof(float);
    float *out = columns + MAX_COLS * ldx; /* [call_cols][BLAS_ROWS] */

    for (int c = 0; c < x->n_cols; c += call_cols) {
        const int n = x->n_cols - c < call_cols ? x->n_cols - c : call_cols;
        const float *from = (const float *)act_col(x, c);

        if (n < call_cols) {
            memcpy(columns, from, (size_t)n * x->col_bytes);
            memset(columns + n * ldx, 0, (size_t)(call_cols - n) * x->col_bytes);
            from = columns;
        }
        multiply(call_cols, x->k, weights, from, (int)ldx, out);
        for (int i = 0; i < n; i++)
            memcpy(y + (size_t)(c + i) * ldy, out + i * BLAS_ROWS, (size_t)n_rows * sizeof(float));
    }
}

void matmul_blas(const struct wmat *w, const struct act *x, float *y, size_t ldy, int first,
    int last, void *scratch)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    float *weights = scratch; /* [k][BLAS_ROWS] */

    pthread_once(&once, set_up);
    for (int p = first; p < last; p += BLAS_PANELS) {
        const int n_panels = last - p < BLAS_PANELS ? last - p : BLAS_PANELS;
        const int left = w->rows - p * PANEL_ROWS;

        if (n_panels < BLAS_PANELS)
            memset(weights, 0, (size_t)BLAS_ROWS * w->k * sizeof(float));
        for (int i = 0; i < n_panels; i++)
            wmat_panel_floats(w, p + i, 0, w->k, weights + i * PANEL_ROWS, BLAS_ROWS);
        strip(x, weights, left < n_panels * PANEL_ROWS ? left : n_panels * PANEL_ROWS,
            y + (size_t)p * PANEL_ROWS, ldy, weights + (size_t)BLAS_ROWS * w->k);
    }
}
