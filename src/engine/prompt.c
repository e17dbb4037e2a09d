#include "engine/prompt.h"

#include <math.h>
#include <string.h>

#include "engine/sampler.h"
#include "model/chat.h"

int prompt_encode(struct engine *e, const char *text, size_t len, bool add_special,
    bool parse_special, struct token_list *out, struct err *err)
{
    const struct tokenizer *tok = e->rt->tok;
    const struct tokenizer_special *special = tokenizer_special(tok);
    bool bos = add_special && special->add_bos && special->bos >= 0;
    int r;

    if (bos)
        token_list_push(out, special->bos);
    r = tokenizer_encode(tok, text, len, parse_special, out, err);
    if (r < 0)
        return r;
    if (bos && out->n > 1 && out->ids[1] == special->bos)
        memmove(out->ids, out->ids + 1, --out->n * sizeof(*out->ids));
    if (add_special && special->add_eos && special->eos >= 0)
        token_list_push(out, special->eos);
    return 0;
}

static int check_ids(
    const struct engine *e, const char *field, const int32_t *ids, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= e->info.vocab)
            return err_set_at(err, GD_EINVAL, field, "%s: %d is not one of the model's %d tokens",
                field, ids[i], e->info.vocab);
    }
    return 0;
}

struct chat_options prompt_options(const struct prompt *p)
{
    return (struct chat_options){.add_generation_prompt = p->add_generation_prompt,
        .continue_final_message = p->continue_final_message,
        .enable_thinking = p->enable_thinking,
        .tools = p->tools,
        .n_tools = p->n_tools};
}

int prompt_ids(struct engine *e, const struct prompt *p, struct token_list *out, struct err *err)
{
    struct chat_options o = prompt_options(p);
    int r = 0;

    switch (p->kind) {
    case PROMPT_TEXT: r = prompt_encode(e, p->text, p->text_len, true, true, out, err); break;
    case PROMPT_CHAT: r = chat_encode(e->chat, e->rt->tok, p->messages, p->n, &o, out, err); break;
    case PROMPT_TOKENS:
        for (size_t i = 0; i < p->n; i++)
            token_list_push(out, p->ids[i]);
        break;
    }
    if (r == 0 && out->n == 0)
        r = err_set_at(err, GD_EINVAL, "prompt", "prompt: must hold at least one token");
    return r < 0 ? r : check_ids(e, "prompt", out->ids, out->n, err);
}

/* ---- parameters ---- */

struct range {
    const char *name;
    double value, min, max;
};

static int check_ranges(const struct range *r, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!(r[i].value >= r[i].min && r[i].value <= r[i].max)) /* NaN fails too */
            return err_set_at(err, GD_EINVAL, r[i].name, "%s: want %g to %g, got %g", r[i].name,
                r[i].min, r[i].max, r[i].value);
    }
    return 0;
}

static int check_numbers(const struct job_params *p, struct err *err)
{
    const struct sampling *s = &p->sampling;
    const struct range ranges[] = {
        {"temperature", s->temperature, 0, 100},
        {"top_k", s->top_k, 0, INT32_MAX},
        {"top_p", s->top_p, 0, 1},
        {"min_p", s->min_p, 0, 1},
        {"typical_p", s->typical_p, 0, 1},
        {"repeat_penalty", s->repeat_penalty, 1e-3, 1e3},
        {"repeat_last_n", s->repeat_last_n, -1, INT32_MAX},
        {"presence_penalty", s->presence_penalty, -100, 100},
        {"frequency_penalty", s->frequency_penalty, -100, 100},
        {"n", p->n, 1, CHOICES_MAX},
        {"max_tokens", p->max_tokens, -1, INT32_MAX},
        {"min_tokens", p->min_tokens, 0, p->max_tokens >= 0 ? p->max_tokens : INT32_MAX},
        {"logprobs", p->logprobs, -1, LOGPROBS_MAX},
        {"stop", (double)p->n_stop, 0, STOPS_MAX},
        {"timeout_ms", (double)p->timeout_ms, 0, TIMEOUT_MS_MAX},
    };

    return check_ranges(ranges, sizeof(ranges) / sizeof(*ranges), err);
}

static int check_stops(const struct job_params *p, struct err *err)
{
    for (size_t i = 0; i < p->n_stop; i++) {
        size_t len = strlen(p->stop[i]);

        if (len == 0)
            return err_set_at(err, GD_EINVAL, "stop", "stop: must not be empty");
        if (len > STOP_BYTES_MAX)
            return err_set_at(err, GD_EINVAL, "stop", "stop: want at most %d bytes, got %zu",
                STOP_BYTES_MAX, len);
    }
    return 0;
}

static int check_bias(const struct engine *e, const struct sampling *s, struct err *err)
{
    for (size_t i = 0; i < s->n_bias; i++) {
        int r = check_ids(e, "logit_bias", &s->bias[i].id, 1, err);

        if (r < 0)
            return r;
        if (isnan(s->bias[i].bias) || s->bias[i].bias > 1e6f)
            return err_set_at(err, GD_EINVAL, "logit_bias",
                "logit_bias: want a number up to 1e6 for token %d", s->bias[i].id);
    }
    return 0;
}

int params_check(const struct engine *e, const struct job_params *p, struct err *err)
{
    int r = check_numbers(p, err);

    if (r == 0)
        r = check_stops(p, err);
    if (r == 0)
        r = check_ids(e, "stop_token_ids", p->stop_ids, p->n_stop_ids, err);
    return r < 0 ? r : check_bias(e, &p->sampling, err);
}
