/* attention_avx2.c - attention for this instruction set; bf16 pages are widened to f32. */
#include "kernels/simd_avx2.h"

#include "kernels/attention_simd.h"
#include "kernels/attention_simd_widen.h"

void attention_init_avx2(struct kernels *k)
{
    attention_set(k);
}
