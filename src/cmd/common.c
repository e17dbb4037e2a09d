/* common.c - what the commands share: options, errors, the model's place. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "cmd/cmd.h"

#define DEMO_NAME "gemmad-demo-q8_0.gguf"

bool cmd_option(int argc, char **argv, int *i, const char *name, const char **value)
{
    const char *arg = argv[*i];
    size_t n = strlen(name);

    if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, name, n) != 0)
        return false;
    if (arg[2 + n] == '=') {
        *value = arg + 2 + n + 1;
        return true;
    }
    if (arg[2 + n])
        return false;
    *value = *i + 1 < argc ? argv[++*i] : NULL;
    return true;
}

bool cmd_flag(const char *arg, const char *name)
{
    return strncmp(arg, "--", 2) == 0 && strcmp(arg + 2, name) == 0;
}

bool cmd_wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

bool cmd_int(const char *option, const char *value, long min, long max, int *out)
{
    char *end = NULL;
    long v;

    errno = 0;
    v = value ? strtol(value, &end, 10) : 0;
    if (!value || end == value || *end || errno || v < min || v > max) {
        fprintf(stderr, "gemmad: --%s wants a whole number from %ld to %ld\n", option, min, max);
        return false;
    }
    *out = (int)v;
    return true;
}

bool cmd_float(const char *option, const char *value, double min, double max, float *out)
{
    char *end = NULL;
    double v = value ? strtod(value, &end) : 0;

    if (!value || end == value || *end || !(v >= min && v <= max)) {
        fprintf(stderr, "gemmad: --%s wants a number from %g to %g\n", option, min, max);
        return false;
    }
    *out = (float)v;
    return true;
}

int cmd_usage_error(const char *command, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "gemmad %s: ", command);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, " (gemmad %s --help says more)\n", command);
    return EXIT_USAGE;
}

int cmd_fail(const char *command, const struct err *err)
{
    fprintf(stderr, "gemmad %s: %s\n", command, err->msg[0] ? err->msg : err_name(err->code));
    switch (err->code) {
    case GD_EINVAL:
    case GD_EFORMAT:
    case GD_ENOENT:
    case GD_ENOTSUP:
    case GD_ECONTEXT:
    case GD_ETOOBIG: return EXIT_USAGE;
    default: return EXIT_FAILED;
    }
}

/* Beside the program as installed (../share/gemmad), where meson installs data, in the source. */
const char *cmd_model_path(const struct config *c)
{
    static char path[PATH_MAX + 64];
    char exe[PATH_MAX];
    ssize_t n;

    if (c->model[0])
        return c->model;
    n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n > 0) {
        char *slash;

        exe[n] = 0;
        slash = strrchr(exe, '/');
        *slash = 0;
        snprintf(path, sizeof(path), "%s/../share/gemmad/" DEMO_NAME, exe);
        if (access(path, R_OK) == 0)
            return path;
    }
    if (access(GEMMAD_DATA "/" DEMO_NAME, R_OK) == 0)
        return GEMMAD_DATA "/" DEMO_NAME;
    if (access(GEMMAD_SOURCE_DATA "/" DEMO_NAME, R_OK) == 0)
        return GEMMAD_SOURCE_DATA "/" DEMO_NAME;
    return NULL;
}

void cmd_engine_opts(struct engine_opts *o, const struct config *c)
{
    engine_opts_default(o);
    o->model_path = cmd_model_path(c);
    o->chat_format = c->chat_format;
    o->profile = c->profile;
    o->isa = c->isa;
    o->kv_type = c->kv_type;
    o->quantize = c->quantize;
    o->head = c->head;
    o->screen_head = c->screen_head;
    o->packed_file = c->packed_file;
    o->prefix_cache = c->prefix_cache;
    o->matmul_prefill = c->matmul_prefill;
    o->matmul_decode = c->matmul_decode;
    o->n_threads = c->threads;
    o->ctx_tokens = c->ctx_tokens;
    o->max_sequences = c->max_sequences;
    o->prefill_chunk = c->prefill_chunk;
    o->itl_target_ms = c->itl_target_ms;
    o->kv_bytes = (size_t)c->kv_mib << 20;
    o->queue_max = c->queue_max;
    o->queue_tokens_max = c->queue_tokens_max;
}

char *cmd_read_stdin(size_t max, size_t *len)
{
    struct buf b = {0};
    size_t n;

    do {
        buf_reserve(&b, 65536);
        n = fread(b.data + b.len, 1, 65536, stdin);
        b.len += n;
    } while (n > 0 && b.len <= max);
    if (ferror(stdin) || b.len > max) {
        buf_free(&b);
        return NULL;
    }
    *len = b.len;
    return buf_take(&b);
}

void cmd_print_settings(void)
{
    for (size_t i = 0; i < config_n_keys(); i++) {
        struct config_key k = config_key_at(i);

        printf("  --%s=%s\n        %s\n", k.key, *k.def ? k.def : "...", k.help);
    }
}
