/* verify.c - gemmad verify: hold a model's numbers against golden ones. */
#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/golden.h"
#include "cmd/tool.h"

static const char usage[] =
    "usage: gemmad verify [options] GOLDEN_DIR...\n\n"
    "Runs every golden*.json of each folder against every model file it names: logits at all "
    "stored\n"
    "rows, greedy ids, hidden states, K and V. A folder with cases.json (numbers of a real model)\n"
    "needs --model. One line per file and case.\n\n"
    "  --model FILE       check this file instead of the ones the golden files name\n"
    "  --chunk N          feed prompts in pieces of N tokens (512)\n"
    "  --bound X          largest |difference| allowed, as a share of a row's range (the golden\n"
    "                     file's own in the reference profile, 1e-3 in the precise and 0.1\n"
    "                     in the default one)\n"
    "  --quick            of a real model, only the prompts under 100 tokens\n" TOOL_OPTIONS
    "\nThe profile is reference unless told otherwise.\n"
    "Exit codes: 0 all hold, 1 one does not, 2 bad arguments.";

void verify_report(struct verify_result *r, bool ok, const char *fmt, ...)
{
    va_list ap;

    if (ok)
        r->n_ok++;
    else
        r->n_failed++;
    printf("%-6s ", ok ? "ok" : "FAILED");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

cJSON *golden_json(const char *path, struct err *err)
{
    struct buf b = {0};
    char piece[65536];
    FILE *f = fopen(path, "re");
    cJSON *json;
    size_t n;

    if (!f) {
        err_fill(err, GD_ENOENT, "%.200s: cannot be opened", path);
        return NULL;
    }
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
        buf_append(&b, piece, n);
    fclose(f);
    json = b.data ? cJSON_ParseWithLength(b.data, b.len) : NULL;
    buf_free(&b);
    if (!json)
        err_fill(err, GD_EFORMAT, "%.200s: is not JSON", path);
    return json;
}

int32_t *golden_ints(const cJSON *array, int *n)
{
    const cJSON *item;
    int32_t *out;
    int i = 0;

    *n = -1;
    if (!cJSON_IsArray(array))
        return NULL;
    out = xcalloc((size_t)cJSON_GetArraySize(array) + 1, sizeof(*out));
    cJSON_ArrayForEach(item, array)
    {
        if (!cJSON_IsNumber(item)) {
            free(out);
            return NULL;
        }
        out[i++] = (int32_t)item->valueint;
    }
    *n = i;
    return out;
}

double golden_number(const cJSON *object, const char *key, double otherwise)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

int golden_argmax(const float *x, int n)
{
    int best = 0;

    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

double golden_logsumexp(const float *x, int n)
{
    double max = (double)x[golden_argmax(x, n)], sum = 0;

    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    return max + log(sum);
}

int verify_open(
    struct runtime **rt, const struct verify_opts *o, const char *model, bool taps, struct err *err)
{
    struct runtime_opts ro = o->ro;

    ro.model_path = model;
    ro.taps = taps;
    ro.ids_only = true;
    return runtime_open(rt, &ro, err);
}

static int is_golden(const struct dirent *d)
{
    size_t n = strlen(d->d_name);

    return strncmp(d->d_name, "golden", 6) == 0 && n > 5 && strcmp(d->d_name + n - 5, ".json") == 0;
}

static void verify_dir(struct verify_result *r, const struct verify_opts *o, const char *dir)
{
    struct dirent **files = NULL;
    struct stat st;
    char path[4096];
    int n = scandir(dir, &files, is_golden, alphasort);
    bool real;

    snprintf(path, sizeof(path), "%s/cases.json", dir);
    real = stat(path, &st) == 0;
    if (n <= 0 && !real)
        verify_report(r, false, "%s: holds no golden*.json and no cases.json", dir);
    for (int i = 0; i < n; i++) {
        verify_family(r, o, dir, files[i]->d_name);
        free(files[i]);
    }
    free(files);
    if (real)
        verify_real(r, o, dir);
}

/* 1 taken, 0 another word, -1 wrong (said so). */
static int option(struct verify_opts *o, int argc, char **argv, int *i)
{
    const char *v;
    float bound;

    if (cmd_option(argc, argv, i, "model", &o->ro.model_path))
        return o->ro.model_path ? 1 : -1;
    if (cmd_option(argc, argv, i, "chunk", &v))
        return cmd_int("chunk", v, 1, 4096, &o->ro.max_chunk) ? 1 : -1;
    if (cmd_option(argc, argv, i, "bound", &v)) {
        if (!cmd_float("bound", v, 1e-9, 1, &bound))
            return -1;
        o->bound = (double)bound;
        return 1;
    }
    if (cmd_flag(argv[*i], "quick"))
        return o->quick = true, 1;
    return tool_option(argc, argv, i, &o->ro);
}

int cmd_verify(int argc, char **argv)
{
    struct verify_result r = {0};
    struct verify_opts o = {0};
    int n_dirs = 0;

    if (cmd_wants_help(argc, argv))
        return puts(usage), EXIT_OK;
    runtime_opts_default(&o.ro);
    o.ro.profile = "reference";
    o.ro.max_sequences = 8;
    for (int i = 0; i < argc; i++) {
        int t = option(&o, argc, argv, &i);

        if (t < 0)
            return EXIT_USAGE;
        if (t == 0 && argv[i][0] == '-')
            return cmd_usage_error("verify", "unexpected \"%.60s\"", argv[i]);
        if (t == 0)
            argv[n_dirs++] = argv[i];
    }
    if (!n_dirs)
        return cmd_usage_error("verify", "which folders?");
    for (int i = 0; i < n_dirs; i++)
        verify_dir(&r, &o, argv[i]);
    printf("%d checks hold, %d do not\n", r.n_ok, r.n_failed);
    return r.n_failed ? EXIT_FAILED : EXIT_OK;
}
