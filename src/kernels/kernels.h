/* kernels.h - the arithmetic the model is made of, one pointer per kernel.
 *
 * kernels_init() fills the table with portable C, then lets every instruction set the CPU has
 * overwrite the entries it does better. Callers never test for a CPU feature; tests walk the same
 * levels and compare each with the C row.
 *
 * Invariance: what a kernel returns for a row depends on that row (and on the weights, and for
 * attention on the sequence's own keys) alone, bit for bit: never on how many rows stand beside it,
 * on how a range was cut, or on the thread. Reductions follow one fixed order per level. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/attention.h"
#include "kernels/matmul.h"

/* AVXVNNI is AVX2 with the dot products of bytes that CPUs without AVX-512 have. AVX512 means F,
 * BW, DQ, VL and VNNI; `bf16` in the table says whether AVX512_BF16 is there too. */
enum isa { ISA_C, ISA_AVX2, ISA_AVXVNNI, ISA_AVX512, ISA_NEON, ISA_COUNT };

struct kernels {
    enum isa isa;
    bool bf16; /* bf16 dot products in hardware */

    /* Rows of floats; out may be x where both are named. Lengths are any n >= 0, no alignment
     * needed. */
    /* out = x / sqrt(mean(x^2) + eps) * w; w == NULL means all ones */
    void (*rmsnorm)(float *out, const float *x, const float *w, float eps, int n);
    void (*add)(float *out, const float *x, const float *y, int n);
    void (*mul)(float *out, const float *x, const float *y, int n);
    void (*scale)(float *out, const float *x, float factor, int n);
    /* out = gelu_tanh(gate) * up */
    void (*geglu)(float *out, const float *gate, const float *up, int n);
    /* x = cap * tanh(x / cap) */
    void (*softcap)(float *x, float cap, int n);
    /* Half-split rotation of one head in place: pairs (x[i], x[i + n/2]), cos and sin of n/2
     * entries */
    void (*rope)(float *x, const float *cos, const float *sin, int n);

    /* Sampling: index of the largest value (first on ties, NaN never, 0 when there is none); sum
     * of exp(x - max). */
    int (*argmax)(const float *x, int n);
    float (*sum_exp)(const float *x, float max, int n);
    /* Draws (kernels/noise.h): noise_bound() of panels first, first + 1, ...; the largest of scale
     * * x[i] + bounds[i / 16], NaN never, -INFINITY when there is none. */
    void (*noise_bounds)(float *bounds, uint64_t key, int first, int n);
    float (*noisy_largest)(const float *x, const float *bounds, float scale, int n);

    struct matmul_kernels matmul;
    struct attention_kernels attention;
};

/* Levels above `max` are left out, and levels this CPU or build lacks. */
void kernels_init(struct kernels *k, enum isa max);
/* As on a CPU without bf16 dot products (tests). */
void kernels_init_without_bf16(struct kernels *k, enum isa max);
enum isa kernels_best(void);
bool kernels_has(enum isa isa);
const char *isa_name(enum isa isa);
/* "auto" gives kernels_best(); -1 for an unknown name. */
int isa_parse(const char *name);

#endif
