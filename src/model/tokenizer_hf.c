/* tokenizer_hf.c - the tokenizer files of a Hugging Face folder -> a tokenizer.
 *
 *   tokenizer.json         the pieces, when it is there
 *   tokenizer.model        else; added_tokens_decoder of tokenizer_config.json overrides its pieces
 *   tokenizer_config.json  names of bos, eos, unk, pad; add_bos_token, add_eos_token
 *   generation_config.json, config.json   eos_token_id: more tokens that end a generation */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "model/hf_json.h"
#include "model/tokenizer_private.h"

static const size_t max_pieces = 256u << 20, max_config = 16u << 20;

int tokenizer_read_file(
    const struct source *src, const char *file, size_t max, struct buf *out, struct err *err)
{
    struct buf path = {0};
    struct stat st;
    FILE *f;
    int r = 1;

    buf_printf(&path, "%s/%s", source_path(src), file);
    f = fopen(path.data, "rbe");
    buf_free(&path);
    if (!f)
        return errno == ENOENT ? 0 : err_set_at(err, GD_EIO, file, "%s: %s", file, strerror(errno));
    if (fstat(fileno(f), &st) < 0 || !S_ISREG(st.st_mode))
        r = err_set_at(err, GD_EIO, file, "%s is not a regular file", file);
    else if ((uint64_t)st.st_size > max)
        r = err_set_at(err, GD_EFORMAT, file, "%s has %lld bytes; at most %zu are allowed", file,
            (long long)st.st_size, max);
    if (r == 1) {
        buf_reserve(out, (size_t)st.st_size);
        out->len = fread(out->data, 1, (size_t)st.st_size, f);
        out->data[out->len] = 0;
        if (ferror(f))
            r = err_set_at(err, GD_EIO, file, "%s cannot be read", file);
    }
    fclose(f);
    return r;
}

/* *out stays NULL when there is no such file. */
static int read_config(const struct source *src, const char *file, cJSON **out, struct err *err)
{
    struct buf text = {0};
    int r = tokenizer_read_file(src, file, max_config, &text, err);

    if (r > 0)
        r = hf_json_parse(out, text.data, text.len, file, err);
    buf_free(&text);
    return r < 0 ? r : 0;
}

/* added_tokens_decoder: {"106": {"content": "<end_of_turn>", "special": true}, ...} as a table. */
struct added {
    const char **content;
    bool *special;
    size_t n;
};

static void override(const void *ud, size_t id, struct vocab_piece *p)
{
    const struct added *a = ud;

    if (id >= a->n || !a->content[id])
        return;
    p->text = a->content[id];
    p->len = strlen(p->text);
    p->kind = tokenizer_kind(p->text, p->len, a->special[id]);
}

static int read_added(struct added *a, const cJSON *config, struct err *err)
{
    const cJSON *list = config ? hf_json_get(config, "added_tokens_decoder") : NULL, *token;
    const size_t max = VOCAB_MAX;

    cJSON_ArrayForEach(token, list)
    {
        const char *content = cJSON_GetStringValue(hf_json_get(token, "content"));
        char *end;
        unsigned long id = strtoul(token->string, &end, 10);

        if (!content || *end || end == token->string || id >= max)
            return err_set_at(err, GD_EFORMAT, "added_tokens_decoder",
                "tokenizer_config.json: added_tokens_decoder has an entry that is no token");
        if (id >= a->n) {
            size_t n = id + 1 > 2 * a->n ? id + 1 : 2 * a->n;
            const char **contents = realloc(a->content, n * sizeof(*contents));
            bool *special = realloc(a->special, n * sizeof(*special));

            a->content = contents ? contents : a->content;
            a->special = special ? special : a->special;
            if (!contents || !special)
                return err_set(err, GD_ENOMEM, "out of memory for the tokenizer");
            memset(contents + a->n, 0, (n - a->n) * sizeof(*contents));
            a->n = n;
        }
        a->content[id] = content;
        a->special[id] = cJSON_IsTrue(hf_json_get(token, "special"));
    }
    return 0;
}

static int read_pieces(
    struct tokenizer *t, const struct source *src, const cJSON *config, struct err *err)
{
    struct buf text = {0};
    struct added added = {0};
    int r = tokenizer_read_file(src, "tokenizer.json", max_pieces, &text, err);

    if (r > 0) {
        r = tokenizer_read_json(&t->vocab, text.data, text.len, err);
    } else if (r == 0) {
        r = tokenizer_read_file(src, "tokenizer.model", max_pieces, &text, err);
        if (r == 0)
            r = err_set_at(err, GD_ENOENT, "tokenizer.json",
                "%s has neither tokenizer.json nor tokenizer.model", source_path(src));
        if (r > 0)
            r = read_added(&added, config, err);
        if (r == 0)
            r = tokenizer_read_spm(&t->vocab, text.data, text.len, override, &added, err);
        if (r == 0)
            r = tokenizer_blank_rule(t->vocab, src, err);
    }
    free(added.content);
    free(added.special);
    buf_free(&text);
    return r;
}

/* Control and added tokens are found before the vocabulary is finished. */
static int32_t token_of(const struct vocab *v, const char *text)
{
    size_t n = 0;
    int32_t id = vocab_match(v, text, strlen(text), true, &n);

    return n == strlen(text) ? id : -1;
}

/* A token named in tokenizer_config.json, as a string or an object; else by its usual text. */
static int named(const struct tokenizer *t, const cJSON *config, const char *key, const char *usual,
    int32_t *out, struct err *err)
{
    const cJSON *value = config ? hf_json_get(config, key) : NULL;
    const char *text = cJSON_IsObject(value) ? cJSON_GetStringValue(hf_json_get(value, "content"))
                                             : cJSON_GetStringValue(value);

    if (!value || cJSON_IsNull(value)) {
        *out = token_of(t->vocab, usual);
        return 0;
    }
    if (text)
        *out = token_of(t->vocab, text);
    if (!text || *out < 0)
        return err_set_at(
            err, GD_EFORMAT, key, "tokenizer_config.json: %s is no token of the vocabulary", key);
    return 0;
}

static int flag(const cJSON *config, const char *key, bool *out, struct err *err)
{
    const cJSON *value = config ? hf_json_get(config, key) : NULL;

    if (!value || cJSON_IsNull(value))
        return 0;
    if (!cJSON_IsBool(value))
        return err_set_at(
            err, GD_EFORMAT, key, "tokenizer_config.json: %s is neither true nor false", key);
    *out = cJSON_IsTrue(value);
    return 0;
}

static int read_special(struct tokenizer *t, const cJSON *config, struct err *err)
{
    const struct {
        const char *key, *usual;
        int32_t *out;
    } ids[] = {
        {"bos_token", "<bos>", &t->special.bos},
        {"eos_token", "<eos>", &t->special.eos},
        {"unk_token", "<unk>", &t->special.unk},
        {"pad_token", "<pad>", &t->special.pad},
    };
    int r = 0;

    t->special.eot = -1;
    t->special.add_bos = true;
    for (size_t i = 0; r == 0 && i < sizeof(ids) / sizeof(ids[0]); i++)
        r = named(t, config, ids[i].key, ids[i].usual, ids[i].out, err);
    if (r == 0)
        r = flag(config, "add_bos_token", &t->special.add_bos, err);
    if (r == 0)
        r = flag(config, "add_eos_token", &t->special.add_eos, err);
    return r;
}

static int add_end(struct tokenizer *t, const cJSON *id, const char *file, struct err *err)
{
    if (!cJSON_IsNumber(id) || id->valuedouble < 0 || id->valuedouble >= (double)t->vocab->n ||
        id->valuedouble != (double)(int32_t)id->valuedouble)
        return err_set_at(
            err, GD_EFORMAT, "eos_token_id", "%s: eos_token_id is no id of a token", file);
    return tokenizer_add_eog(t, (int32_t)id->valuedouble, "eos_token_id", err);
}

/* eos_token_id of a file: an id or a list of ids. */
static int read_ends(
    struct tokenizer *t, const struct source *src, const char *file, struct err *err)
{
    cJSON *json = NULL;
    const cJSON *ids, *id;
    int r = read_config(src, file, &json, err);

    ids = json ? hf_json_get(json, "eos_token_id") : NULL;
    if (r == 0 && cJSON_IsArray(ids)) {
        cJSON_ArrayForEach(id, ids)
        {
            r = r < 0 ? r : add_end(t, id, file, err);
        }
    } else if (r == 0 && ids && !cJSON_IsNull(ids)) {
        r = add_end(t, ids, file, err);
    }
    cJSON_Delete(json);
    return r;
}

int tokenizer_read_folder(struct tokenizer *t, const struct source *src, struct err *err)
{
    cJSON *config = NULL;
    int r = read_config(src, "tokenizer_config.json", &config, err);

    if (r == 0)
        r = read_pieces(t, src, config, err);
    if (r == 0)
        r = read_special(t, config, err);
    if (r == 0)
        r = read_ends(t, src, "generation_config.json", err);
    if (r == 0)
        r = read_ends(t, src, "config.json", err);
    cJSON_Delete(config);
    return r;
}

/* chat_template of tokenizer_config.json: the text, or a list of {"name", "template"}. */
static const char *config_template(const cJSON *config)
{
    const cJSON *value = config ? hf_json_get(config, "chat_template") : NULL, *one;

    if (!cJSON_IsArray(value))
        return cJSON_GetStringValue(value);
    cJSON_ArrayForEach(one, value)
    {
        const char *name = cJSON_GetStringValue(hf_json_get(one, "name"));

        if (name && strcmp(name, "default") == 0)
            return cJSON_GetStringValue(hf_json_get(one, "template"));
    }
    return NULL;
}

int tokenizer_folder_template(const struct source *src, struct buf *out, struct err *err)
{
    cJSON *config = NULL;
    const char *text;
    int r = tokenizer_read_file(src, "chat_template.jinja", max_config, out, err);

    if (r != 0)
        return r;
    r = read_config(src, "tokenizer_config.json", &config, err);
    text = config_template(config);
    if (r == 0 && text) {
        buf_puts(out, text);
        r = 1;
    }
    cJSON_Delete(config);
    return r;
}
