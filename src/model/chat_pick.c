/* chat_pick.c - which chat format a file's own template is.
 *
 * A template is a program in Jinja; it is not run but recognised by what it must contain. Both
 * formats write the same turns; they differ in what becomes of a system message. */
#include <string.h>

#include "model/chat.h"
#include "model/tokenizer_private.h"

#define WAY_OUT "set chat_format to gemma, gemma3, or none for completions only"

static const struct {
    const char *name;
    enum chat_format format;
} formats[] = {{"none", CHAT_NONE}, {"gemma", CHAT_GEMMA}, {"gemma3", CHAT_GEMMA3}};

enum { N_FORMATS = sizeof(formats) / sizeof(formats[0]) };

const char *chat_format_name(enum chat_format f)
{
    for (int i = 0; i < N_FORMATS; i++) {
        if (formats[i].format == f)
            return formats[i].name;
    }
    return "unknown";
}

struct template
{
    const char *text;
    size_t len;
};

static bool has(const struct template *t, const char *words)
{
    return memmem(t->text, t->len, words, strlen(words)) != NULL;
}

static int recognise(enum chat_format *out, const struct template *t, struct err *err)
{
    static const char key[] = "tokenizer.chat_template";
    /* Formats that use such turns for something else, too. */
    static const char *const others[] = {"<start_function_", "<escape>", "<|turn>", "<|im_start|>",
        "<start_of_turn>system", "<start_of_turn>developer"};
    bool known = has(t, "<start_of_turn>") && has(t, "<end_of_turn>") && has(t, "model");

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        known = known && !has(t, others[i]);
    if (known && (has(t, "System role not supported") || !has(t, "system"))) {
        *out = CHAT_GEMMA;
        return 0;
    }
    /* Before the first turn's text, with an empty line between; written \n\n or as line breaks. */
    if (known && (has(t, "\\n\\n'") || has(t, "\\n\\n\"") || has(t, "\n\n'") || has(t, "\n\n\""))) {
        *out = CHAT_GEMMA3;
        return 0;
    }
    return err_set_at(
        err, GD_ENOTSUP, key, "%s is none of the formats that are built in: " WAY_OUT, key);
}

int chat_format_pick(
    enum chat_format *out, const char *setting, const struct source *src, struct err *err)
{
    struct buf file = {0};
    struct template t;
    int r;

    for (int i = 0; i < N_FORMATS; i++) {
        if (strcmp(setting, formats[i].name) == 0) {
            *out = formats[i].format;
            return 0;
        }
    }
    if (strcmp(setting, "auto") != 0)
        return err_set_at(err, GD_ENOTSUP, "chat_format",
            "chat_format: no format is called \"%.40s\"; there are auto, gemma, gemma3 and none",
            setting);
    if (source_is_folder(src)) {
        r = tokenizer_folder_template(src, &file, err);
        t = (struct template){file.data ? file.data : "", file.len};
    } else {
        r = source_str(src, "tokenizer.chat_template", &t.text, &t.len, err);
    }
    if (r > 0)
        r = recognise(out, &t, err);
    else if (r == 0)
        *out = CHAT_NONE;
    buf_free(&file);
    return r;
}
