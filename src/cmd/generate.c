/* generate.c - gemmad generate: one prompt through the engine, the answer to stdout as it comes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cmd/bell.h"
#include "cmd/cmd.h"

enum { PROMPT_MAX = 64 << 20, STOPS_MAX = 16 };

struct args {
    struct config cfg;
    struct job_params params;
    const char *prompt, *system;
    const char *stop[STOPS_MAX];
    bool raw, verbose;
};

static void usage(void)
{
    puts("usage: gemmad generate [--model FILE] [--prompt TEXT] [options]\n\n"
         "Completes a prompt and prints the answer as it is made. Without --prompt, reads stdin.\n"
         "The prompt is one user message when the model has a chat format.\n\n"
         "  --prompt TEXT        the prompt\n"
         "  --system TEXT        a system message before it\n"
         "  --raw                no chat format: continue the text itself\n"
         "  --max_tokens N       longest answer (512)\n"
         "  --temperature T      0 = always the likeliest token (0)\n"
         "  --top_k N, --top_p P, --min_p P, --repeat_penalty R\n"
         "  --seed N             for temperatures above 0\n"
         "  --stop TEXT          end before this text; up to 16 times\n"
         "  --verbose            token counts and speed on stderr\n\n"
         "and every setting of gemmad serve (--threads, --profile, --config FILE, ...).\n"
         "Exit codes: 0 done, 1 failed, 2 bad arguments, settings or model.");
}

/* 1 taken, 0 not one of these, -1 wrong (said so). */
static int sampling_option(struct args *a, int argc, char **argv, int *i)
{
    struct sampling *s = &a->params.sampling;
    const char *v;
    int n;

    if (cmd_option(argc, argv, i, "max_tokens", &v) || cmd_option(argc, argv, i, "max-tokens", &v))
        return cmd_int("max_tokens", v, 1, 1 << 20, &a->params.max_tokens) ? 1 : -1;
    if (cmd_option(argc, argv, i, "temperature", &v))
        return cmd_float("temperature", v, 0, 10, &s->temperature) ? 1 : -1;
    if (cmd_option(argc, argv, i, "top_k", &v))
        return cmd_int("top_k", v, 0, 1 << 20, &s->top_k) ? 1 : -1;
    if (cmd_option(argc, argv, i, "top_p", &v))
        return cmd_float("top_p", v, 0, 1, &s->top_p) ? 1 : -1;
    if (cmd_option(argc, argv, i, "min_p", &v))
        return cmd_float("min_p", v, 0, 1, &s->min_p) ? 1 : -1;
    if (cmd_option(argc, argv, i, "repeat_penalty", &v))
        return cmd_float("repeat_penalty", v, 0.01, 100, &s->repeat_penalty) ? 1 : -1;
    if (cmd_option(argc, argv, i, "seed", &v)) {
        if (!cmd_int("seed", v, 0, 2147483647, &n))
            return -1;
        s->has_seed = true;
        s->seed = (uint64_t)n;
        return 1;
    }
    return 0;
}

static int option(struct args *a, int argc, char **argv, int *i)
{
    const char *v;

    if (cmd_option(argc, argv, i, "prompt", &a->prompt))
        return a->prompt ? 1 : -1;
    if (cmd_option(argc, argv, i, "system", &a->system))
        return a->system ? 1 : -1;
    if (cmd_flag(argv[*i], "raw"))
        return a->raw = true, 1;
    if (cmd_flag(argv[*i], "verbose"))
        return a->verbose = true, 1;
    if (cmd_option(argc, argv, i, "stop", &v)) {
        if (!v || !*v || a->params.n_stop == STOPS_MAX)
            return -1;
        a->stop[a->params.n_stop++] = v;
        return 1;
    }
    return sampling_option(a, argc, argv, i);
}

static int parse(struct args *a, int argc, char **argv, struct err *err)
{
    int r;

    config_default(&a->cfg);
    a->cfg.log_level = LOG_LEVEL_WARN;
    a->cfg.max_sequences = 1;
    job_params_default(&a->params);
    a->params.max_tokens = 512;
    a->params.sampling.temperature = 0;
    a->params.stop = a->stop;
    r = config_args_file(&a->cfg, argc, argv, err);
    for (int i = 0; r >= 0 && i < argc; i++) {
        const char *arg = argv[i];

        r = option(a, argc, argv, &i);
        if (r == 0)
            r = config_arg(&a->cfg, argc, argv, &i, err);
        else if (r < 0)
            return err_set(err, GD_EINVAL, "%.60s has no usable value", arg);
        if (r == 0)
            return err_set(err, GD_EINVAL, "unknown argument \"%.60s\"", arg);
    }
    return r < 0 ? r : 0;
}

static int print_answer(struct job *job, struct bell *bell, const struct args *a, struct err *err)
{
    int64_t start = clock_ns(), first = 0;
    struct job_event ev = {0};

    while (ev.kind != EVENT_FINISH) {
        if (!job_next(job, &ev)) {
            ev.kind = EVENT_STARTED;
            fflush(stdout);
            bell_wait(bell);
            continue;
        }
        if (ev.kind != EVENT_TEXT && ev.kind != EVENT_FINISH)
            continue;
        if (!first)
            first = clock_ns();
        fwrite(ev.text, 1, ev.text_len, stdout);
    }
    if (ev.finish == FINISH_ERROR) {
        *err = ev.err;
        return ev.err.code;
    }
    putchar('\n');
    if (fflush(stdout) != 0)
        return err_set(err, GD_EIO, "the answer could not be written");
    if (a->verbose) {
        double prefill = (double)(first - start) / 1e9, decode = (double)(clock_ns() - first) / 1e9;

        fprintf(stderr,
            "prompt %d tokens in %.3f s (%.1f/s), answer %d tokens in %.3f s (%.1f/s)\n",
            ev.usage.prompt_tokens, prefill, ev.usage.prompt_tokens / prefill,
            ev.usage.completion_tokens, decode, (ev.usage.completion_tokens - 1) / decode);
    }
    return 0;
}

static int run(struct args *a, const char *text, size_t len, struct err *err)
{
    struct bell bell = BELL_INIT;
    struct chat_message messages[2] = {{.role = ROLE_SYSTEM,
                                           .content = a->system,
                                           .content_len = a->system ? strlen(a->system) : 0},
        {.role = ROLE_USER, .content = text, .content_len = len}};
    struct engine_opts o;
    struct engine *e = NULL;
    struct job *job = NULL;
    int r;

    cmd_engine_opts(&o, &a->cfg);
    if (!o.model_path)
        return err_set(err, GD_ENOENT, "the demo model is not installed; name one with --model");
    o.wake = bell_ring;
    o.wake_ud = &bell;
    r = engine_open(&e, &o, err);
    if (r < 0)
        return r;
    a->params.prompt = (struct prompt){.kind = PROMPT_TEXT, .text = text, .text_len = len};
    if (!a->raw && strcmp(engine_info(e)->chat_format, "none") != 0)
        a->params.prompt = (struct prompt){.kind = PROMPT_CHAT,
            .messages = a->system ? messages : messages + 1,
            .n = a->system ? 2 : 1,
            .add_generation_prompt = true};
    r = job_submit(&job, e, &a->params, NULL, err);
    if (r == 0)
        r = print_answer(job, &bell, a, err);
    job_release(job);
    engine_close(e);
    return r;
}

int cmd_generate(int argc, char **argv)
{
    struct args a = {0};
    struct err err = {0};
    char *input = NULL;
    size_t len = 0;
    int r;

    if (cmd_wants_help(argc, argv)) {
        usage();
        return EXIT_OK;
    }
    if (parse(&a, argc, argv, &err) < 0)
        return cmd_usage_error("generate", "%s", err.msg);
    log_set_level(a.cfg.log_level);
    if (!a.prompt) {
        input = cmd_read_stdin(PROMPT_MAX, &len);
        if (!input)
            return cmd_usage_error("generate", "stdin cannot be read or is too long");
        if (len > 0 && input[len - 1] == '\n')
            len--;
    }
    r = run(&a, a.prompt ? a.prompt : input, a.prompt ? strlen(a.prompt) : len, &err);
    free(input);
    return r < 0 ? cmd_fail("generate", &err) : EXIT_OK;
}
