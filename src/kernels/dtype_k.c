/* dtype_k.c - the formats with super-blocks of 256 values: sub-blocks of 16 or 32 values with small
 * integer scales under one f16 scale. Offsets follow the field order of each format's block. */
#include "kernels/dtype.h"

#include "kernels/dtype_impl.h"

/* u8 scales[16] (low nibble scale, high nibble min); u8 qs[64]; f16 d; f16 dmin */
void q2_k_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 256, p += 84) {
        const float d = f16_to_f32(load_u16(p + 80)), dmin = f16_to_f32(load_u16(p + 82));

        for (int s = 0; s < 16; s++) { /* sub-block s: half s / 8, shift 2 * (s / 2 % 4) */
            const uint8_t *qs = p + 16 + s / 8 * 32 + s % 2 * 16;
            const float scale = d * (float)(p[s] & 15), min = dmin * (float)(p[s] >> 4);

            for (int l = 0; l < 16; l++)
                *dst++ = scale * (float)(qs[l] >> s / 2 % 4 * 2 & 3) - min;
        }
    }
}

void q3_k_scales(const uint8_t packed[12], int8_t scales[16])
{
    for (int i = 0; i < 16; i++) {
        const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
        const int high = packed[8 + i % 4] >> i / 4 * 2 & 3;

        scales[i] = (int8_t)((low | high << 4) - 32);
    }
}

/* u8 hmask[32]; u8 qs[64]; u8 scales[12]; f16 d */
void q3_k_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 256, p += 110) {
        const float d = f16_to_f32(load_u16(p + 108));
        int8_t scales[16];

        q3_k_scales(p + 96, scales);
        for (int s = 0; s < 16; s++) { /* as Q2_K; bit s / 2 of hmask is the third bit, inverted */
            const uint8_t *high = p + s % 2 * 16, *qs = p + 32 + s / 8 * 32 + s % 2 * 16;
            const float scale = d * (float)scales[s];

            for (int l = 0; l < 16; l++) {
                const int code = (qs[l] >> s / 2 % 4 * 2 & 3) | (high[l] >> s / 2 & 1) << 2;

                *dst++ = scale * (float)(code - 4);
            }
        }
    }
}

void q4_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8])
{
    for (int j = 0; j < 4; j++) {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = (uint8_t)((packed[j + 8] & 15) | packed[j] >> 6 << 4);
        mins[j + 4] = (uint8_t)(packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4);
    }
}

/* f16 d; f16 dmin; u8 scales[12]; u8 qs[128] */
void q4_k_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 256, p += 144) {
        const float d = f16_to_f32(load_u16(p)), dmin = f16_to_f32(load_u16(p + 2));
        uint8_t scales[8], mins[8];

        q4_k_scales(p + 4, scales, mins);
        for (int s = 0; s < 8; s++) {
            const uint8_t *qs = p + 16 + s / 2 * 32;
            const float scale = d * (float)scales[s], min = dmin * (float)mins[s];

            for (int l = 0; l < 32; l++)
                *dst++ = scale * (float)(qs[l] >> s % 2 * 4 & 15) - min;
        }
    }
}

/* f16 d; f16 dmin; u8 scales[12]; u8 qh[32]; u8 qs[128] */
void q5_k_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 256, p += 176) {
        const float d = f16_to_f32(load_u16(p)), dmin = f16_to_f32(load_u16(p + 2));
        uint8_t scales[8], mins[8];

        q4_k_scales(p + 4, scales, mins);
        for (int s = 0; s < 8; s++) { /* bit s of qh is the fifth bit */
            const uint8_t *qh = p + 16, *qs = p + 48 + s / 2 * 32;
            const float scale = d * (float)scales[s], min = dmin * (float)mins[s];

            for (int l = 0; l < 32; l++) {
                const int code = (qs[l] >> s % 2 * 4 & 15) | (qh[l] >> s & 1) << 4;

                *dst++ = scale * (float)code - min;
            }
        }
    }
}

/* u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d */
void q6_k_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 256, p += 210) {
        const float d = f16_to_f32(load_u16(p + 208));

        for (int s = 0; s < 16; s++) {
            const int quarter = s / 2 % 4; /* of a half: 32 values */
            const uint8_t *ql = p + s / 8 * 64 + quarter % 2 * 32 + s % 2 * 16;
            const uint8_t *qh = p + 128 + s / 8 * 32 + s % 2 * 16;
            const float scale = d * (float)(int8_t)p[192 + s];

            for (int l = 0; l < 16; l++) {
                const int code = (ql[l] >> quarter / 2 * 4 & 15) | (qh[l] >> quarter * 2 & 3) << 4;

                *dst++ = scale * (float)(code - 32);
            }
        }
    }
}

/* f16 d; u16 scales_h; u8 scales_l[4]; u8 qs[128] */
void iq4_xs_to_float(const void *src, float *dst, size_t n)
{
    const uint8_t *p = src;

    for (size_t i = 0; i < n; i += 256, p += 136) {
        const float d = f16_to_f32(load_u16(p));
        const int high = load_u16(p + 2);

        for (int s = 0; s < 8; s++, dst += 32) {
            const uint8_t *qs = p + 8 + 16 * s;
            const int code = (p[4 + s / 2] >> s % 2 * 4 & 15) | (high >> 2 * s & 3) << 4;
            const float scale = d * (float)(code - 32);

            for (int l = 0; l < 16; l++) {
                dst[l] = scale * (float)dtype_iq4_values[qs[l] & 15];
                dst[16 + l] = scale * (float)dtype_iq4_values[qs[l] >> 4];
            }
        }
    }
}
