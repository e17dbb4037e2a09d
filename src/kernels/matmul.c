/* matmul.c - prepared activations, and which preparation and backend a weight type wants. */
#include "kernels/matmul.h"

#include "kernels/kernels.h"
#include "kernels/matmul_impl.h"

size_t act_col_bytes(enum act_kind kind, int k)
{
    const size_t n = (size_t)k;
    size_t bytes;

    switch (kind) {
    case ACT_Q8:
    case ACT_Q16: bytes = n / BLOCK_K * act_block_bytes(act_planes(kind)); break;
    case ACT_BF16:
    case ACT_BF16X2: return (n * 2 + 63) / 64 * 64 * (size_t)act_planes(kind);
    default: bytes = n * sizeof(float);
    }
    return (bytes + 63) / 64 * 64;
}

struct act act_init(enum act_kind kind, int n_cols, int k, void *data)
{
    return (struct act){kind, n_cols, k, act_col_bytes(kind, k), data};
}

/* Quantised weights take codes. BF16 weights take bf16 columns where the CPU multiplies them; as
 * two bf16 (16 bits of mantissa, as many as ACT_Q16 keeps) they are still faster than f32 columns:
 * on one Zen 5 thread 277 GOPS against 194 with 512 columns, and 39 GB/s of weights against 16 with
 * one. Elsewhere BF16, and F16 and F32 everywhere, take f32 columns in every profile. */
enum act_kind matmul_act(
    const struct kernels *k, const struct dtype_info *type, enum precision precision)
{
    const bool precise = precision == PRECISION_PRECISE;

    if (precision == PRECISION_REFERENCE || type->type == DTYPE_F32 || type->type == DTYPE_F16)
        return ACT_F32;
    if (type->type == DTYPE_BF16 && !k->bf16)
        return ACT_F32;
    if (type->type == DTYPE_BF16)
        return precise ? ACT_BF16X2 : ACT_BF16;
    return precise ? ACT_Q16 : ACT_Q8;
}

/* GOPS of 512 columns, 2048 x 1024 weights, one Zen 5 thread (bench_matmul); OpenBLAS as itself
 * (SkylakeX) / told to be Haswell, where only narrow calls are batch invariant:
 *
 *              native Q8_0   Q4_0   Q4_K   BF16   F32, F16   OpenBLAS, any type
 *   c                    8      8      6     50         50   190 / 75
 *   avx2               200    319    290    120        120   190 / 75
 *   avx512             843    812    758    535        180   190 / 75
 *
 * With ACT_Q16 (ACT_BF16X2) AVX-512 does 465, 473, 424 (277), AVX2 193 and 178 for Q8_0 and Q4_K.
 *
 * So OpenBLAS is for prefill on CPUs for which there is only plain C; on AVX-512 it gains 8 % with
 * F32 weights on some CPUs and loses half on others. A single column is never its case, and the
 * reference profile wants sums in the written order. */
enum matmul_backend matmul_auto(const struct kernels *k, const struct dtype_info *type,
    enum matmul_phase phase, enum precision precision)
{
#ifdef HAVE_BLAS
    if (k->isa == ISA_C && phase == PHASE_PREFILL && precision != PRECISION_REFERENCE)
        return MATMUL_BLAS;
#endif
    return MATMUL_NATIVE;
}
