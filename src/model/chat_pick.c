/* chat_pick.c - which chat format a file's own template is.
 *
 * A template is a program in Jinja; it is not run but recognised by what it must contain: the
 * frames first, then what tells formats with the same frames apart. */
#include <string.h>

#include "model/chat.h"
#include "model/tokenizer_private.h"

#define NAMES "gemma, gemma3, gemma4, gemma4-small, gemma4-interleaved, functiongemma"
#define WAY_OUT "set chat_format to one of " NAMES ", or to none for completions only"

static const struct {
    const char *name;
    enum chat_format format;
    bool tools, thinking;
} formats[] = {{"none", CHAT_NONE, false, false}, {"gemma", CHAT_GEMMA, false, false},
    {"gemma3", CHAT_GEMMA3, false, false}, {"gemma4", CHAT_GEMMA4, true, true},
    {"gemma4-small", CHAT_GEMMA4_SMALL, true, true},
    {"gemma4-interleaved", CHAT_GEMMA4_INTERLEAVED, true, true},
    {"functiongemma", CHAT_FUNCTIONGEMMA, true, false}};

enum { N_FORMATS = sizeof(formats) / sizeof(formats[0]) };

const char *chat_format_name(enum chat_format f)
{
    for (int i = 0; i < N_FORMATS; i++) {
        if (formats[i].format == f)
            return formats[i].name;
    }
    return "unknown";
}

bool chat_has_tools(enum chat_format f)
{
    for (int i = 0; i < N_FORMATS; i++) {
        if (formats[i].format == f)
            return formats[i].tools;
    }
    return false;
}

bool chat_has_thinking(enum chat_format f)
{
    for (int i = 0; i < N_FORMATS; i++) {
        if (formats[i].format == f)
            return formats[i].thinking;
    }
    return false;
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

/* Line breaks in a template are written \n or as they are. */
static bool is_gemma4(enum chat_format *out, const struct template *t)
{
    if (!has(t, "<|turn>") || !has(t, "<turn|>") || !has(t, "model"))
        return false;
    *out = has(t, "<|channel>thought\\n<channel|>") || has(t, "<|channel>thought\n<channel|>")
               ? CHAT_GEMMA4
               : CHAT_GEMMA4_SMALL;
    return true;
}

static bool is_turns(enum chat_format *out, const struct template *t)
{
    /* Formats that use such turns for something else, too. */
    static const char *const others[] = {"<start_function_", "<escape>", "<|turn>", "<|im_start|>",
        "<start_of_turn>system", "<start_of_turn>developer"};

    if (!has(t, "<start_of_turn>") || !has(t, "<end_of_turn>") || !has(t, "model"))
        return false;
    if (has(t, "<start_function_declaration>") && has(t, "<start_function_call>") &&
        has(t, "<escape>") && has(t, "developer")) {
        *out = CHAT_FUNCTIONGEMMA;
        return true;
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (has(t, others[i]))
            return false;
    }
    if (has(t, "System role not supported") || !has(t, "system")) {
        *out = CHAT_GEMMA;
        return true;
    }
    /* Gemma 3: before the first turn's text, with an empty line between. */
    *out = CHAT_GEMMA3;
    return has(t, "\\n\\n'") || has(t, "\\n\\n\"") || has(t, "\n\n'") || has(t, "\n\n\"");
}

static int recognise(enum chat_format *out, const struct template *t, struct err *err)
{
    static const char key[] = "tokenizer.chat_template";
    enum chat_format f;

    if (!is_gemma4(&f, t) && !is_turns(&f, t))
        return err_set_at(
            err, GD_ENOTSUP, key, "%s is none of the formats that are built in: " WAY_OUT, key);
    *out = f;
    return 0;
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
            "chat_format: no format is called \"%.40s\"; there are auto, " NAMES " and none",
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
