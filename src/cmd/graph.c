/* graph.c - gemmad graph: print the graph that the server would build. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "cmd/cmd.h"
#include "cmd/tool.h"
#include "gemmad/flow.h"

static const char usage[] =
    "usage: gemmad graph [options] MODEL\n\n"
    "Prints the compiled graph: one line per step with its values, weights, their types and\n"
    "matmul backends.\n\n"
    "  --mode NAME        prefill (default) or decode\n"
    "  --dot              Graphviz: gemmad graph --dot MODEL | dot -Tsvg > graph.svg\n" TOOL_OPTIONS
    "\nExit codes: 0 done, 2 bad arguments or model.";

struct args {
    struct runtime_opts ro;
    bool decode, dot;
};

static int option(struct args *a, int argc, char **argv, int *i)
{
    const char *v;

    if (cmd_flag(argv[*i], "dot"))
        return a->dot = true, 1;
    if (cmd_option(argc, argv, i, "mode", &v)) {
        a->decode = v && strcmp(v, "decode") == 0;
        if (a->decode || (v && strcmp(v, "prefill") == 0))
            return 1;
        cmd_usage_error("graph", "--mode is prefill or decode");
        return -1;
    }
    return tool_option(argc, argv, i, &a->ro);
}

int cmd_graph(int argc, char **argv)
{
    struct args a = {0};
    struct runtime *rt;
    struct buf out = {0};
    struct err err;

    if (cmd_wants_help(argc, argv))
        return puts(usage), EXIT_OK;
    runtime_opts_default(&a.ro);
    for (int i = 0; i < argc; i++) {
        int r = option(&a, argc, argv, &i);

        if (r < 0)
            return EXIT_USAGE;
        if (r == 0 && (argv[i][0] == '-' || a.ro.model_path))
            return cmd_usage_error("graph", "unexpected \"%.60s\"", argv[i]);
        if (r == 0)
            a.ro.model_path = argv[i];
    }
    if (!a.ro.model_path)
        return cmd_usage_error("graph", "which model?");
    if (runtime_open(&rt, &a.ro, &err) < 0)
        return cmd_fail("graph", &err);
    if (a.decode && !rt->decode) {
        runtime_close(rt);
        return cmd_usage_error("graph", "the model makes embeddings: it has no decode graph");
    }
    graph_print(a.decode ? rt->decode : rt->prefill, a.dot, &out);
    fputs(out.data, stdout);
    buf_free(&out);
    runtime_close(rt);
    return EXIT_OK;
}
