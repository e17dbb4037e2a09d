/* tokenize.c - gemmad tokenize: text to ids and back, without loading the weights. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cmd/cmd.h"
#include "model/source.h"
#include "model/tokenizer.h"

enum { INPUT_MAX = 256 << 20 };

struct args {
    struct config cfg;
    const char *text;
    bool decode, ids_only, add_special, parse_special;
};

static void usage(void)
{
    puts("usage: gemmad tokenize [--model FILE] [--text TEXT] [options]\n\n"
         "Prints the tokens of a text (stdin without --text), one a line: id, tab, its bytes as a\n"
         "quoted string.\n\n"
         "  --text TEXT      the text; for --decode the ids\n"
         "  --ids            only the ids, on one line\n"
         "  --add_special    begin with the tokens that begin a prompt (<bos>)\n"
         "  --plain          control tokens in the text are ordinary characters\n"
         "  --decode         the other way: ids in, text out\n"
         "  --config FILE    settings, of which model is used\n\n"
         "Exit codes: 0 done, 1 failed, 2 bad arguments, input or model.");
}

static int parse(struct args *a, int argc, char **argv, struct err *err)
{
    int r;

    *a = (struct args){.parse_special = true};
    config_default(&a->cfg);
    r = config_args_file(&a->cfg, argc, argv, err);
    for (int i = 0; r >= 0 && i < argc; i++) {
        const char *arg = argv[i];

        r = 1;
        if (cmd_option(argc, argv, &i, "text", &a->text)) {
            if (!a->text)
                return err_set(err, GD_EINVAL, "--text needs a value");
        } else if (cmd_flag(arg, "decode")) {
            a->decode = true;
        } else if (cmd_flag(arg, "ids")) {
            a->ids_only = true;
        } else if (cmd_flag(arg, "add_special") || cmd_flag(arg, "add-special")) {
            a->add_special = true;
        } else if (cmd_flag(arg, "plain")) {
            a->parse_special = false;
        } else {
            r = config_arg(&a->cfg, argc, argv, &i, err);
            if (r == 0)
                return err_set(err, GD_EINVAL, "unknown argument \"%.60s\"", arg);
        }
    }
    return r < 0 ? r : 0;
}

/* The bytes of a token, quoted so that every one of them can be seen. */
static void print_piece(const char *s, size_t n)
{
    bool text = utf8_valid(s, n);

    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c == '\n')
            fputs("\\n", stdout);
        else if (c < ' ' || c == 127 || (c > 127 && !text))
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static int encode(
    const struct args *a, const struct tokenizer *t, const char *text, size_t len, struct err *err)
{
    const struct tokenizer_special *sp = tokenizer_special(t);
    struct token_list ids = {0};
    int r;

    if (a->add_special && sp->add_bos && sp->bos >= 0)
        token_list_push(&ids, sp->bos);
    r = tokenizer_encode(t, text, len, a->parse_special, &ids, err);
    if (r == 0 && a->add_special && sp->add_eos && sp->eos >= 0)
        token_list_push(&ids, sp->eos);
    for (size_t i = 0; r == 0 && i < ids.n; i++) {
        size_t n;
        const char *piece = tokenizer_piece(t, ids.ids[i], &n);

        if (a->ids_only) {
            printf("%s%d", i ? " " : "", ids.ids[i]);
        } else {
            printf("%d\t", ids.ids[i]);
            print_piece(piece, n);
            putchar('\n');
        }
    }
    if (r == 0 && a->ids_only)
        putchar('\n');
    token_list_free(&ids);
    return r;
}

/* Ids separated by anything that is no digit: "[1, 2]" and lines of ids both work. */
static int decode(const struct tokenizer *t, const char *text, struct err *err)
{
    struct utf8_stream s = {{0}, 0};
    char out[8];

    for (const char *p = text + strcspn(text, "-0123456789"); *p; p += strcspn(p, "-0123456789")) {
        char *end, *bytes;
        const char *piece;
        size_t n;
        long id;

        errno = 0;
        id = strtol(p, &end, 10);
        if (end == p || errno || id < 0 || id >= tokenizer_n_tokens(t))
            return err_set(
                err, GD_EINVAL, "no token %.20s: ids are 0 to %d", p, tokenizer_n_tokens(t) - 1);
        p = end;
        piece = tokenizer_piece(t, (int32_t)id, &n);
        bytes = malloc(3 * (n + 4));
        if (!bytes)
            return err_set(err, GD_ENOMEM, "out of memory");
        n = utf8_stream_push(&s, piece, n, bytes);
        fwrite(bytes, 1, n, stdout);
        free(bytes);
    }
    fwrite(out, 1, utf8_stream_end(&s, out), stdout);
    putchar('\n');
    return 0;
}

static int run(const struct args *a, const char *text, size_t len, struct err *err)
{
    const char *path = cmd_model_path(&a->cfg);
    struct source *src = NULL;
    struct tokenizer *t = NULL;
    int r;

    if (!path)
        return err_set(err, GD_ENOENT, "the demo model is not installed; name one with --model");
    r = source_open(&src, path, err);
    if (r == 0)
        r = tokenizer_open(&t, src, err);
    if (r == 0)
        r = a->decode ? decode(t, text, err) : encode(a, t, text, len, err);
    if (r == 0 && fflush(stdout) != 0)
        r = err_set(err, GD_EIO, "the tokens could not be written");
    tokenizer_close(t);
    source_close(src);
    return r;
}

int cmd_tokenize(int argc, char **argv)
{
    struct args a;
    struct err err = {0};
    char *input = NULL;
    size_t len = 0;
    int r;

    if (cmd_wants_help(argc, argv)) {
        usage();
        return EXIT_OK;
    }
    if (parse(&a, argc, argv, &err) < 0)
        return cmd_usage_error("tokenize", "%s", err.msg);
    if (!a.text) {
        input = cmd_read_stdin(INPUT_MAX, &len);
        if (!input)
            return cmd_usage_error("tokenize", "stdin cannot be read or is too long");
    } else {
        len = strlen(a.text);
    }
    r = run(&a, a.text ? a.text : input, len, &err);
    free(input);
    return r < 0 ? cmd_fail("tokenize", &err) : EXIT_OK;
}
