/* ops_avx2.c - the row operations for this instruction set. */
#include "kernels/simd_avx2.h"

#include "kernels/ops_simd.h"

void ops_init_avx2(struct kernels *k)
{
    ops_set(k);
}
