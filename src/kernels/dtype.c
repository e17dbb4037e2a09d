/* dtype.c - the table of block formats, and the small ones: plain floats and blocks of 32.
 *
 * Formulas are written in the order of operations that gives the exact bits everybody else gets:
 * one rounding per multiply and one per add, no contraction (the project builds with
 * -ffp-contract=off). The 256-value formats live in dtype_k.c. */
#include "kernels/dtype.h"

#include <string.h>

#include "kernels/dtype_impl.h"

const int8_t dtype_iq4_values[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Twice the E2M1 value, so that codes are integers; the scale carries the half. */
const int8_t dtype_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;

    if (magnitude >= 0x7c00) /* infinity; a NaN becomes a quiet one, as the hardware does it */
        return f32_of_bits(
            sign | 0x7f800000 | magnitude << 13 | (magnitude > 0x7c00 ? 0x400000u : 0u));
    if (magnitude < 0x0400) /* zero and denormals count in units of 2^-24 */
        return f32_of_bits(sign | f32_bits((float)magnitude * 0x1p-24f));
    return f32_of_bits(sign | ((magnitude << 13) + (112u << 23))); /* exponent bias 15 to 127 */
}

uint16_t f32_to_f16(float f)
{
    const uint32_t bits = f32_bits(f), magnitude = bits & 0x7fffffff;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t half;

    if (magnitude > 0x7f800000)
        half = 0x7e00 | (magnitude >> 13 & 0x3ff);
    else if (magnitude >= 0x477ff000) /* 65520 and more round to infinity */
        half = 0x7c00;
    else if (magnitude < 0x38800000) /* below 2^-14: adding 0.5 rounds to units of 2^-24 */
        half = f32_bits(f32_of_bits(magnitude) + 0.5f) - f32_bits(0.5f);
    else
        half = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    return (uint16_t)(sign | half);
}

uint16_t f32_to_bf16(float f)
{
    const uint32_t bits = f32_bits(f);

    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void f32_to_float(const void *src, float *dst, size_t n)
{
    memcpy(dst, src, n * sizeof(float));
}

static void f16_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i++)
        dst[i] = f16_to_f32(load_u16(p + 2 * i));
}

static void bf16_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i++)
        dst[i] = bf16_to_f32(load_u16(p + 2 * i));
}

static void q8_0_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 32, p += 34) {
        const float d = f16_to_f32(load_u16(p));

        for (int j = 0; j < 32; j++)
            dst[i + j] = (float)(int8_t)p[2 + j] * d;
    }
}

static void q4_0_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 32, p += 18) {
        const float d = f16_to_f32(load_u16(p));

        for (int j = 0; j < 16; j++) {
            dst[i + j] = (float)((p[2 + j] & 15) - 8) * d;
            dst[i + 16 + j] = (float)((p[2 + j] >> 4) - 8) * d;
        }
    }
}

static void q4_1_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 32, p += 20) {
        const float d = f16_to_f32(load_u16(p)), m = f16_to_f32(load_u16(p + 2));

        for (int j = 0; j < 16; j++) {
            dst[i + j] = (float)(p[4 + j] & 15) * d + m;
            dst[i + 16 + j] = (float)(p[4 + j] >> 4) * d + m;
        }
    }
}

/* The five bits of value j: a nibble of qs and bit j of the high word. */
static int q5_code(uint32_t high, const uint8_t *qs, int j)
{
    const int low = j < 16 ? qs[j] & 15 : qs[j - 16] >> 4;

    return low | (int)(high >> j & 1) << 4;
}

static void q5_0_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 32, p += 22) {
        const float d = f16_to_f32(load_u16(p));
        const uint32_t high = load_u32(p + 2);

        for (int j = 0; j < 32; j++)
            dst[i + j] = (float)(q5_code(high, p + 6, j) - 16) * d;
    }
}

static void q5_1_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 32, p += 24) {
        const float d = f16_to_f32(load_u16(p)), m = f16_to_f32(load_u16(p + 2));
        const uint32_t high = load_u32(p + 4);

        for (int j = 0; j < 32; j++)
            dst[i + j] = (float)q5_code(high, p + 8, j) * d + m;
    }
}

static void iq4_nl_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 32, p += 18) {
        const float d = f16_to_f32(load_u16(p));

        for (int j = 0; j < 16; j++) {
            dst[i + j] = d * (float)dtype_iq4_values[p[2 + j] & 15];
            dst[i + 16 + j] = d * (float)dtype_iq4_values[p[2 + j] >> 4];
        }
    }
}

float mxfp4_scale(uint8_t e)
{
    return f32_of_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

static void mxfp4_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 32, p += 17) {
        const float s = mxfp4_scale(p[0]);

        for (int j = 0; j < 16; j++) {
            dst[i + j] = (float)dtype_mxfp4_values[p[1 + j] & 15] * s;
            dst[i + 16 + j] = (float)dtype_mxfp4_values[p[1 + j] >> 4] * s;
        }
    }
}

static const struct dtype_info infos[] = {
    {DTYPE_F32, "F32", 1, 4, f32_to_float},
    {DTYPE_F16, "F16", 1, 2, f16_to_float},
    {DTYPE_Q4_0, "Q4_0", 32, 18, q4_0_to_float},
    {DTYPE_Q4_1, "Q4_1", 32, 20, q4_1_to_float},
    {DTYPE_Q5_0, "Q5_0", 32, 22, q5_0_to_float},
    {DTYPE_Q5_1, "Q5_1", 32, 24, q5_1_to_float},
    {DTYPE_Q8_0, "Q8_0", 32, 34, q8_0_to_float},
    {DTYPE_Q2_K, "Q2_K", 256, 84, q2_k_to_float},
    {DTYPE_Q3_K, "Q3_K", 256, 110, q3_k_to_float},
    {DTYPE_Q4_K, "Q4_K", 256, 144, q4_k_to_float},
    {DTYPE_Q5_K, "Q5_K", 256, 176, q5_k_to_float},
    {DTYPE_Q6_K, "Q6_K", 256, 210, q6_k_to_float},
    {DTYPE_IQ4_NL, "IQ4_NL", 32, 18, iq4_nl_to_float},
    {DTYPE_IQ4_XS, "IQ4_XS", 256, 136, iq4_xs_to_float},
    {DTYPE_BF16, "BF16", 1, 2, bf16_to_float},
    {DTYPE_MXFP4, "MXFP4", 32, 17, mxfp4_to_float},
};

const struct dtype_info *dtype_find(uint32_t ggml_type)
{
    for (size_t i = 0; i < sizeof(infos) / sizeof(infos[0]); i++)
        if (infos[i].type == ggml_type)
            return &infos[i];
    return NULL;
}

/* Holes are numbers GGUF once used and gave up. */
static const char *const names[] = {[0] = "F32",
    [1] = "F16",
    [2] = "Q4_0",
    [3] = "Q4_1",
    [6] = "Q5_0",
    [7] = "Q5_1",
    [8] = "Q8_0",
    [9] = "Q8_1",
    [10] = "Q2_K",
    [11] = "Q3_K",
    [12] = "Q4_K",
    [13] = "Q5_K",
    [14] = "Q6_K",
    [15] = "Q8_K",
    [16] = "IQ2_XXS",
    [17] = "IQ2_XS",
    [18] = "IQ3_XXS",
    [19] = "IQ1_S",
    [20] = "IQ4_NL",
    [21] = "IQ3_S",
    [22] = "IQ2_S",
    [23] = "IQ4_XS",
    [24] = "I8",
    [25] = "I16",
    [26] = "I32",
    [27] = "I64",
    [28] = "F64",
    [29] = "IQ1_M",
    [30] = "BF16",
    [34] = "TQ1_0",
    [35] = "TQ2_0",
    [39] = "MXFP4",
    [40] = "NVFP4",
    [41] = "Q1_0",
    [42] = "Q2_0"};

const char *dtype_name(uint32_t ggml_type)
{
    return ggml_type < sizeof(names) / sizeof(names[0]) ? names[ggml_type] : NULL;
}
