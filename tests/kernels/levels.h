/* levels.h - walks every level of kernels this machine can run, for tests that hold each against
 * the plain C one: the instruction sets, and AVX-512 as it is without bf16 dot products. */
#ifndef TESTS_LEVELS_H
#define TESTS_LEVELS_H

#include "kernels/kernels.h"

enum { N_LEVELS = ISA_COUNT + 1 };

/* False when there is no such level here. */
static inline bool level_init(struct kernels *k, int level)
{
    enum isa isa = level < ISA_COUNT ? (enum isa)level : ISA_AVX512;

    if (!kernels_has(isa))
        return false;
    if (level < ISA_COUNT)
        kernels_init(k, isa);
    else
        kernels_init_without_bf16(k, isa);
    return level < ISA_COUNT || !k->bf16;
}

#endif
