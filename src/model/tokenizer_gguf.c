/* tokenizer_gguf.c - the keys tokenizer.ggml.* of a GGUF -> a tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_private.h"

#define TOKENS "tokenizer.ggml.tokens"
#define SCORES "tokenizer.ggml.scores"
#define TYPES "tokenizer.ggml.token_type"

/* *merges: the pieces are made by a list of merges, not by scores. */
static int check_model(const struct source *src, bool *merges, struct err *err)
{
    const char *key = "tokenizer.ggml.model", *model;
    bool prefix = false;
    size_t len;
    int r = source_str(src, key, &model, &len, err);

    if (r == 0)
        return err_set_at(err, GD_EFORMAT, key, "the file has no tokenizer (%s is missing)", key);
    if (r < 0)
        return r;
    *merges = len == 6 && memcmp(model, "gemma4", 6) == 0;
    if (!*merges && (len != 5 || memcmp(model, "llama", 5) != 0))
        return err_set_at(err, GD_ENOTSUP, key,
            "%s is \"%.*s\"; Gemma 1, 2 and 3 files have \"llama\" (convert the model with its "
            "tokenizer.model present), Gemma 4 files \"gemma4\"",
            key, len < 32 ? (int)len : 32, model);
    key = "tokenizer.ggml.add_space_prefix";
    r = source_bool(src, key, &prefix, err);
    if (r < 0)
        return r;
    if (prefix)
        return err_set_at(err, GD_ENOTSUP, key,
            "%s is true, but Gemma is trained without a blank before the text", key);
    return 0;
}

static int need_array(const struct source *src, const char *key, uint64_t n,
    struct source_array *out, struct err *err)
{
    int r = source_array(src, key, out, err);

    if (r < 0)
        return r;
    if (r == 0)
        return err_set_at(err, GD_EFORMAT, key, "%s is missing", key);
    if (n && out->n != n)
        return err_set_at(err, GD_EFORMAT, key, "%s has %llu entries, but " TOKENS " has %llu", key,
            (unsigned long long)out->n, (unsigned long long)n);
    return 0;
}

static int add_piece(struct vocab *v, const struct source_array *tokens,
    const struct source_array *scores, const struct source_array *types, struct err *err)
{
    struct vocab_piece p = {0};
    uint64_t i = v->n;
    int64_t type;
    int kind;

    if (!source_array_str(tokens, i, &p.text, &p.len))
        return err_set_at(err, GD_EFORMAT, TOKENS, TOKENS " is not a list of strings");
    if (!source_array_f32(scores, i, &p.score))
        return err_set_at(err, GD_EFORMAT, SCORES, SCORES " is not a list of numbers");
    if (!source_array_int(types, i, &type))
        return err_set_at(err, GD_EFORMAT, TYPES, TYPES " is not a list of integers");
    kind = tokenizer_kind_of_type(type, p.text, p.len);
    if (kind < 0)
        return err_set_at(err, GD_EFORMAT, TYPES, TYPES "[%llu] is %lld, want 1 to 6",
            (unsigned long long)i, (long long)type);
    p.kind = (enum piece_kind)kind;
    return vocab_add(v, &p, err);
}

/* An id key; without it `otherwise`, where that is a token that may stand for it. */
static int read_id(const struct source *src, const struct vocab *v, const char *key,
    int32_t otherwise, int32_t *out, struct err *err)
{
    uint32_t id;
    int r = source_u32(src, key, &id, err);

    if (r < 0)
        return r;
    if (r == 0) {
        *out = otherwise >= 0 && (size_t)otherwise < v->n && v->kind[otherwise] == PIECE_CONTROL
                   ? otherwise
                   : -1;
        return 0;
    }
    if (id >= v->n)
        return err_set_at(
            err, GD_EFORMAT, key, "%s is %u, but there are %zu tokens", key, id, v->n);
    *out = (int32_t)id;
    return 0;
}

/* tokenizer.ggml.eos_token_ids, a list that some converters write, and the end-of-message token. */
static int read_ends(struct tokenizer *t, const struct source *src, struct err *err)
{
    const char *key = "tokenizer.ggml.eos_token_ids";
    struct source_array ids;
    int32_t eom;
    int r = source_array(src, key, &ids, err);

    for (uint64_t i = 0; r > 0 && i < ids.n; i++) {
        int64_t id;

        if (!source_array_int(&ids, i, &id) || id < 0 || (uint64_t)id >= t->vocab->n)
            return err_set_at(
                err, GD_EFORMAT, key, "%s[%llu] is no id of a token", key, (unsigned long long)i);
        r = tokenizer_add_eog(t, (int32_t)id, key, err);
        if (r < 0)
            return r;
        r = 1;
    }
    if (r < 0)
        return r;
    key = "tokenizer.ggml.eom_token_id";
    r = read_id(src, t->vocab, key, -1, &eom, err);
    return r < 0 ? r : tokenizer_add_eog(t, eom, key, err);
}

static int read_special(struct tokenizer *t, const struct source *src, struct err *err)
{
    const struct {
        const char *key;
        int32_t otherwise, *out;
    } ids[] = {
        {"tokenizer.ggml.bos_token_id", 2, &t->special.bos},
        {"tokenizer.ggml.eos_token_id", 1, &t->special.eos},
        {"tokenizer.ggml.unknown_token_id", 3, &t->special.unk},
        {"tokenizer.ggml.padding_token_id", 0, &t->special.pad},
        {"tokenizer.ggml.eot_token_id", -1, &t->special.eot},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(ids) / sizeof(ids[0]); i++)
        r = read_id(src, t->vocab, ids[i].key, ids[i].otherwise, ids[i].out, err);
    if (r < 0)
        return r;
    t->special.add_bos = true;
    r = source_bool(src, "tokenizer.ggml.add_bos_token", &t->special.add_bos, err);
    if (r >= 0)
        r = source_bool(src, "tokenizer.ggml.add_eos_token", &t->special.add_eos, err);
    return r < 0 ? r : read_ends(t, src, err);
}

static int read_vocab(struct vocab **out, const struct source *src, struct err *err)
{
    struct source_array tokens, scores, types;
    int r = need_array(src, TOKENS, 0, &tokens, err);

    if (r == 0)
        r = need_array(src, SCORES, tokens.n, &scores, err);
    if (r == 0)
        r = need_array(src, TYPES, tokens.n, &types, err);
    if (r == 0)
        r = vocab_create(out, TOKENS, tokens.n, err);
    for (uint64_t i = 0; r == 0 && i < tokens.n; i++)
        r = add_piece(*out, &tokens, &scores, &types, err);
    return r;
}

int tokenizer_blank_rule(struct vocab *v, const struct source *src, struct err *err)
{
    const char *arch;
    size_t len;
    int r = source_str(src, "general.architecture", &arch, &len, err);

    if (r > 0)
        v->blanks_even = (len == 5 && memcmp(arch, "gemma", 5) == 0) ||
                         (len == 6 && memcmp(arch, "gemma2", 6) == 0);
    return r < 0 ? r : 0;
}

int tokenizer_read_gguf(struct tokenizer *t, const struct source *src, struct err *err)
{
    bool merges = false;
    int r = check_model(src, &merges, err);

    if (r == 0)
        r = merges ? tokenizer_read_bpe(&t->vocab, src, err) : read_vocab(&t->vocab, src, err);
    if (r == 0)
        r = tokenizer_blank_rule(t->vocab, src, err);
    return r < 0 ? r : read_special(t, src, err);
}
