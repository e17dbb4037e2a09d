/* CPU and memory limits, read from made-up /proc and cgroup trees and from this machine. */
#include "base/cpu.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/cgroup.h"

static char root[64];

/* Creates root/path with its folders and this content. */
static void put(const char *path, const char *content)
{
    char full[512];
    FILE *f;

    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(full, 0700);
        *at = '/';
    }
    f = fopen(full, "we");
    assert_non_null(f);
    fputs(content, f);
    fclose(f);
}

static int fresh_root(void **state)
{
    strcpy(root, "/tmp/gemmad-test-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

static struct cgroup_limits limits(void)
{
    struct cgroup_limits l;

    cgroup_read(root, &l);
    return l;
}

static void absent_files_limit_nothing(void **state)
{
    assert_true(limits().cpus == 0);
    assert_true(limits().memory_left == UINT64_MAX);
}

static const char v2_mount[] =
    "22 1 8:1 / / rw - ext4 /dev/sda rw\n30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 "
    "cgroup2 rw,nsdelegate\n";

static void v2_limits_of_our_group_count(void **state)
{
    put("/proc/self/cgroup", "0::/system.slice/gemmad.service\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/system.slice/gemmad.service/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/system.slice/gemmad.service/memory.max", "1000000\n");
    put("/sys/fs/cgroup/system.slice/gemmad.service/memory.current", "600000\n");
    put("/sys/fs/cgroup/system.slice/gemmad.service/memory.stat",
        "anon 100\nfile 300000\ninactive_file 250000\nactive_file 50000\n");
    assert_true(limits().cpus == 1.5);
    assert_int_equal(limits().memory_left, 700000);
}

static void v2_ancestors_count_too(void **state)
{
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.current", "10\n");
    put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    put("/sys/fs/cgroup/a/memory.max", "5000\n");
    put("/sys/fs/cgroup/a/memory.current", "6000\n");
    put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    assert_true(limits().cpus == 2.0);
    assert_int_equal(limits().memory_left, 0);
}

static void v1_limits_count(void **state)
{
    put("/proc/self/cgroup", "4:memory:/box\n3:cpuset:/\n1:cpu,cpuacct:/box/in\n0::/\n");
    put("/proc/self/mountinfo", "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
                                "35 31 0:32 / /cg/memory rw,relatime - cgroup cgroup rw,memory\n");
    put("/cg/cpu/box/in/cpu.cfs_quota_us", "-1\n");
    put("/cg/cpu/box/in/cpu.cfs_period_us", "100000\n");
    put("/cg/cpu/box/cpu.cfs_quota_us", "50000\n");
    put("/cg/cpu/box/cpu.cfs_period_us", "100000\n");
    put("/cg/memory/box/memory.limit_in_bytes", "4000\n");
    put("/cg/memory/box/memory.usage_in_bytes", "1500\n");
    put("/cg/memory/box/memory.stat",
        "cache 900\ntotal_inactive_file 300\ntotal_active_file 200\n");
    put("/cg/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/cg/memory/memory.usage_in_bytes", "1\n");
    assert_true(limits().cpus == 0.5);
    assert_int_equal(limits().memory_left, 3000);
}

/* A container without its own cgroup namespace: the mount shows only the subtree that /proc names.
 */
static void a_subtree_mount_is_understood(void **state)
{
    put("/proc/self/cgroup", "0::/docker/77/in\n");
    put("/proc/self/mountinfo", "30 22 0:26 /docker/77 /cg rw - cgroup2 cgroup rw\n");
    put("/cg/in/cpu.max", "max 100000\n");
    put("/cg/cpu.max", "300000 100000\n");
    assert_true(limits().cpus == 3.0);
}

static void a_group_outside_the_namespace_is_the_mount_point(void **state)
{
    put("/proc/self/cgroup", "0::/../../elsewhere\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/cpu.max", "100000 50000\n");
    assert_true(limits().cpus == 2.0);
}

static void nonsense_limits_nothing(void **state)
{
    put("/proc/self/cgroup", "rubbish\n0::/a\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/a/cpu.max", "lots\n");
    put("/sys/fs/cgroup/a/memory.max", "\n");
    put("/sys/fs/cgroup/cpu.max", "100000 0\n");
    assert_true(limits().cpus == 0);
    assert_true(limits().memory_left == UINT64_MAX);
}

static void affinity_bounds_the_cpus(void **state)
{
    int before = cpu_allowed();
    cpu_set_t all, one;

    assert_in_range(before, 1, sysconf(_SC_NPROCESSORS_CONF));
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(cpu_allowed(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(cpu_allowed(), before);
}

static void some_memory_is_available(void **state)
{
    size_t pages = (size_t)sysconf(_SC_PHYS_PAGES), page = (size_t)sysconf(_SC_PAGESIZE);

    assert_in_range(cpu_memory_available(), 16u << 20, pages * page);
}

/* What the kernel says of the calling thread (struct sched_attr). */
struct turns {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static struct turns turns(void)
{
    struct turns t = {.size = sizeof(t)};

    syscall(SYS_sched_getattr, 0, &t, sizeof(t), 0);
    return t;
}

static void *take_short_turns(void *arg)
{
    struct turns *t = arg;

    setpriority(PRIO_PROCESS, 0, 3);
    t[0] = turns();
    cpu_short_turns();
    t[1] = turns();
    return NULL;
}

static void short_turns_change_nothing_else(void **state)
{
    struct turns before = turns(), t[2];
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, take_short_turns, t), 0);
    pthread_join(thread, NULL);
    assert_int_equal(t[1].policy, t[0].policy);
    assert_int_equal(t[1].nice, 3);
    if (t[0].runtime) /* before Linux 6.12 there is nothing to set */
        assert_int_equal(t[1].runtime, 100000);
    assert_int_equal(turns().runtime, before.runtime);
}

int main(void)
{
#define in_root(f) cmocka_unit_test_setup_teardown(f, fresh_root, remove_root)
    const struct CMUnitTest tests[] = {
        in_root(absent_files_limit_nothing),
        in_root(v2_limits_of_our_group_count),
        in_root(v2_ancestors_count_too),
        in_root(v1_limits_count),
        in_root(a_subtree_mount_is_understood),
        in_root(a_group_outside_the_namespace_is_the_mount_point),
        in_root(nonsense_limits_nothing),
        cmocka_unit_test(affinity_bounds_the_cpus),
        cmocka_unit_test(some_memory_is_available),
        cmocka_unit_test(short_turns_change_nothing_else),
    };

    return cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
}
