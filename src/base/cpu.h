/* cpu.h - what this process may use: CPUs by affinity and cgroup quota, memory by cgroup and
 * machine. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stddef.h>

/* At least 1: min(CPUs in the affinity mask, ceil(cgroup v2 or v1 quota)). */
int cpu_allowed(void);

/* Bytes: min(MemAvailable of the machine, cgroup limit minus what the cgroup uses). */
size_t cpu_memory_available(void);

#endif
