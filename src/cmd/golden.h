/* golden.h - private to gemmad verify: reading golden files and reporting. */
#ifndef CMD_GOLDEN_H
#define CMD_GOLDEN_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/plain.h"
#include "engine/runtime.h"

struct verify_opts {
    struct runtime_opts ro; /* model_path: used instead of the files a golden file names */
    double bound;           /* 0 = the golden file's own (reference) or the profile's */
    bool quick;             /* real model: the short prompts only */
};

/* Counts what was checked; one line per check goes to stdout. */
struct verify_result {
    int n_ok, n_failed;
};

void verify_report(struct verify_result *r, bool ok, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Parses a JSON file; NULL and *err on failure. */
cJSON *golden_json(const char *path, struct err *err);
/* Numbers of an array; caller frees. *n = -1 when the item is no array of numbers. */
int32_t *golden_ints(const cJSON *array, int *n);
double golden_number(const cJSON *object, const char *key, double otherwise);

/* Opens a model as o says; taps as in runtime_opts. */
int verify_open(struct runtime **rt, const struct verify_opts *o, const char *model, bool taps,
    struct err *err);
int golden_argmax(const float *x, int n);
/* log(sum(exp(x))) in double. */
double golden_logsumexp(const float *x, int n);

/* A golden*.json and its numbers. */
struct golden {
    const char *dir, *file;
    cJSON *json;
    float *data; /* the .f32 file */
    long n_floats;
    double bound;
    bool exact; /* greedy ids must be equal: every profile but the default one */
};

/* The n floats at an offset that the JSON names; NULL when they are not all there. */
const float *golden_floats(const struct golden *g, double offset, long n);
/* Largest |got - want| as a share of the range of want; infinite when something is not finite. */
double golden_row_error(const float *got, const float *want, int n);

/* The "drafts" of a drafter's golden file: runs the target it names, then drafts from it. */
void verify_drafts(struct verify_result *r, const struct verify_opts *o, const struct golden *g,
    const char *path, const char *name);

/* One golden*.json of a family folder, over every file it names (or --model). */
void verify_family(
    struct verify_result *r, const struct verify_opts *o, const char *dir, const char *file);
/* cases.json and perplexity.json of a real model's folder; needs --model. */
void verify_real(struct verify_result *r, const struct verify_opts *o, const char *dir);

#endif
