/* config.h - every setting of the daemon: one table, read from a file and from the command line.
 *
 * A setting is a row of the table in base/config.c: key, kind, field, bounds, default, help. The
 * file (key = value), the command line (--key=value, --key value) and the help text all walk that
 * table. Values are checked when they are set; what two settings mean together is checked where
 * they are used (a public address needs keys: server/socket.c). */
#ifndef GEMMAD_CONFIG_H
#define GEMMAD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "gemmad/err.h"
#include "gemmad/log.h"

enum { CONFIG_PATH_MAX = 1024, CONFIG_WORD_MAX = 32, CONFIG_NAME_MAX = 256 };

struct config {
    /* model and memory */
    char model[CONFIG_PATH_MAX];             /* "" = the demo model */
    char served_model_name[CONFIG_NAME_MAX]; /* "" = the file's name */
    char chat_format[CONFIG_WORD_MAX];       /* "auto" or a format */
    int ctx_tokens, max_sequences;           /* 0 = auto for both */
    int kv_mib;                              /* 0 = auto */
    char kv_type[CONFIG_WORD_MAX], quantize[CONFIG_WORD_MAX], head[CONFIG_WORD_MAX];
    bool prefix_cache, screen_head;
    char packed_file[CONFIG_PATH_MAX]; /* "" = none */

    /* speed */
    int threads; /* 0 = auto */
    char profile[CONFIG_WORD_MAX], isa[CONFIG_WORD_MAX];
    char matmul_prefill[CONFIG_WORD_MAX], matmul_decode[CONFIG_WORD_MAX];
    int prefill_chunk; /* 0 = auto */
    int itl_target_ms;

    /* network and access */
    char host[CONFIG_NAME_MAX];
    int port; /* 0 = the kernel chooses */
    char api_key_file[CONFIG_PATH_MAX];
    bool insecure;
    char allowed_hosts[CONFIG_NAME_MAX]; /* "auto", "*" or names with commas */
    char metrics_open[CONFIG_WORD_MAX];  /* "auto", "yes", "no" */

    /* limits */
    int queue_max, queue_tokens_max;
    int max_connections, max_body_kib, max_n, max_prompts;
    int header_timeout_s, body_timeout_s, idle_timeout_s;
    int request_timeout_s; /* 0 = none */
    int keepalive_s, drain_s;

    /* requests */
    bool strict;
    float default_temperature, default_top_p; /* negative = auto */
    int default_top_k;                        /* negative = auto */

    enum log_level log_level;
};

void config_default(struct config *c);

/* key may be written with - or _. GD_EINVAL with the key in err->param; an unknown key's sentence
 * names the nearest one. */
int config_set(struct config *c, const char *key, const char *value, struct err *err);

/* "key = value" lines, # comments, CRLF tolerated. Errors begin with name:line. A key given twice
 * is an error. text need not end in NUL. */
int config_parse(struct config *c, const char *name, const char *text, size_t len, struct err *err);
int config_load(struct config *c, const char *path, struct err *err);

/* Reads the settings out of argv: --config FILE first, wherever it stands, then --key=value and
 * --key value in order (a boolean may stand alone: --strict). What belongs to nobody is an error.
 */
int config_args(struct config *c, int argc, char **argv, struct err *err);

/* When argv[*i] is --KEY or --KEY=VALUE of the table (or --config): takes it, moves *i to its last
 * word and returns 1. 0 = not a setting; negative = error. For commands with options of their own;
 * --config is only stepped over here, config_args_file() has read it before. */
int config_arg(struct config *c, int argc, char **argv, int *i, struct err *err);
int config_args_file(struct config *c, int argc, char **argv, struct err *err);

struct config_key {
    const char *key;
    const char *def; /* as it would be written in the file */
    const char *help;
};
size_t config_n_keys(void);
struct config_key config_key_at(size_t i);

/* The value as it would be written in the file. */
void config_get(const struct config *c, size_t i, char *out, size_t cap);

#endif
