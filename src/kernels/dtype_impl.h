/* dtype_impl.h - what the files behind dtype.h share; nobody else includes it. */
#ifndef KERNELS_DTYPE_IMPL_H
#define KERNELS_DTYPE_IMPL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Value of a 4-bit code of IQ4_NL and IQ4_XS, and of MXFP4. */
extern const int8_t dtype_iq4_values[16], dtype_mxfp4_values[16];

/* Scale of an MXFP4 block: 2^(e - 128), half of E8M0's meaning because the codes are doubled. */
float mxfp4_scale(uint8_t e);

void q2_k_to_float(const void *src, float *dst, size_t n);
void q3_k_to_float(const void *src, float *dst, size_t n);
void q4_k_to_float(const void *src, float *dst, size_t n);
void q5_k_to_float(const void *src, float *dst, size_t n);
void q6_k_to_float(const void *src, float *dst, size_t n);
void iq4_xs_to_float(const void *src, float *dst, size_t n);

/* Sub-block scales of one super-block, unpacked. */
void q3_k_scales(const uint8_t packed[12], int8_t scales[16]);
void q4_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]);

/* GGUF is little endian, and so is every machine gemmad runs on; blocks have no alignment. */
static inline uint16_t load_u16(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t f32_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float f32_of_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

#endif
