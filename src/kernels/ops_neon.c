/* ops_neon.c - the row operations for this instruction set. */
#include "kernels/simd_neon.h"

#include "kernels/ops_simd.h"

void ops_init_neon(struct kernels *k)
{
    ops_set(k);
}
