/* matmul.h - y = W x on weights packed once into panels of 16 rows.
 *
 * A matrix [rows, k] becomes ceil(rows/16) panels; a panel holds 16 rows interleaved at 4 bytes of
 * k, so that one 64-byte line carries the same few k of all 16 rows. Packing keeps a type's own
 * codes and scales: a packed matrix is as large as the GGUF rows (rows rounded up to 16, k to the
 * tile), computing is exact on the integers, and an embedding row can be read back. One layout
 * serves every instruction set.
 *
 * Activations are prepared once per input and used by every matrix that reads it:
 *
 *   ACT_F32     plain floats                            any weights; always exact
 *   ACT_Q8      int8 codes, one f32 scale per 32        quantised weights, default profile
 *   ACT_Q16     16-bit codes in two int8 planes, same   quantised weights, precise profile
 *   ACT_BF16    bf16                                    BF16 weights, default, where the CPU has it
 *   ACT_BF16X2  the sum of two bf16                     BF16 weights, precise, the same
 *
 * The second plane of ACT_Q16 costs arithmetic only: the weights, which decoding waits for, are
 * read and unpacked once for both.
 *
 * The float order of every output is: for each block of 32 k ascending (16 for Q2_K, Q3_K and
 * Q6_K), y = fma(float(integer dot), w_scale * x_scale, y); types with a minimum m add y = fma(m,
 * x_scale * (sum of the x codes), y) right after. The dot is that of the whole 16-bit codes, as the
 * planes' dots give it: 256 * high + low. For ACT_F32: for k ascending y = y + w*x, each
 * operation rounded, the same on every instruction set. For the two of bf16: pairs of k ascending
 * (the pair of higher parts, then that of the lower ones), as the hardware adds them. A column with
 * a NaN or an infinity gives NaN. So y of one column is the same whatever n_cols, row split,
 * thread, and for all but bf16 whatever instruction set. */
#ifndef KERNELS_MATMUL_H
#define KERNELS_MATMUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/dtype.h"

enum { PANEL_ROWS = 16 };

struct wmat {
    const struct dtype_info *type;
    int rows, k;  /* as in the model */
    int n_panels; /* ceil(rows / 16); padding rows are zero */
    size_t panel_bytes;
    const uint8_t *data; /* [n_panels][panel_bytes], 64-byte aligned, borrowed */
    enum dtype layout;   /* type->type, or how kernels/planes.h lays Q8_0 out */
    /* In planes, else NULL and 0: */
    const uint8_t *fine;   /* the lower halves of the codes */
    const uint8_t *strong; /* columns that have changed places, see planes_order() */
    float max_scale;       /* the largest, see planes_store() */
};

/* Describes a packed matrix over memory the caller owns (data may be NULL to learn panel_bytes). k
 * % type->block == 0. */
struct wmat wmat_init(const struct dtype_info *type, int rows, int k, const void *data);
size_t wmat_bytes(const struct wmat *w);        /* of all panels */
size_t wmat_packed_bytes(const struct wmat *w); /* of a panel, in both planes where it has two */

/* Packs panels [first, last) from the rows as they lie in the GGUF; src is the matrix's first row.
 */
void wmat_pack(const struct wmat *w, uint8_t *dst, const void *src, int first, int last);

/* Reads row `row` back as k floats, exactly what dtype_info.to_float gives for it. */
void wmat_read_row(const struct wmat *w, int row, float *out);

enum act_kind { ACT_F32, ACT_Q8, ACT_Q16, ACT_BF16, ACT_BF16X2, ACT_KINDS };

/* A batch of prepared columns. */
struct act {
    enum act_kind kind;
    int n_cols, k;
    size_t col_bytes;
    uint8_t *data; /* [n_cols][col_bytes], 64-byte aligned, borrowed */
};

size_t act_col_bytes(enum act_kind kind, int k);
struct act act_init(enum act_kind kind, int n_cols, int k, void *data);

/* How a matrix product is computed, chosen once when a graph is compiled. */
enum matmul_backend { MATMUL_NATIVE, MATMUL_BLAS };
enum matmul_phase { PHASE_PREFILL, PHASE_DECODE };

struct kernels;

struct matmul_kernels {
    /* Fills column `col` of a->data from k floats. */
    void (*act_fill)(const struct act *a, int col, const float *x);
    /* y[c * ldy + row] for every column and the rows of panels [first, last); rows beyond w->rows
     * are not written. x->kind must be what matmul_act() names for this matrix. */
    void (*run)(
        const struct wmat *w, const struct act *x, float *y, size_t ldy, int first, int last);
};

/* How much of an activation the products see: 8 bits (or bf16), 16 bits, or all of it. */
enum precision { PRECISION_DEFAULT, PRECISION_PRECISE, PRECISION_REFERENCE };

/* The activation kind `run` wants for weights of this type. */
enum act_kind matmul_act(
    const struct kernels *k, const struct dtype_info *type, enum precision precision);

/* The faster backend for this type, phase and instruction set, from measurements (docs in the .c).
 */
enum matmul_backend matmul_auto(const struct kernels *k, const struct dtype_info *type,
    enum matmul_phase phase, enum precision precision);

/* The blas backend: panels dequantised to f32 a few at a time into scratch, cblas_sgemm on ACT_F32
 * columns. Batch invariant like run(): columns go in groups of a fixed size, padded with zeros.
 * scratch: matmul_blas_scratch(w->k) bytes per thread, 64-byte aligned. */
size_t matmul_blas_scratch(int k);
void matmul_blas(const struct wmat *w, const struct act *x, float *y, size_t ldy, int first,
    int last, void *scratch);

#endif
