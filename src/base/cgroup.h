/* cgroup.h - limits that a container or a service manager put on this process.
 *
 * Reads cgroup v2 and v1 from the group of this process up to the root of what is mounted: any
 * ancestor may be the one with the limit. What is absent or unreadable limits nothing. */
#ifndef BASE_CGROUP_H
#define BASE_CGROUP_H

#include <stdint.h>

struct cgroup_limits {
    double cpus;          /* quota in CPUs; 0 when there is none */
    uint64_t memory_left; /* bytes below the tightest limit, page cache counted as free;
                             UINT64_MAX when there is none */
};

/* `root` is put before /proc and before the mount points: "" for this machine, a folder in tests.
 */
void cgroup_read(const char *root, struct cgroup_limits *out);

#endif
