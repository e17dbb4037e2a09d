/* profile.c - compile profiles: the three built-in ones, and gemmad.profile files. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "gemmad/flow.h"
#include "kernels/dtype.h"

static void common(struct flow_profile *p)
{
    *p = (struct flow_profile){
        .target = FUSE_ALL, .dead_code = true, .constant_folding = true, .kv = FLOW_KV_F32};
    memset(p->override, -1, sizeof(p->override));
}

void flow_profile_reference(struct flow_profile *p)
{
    common(p);
    p->precision = FLOW_REFERENCE;
    p->policy = FUSION_DIRECT;
}

/* f32 pages: bf16 ones cost a mean KL of 3e-5 on the real Gemma 3 270M, 16-bit codes 4e-8. */
void flow_profile_precise(struct flow_profile *p)
{
    common(p);
    p->precision = FLOW_PRECISE;
    p->policy = FUSION_FUSABLE;
}

void flow_profile_default(struct flow_profile *p)
{
    common(p);
    p->policy = FUSION_FUSABLE;
    p->kv = FLOW_KV_BF16;
}

/* ---- words ---- */

static const char *const policies[] = {"direct", "fusable", NULL};
static const char *const switches[] = {"off", "on", NULL};
static const char *const precisions[] = {"default", "precise", "reference", NULL};
static const char *const backends[] = {"auto", "native", "blas", NULL};
static const char *const kvs[] = {"f32", "bf16", NULL};
static const char *const fusions[] = {
    "attention", "siblings", "epilogue", "prologue", "residual", NULL};

static int word(const char *value, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(value, names[i]) == 0)
            return i;
    return -1;
}

bool flow_profile_named(struct flow_profile *p, const char *name)
{
    static void (*const built_in[])(struct flow_profile * p) = {
        flow_profile_default, flow_profile_precise, flow_profile_reference};
    int i = word(name, precisions);

    if (i >= 0)
        built_in[i](p);
    return i >= 0;
}

const char *flow_precision_name(enum flow_precision p)
{
    return precisions[p];
}

/* "attention, residual", "all" or "none" as bits. */
static bool parse_fusions(const char *value, unsigned *out)
{
    char copy[256], *save = NULL;
    unsigned bits = 0;

    if (strcmp(value, "all") == 0 || strcmp(value, "none") == 0) {
        *out = value[0] == 'a' ? FUSE_ALL : 0;
        return true;
    }
    if (strlen(value) >= sizeof(copy))
        return false;
    memcpy(copy, value, strlen(value) + 1);
    for (char *w = strtok_r(copy, ", ", &save); w; w = strtok_r(NULL, ", ", &save)) {
        int i = word(w, fusions);

        if (i < 0)
            return false;
        bits |= 1u << i;
    }
    *out = bits;
    return bits != 0;
}

static void print_fusions(unsigned bits, struct buf *out)
{
    const char *comma = "";

    if (bits == FUSE_ALL || bits == 0) {
        buf_puts(out, bits ? "all" : "none");
        return;
    }
    for (int i = 0; fusions[i]; i++) {
        if (bits & 1u << i) {
            buf_printf(out, "%s%s", comma, fusions[i]);
            comma = ", ";
        }
    }
}

static bool parse_switch(const char *value, bool *out)
{
    int i = word(value, switches);

    *out = i == 1;
    return i >= 0;
}

/* matmul.Q8_0 = blas: the type of the key, -1 when there is none. */
static int type_of_key(const char *key)
{
    for (uint32_t t = 0; t < FLOW_TYPES; t++) {
        const struct dtype_info *d = dtype_find(t);

        if (d && strcmp(key, d->name) == 0)
            return (int)t;
    }
    return -1;
}

/* False when the key or its value is none that is known. */
static bool set(struct flow_profile *p, const char *key, const char *value)
{
    int i, type;

    if (strcmp(key, "fusion.policy") == 0) {
        i = word(value, policies);
        p->policy = (enum fusion_policy)i;
        return i >= 0;
    }
    if (strcmp(key, "fusion.target") == 0)
        return parse_fusions(value, &p->target);
    if (strcmp(key, "fusion.skip") == 0)
        return parse_fusions(value, &p->skip);
    if (strcmp(key, "fusion.assert_clean") == 0)
        return parse_switch(value, &p->assert_clean);
    if (strcmp(key, "passes.dead_code") == 0)
        return parse_switch(value, &p->dead_code);
    if (strcmp(key, "passes.constant_folding") == 0)
        return parse_switch(value, &p->constant_folding);
    if (strcmp(key, "passes.verbose") == 0)
        return parse_switch(value, &p->verbose);
    if (strcmp(key, "precision") == 0) {
        i = word(value, precisions);
        p->precision = (enum flow_precision)i;
        return i >= 0;
    }
    if (strcmp(key, "kv") == 0) {
        i = word(value, kvs);
        p->kv = (enum flow_kv)i;
        return i >= 0;
    }
    i = word(value, backends);
    if (i >= 0 && strcmp(key, "matmul") == 0) {
        p->matmul = (enum backend_choice)i;
        return true;
    }
    type = strncmp(key, "matmul.", 7) == 0 ? type_of_key(key + 7) : -1;
    if (i < 0 || type < 0)
        return false;
    p->override[type] = (signed char)i;
    return true;
}

static char *trim(char *s)
{
    char *end = s + strlen(s);

    while (end > s && isspace((unsigned char)end[-1]))
        *--end = 0;
    while (isspace((unsigned char)*s))
        s++;
    return s;
}

/* One line; *mine says whether the section is the wanted mode's. */
static int read_line(struct flow_profile *p, char *line, enum flow_mode mode, int *section,
    const char *path, int n, struct err *err)
{
    static const char *const modes[] = {"[prefill]", "[decode]", NULL};
    struct flow_profile other = *p; /* the other mode's lines must be good, too */
    char *text = trim(line), *eq = strchr(text, '=');

    if (!*text || *text == '#')
        return 0;
    if (*text == '[') {
        *section = word(text, modes);
        if (*section < 0)
            return err_set_at(err, GD_EINVAL, "gemmad.profile",
                "%.120s:%d: the sections are [prefill] and [decode]", path, n);
        return 0;
    }
    if (*section < 0 || !eq)
        return err_set_at(
            err, GD_EINVAL, "gemmad.profile", "%.120s:%d: want key = value in a section", path, n);
    *eq = 0;
    if (!set(*section == (int)mode ? p : &other, trim(text), trim(eq + 1)))
        return err_set_at(err, GD_EINVAL, "gemmad.profile",
            "%.120s:%d: \"%.40s = %.40s\" is no setting of a profile", path, n, trim(text),
            trim(eq + 1));
    return 0;
}

int flow_profile_load(
    struct flow_profile *p, const char *path, enum flow_mode mode, struct err *err)
{
    FILE *f = fopen(path, "re");
    struct flow_profile read = *p;
    int section = -1, n = 0, r = 0;
    char line[512];

    if (!f)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? GD_ENOENT : GD_EIO, "%.150s: %s",
            path, strerror(errno));
    while (r == 0 && fgets(line, sizeof(line), f)) {
        n++;
        if (strlen(line) == sizeof(line) - 1)
            r = err_set_at(
                err, GD_EINVAL, "gemmad.profile", "%.120s:%d: the line is too long", path, n);
        else
            r = read_line(&read, line, mode, &section, path, n, err);
    }
    if (r == 0 && ferror(f))
        r = err_set(err, GD_EIO, "%.150s: cannot be read", path);
    fclose(f);
    if (r == 0)
        *p = read;
    return r;
}

void flow_profile_print(const struct flow_profile *p, enum flow_mode mode, struct buf *out)
{
    buf_printf(out,
        "[%s]\nfusion.policy = %s\nfusion.target = ", mode == FLOW_PREFILL ? "prefill" : "decode",
        policies[p->policy]);
    print_fusions(p->target, out);
    buf_puts(out, "\nfusion.skip = ");
    print_fusions(p->skip, out);
    buf_printf(out,
        "\nfusion.assert_clean = %s\npasses.dead_code = %s\npasses.constant_folding = "
        "%s\npasses.verbose = %s\n"
        "precision = %s\nkv = %s\nmatmul = %s\n",
        switches[p->assert_clean], switches[p->dead_code], switches[p->constant_folding],
        switches[p->verbose], precisions[p->precision], kvs[p->kv], backends[p->matmul]);
    for (uint32_t t = 0; t < FLOW_TYPES; t++)
        if (p->override[t] >= 0 && dtype_find(t))
            buf_printf(out, "matmul.%s = %s\n", dtype_find(t)->name, backends[p->override[t]]);
}

char *flow_profile_text(const struct flow_profile *p, enum flow_mode mode)
{
    struct buf out = {0};

    flow_profile_print(p, mode, &out);
    return buf_take(&out);
}
