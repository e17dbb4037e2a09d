#include "base/cpu.h"

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cgroup.h"

/* The mask has no fixed size: the kernel answers EINVAL until the set has room for every CPU. */
static int affinity_cpus(void)
{
    for (int room = 1024; room <= 1 << 20; room *= 2) {
        size_t bytes = CPU_ALLOC_SIZE(room);
        cpu_set_t *set = CPU_ALLOC(room);
        int n = 0;

        if (set && sched_getaffinity(0, bytes, set) == 0)
            n = CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (n > 0)
            return n;
    }
    return 1;
}

int cpu_allowed(void)
{
    struct cgroup_limits limits;
    int n = affinity_cpus();

    cgroup_read("", &limits);
    if (limits.cpus > 0 && limits.cpus < n)
        n = (int)limits.cpus + (limits.cpus > (int)limits.cpus);
    return n < 1 ? 1 : n;
}

/* Bytes of one "key: n kB" line; 0 when it is not that key. */
static size_t line_bytes(const char *line, const char *key)
{
    const char *at = strstr(line, key);

    return at ? (size_t)strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

static size_t proc_available(void)
{
    char line[160];
    size_t bytes = 0;
    FILE *f = fopen("/proc/meminfo", "re");

    while (f && bytes == 0 && fgets(line, sizeof(line), f))
        bytes = line_bytes(line, "MemAvailable:");
    if (f)
        fclose(f);
    return bytes;
}

/* A service with ProcSubset=pid sees no /proc/meminfo; sysfs tells nearly the same per node. */
static size_t sysfs_available(void)
{
    enum { MAX_NODES = 64 };
    size_t bytes = 0;

    for (int node = 0; node < MAX_NODES; node++) {
        char path[80], line[160];
        FILE *f;

        snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof(line), f))
            bytes += line_bytes(line, "MemFree:") + line_bytes(line, " Active(file):") +
                     line_bytes(line, " Inactive(file):");
        if (f)
            fclose(f);
    }
    return bytes;
}

static size_t machine_available(void)
{
    struct sysinfo info;
    size_t bytes = proc_available();

    if (bytes == 0)
        bytes = sysfs_available();
    if (bytes == 0 && sysinfo(&info) == 0)
        bytes = (info.freeram + info.bufferram) * info.mem_unit;
    return bytes;
}

size_t cpu_memory_available(void)
{
    struct cgroup_limits limits;
    size_t machine = machine_available();

    cgroup_read("", &limits);
    return limits.memory_left < machine ? (size_t)limits.memory_left : machine;
}

void cpu_short_turns(void)
{
    /* struct sched_attr of the kernel: some C libraries define it, others do not. */
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period; /* ns */
    } a = {.size = sizeof(a)};

    if (syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0) < 0 || a.policy != SCHED_OTHER)
        return;
    a.runtime = 100000; /* the least the kernel takes */
    syscall(SYS_sched_setattr, 0, &a, 0);
}
