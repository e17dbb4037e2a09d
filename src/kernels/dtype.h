/* dtype.h - the block formats of GGUF, one row per type; tests hold every row against reference
 * blocks bit for bit.
 *
 * A row of a matrix is k values cut into blocks of `block` values, `bytes` bytes each. */
#ifndef KERNELS_DTYPE_H
#define KERNELS_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/* The numbers are GGUF's own type ids. */
enum dtype {
    DTYPE_F32 = 0,
    DTYPE_F16 = 1,
    DTYPE_Q4_0 = 2,
    DTYPE_Q4_1 = 3,
    DTYPE_Q5_0 = 6,
    DTYPE_Q5_1 = 7,
    DTYPE_Q8_0 = 8,
    DTYPE_Q2_K = 10,
    DTYPE_Q3_K = 11,
    DTYPE_Q4_K = 12,
    DTYPE_Q5_K = 13,
    DTYPE_Q6_K = 14,
    DTYPE_IQ4_NL = 20,
    DTYPE_IQ4_XS = 23,
    DTYPE_BF16 = 30,
    DTYPE_MXFP4 = 39,
    /* Of no file: a Q8_0 matrix in memory and its coarse plane, see kernels/planes.h. */
    DTYPE_Q8_0_PLANES = 1000,
    DTYPE_Q8_0_COARSE = 1001,
};

struct dtype_info {
    enum dtype type;
    const char *name; /* as GGUF tools print it: "Q4_K" */
    int block;        /* values per block */
    int bytes;        /* bytes per block */
    /* n values, n % block == 0; src needs no alignment. Built without FMA contraction: exact bits.
     */
    void (*to_float)(const void *src, float *dst, size_t n);
};

/* NULL for a type gemmad cannot compute with. */
const struct dtype_info *dtype_find(uint32_t ggml_type);

/* The name of any type GGUF knows, also those dtype_find() refuses; NULL when GGUF has no such
 * number. */
const char *dtype_name(uint32_t ggml_type);

/* Reference quantisers: x has n values, n % 32 == 0; dst takes n/32 blocks. Bit-equal to
 * llama.cpp's quantize_row_q8_0_ref and quantize_row_q4_0_ref. Where those overflow, a scale
 * saturates at +-65504 and a NaN becomes code 0: the result is always finite. */
void dtype_quantize_q8_0(const float *x, void *dst, size_t n);
void dtype_quantize_q4_0(const float *x, void *dst, size_t n);
/* n % 256 == 0; dst takes n/256 blocks. The largest of each 16 values gets the outermost code.
 * Always finite, as above. */
void dtype_quantize_q6_k(const float *x, void *dst, size_t n);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);  /* nearest even */
uint16_t f32_to_bf16(float f); /* nearest even, NaN stays NaN */
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)h << 16};

    return v.f;
}

#endif
