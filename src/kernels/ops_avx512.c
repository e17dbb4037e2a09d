/* ops_avx512.c - the row operations for this instruction set. */
#include "kernels/simd_avx512.h"

#include "kernels/ops_simd.h"

void ops_init_avx512(struct kernels *k)
{
    ops_set(k);
}
