/* config.c - the table of settings and the three roads into it: set, file, arguments. */
#include "gemmad/config.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum kind { INT, FLOAT, BOOL, TEXT, WORD, LEVEL };

enum { FILE_MAX = 1 << 20, KEY_MAX = 64 };

struct row {
    const char *key;
    enum kind kind;
    size_t offset, size;
    double min, max;
    const char
        *automatic; /* the number that the word "auto" stands for, or the choices of a WORD */
    const char *def;
    const char *help;
};

#define FIELD(f) offsetof(struct config, f), sizeof(((struct config *)0)->f)
#define ISA_CHOICES "auto|c|avx2|avxvnni|avx512|neon"
#define MATMUL_CHOICES "auto|native|blas"

static const struct row rows[] = {
    {"model", TEXT, FIELD(model), 0, 0, NULL, "",
        "GGUF file or Hugging Face folder to serve; empty = the small demo model of gemmad"},
    {"served_model_name", TEXT, FIELD(served_model_name), 0, 0, NULL, "",
        "name clients see in /v1/models; empty = the model file's name without .gguf"},
    {"chat_format", TEXT, FIELD(chat_format), 0, 0, NULL, "auto",
        "chat template: auto reads the file; a name (gemma, gemma3, gemma4, ...) or none forces "
        "one"},
    {"ctx_tokens", INT, FIELD(ctx_tokens), 128, 1 << 20, "0", "auto",
        "longest prompt + answer in tokens; auto = the model's, as far as memory goes"},
    {"max_sequences", INT, FIELD(max_sequences), 1, 256, NULL, "16",
        "answers decoded together; more = more throughput, less speed for each"},
    {"kv_mib", INT, FIELD(kv_mib), 1, 1 << 24, "0", "auto",
        "memory for keys and values in MiB; auto = from the machine's or container's memory"},
    {"kv_type", WORD, FIELD(kv_type), 0, 0, "auto|f32|bf16", "auto",
        "number format of keys and values; bf16 halves the memory and costs a little accuracy"},
    {"quantize", WORD, FIELD(quantize), 0, 0, "none|q8_0|q4_0", "none",
        "pack BF16, F16 and F32 weights smaller while loading; less memory, faster, less exact"},
    {"head", WORD, FIELD(head), 0, 0, "file|q8_0|q6_k|q4_0", "file",
        "pack a BF16, F16 or F32 head smaller while loading; file = as it is"},
    {"packed_file", TEXT, FIELD(packed_file), 0, 0, NULL, "",
        "file that keeps the packed weights, so that the next start maps them; empty = none"},
    {"prefix_cache", BOOL, FIELD(prefix_cache), 0, 0, NULL, "true",
        "keep computed prompts and answers in free key-value pages for prompts that begin the "
        "same"},
    {"threads", INT, FIELD(threads), 1, 1024, "0", "auto",
        "compute threads; auto = every CPU this process may use"},
    {"profile", WORD, FIELD(profile), 0, 0, "default|precise|reference", "default",
        "numbers: default is fast, precise nearly exact, reference f32 throughout and slow"},
    {"isa", WORD, FIELD(isa), 0, 0, ISA_CHOICES, "auto",
        "instruction set of the kernels; a lower one than the CPU's is for tests"},
    {"matmul_prefill", WORD, FIELD(matmul_prefill), 0, 0, MATMUL_CHOICES, "auto",
        "matrix product for prompts: auto takes the faster one for the weights' type"},
    {"matmul_decode", WORD, FIELD(matmul_decode), 0, 0, MATMUL_CHOICES, "auto",
        "matrix product for answers: auto takes the faster one for the weights' type"},
    {"screen_head", BOOL, FIELD(screen_head), 0, 0, NULL, "true",
        "find or draw a token in a part of a Q8_0 head; false = always read the whole head"},
    {"prefill_chunk", INT, FIELD(prefill_chunk), 1, 65536, "0", "auto",
        "prompt tokens per step while others decode; auto adapts to itl_target_ms"},
    {"itl_target_ms", INT, FIELD(itl_target_ms), 1, 60000, NULL, "12",
        "time between two tokens to keep while prompts come in, in ms; less = slower first tokens"},
    {"host", TEXT, FIELD(host), 0, 0, NULL, "127.0.0.1",
        "address to listen on (IPv4, IPv6 or localhost); others than loopback need api_key_file"},
    {"port", INT, FIELD(port), 0, 65535, NULL, "8080",
        "TCP port; 0 = a free one, printed at start"},
    {"api_key_file", TEXT, FIELD(api_key_file), 0, 0, NULL, "",
        "file with one API key a line (name:key or key); empty = no keys are asked for"},
    {"insecure", BOOL, FIELD(insecure), 0, 0, NULL, "false",
        "true = listen on a public address without keys; everybody who reaches it may use it"},
    {"allowed_hosts", TEXT, FIELD(allowed_hosts), 0, 0, NULL, "auto",
        "names accepted in the Host header, with commas; * = any; auto = loopback names while "
        "there are no keys (stops DNS rebinding from a browser), any with keys"},
    {"metrics_open", WORD, FIELD(metrics_open), 0, 0, "auto|yes|no", "auto",
        "/metrics without a key; auto = only for clients on loopback"},
    {"queue_max", INT, FIELD(queue_max), 1, 65536, NULL, "64",
        "requests that may wait; more are answered 503 with Retry-After"},
    {"queue_tokens_max", INT, FIELD(queue_tokens_max), 1, 1 << 30, NULL, "262144",
        "prompt tokens that may wait; bounds the time to the first token"},
    {"max_connections", INT, FIELD(max_connections), 4, 65536, NULL, "1024",
        "open client connections; more wait in the kernel"},
    {"max_body_kib", INT, FIELD(max_body_kib), 1, 1 << 18, NULL, "4096",
        "largest request body in KiB; larger ones are answered 413"},
    {"max_n", INT, FIELD(max_n), 1, 256, NULL, "16", "largest n (choices) of a request"},
    {"max_prompts", INT, FIELD(max_prompts), 1, 1024, NULL, "32",
        "most prompts in one completion request"},
    {"header_timeout_s", INT, FIELD(header_timeout_s), 1, 3600, NULL, "10",
        "seconds from a request's first byte to its whole header"},
    {"body_timeout_s", INT, FIELD(body_timeout_s), 1, 3600, NULL, "60",
        "seconds from a request's header to its whole body"},
    {"idle_timeout_s", INT, FIELD(idle_timeout_s), 1, 86400, NULL, "120",
        "seconds a connection may stay without a request, or a client without reading"},
    {"request_timeout_s", INT, FIELD(request_timeout_s), 0, 604800, NULL, "0",
        "seconds an answer may take, waiting included; 0 = no limit"},
    {"keepalive_s", INT, FIELD(keepalive_s), 1, 3600, NULL, "15",
        "seconds of silence in a stream after which a comment line keeps proxies from closing it"},
    {"drain_s", INT, FIELD(drain_s), 0, 86400, NULL, "30",
        "seconds that running answers get to finish after SIGTERM"},
    {"strict", BOOL, FIELD(strict), 0, 0, NULL, "false",
        "true = refuse requests with unknown fields; false = name them in X-Ignored-Params"},
    {"default_temperature", FLOAT, FIELD(default_temperature), 0, 2, "-1", "auto",
        "temperature when a request names none; auto = 1, as OpenAI"},
    {"default_top_k", INT, FIELD(default_top_k), 0, 1 << 20, "-1", "auto",
        "top_k when a request names none, 0 = off; auto = off, as OpenAI"},
    {"default_top_p", FLOAT, FIELD(default_top_p), 0, 1, "-1", "auto",
        "top_p when a request names none, 1 = off; auto = 1, as OpenAI"},
    {"log_level", LEVEL, FIELD(log_level), 0, 0, "error|warn|info|debug", "info",
        "error, warn, info (one line per request) or debug"},
};

enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

size_t config_n_keys(void)
{
    return N_ROWS;
}

struct config_key config_key_at(size_t i)
{
    return (struct config_key){rows[i].key, rows[i].def, rows[i].help};
}

/* ---- setting one value ---- */

static int bad_value(const struct row *row, const char *value, const char *want, struct err *err)
{
    return err_set_at(err, GD_EINVAL, row->key, "%s: \"%.60s\" is not %s", row->key, value, want);
}

static int set_number(const struct row *row, void *field, const char *value, struct err *err)
{
    char want[96], *end;
    double v;

    if (row->automatic && strcmp(value, "auto") == 0) {
        v = strtod(row->automatic, NULL);
    } else {
        errno = 0;
        v = row->kind == INT ? (double)strtol(value, &end, 10) : strtod(value, &end);
        /* Digits only: strtod would take hexadecimal, inf and nan. */
        if (end == value || *end || errno || value[strspn(value, "+-.0123456789")] ||
            !(v >= row->min && v <= row->max)) {
            snprintf(want, sizeof(want), "%s from %g to %.10g%s",
                row->kind == INT ? "a whole number" : "a number", row->min, row->max,
                row->automatic ? " or auto" : "");
            return bad_value(row, value, want, err);
        }
    }
    if (row->kind == INT)
        *(int *)field = (int)v;
    else
        *(float *)field = (float)v;
    return 0;
}

static int set_bool(const struct row *row, bool *field, const char *value, struct err *err)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {
                                                                     "false", "no", "off", "0"};

    for (size_t i = 0; i < 4; i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *field = strcmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return bad_value(row, value, "true or false", err);
}

static int set_text(const struct row *row, char *field, const char *value, struct err *err)
{
    size_t n = strlen(value);

    if (n >= row->size)
        return err_set_at(err, GD_EINVAL, row->key, "%s: the value is longer than %zu bytes",
            row->key, row->size - 1);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)value[i] < ' ' || value[i] == 127)
            return err_set_at(
                err, GD_EINVAL, row->key, "%s: control characters are not allowed", row->key);
    }
    memcpy(field, value, n + 1);
    return 0;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);

    for (const char *p = choices; *p;) {
        size_t len = strcspn(p, "|");

        if (len == n && memcmp(p, value, n) == 0)
            return true;
        p += len + (p[len] == '|');
    }
    return false;
}

static int set_row(struct config *c, const struct row *row, const char *value, struct err *err)
{
    void *field = (char *)c + row->offset;
    char want[96];

    if (row->kind == WORD || row->kind == LEVEL) {
        snprintf(want, sizeof(want), "one of %s", row->automatic);
        if (!is_choice(row->automatic, value))
            return bad_value(row, value, want, err);
    }
    switch (row->kind) {
    case INT:
    case FLOAT: return set_number(row, field, value, err);
    case BOOL: return set_bool(row, field, value, err);
    case TEXT:
    case WORD: return set_text(row, field, value, err);
    case LEVEL: return log_level_parse(value, field);
    }
    return 0;
}

/* ---- finding a key ---- */

/* Edit distance; keys are short. */
static int distance(const char *a, const char *b)
{
    int prev[KEY_MAX + 1], n = (int)strlen(b);

    for (int j = 0; j <= n; j++)
        prev[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = prev[0];

        prev[0] = i;
        for (int j = 1; j <= n; j++) {
            int keep = diagonal + (a[i - 1] != b[j - 1]);
            int shift = (prev[j] < prev[j - 1] ? prev[j] : prev[j - 1]) + 1;

            diagonal = prev[j];
            prev[j] = keep < shift ? keep : shift;
        }
    }
    return prev[n];
}

static int unknown_key(const char *key, struct err *err)
{
    const char *best = NULL;
    int best_distance =
        strlen(key) < 6 ? (int)strlen(key) / 2 + 1 : 4; /* farther away is no help */

    for (size_t i = 0; i < N_ROWS && strlen(key) < KEY_MAX; i++) {
        int d = distance(key, rows[i].key);

        if (d < best_distance) {
            best = rows[i].key;
            best_distance = d;
        }
    }
    if (best)
        return err_set_at(
            err, GD_EINVAL, best, "unknown setting \"%.64s\"; did you mean %s?", key, best);
    return err_set(err, GD_EINVAL, "unknown setting \"%.64s\"", key);
}

/* Copies the first n bytes of key with - turned into _. False when it is too long for any key. */
static bool canonical(const char *key, size_t n, char out[KEY_MAX])
{
    if (n >= KEY_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        out[i] = key[i];
    out[n] = 0;
    for (char *p = out; (p = strchr(p, '-'));)
        *p = '_';
    return true;
}

static const struct row *find(const char *key)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    }
    return NULL;
}

int config_set(struct config *c, const char *key, const char *value, struct err *err)
{
    char name[KEY_MAX];
    const struct row *row = canonical(key, strlen(key), name) ? find(name) : NULL;

    return row ? set_row(c, row, value, err) : unknown_key(key, err);
}

void config_default(struct config *c)
{
    struct err err;

    memset(c, 0, sizeof(*c));
    for (size_t i = 0; i < N_ROWS; i++)
        set_row(c, &rows[i], rows[i].def, &err);
}

void config_get(const struct config *c, size_t i, char *out, size_t cap)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    const struct row *row = &rows[i];
    const void *field = (const char *)c + row->offset;

    switch (row->kind) {
    case INT:
    case FLOAT: {
        double v = row->kind == INT ? (double)*(const int *)field : (double)*(const float *)field;

        if (row->automatic && v == strtod(row->automatic, NULL))
            snprintf(out, cap, "auto");
        else
            snprintf(out, cap, "%.7g", v);
        break;
    }
    case BOOL: snprintf(out, cap, "%s", *(const bool *)field ? "true" : "false"); break;
    case TEXT:
    case WORD: snprintf(out, cap, "%s", (const char *)field); break;
    case LEVEL: snprintf(out, cap, "%s", levels[*(const enum log_level *)field]); break;
    }
}

/* ---- files ---- */

static void trim(char **s)
{
    char *end;

    *s += strspn(*s, " \t\r");
    end = *s + strlen(*s);
    while (end > *s && strchr(" \t\r", end[-1]))
        *--end = 0;
}

/* One line without its newline; seen marks the rows that the file has set. */
static int parse_line(struct config *c, char *line, bool *seen, struct err *err)
{
    char *key = line, *value = strchr(line, '=');
    const struct row *row;
    char name[KEY_MAX];

    trim(&key);
    if (!*key || *key == '#')
        return 0;
    if (!value)
        return err_set(err, GD_EINVAL, "expected key = value");
    *value++ = 0;
    trim(&key);
    trim(&value);
    row = canonical(key, strlen(key), name) ? find(name) : NULL;
    if (!row)
        return unknown_key(key, err);
    if (seen[row - rows])
        return err_set_at(err, GD_EINVAL, row->key, "%s is set twice", row->key);
    seen[row - rows] = true;
    return set_row(c, row, value, err);
}

int config_parse(struct config *c, const char *name, const char *text, size_t len, struct err *err)
{
    bool seen[N_ROWS] = {false};
    char line[CONFIG_PATH_MAX + KEY_MAX + 64];
    int n_line = 0;

    while (len > 0) {
        const char *nl = memchr(text, '\n', len);
        size_t n = nl ? (size_t)(nl - text) : len;
        struct err why = {0};
        int r;

        n_line++;
        if (n >= sizeof(line)) {
            r = err_set(&why, GD_EINVAL, "the line is longer than %zu bytes", sizeof(line) - 1);
        } else if (memchr(text, 0, n)) {
            r = err_set(&why, GD_EINVAL, "a NUL byte");
        } else {
            memcpy(line, text, n);
            line[n] = 0;
            r = parse_line(c, line, seen, &why);
        }
        if (r < 0) {
            err_fill_at(err, why.code, why.param, "%.80s:%d: %.150s", name, n_line, why.msg);
            return why.code;
        }
        text += n + (nl != NULL);
        len -= n + (nl != NULL);
    }
    return 0;
}

int config_load(struct config *c, const char *path, struct err *err)
{
    struct buf text = {0};
    FILE *f = fopen(path, "re");
    size_t n;
    int r = 0;

    if (!f)
        return err_set(err, GD_ENOENT, "%.120s: %s", path, strerror(errno));
    do {
        buf_reserve(&text, 4096);
        n = fread(text.data + text.len, 1, 4096, f);
        text.len += n;
    } while (n > 0 && text.len <= FILE_MAX);
    if (ferror(f))
        r = err_set(err, GD_EIO, "%.120s: %s", path, strerror(errno));
    else if (text.len > FILE_MAX)
        r = err_set(err, GD_ETOOBIG, "%.120s: larger than %d bytes", path, FILE_MAX);
    fclose(f);
    if (r == 0)
        r = config_parse(c, path, text.data, text.len, err);
    buf_free(&text);
    return r;
}

/* ---- arguments ---- */

/* Finds --config; *i is moved to the last word of it. */
static bool is_config_file(int argc, char **argv, int *i, const char **path)
{
    if (strncmp(argv[*i], "--config=", 9) == 0) {
        *path = argv[*i] + 9;
        return true;
    }
    if (strcmp(argv[*i], "--config") != 0)
        return false;
    *path = *i + 1 < argc ? argv[++*i] : NULL;
    return true;
}

int config_args_file(struct config *c, int argc, char **argv, struct err *err)
{
    const char *path = NULL;

    for (int i = 0; i < argc; i++) {
        if (!is_config_file(argc, argv, &i, &path))
            continue;
        if (!path)
            return err_set(err, GD_EINVAL, "--config needs a file");
        return config_load(c, path, err);
    }
    return 0;
}

int config_arg(struct config *c, int argc, char **argv, int *i, struct err *err)
{
    const char *arg = argv[*i], *eq, *value;
    const struct row *row;
    char name[KEY_MAX];
    size_t n;
    int r;

    if (is_config_file(argc, argv, i, &value))
        return 1;
    if (strncmp(arg, "--", 2) != 0 || !arg[2])
        return 0;
    arg += 2;
    eq = strchr(arg, '=');
    n = eq ? (size_t)(eq - arg) : strlen(arg);
    row = canonical(arg, n, name) ? find(name) : NULL;
    if (!row)
        return 0;
    if (eq)
        value = eq + 1;
    else if (row->kind == BOOL && (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0))
        value = "true";
    else if (*i + 1 < argc)
        value = argv[++*i];
    else
        return err_set_at(err, GD_EINVAL, row->key, "--%s needs a value", arg);
    r = set_row(c, row, value, err);
    return r < 0 ? r : 1;
}

int config_args(struct config *c, int argc, char **argv, struct err *err)
{
    int r = config_args_file(c, argc, argv, err);

    for (int i = 0; r >= 0 && i < argc; i++) {
        const char *arg = argv[i];

        r = config_arg(c, argc, argv, &i, err);
        if (r != 0)
            continue;
        if (strncmp(arg, "--", 2) == 0) {
            char key[KEY_MAX + 2];

            snprintf(key, sizeof(key), "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
            return unknown_key(key, err);
        }
        return err_set(err, GD_EINVAL, "unexpected argument \"%.64s\"", arg);
    }
    return r < 0 ? r : 0;
}
