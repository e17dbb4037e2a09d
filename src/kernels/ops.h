/* ops.h - how the levels of the row operations enter the kernel table. Called by kernels_init()
 * alone, lowest level first; each replaces the entries it does better. */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include "kernels/kernels.h"

void ops_init_c(struct kernels *k);
void ops_init_avx2(struct kernels *k);
void ops_init_avx512(struct kernels *k);
void ops_init_neon(struct kernels *k);

#endif
