/* attention_neon.c - attention for this instruction set; bf16 pages are widened to f32. */
#include "kernels/simd_neon.h"

#include "kernels/attention_simd.h"
#include "kernels/attention_simd_widen.h"

void attention_init_neon(struct kernels *k)
{
    attention_set(k);
}
