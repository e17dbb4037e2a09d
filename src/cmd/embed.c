/* embed.c - gemmad embed: texts in, their vectors out, one JSON array a line.
 *
 * A window of texts is with the engine, which computes together what waits; lines come out in the
 * order of the texts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/embeddings.h"
#include "api/write.h"
#include "base/mem.h"
#include "cmd/bell.h"
#include "cmd/cmd.h"

enum { INPUT_MAX = 256 << 20, WINDOW = 256 };

struct text {
    const char *s;
    size_t len;
};

struct args {
    struct config cfg;
    int dimensions; /* 0 = all */
    struct text *texts;
    size_t n_texts;
    const char *unit; /* "text" or "line", for errors */
};

static void usage(void)
{
    puts("usage: gemmad embed [--model FILE] [--dimensions N] [TEXT...]\n\n"
         "Prints the vector of each text, one JSON array a line. Without texts, every line of "
         "stdin\n"
         "is one. The model is one that makes embeddings.\n\n"
         "  --dimensions N   the first N numbers, made a vector of length 1 again\n"
         "  --               what follows are texts, also when they begin with -\n\n"
         "and every setting of gemmad serve (--threads, --profile, --config FILE, ...).\n"
         "Exit codes: 0 done, 1 failed, 2 bad arguments, settings, text or model.");
}

static void add_text(struct args *a, const char *s, size_t len)
{
    a->texts[a->n_texts++] = (struct text){s, len};
}

static int parse(struct args *a, int argc, char **argv, struct err *err)
{
    const char *value;
    bool words = false;
    int r;

    config_default(&a->cfg);
    a->cfg.log_level = LOG_LEVEL_WARN;
    a->texts = xcalloc((size_t)argc + 1, sizeof(*a->texts));
    a->unit = "text";
    r = config_args_file(&a->cfg, argc, argv, err);
    for (int i = 0; r >= 0 && i < argc; i++) {
        const char *arg = argv[i];

        if (words || arg[0] != '-') {
            add_text(a, arg, strlen(arg));
        } else if (strcmp(arg, "--") == 0) {
            words = true;
        } else if (cmd_option(argc, argv, &i, "dimensions", &value)) {
            if (!cmd_int("dimensions", value, 1, 1 << 20, &a->dimensions))
                return err_set(err, GD_EINVAL, "%.60s has no usable value", arg);
        } else {
            r = config_arg(&a->cfg, argc, argv, &i, err);
            if (r == 0)
                return err_set(err, GD_EINVAL, "unknown argument \"%.60s\"", arg);
        }
    }
    return r < 0 ? r : 0;
}

static void split_lines(struct args *a, const char *input, size_t len)
{
    size_t n = 1;

    for (size_t i = 0; i < len; i++)
        n += input[i] == '\n';
    a->texts = xrealloc(a->texts, n * sizeof(*a->texts));
    a->unit = "line";
    for (const char *at = input, *end = input + len; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t m = (size_t)((stop ? stop : end) - at);

        add_text(a, at, m > 0 && at[m - 1] == '\r' ? m - 1 : m);
        at += m + 1;
    }
}

static int at_text(const struct args *a, size_t i, struct err *err)
{
    char said[sizeof(err->msg)];

    memcpy(said, err->msg, sizeof(said));
    return err_set(err, err->code, "%s %zu: %.*s", a->unit, i + 1, (int)sizeof(said) - 40, said);
}

static int submit(struct job **job, struct engine *e, const struct text *t, struct err *err)
{
    struct job_params p;

    if (t->len == 0)
        return err_set(err, GD_EINVAL, "must not be empty");
    job_params_default(&p);
    p.embed = true;
    p.follows = true; /* the window bounds what waits */
    p.prompt = (struct prompt){.kind = PROMPT_TEXT, .text = t->s, .text_len = t->len};
    return job_submit(job, e, &p, NULL, err);
}

static void print(const float *v, int n, int dimensions, struct buf *line)
{
    float *cut;

    dimensions = dimensions ? dimensions : n;
    cut = xcalloc((size_t)dimensions, sizeof(*cut));
    api_embedding_cut(v, n, cut, dimensions);
    buf_clear(line);
    for (int i = 0; i < dimensions; i++) {
        buf_puts(line, i ? "," : "[");
        write_float(line, cut[i]);
    }
    buf_puts(line, "]");
    puts(line->data);
    free(cut);
}

/* Waits for the vector of a job and prints it. */
static int finish(struct job *job, struct bell *bell, int dimensions, struct err *err)
{
    struct job_event ev = {0};
    struct buf line = {0};

    do {
        while (!job_next(job, &ev))
            bell_wait(bell);
    } while (ev.kind != EVENT_FINISH);
    if (ev.finish == FINISH_ERROR) {
        *err = ev.err;
        return ev.err.code;
    }
    if (!ev.vector)
        return err_set(err, GD_ECANCELED, "the engine ended before the vector was made");
    print(ev.vector, ev.n_vector, dimensions, &line);
    buf_free(&line);
    return 0;
}

static int embed_all(const struct args *a, struct engine *e, struct bell *bell, struct err *err)
{
    struct job *jobs[WINDOW] = {0};
    size_t next = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < a->n_texts; i++) {
        for (; r == 0 && next < a->n_texts && next < i + WINDOW; next++) {
            r = submit(&jobs[next % WINDOW], e, &a->texts[next], err);
            if (r < 0)
                at_text(a, next, err);
        }
        if (r == 0) {
            r = finish(jobs[i % WINDOW], bell, a->dimensions, err);
            job_release(jobs[i % WINDOW]);
            jobs[i % WINDOW] = NULL;
        }
    }
    for (size_t i = 0; i < WINDOW; i++)
        job_release(jobs[i]);
    if (fflush(stdout) != 0 && r == 0)
        r = err_set(err, GD_EIO, "the vectors could not be written");
    return r;
}

static int run(const struct args *a, struct err *err)
{
    struct bell bell = BELL_INIT;
    struct engine_opts o;
    struct engine *e = NULL;
    int r, width;

    cmd_engine_opts(&o, &a->cfg);
    if (!o.model_path)
        return err_set(err, GD_ENOENT, "name an embedding model with --model");
    o.wake = bell_ring;
    o.wake_ud = &bell;
    r = engine_open(&e, &o, err);
    if (r < 0)
        return r;
    width = engine_info(e)->embed_width;
    if (width && a->dimensions > width)
        r = err_set(err, GD_EINVAL, "--dimensions: the model's vectors have %d", width);
    else if (!width)
        r = err_set(err, GD_ENOTSUP, "the model generates text and makes no embeddings");
    else
        r = embed_all(a, e, &bell, err);
    engine_close(e);
    return r;
}

int cmd_embed(int argc, char **argv)
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
    if (parse(&a, argc, argv, &err) < 0) {
        free(a.texts);
        return cmd_usage_error("embed", "%s", err.msg);
    }
    log_set_level(a.cfg.log_level);
    if (a.n_texts == 0) {
        input = cmd_read_stdin(INPUT_MAX, &len);
        if (!input) {
            free(a.texts);
            return cmd_usage_error("embed", "stdin cannot be read or is too long");
        }
        split_lines(&a, input, len);
    }
    r = run(&a, &err);
    free(input);
    free(a.texts);
    return r < 0 ? cmd_fail("embed", &err) : EXIT_OK;
}
