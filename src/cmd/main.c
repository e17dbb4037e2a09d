/* main.c - gemmad COMMAND [options]: finds the command and runs it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"serve", cmd_serve, "answer HTTP requests"},
    {"generate", cmd_generate, "complete one prompt and print it"},
    {"embed", cmd_embed, "turn texts into vectors"},
    {"tokenize", cmd_tokenize, "show the tokens of a text"},
    {"verify", cmd_verify, "hold a model's numbers against golden ones"},
    {"bench", cmd_bench, "measure prefill and decode"},
    {"graph", cmd_graph, "print the graph the server builds"},
    {"plan", cmd_plan, "show what memory the settings take"},
};

static void usage(FILE *out)
{
    fputs("usage: gemmad COMMAND [options]\n\n", out);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\ngemmad COMMAND --help says more; gemmad --version prints the version.\n"
          "Exit codes: 0 done, 1 failed, 2 bad arguments, settings, input or model.\n",
        out);
}

/* Reading a mapped file that has become shorter raises SIGBUS. Nothing can be mended then, so all
 * that is left is to say why; only what is safe in a signal handler is called. */
static void file_shrank(int signal)
{
    static const char sentence[] =
        "gemmad: the model file became shorter while it was in use, or packed_file did; replace "
        "such files by renaming a new one over them\n";
    ssize_t written = write(STDERR_FILENO, sentence, sizeof(sentence) - 1);

    _exit(written < 0 ? EXIT_FAILED : EXIT_USAGE);
}

int main(int argc, char **argv)
{
    struct sigaction on_bus = {.sa_handler = file_shrank};
    const char *name = argc > 1 ? argv[1] : NULL;

    signal(SIGPIPE, SIG_IGN); /* a reader that left is an error of write(), not the end */
    sigaction(SIGBUS, &on_bus, NULL);
    if (name && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || !strcmp(name, "help"))) {
        usage(stdout);
        return EXIT_OK;
    }
    if (name && strcmp(name, "--version") == 0) {
        puts("gemmad " GEMMAD_VERSION);
        return EXIT_OK;
    }
    for (size_t i = 0; name && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    }
    if (name)
        fprintf(stderr, "gemmad: no command \"%.40s\"\n\n", name);
    usage(stderr);
    return EXIT_USAGE;
}
