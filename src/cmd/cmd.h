/* cmd.h - the commands of gemmad, one file each.
 *
 * A command gets the words after its name. --help prints its usage to stdout and ends with 0;
 * everything that goes wrong is one line on stderr. To add a command: its file, a row in main.c,
 * a line in meson.build. */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include <stdbool.h>

#include "gemmad/config.h"
#include "gemmad/engine.h"
#include "gemmad/err.h"

enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1, /* it was tried and did not work */
    EXIT_USAGE = 2   /* bad arguments, settings, input or model file */
};

int cmd_serve(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_embed(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_graph(int argc, char **argv);
int cmd_plan(int argc, char **argv);

/* True when argv[*i] is --name=VALUE or --name VALUE: *value is set and *i moved to the last word
 * of it. A missing value gives true and NULL. */
bool cmd_option(int argc, char **argv, int *i, const char *name, const char **value);
bool cmd_flag(const char *arg, const char *name); /* --name */
bool cmd_wants_help(int argc, char **argv);       /* --help or -h */

/* A number of an option, in bounds; one line on stderr and false otherwise. */
bool cmd_int(const char *option, const char *value, long min, long max, int *out);
bool cmd_float(const char *option, const char *value, double min, double max, float *out);

/* "gemmad COMMAND: sentence" on stderr; returns EXIT_USAGE. */
int cmd_usage_error(const char *command, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for an err; EXIT_USAGE for what the caller can mend (bad input), else EXIT_FAILED. */
int cmd_fail(const char *command, const struct err *err);

/* The model file to open: the setting, or the demo model where it is installed or built; NULL when
 * there is none. */
const char *cmd_model_path(const struct config *c);
void cmd_engine_opts(struct engine_opts *o, const struct config *c);

/* All of stdin; caller frees. NULL when it cannot be read or is longer than max. */
char *cmd_read_stdin(size_t max, size_t *len);

/* Prints the settings' help, one a line. */
void cmd_print_settings(void);

#endif
