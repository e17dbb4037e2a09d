/* matmul_neondot.c - matmul_neon.c for CPUs with the dot product extension (Armv8.2 and later). */
#define NEON_DOT
#include "kernels/matmul_neon.c" /* NOLINT(bugprone-suspicious-include) */
