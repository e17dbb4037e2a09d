/* attention_avx512.c - attention for this instruction set; bf16 pages are widened to f32. */
#include "kernels/simd_avx512.h"

#include "kernels/attention_simd.h"
#include "kernels/attention_simd_widen.h"

/* For the bf16 level. */
const struct attention_math attention_avx512_f32 = {
    load_query_f32, sizeof(float), scores_f32, softmax_f32, accumulate_f32, combine, finish};

void attention_init_avx512(struct kernels *k)
{
    attention_set(k);
}
