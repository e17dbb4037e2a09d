#include "cmd/tool.h"

#include <stdio.h>

#include "cmd/cmd.h"

static int named(const char *option, const char *value, const char **out)
{
    if (!value) {
        fprintf(stderr, "gemmad: --%s wants a name\n", option);
        return -1;
    }
    *out = value;
    return 1;
}

int tool_option(int argc, char **argv, int *i, struct runtime_opts *o)
{
    const char *v;

    if (cmd_option(argc, argv, i, "profile", &v))
        return named("profile", v, &o->profile);
    if (cmd_option(argc, argv, i, "isa", &v))
        return named("isa", v, &o->isa);
    if (cmd_option(argc, argv, i, "kv_type", &v))
        return named("kv_type", v, &o->kv_type);
    if (cmd_option(argc, argv, i, "quantize", &v))
        return named("quantize", v, &o->quantize);
    if (cmd_option(argc, argv, i, "head", &v))
        return named("head", v, &o->head);
    if (cmd_option(argc, argv, i, "matmul", &v)) {
        o->matmul_decode = v;
        return named("matmul", v, &o->matmul_prefill);
    }
    if (cmd_option(argc, argv, i, "threads", &v))
        return cmd_int("threads", v, 0, 1024, &o->n_threads) ? 1 : -1;
    return 0;
}
