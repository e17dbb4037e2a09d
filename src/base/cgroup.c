#include "base/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One hierarchy that may carry limits: where its groups are and which of them is ours. */
struct hierarchy {
    char dir[PATH_MAX]; /* folder of our group; cut component by component on the way up */
    size_t top;         /* length of the part of dir that is the mount point */
};

/* Reads a small file into text[cap]; false when it is absent or empty. */
static bool read_text(const char *dir, const char *name, char *text, size_t cap)
{
    char path[PATH_MAX];
    size_t n = 0;
    FILE *f;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
        return false;
    f = fopen(path, "re");
    if (!f)
        return false;
    n = fread(text, 1, cap - 1, f);
    fclose(f);
    text[n] = 0;
    return n > 0;
}

/* False for "max", -1 and anything that is not a number: no limit. */
static bool parse_limit(const char *text, uint64_t *out)
{
    char *end;
    unsigned long long v;

    if (text[0] < '0' || text[0] > '9')
        return false;
    v = strtoull(text, &end, 10);
    *out = v;
    return end != text;
}

static bool read_number(const char *dir, const char *name, uint64_t *out)
{
    char text[64];

    return read_text(dir, name, text, sizeof(text)) && parse_limit(text, out);
}

/* The value of a "key value" line; 0 when absent. */
static uint64_t stat_value(const char *stat, const char *key)
{
    size_t n = strlen(key);
    uint64_t v;

    for (const char *line = stat; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) == 0 && line[n] == ' ')
            return parse_limit(line + n + 1, &v) ? v : 0;
    }
    return 0;
}

/* Whether a comma-separated list has the word. */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, n) == 0 && (at[n] == 0 || at[n] == ',' || at[n] == '\n'))
            return true;
    }
    return false;
}

/* The path of our group in the hierarchy of a v1 controller, or of v2 (controller ""). */
static bool group_path(const char *root, const char *controller, char *path, size_t cap)
{
    char name[PATH_MAX], line[PATH_MAX];
    bool found = false;
    FILE *f;

    snprintf(name, sizeof(name), "%s/proc/self/cgroup", root);
    f = fopen(name, "re");
    while (f && !found && fgets(line, sizeof(line), f)) {
        char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;

        if (!group)
            continue;
        *group++ = 0;
        list++;
        group[strcspn(group, "\n")] = 0;
        found = *controller ? list_has(list, controller) : !*list && strncmp(line, "0:", 2) == 0;
        found = found && (size_t)snprintf(path, cap, "%s", group) < cap;
    }
    if (f)
        fclose(f);
    return found;
}

/* Finds the mount of a v1 controller or of v2. A line of mountinfo reads
 * `36 35 98:0 ROOT MOUNTPOINT options [fields] - FSTYPE source SUPEROPTIONS`. */
static bool find_hierarchy(const char *root, const char *controller, struct hierarchy *h)
{
    char name[PATH_MAX], line[2 * PATH_MAX], group[PATH_MAX];
    bool found = false;
    FILE *f;

    if (!group_path(root, controller, group, sizeof(group)))
        return false;
    snprintf(name, sizeof(name), "%s/proc/self/mountinfo", root);
    f = fopen(name, "re");
    while (f && !found && fgets(line, sizeof(line), f)) {
        char in[PATH_MAX], at[PATH_MAX], type[32], options[512];
        const char *tail = strstr(line, " - "), *below = group;
        int n;

        if (!tail || sscanf(line, "%*s %*s %*s %4095s %4095s", in, at) != 2 ||
            sscanf(tail + 3, "%31s %*s %511s", type, options) != 2)
            continue;
        if (*controller ? strcmp(type, "cgroup") != 0 || !list_has(options, controller)
                        : strcmp(type, "cgroup2") != 0)
            continue;
        /* A container may see only its own subtree, mounted from `in`. */
        if (strcmp(in, "/") != 0)
            below = strncmp(group, in, strlen(in)) == 0 ? group + strlen(in) : "";
        if (strstr(below, "/.."))
            below = "";
        n = snprintf(h->dir, sizeof(h->dir), "%s%s%s", root, at, below);
        h->top = strlen(root) + strlen(at);
        found = n > 0 && (size_t)n < sizeof(h->dir);
    }
    if (f)
        fclose(f);
    return found;
}

/* Cuts the last component; false when the mount point is reached. */
static bool up(struct hierarchy *h)
{
    char *slash = strrchr(h->dir, '/');

    if (!slash || (size_t)(slash - h->dir) < h->top)
        return false;
    *slash = 0;
    return true;
}

static void take_cpu(struct cgroup_limits *l, uint64_t quota, uint64_t period)
{
    double cpus = period ? (double)quota / (double)period : 0;

    if (cpus > 0 && (l->cpus == 0 || cpus < l->cpus))
        l->cpus = cpus;
}

/* What the page cache holds of `used` can be had back, so it counts as free. */
static void take_memory(struct cgroup_limits *l, uint64_t limit, uint64_t used, uint64_t cache)
{
    uint64_t left;

    used = cache < used ? used - cache : 0;
    left = used < limit ? limit - used : 0;
    if (left < l->memory_left)
        l->memory_left = left;
}

static void read_v2(struct hierarchy *h, struct cgroup_limits *l)
{
    do {
        char text[8192] = "";
        uint64_t quota, limit, used;
        const char *period;

        if (read_text(h->dir, "cpu.max", text, sizeof(text)) && parse_limit(text, &quota)) {
            period = strchr(text, ' ');
            take_cpu(l, quota, period ? strtoull(period + 1, NULL, 10) : 100000);
        }
        if (read_number(h->dir, "memory.max", &limit) &&
            read_number(h->dir, "memory.current", &used)) {
            text[0] = 0;
            read_text(h->dir, "memory.stat", text, sizeof(text));
            take_memory(l, limit, used,
                stat_value(text, "inactive_file") + stat_value(text, "active_file"));
        }
    } while (up(h));
}

static void read_v1_cpu(struct hierarchy *h, struct cgroup_limits *l)
{
    do {
        uint64_t quota, period;

        if (read_number(h->dir, "cpu.cfs_quota_us", &quota) &&
            read_number(h->dir, "cpu.cfs_period_us", &period))
            take_cpu(l, quota, period);
    } while (up(h));
}

static void read_v1_memory(struct hierarchy *h, struct cgroup_limits *l)
{
    do {
        char text[8192] = "";
        uint64_t limit, used;

        if (read_number(h->dir, "memory.limit_in_bytes", &limit) &&
            read_number(h->dir, "memory.usage_in_bytes", &used) && limit < UINT64_MAX / 4) {
            text[0] = 0;
            read_text(h->dir, "memory.stat", text, sizeof(text));
            take_memory(l, limit, used,
                stat_value(text, "total_inactive_file") + stat_value(text, "total_active_file"));
        }
    } while (up(h));
}

void cgroup_read(const char *root, struct cgroup_limits *out)
{
    struct hierarchy h;

    *out = (struct cgroup_limits){.memory_left = UINT64_MAX};
    /* Both at once on a hybrid system: v2 is mounted but carries no controller. */
    if (find_hierarchy(root, "", &h))
        read_v2(&h, out);
    if (find_hierarchy(root, "cpu", &h))
        read_v1_cpu(&h, out);
    if (find_hierarchy(root, "memory", &h))
        read_v1_memory(&h, out);
}
