/* tokenizer.c - what a tokenizer is made of, whatever file it came from.
 *
 * Which pieces are control tokens? A GGUF's own types do not say it well: of Gemma 3's tokens they
 * call <start_of_image> user-defined, which anybody's text would become, and <unusedN> and <mask>
 * control, which in Hugging Face's tokenizer they are not. This file takes what tokenizer.json
 * calls special and adds, for safety, every piece that the chat formats of the family write as
 * frames: a user's text can make none of them. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/tokenizer_private.h"

static bool is_text(const char *text, size_t len, const char *want)
{
    return len == strlen(want) && memcmp(text, want, len) == 0;
}

/* Gemma 4's: <|turn>, <turn|>, <|think|>, <|"|> and so on. Converters call some of them
 * user-defined, so that they are printed. */
static bool is_bar_mark(const char *text, size_t len)
{
    return len > 3 && text[0] == '<' && text[len - 1] == '>' &&
           (text[1] == '|' || text[len - 2] == '|');
}

static bool is_unused(const char *text, size_t len)
{
    static const char head[] = "<unused";
    size_t i = sizeof(head) - 1;

    if (len < i + 2 || memcmp(text, head, i) != 0 || text[len - 1] != '>')
        return false;
    for (; i < len - 1; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
    }
    return true;
}

enum piece_kind tokenizer_kind(const char *text, size_t len, bool special)
{
    /* Frames and media marks, whatever type the file gives them. */
    static const char *const frames[] = {"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>",
        "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>",
        "<start_of_audio>", "<end_of_audio>", "<audio_soft_token>", "<start_function_declaration>",
        "<end_function_declaration>", "<start_function_call>", "<end_function_call>",
        "<start_function_response>", "<end_function_response>", "<escape>"};
    /* Converters call them control because they look special; tokenizer.json does not. */
    static const char *const plain[] = {"<mask>", "<2mass>", "[@BOS@]"};

    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        if (is_text(text, len, frames[i]))
            return PIECE_CONTROL;
    }
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        if (is_text(text, len, plain[i]))
            return PIECE_ADDED;
    }
    if (is_bar_mark(text, len))
        return PIECE_CONTROL;
    return special && !is_unused(text, len) ? PIECE_CONTROL : PIECE_ADDED;
}

int tokenizer_kind_of_type(int64_t type, const char *text, size_t len)
{
    enum { UNKNOWN = 2, CONTROL, USER_DEFINED, UNUSED, BYTE };

    switch (type) {
    case PIECE_TYPE_NORMAL: return PIECE_NORMAL;
    case UNKNOWN:
    case CONTROL: return (int)tokenizer_kind(text, len, true);
    case USER_DEFINED: return (int)tokenizer_kind(text, len, false);
    case UNUSED: return PIECE_UNUSED;
    case BYTE: return PIECE_BYTE;
    default: return -1;
    }
}

int tokenizer_add_eog(struct tokenizer *t, int32_t id, const char *key, struct err *err)
{
    if (id < 0)
        return 0;
    for (int i = 0; i < t->n_eog; i++) {
        if (t->eog[i] == id)
            return 0;
    }
    if (t->n_eog == TOKENIZER_MAX_EOG)
        return err_set_at(err, GD_EFORMAT, key, "%s: more than %d tokens that end a generation",
            key, TOKENIZER_MAX_EOG);
    t->eog[t->n_eog++] = id;
    return 0;
}

/* A token that begins or ends a prompt is control, too, when it is written as one. */
static void make_control(struct vocab *v, int32_t id)
{
    const char *text = id >= 0 ? v->text + v->at[id] : NULL;
    size_t n = id >= 0 ? v->at[id + 1] - v->at[id] : 0;

    if (n > 2 && v->kind[id] == PIECE_ADDED && text[0] == '<' && text[n - 1] == '>')
        v->kind[id] = PIECE_CONTROL;
}

static int32_t control(const struct tokenizer *t, const char *text)
{
    int32_t id = vocab_find(t->vocab, text, strlen(text));

    return tokenizer_is_control(t, id) ? id : -1;
}

/* eot and the end tokens that are known by their text, when the vocabulary is complete. */
static int settle(struct tokenizer *t, struct err *err)
{
    /* Not "</s>", which is an HTML tag in every Gemma vocabulary. */
    static const char *const ends[] = {
        "<eos>", "<end_of_turn>", "<start_function_response>", "<turn|>", "<|tool_response>"};
    int r = 0;

    if (t->special.eot < 0)
        t->special.eot = control(t, "<turn|>");
    if (t->special.eot < 0)
        t->special.eot = control(t, "<end_of_turn>");
    /* Gemma 4's files say that bos is not added, since its chat template writes it. */
    if (control(t, "<|turn>") >= 0)
        t->special.add_bos = true;
    r = tokenizer_add_eog(t, t->special.eos, "eos", err);
    if (r == 0)
        r = tokenizer_add_eog(t, t->special.eot, "eot", err);
    for (size_t i = 0; r == 0 && i < sizeof(ends) / sizeof(ends[0]); i++)
        r = tokenizer_add_eog(t, control(t, ends[i]), ends[i], err);
    make_control(t->vocab, t->special.bos);
    for (int i = 0; i < t->n_eog; i++)
        make_control(t->vocab, t->eog[i]);
    return r;
}

int tokenizer_open(struct tokenizer **out, const struct source *src, struct err *err)
{
    struct tokenizer *t = xcalloc(1, sizeof(*t));
    int r = source_is_folder(src) ? tokenizer_read_folder(t, src, err)
                                  : tokenizer_read_gguf(t, src, err);

    if (r == 0)
        r = vocab_finish(t->vocab, t->special.unk, err);
    if (r == 0)
        r = settle(t, err);
    if (r < 0) {
        tokenizer_close(t);
        return r;
    }
    *out = t;
    return 0;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    vocab_destroy(t->vocab);
    free(t);
}

int tokenizer_n_tokens(const struct tokenizer *t)
{
    return (int)t->vocab->n;
}

const struct tokenizer_special *tokenizer_special(const struct tokenizer *t)
{
    return &t->special;
}

bool tokenizer_is_eog(const struct tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->n_eog; i++) {
        if (t->eog[i] == id)
            return true;
    }
    return false;
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocab->n && t->vocab->kind[id] == PIECE_CONTROL;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t len)
{
    return vocab_find(t->vocab, text, len);
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len)
{
    const struct vocab *v = t->vocab;

    if (id < 0 || (size_t)id >= v->n) {
        *len = 0;
        return "";
    }
    *len = v->at[id + 1] - v->at[id];
    return v->text + v->at[id];
}

int token_list_reserve(struct token_list *l, size_t n, struct err *err)
{
    size_t need, bytes, cap;
    int32_t *ids;

    if (l->cap - l->n >= n)
        return 0;
    if (!mem_add(l->n, n, &need))
        return err_set(err, GD_ENOMEM, "out of memory for tokens");
    cap = need < l->cap + l->cap / 2 ? l->cap + l->cap / 2 : need < 64 ? 64 : need;
    ids = mem_mul(cap, sizeof(*ids), &bytes) ? realloc(l->ids, bytes) : NULL;
    if (!ids)
        return err_set(err, GD_ENOMEM, "out of memory for %zu tokens", need);
    l->ids = ids;
    l->cap = cap;
    return 0;
}

void token_list_push(struct token_list *l, int32_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap < 64 ? 64 : l->cap + l->cap / 2;
        l->ids = xrealloc(l->ids, l->cap * sizeof(*l->ids));
    }
    l->ids[l->n++] = id;
}

void token_list_free(struct token_list *l)
{
    free(l->ids);
    *l = (struct token_list){0};
}
