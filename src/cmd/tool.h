/* tool.h - what the commands that run a model without the engine share: verify, bench, graph. */
#ifndef CMD_TOOL_H
#define CMD_TOOL_H

#include "engine/runtime.h"

/* Takes --profile, --isa, --kv_type, --quantize, --head, --matmul (of both phases) and --threads: 1
 * taken, 0 another word, -1 wrong (said so). */
int tool_option(int argc, char **argv, int *i, struct runtime_opts *o);
#define TOOL_OPTIONS                                              \
    "  --profile NAME     default, precise or reference\n"        \
    "  --isa NAME         auto, c, avx2, avxvnni, avx512, neon\n" \
    "  --kv_type NAME     auto, f32, bf16\n"                      \
    "  --quantize NAME    none, q8_0, q4_0\n"                     \
    "  --head NAME        file, q8_0, q6_k, q4_0\n"               \
    "  --matmul NAME      auto, native, blas\n"                   \
    "  --threads N        0 = every CPU this process may use (default)\n"

#endif
