/* matmul_avxvnni.c - matmul_wide_avx2.c for CPUs with AVX-VNNI. */
#define WIDE_VNNI
#include "kernels/matmul_wide_avx2.c" /* NOLINT(bugprone-suspicious-include) */
