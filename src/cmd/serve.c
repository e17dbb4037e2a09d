/* serve.c - gemmad serve: the daemon. */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "server/server.h"

struct args {
    int argc;
    char **argv;
    struct config cfg;
    const char *path;
};

static void usage(void)
{
    puts("usage: gemmad serve [--config FILE] [--KEY=VALUE ...]\n\n"
         "Answers OpenAI-style requests over HTTP. The first line on stdout is the address; the\n"
         "model loads while the server already listens (/health is 503 until it is ready).\n"
         "SIGTERM: running answers get drain_s seconds to finish. SIGHUP: reads the API keys,\n"
         "log_level and limits again. Exit codes: 0 stopped by a signal, 1 failed, 2 bad settings "
         "or model.\n\n"
         "Settings (the file FILE has lines key = value):");
    cmd_print_settings();
}

static void on_listening(void *ud, const char *url)
{
    const struct args *a = ud;

    printf("listening on %s\n", url);
    printf("loading %s\n", a->path);
    fflush(stdout);
}

static void on_ready(void *ud, const struct engine_info *i, double load_s)
{
    const struct args *a = ud;

    printf("model %s: %s, %.0f M parameters, %d layers, width %d, chat format %s\n",
        i->name ? i->name : "", i->arch, (double)i->n_params / 1e6, i->n_layers, i->width,
        i->chat_format);
    printf("plan: weights %.0f MiB, keys and values %.0f MiB (%s), up to %d tokens a request, %d "
           "sequences, %d threads, %s, profile %s\n",
        (double)i->weight_bytes / 1048576, (double)i->kv_bytes / 1048576, i->kv_type, i->ctx_tokens,
        i->max_sequences, i->n_threads, i->isa, i->profile);
    printf("graphs: prefill of up to %d tokens in %d steps", i->prefill_tokens, i->prefill_steps);
    if (i->decode_steps)
        printf(", decode of up to %d sequences in %d", i->max_sequences, i->decode_steps);
    puts(" (gemmad graph prints them)");
    if (!a->cfg.model[0])
        puts("This is the demo model: tiny, trained for this project, good for trying the server "
             "and "
             "for nothing else.\nLoad a real Gemma with --model=FILE.gguf.");
    printf("ready after %.2f s\n", load_s);
    fflush(stdout);
}

static int reload(void *ud, struct config *fresh, struct err *err)
{
    const struct args *a = ud;

    config_default(fresh);
    return config_args(fresh, a->argc, a->argv, err);
}

int cmd_serve(int argc, char **argv)
{
    struct args a = {.argc = argc, .argv = argv};
    struct server_opts o = {.config = &a.cfg,
        .version = GEMMAD_VERSION,
        .on_listening = on_listening,
        .on_ready = on_ready,
        .reload = reload,
        .ud = &a};
    struct err err = {0};

    if (cmd_wants_help(argc, argv)) {
        usage();
        return EXIT_OK;
    }
    config_default(&a.cfg);
    if (config_args(&a.cfg, argc, argv, &err) < 0)
        return cmd_fail("serve", &err);
    log_set_level(a.cfg.log_level);
    cmd_engine_opts(&o.engine, &a.cfg);
    a.path = o.engine.model_path;
    if (!a.path)
        return cmd_usage_error("serve", "the demo model is not installed; name one with --model");
    if (server_run(&o, &err) < 0)
        return cmd_fail("serve", &err);
    return EXIT_OK;
}
