/* params.c - what is done with parameters that have no code of their own.
 *
 * Nothing is swallowed: either the value asks for nothing, or OpenAI promises that the parameter
 * does not change the answer, or the request is refused, or the response names the parameter. */
#include "api/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { IGNORED_MAX = 1000 }; /* bytes of the header's value */

enum {
    TRUE_IS_NOTHING = 1, /* it is the default */
    EMPTY_ASKS = 2       /* {} is a wish */
};

struct unsupported {
    const char *name;
    const char *words; /* strings that ask for nothing, beside "": "|none|auto|" */
    double number;     /* the number that asks for nothing, or NONE */
    unsigned flags;
    const char *hint; /* ends the sentence, or NULL */
};

#define NONE NAN

static const struct unsupported unsupported[] = {
    /* OpenAI */
    {"tools", NULL, NONE, 0, "the model's chat format has none"},
    {"tool_choice", "|none|auto|", NONE, EMPTY_ASKS, NULL},
    {"parallel_tool_calls", NULL, NONE, 0, NULL},
    {"functions", NULL, NONE, 0, NULL},
    {"function_call", "|none|auto|", NONE, EMPTY_ASKS, NULL},
    {"response_format", NULL, NONE, EMPTY_ASKS, "only {\"type\":\"text\"} is"},
    {"modalities", NULL, NONE, 0, "only [\"text\"] is"},
    {"audio", NULL, NONE, EMPTY_ASKS, NULL},
    {"prediction", NULL, NONE, EMPTY_ASKS, NULL},
    {"web_search_options", NULL, NONE, EMPTY_ASKS, NULL},
    {"reasoning_effort", "|none|", NONE, 0, NULL},
    {"verbosity", "|medium|", NONE, 0, NULL},
    {"store", NULL, NONE, 0, "only false is"},
    {"moderation", NULL, NONE, EMPTY_ASKS, NULL},
    {"suffix", NULL, NONE, 0, NULL},
    {"echo", NULL, NONE, 0, "only /v1/completions has it"},
    {"best_of", NULL, 1, 0, "only /v1/completions has it"},
    /* vLLM, SGLang */
    {"use_beam_search", NULL, NONE, 0, NULL},
    {"length_penalty", NULL, 1, 0, NULL},
    {"bad_words", NULL, NONE, 0, NULL},
    {"allowed_token_ids", NULL, NONE, 0, "logit_bias may do"},
    {"prompt_logprobs", NULL, NONE, 0, "echo with logprobs gives them"},
    {"logprob_token_ids", NULL, NONE, 0, NULL},
    {"truncate_prompt_tokens", NULL, NONE, 0, NULL},
    {"prompt_embeds", NULL, NONE, 0, NULL},
    {"add_special_tokens", NULL, NONE, TRUE_IS_NOTHING, "a prompt of token ids is taken as it is"},
    {"cache_salt", NULL, NONE, 0, NULL},
    {"logits_processors", NULL, NONE, 0, NULL},
    {"thinking_token_budget", NULL, NONE, 0, NULL},
    {"stop_regex", NULL, NONE, 0, NULL},
    {"structured_outputs", NULL, NONE, 0, NULL},
    {"guided_json", NULL, NONE, EMPTY_ASKS, NULL},
    {"guided_regex", NULL, NONE, 0, NULL},
    {"guided_choice", NULL, NONE, 0, NULL},
    {"guided_grammar", NULL, NONE, 0, NULL},
    {"regex", NULL, NONE, 0, NULL},
    {"ebnf", NULL, NONE, 0, NULL},
    {"priority", NULL, 0, 0, NULL},
    {"chat_template", NULL, NONE, 0, "the setting chat_format names one"},
    {"chat_template_kwargs", NULL, NONE, 0, NULL},
    {"documents", NULL, NONE, 0, NULL},
    {"max_new_tokens", NULL, NONE, 0, "use max_tokens"},
    /* llama.cpp */
    {"grammar", NULL, NONE, 0, NULL},
    {"json_schema", NULL, NONE, EMPTY_ASKS, NULL},
    {"n_predict", NULL, NONE, 0, "use max_tokens"},
    {"n_probs", NULL, 0, 0, "use logprobs"},
    {"mirostat", NULL, 0, 0, NULL},
    {"dry_multiplier", NULL, 0, 0, NULL},
    {"xtc_probability", NULL, 0, 0, NULL},
    {"dynatemp_range", NULL, 0, 0, NULL},
    {"top_n_sigma", NULL, -1, 0, NULL},
    {"tfs_z", NULL, 1, 0, NULL},
    {"top_a", NULL, 0, 0, NULL},
    {"t_max_predict_ms", NULL, 0, 0, "use timeout_ms"},
    {"n_indent", NULL, 0, 0, NULL},
    {"response_fields", NULL, NONE, 0, NULL},
    {"samplers", NULL, NONE, 0, NULL},
    {"post_sampling_probs", NULL, NONE, 0, NULL},
    {"cache_prompt", NULL, NONE, TRUE_IS_NOTHING, "the prefix cache never changes an answer"},
    {"lora", NULL, NONE, 0, NULL},
    {"image_data", NULL, NONE, 0, NULL},
};

/* OpenAI: identifiers for abuse detection, tags of stored answers, hints for its cache. */
static const struct {
    const char *name;
    const char *words; /* the only strings, or NULL */
    bool object;
} harmless[] = {
    {"user", NULL, false},
    {"safety_identifier", NULL, false},
    {"prompt_cache_key", NULL, false},
    {"prompt_cache_retention", NULL, false},
    {"prompt_cache_options", NULL, true},
    {"metadata", NULL, true},
    {"service_tier", "|auto|default|", false},
};

/* Is value one of the words between the bars? */
static bool among(const char *words, const char *value)
{
    size_t n = strlen(value);
    const char *at = words;

    while (n && at && (at = strstr(at, value))) {
        if (at > words && at[-1] == '|' && at[n] == '|')
            return true;
        at++;
    }
    return false;
}

static bool is_text_format(const cJSON *c)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(c, "type");

    return cJSON_IsObject(c) && c->child && !c->child->next && cJSON_IsString(type) &&
           strcmp(type->valuestring, "text") == 0;
}

static bool is_text_list(const cJSON *c)
{
    return cJSON_IsArray(c) && c->child && !c->child->next && cJSON_IsString(c->child) &&
           strcmp(c->child->valuestring, "text") == 0;
}

static bool asks_for_nothing(const struct unsupported *u, const cJSON *c)
{
    if (strcmp(u->name, "response_format") == 0 && is_text_format(c))
        return true;
    if (strcmp(u->name, "modalities") == 0 && is_text_list(c))
        return true;
    if (cJSON_IsBool(c))
        return cJSON_IsTrue(c) == ((u->flags & TRUE_IS_NOTHING) != 0);
    if (cJSON_IsNumber(c))
        return c->valuedouble == u->number; /* never for NONE */
    if (cJSON_IsString(c))
        return !c->valuestring[0] || among(u->words, c->valuestring);
    if (cJSON_IsObject(c))
        return !c->child && !(u->flags & EMPTY_ASKS);
    return !c->child;
}

static const struct unsupported *find_unsupported(const char *name)
{
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(*unsupported); i++)
        if (strcmp(unsupported[i].name, name) == 0)
            return &unsupported[i];
    return NULL;
}

/* 1: a harmless one of the right type, 0: another, or an error. */
static int check_harmless(const cJSON *c, struct err *err)
{
    for (size_t i = 0; i < sizeof(harmless) / sizeof(*harmless); i++) {
        if (strcmp(harmless[i].name, c->string) != 0)
            continue;
        if (harmless[i].object)
            return cJSON_IsObject(c) ? 1 : json_refuse(err, c->string, "an object", c);
        if (!cJSON_IsString(c))
            return json_refuse(err, c->string, "a string", c);
        if (harmless[i].words && !among(harmless[i].words, c->valuestring))
            return err_set_at(err, GD_ENOTSUP, c->string,
                "%s: only \"auto\" and \"default\" are supported", c->string);
        return 1;
    }
    return 0;
}

static bool listed(const struct buf *ignored, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = ignored->data; at && (at = strstr(at, name)); at++)
        if ((at == ignored->data || at[-1] == ' ') && (at[n] == 0 || at[n] == ','))
            return true;
    return false;
}

static int unknown(const char *path, bool strict, struct buf *ignored, struct err *err)
{
    if (strict)
        return err_set_at(err, GD_EINVAL, path, "%s: no such parameter", path);
    if (listed(ignored, path) || listed(ignored, "..."))
        return 0;
    if (ignored->len)
        buf_puts(ignored, ", ");
    buf_puts(ignored, ignored->len + strlen(path) > IGNORED_MAX ? "..." : path);
    return 0;
}

int params_rest(const struct json_object *o, bool strict, struct buf *ignored, struct err *err)
{
    const cJSON *c;
    size_t at = 0;

    while ((c = json_left(o, &at))) {
        const struct unsupported *u = find_unsupported(c->string);
        char shown[JSON_SHOW_MAX];
        int r;

        if (cJSON_IsNull(c))
            continue;
        if (u && asks_for_nothing(u, c))
            continue;
        if (u)
            return err_set_at(err, GD_ENOTSUP, u->name,
                "%s: this value is not supported by this server%s%s", u->name, u->hint ? "; " : "",
                u->hint ? u->hint : "");
        r = check_harmless(c, err);
        if (r == 0) {
            json_show(c->string, shown);
            r = unknown(shown, strict, ignored, err);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

int params_nested(const struct json_object *o, const char *group, bool strict, struct buf *ignored,
    struct err *err)
{
    const cJSON *c;
    size_t at = 0;

    while ((c = json_left(o, &at))) {
        char shown[JSON_SHOW_MAX], path[2 * JSON_SHOW_MAX];
        int r;

        if (cJSON_IsNull(c))
            continue;
        json_show(c->string, shown);
        snprintf(path, sizeof(path), "%s.%s", strict ? o->path : group, shown);
        r = unknown(path, strict, ignored, err);
        if (r < 0)
            return r;
    }
    return 0;
}
