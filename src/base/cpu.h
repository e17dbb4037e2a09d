/* cpu.h - what this process may use: CPUs by affinity and cgroup quota, memory by cgroup and
 * machine. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stddef.h>

/* At least 1: min(CPUs in the affinity mask, ceil(cgroup v2 or v1 quota)). */
int cpu_allowed(void);

/* Bytes: min(MemAvailable of the machine, cgroup limit minus what the cgroup uses). */
size_t cpu_memory_available(void);

/* Lets the calling thread, which sleeps most of the time, have a CPU as soon as it wakes, at the
 * price of short turns: otherwise it may wait for the end of another thread's turn, 4 ms at 250 Hz.
 * Threads that it starts afterwards inherit this. Linux 6.12 or later; elsewhere nothing happens.
 */
void cpu_short_turns(void);

#endif
