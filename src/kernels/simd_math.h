/* simd_math.h - exp and tanh on `vf`, for the files that included an instruction set's simd_*.h. */
#ifndef KERNELS_SIMD_MATH_H
#define KERNELS_SIMD_MATH_H

/* e^x, relative error below 2^-22; exactly 1 at 0, exactly 0 below -87.3 (where floats lose bits),
 * about 1.6e38 above 88. NaN stays NaN.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r is a polynomial fitted for the least relative error
 * (3e-9). ln 2 is taken off in two parts, of which n times the first is exact. */
static inline vf vf_exp(vf x)
{
    const vf to_integer = vf_set1(0x1.8p23f); /* adding it rounds to an integer */
    vf in = vf_if_less(vf_set1(88.0f), x, vf_set1(88.0f), x);
    vf n = vf_sub(vf_fma(in, vf_set1(0x1.715476p0f), to_integer), to_integer);
    vf r = vf_fnma(n, vf_set1(-0x1.bd0106p-13f), vf_fnma(n, vf_set1(0x1.63p-1f), in));
    vf p = vf_fma(vf_set1(0x1.6a23d0p-10f), r, vf_set1(0x1.123a20p-7f));

    p = vf_fma(p, r, vf_set1(0x1.5558f2p-5f));
    p = vf_fma(p, r, vf_set1(0x1.555492p-3f));
    p = vf_fma(p, r, vf_set1(0x1.fffffcp-2f));
    p = vf_add(vf_fma(vf_mul(p, r), r, r), vf_set1(1.0f));
    return vf_if_less(x, vf_set1(-87.3f), vf_set1(0.0f), vf_times_2n(p, n));
}

/* tanh(x), relative error below 2^-21: an odd polynomial near 0, elsewhere 1 - 2 / (e^2x + 1). */
static inline vf vf_tanh(vf x)
{
    vf z = vf_mul(x, x), e = vf_exp(vf_add(x, x));
    vf far = vf_sub(vf_set1(1.0f), vf_div(vf_set1(2.0f), vf_add(e, vf_set1(1.0f))));
    vf near = vf_fma(vf_set1(-0x1.697112p-8f), z, vf_set1(0x1.4f5ef6p-6f));

    near = vf_fma(near, z, vf_set1(-0x1.b7cff2p-5f));
    near = vf_fma(near, z, vf_set1(0x1.1103f2p-3f));
    near = vf_fma(near, z, vf_set1(-0x1.555524p-2f));
    near = vf_fma(vf_mul(near, z), x, x);
    return vf_if_less(vf_abs(x), vf_set1(0.625f), near, far);
}

#endif
