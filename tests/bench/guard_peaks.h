/* guard_peaks.h - what this machine can do at best, measured in a few tens of milliseconds: the two
 * limits that bound a model on a CPU. */
#ifndef BENCH_GUARD_PEAKS_H
#define BENCH_GUARD_PEAKS_H

#include "base/pool.h"
#include "kernels/kernels.h"

/* Bytes per second that the pool's threads read together from memory: each its own part of `bytes`
 * at `data` (64-byte aligned, more than caches hold). */
double peak_read(struct pool *p, const void *data, size_t bytes);

/* Operations per second (a multiplication and an addition are two) of int8 dot products in
 * registers, on all threads: vpdpbusd for ISA_AVX512 and ISA_AVXVNNI, vpmaddubsw, vpmaddwd and
 * vpaddd for ISA_AVX2; for the others what the compiler makes of a plain loop. */
double peak_dot(struct pool *p, enum isa isa);

#endif
