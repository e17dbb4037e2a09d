/* sampling.c - how a request wants its tokens drawn.
 *
 * Values are checked, never clamped: a client that asks for top_p 7 has a bug it wants to know. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"

static int read_floats(struct parse *p, struct sampling *s, struct err *err)
{
    const struct {
        const char *name;
        float *out;
        double min, max;
    } rows[] = {
        {"temperature", &s->temperature, 0, 2},
        {"top_p", &s->top_p, 0, 1},
        {"min_p", &s->min_p, 0, 1},
        {"typical_p", &s->typical_p, 0, 1},
        {"presence_penalty", &s->presence_penalty, -2, 2},
        {"frequency_penalty", &s->frequency_penalty, -2, 2},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        double v;
        int r = json_number(&p->o, rows[i].name, rows[i].min, rows[i].max, &v, err);

        if (r < 0)
            return r;
        if (r > 0)
            *rows[i].out = (float)v;
    }
    return 0;
}

/* llama.cpp's repeat_penalty looks at a window, vLLM's repetition_penalty at everything. */
static int read_repeat(struct parse *p, struct sampling *s, struct err *err)
{
    double llama = 0, vllm = 0;
    int64_t window;
    int r, have_llama, have_vllm;

    have_llama = json_number(&p->o, "repeat_penalty", 0.01, 100, &llama, err);
    if (have_llama < 0)
        return have_llama;
    have_vllm = json_number(&p->o, "repetition_penalty", 0.01, 100, &vllm, err);
    if (have_vllm < 0)
        return have_vllm;
    if (have_llama && have_vllm && llama != vllm)
        return err_set_at(err, GD_EINVAL, "repetition_penalty",
            "repetition_penalty and repeat_penalty are one thing and differ");
    if (have_llama || have_vllm)
        s->repeat_penalty = (float)(have_llama ? llama : vllm);
    if (have_vllm && !have_llama)
        s->repeat_last_n = -1;
    r = json_int(&p->o, "repeat_last_n", -1, INT32_MAX, &window, err);
    if (r > 0)
        s->repeat_last_n = (int)window;
    return r < 0 ? r : 0;
}

/* All 64 bits count, so the number is read as it was written. -1 asks for a random one, as with
 * llama.cpp and vLLM. */
static int read_seed(struct parse *p, struct sampling *s, struct err *err)
{
    const cJSON *c = json_take(&p->o, "seed");
    char text[24];
    char *end;
    bool minus;

    if (!c)
        return 0;
    if (!p->json.seed || p->json.seed_len >= sizeof(text))
        return json_refuse(err, "seed", "an integer of 64 bits", c);
    memcpy(text, p->json.seed, p->json.seed_len);
    text[p->json.seed_len] = 0;
    minus = text[0] == '-';
    if (text[minus + strspn(text + minus, "0123456789")] != 0)
        return json_refuse(err, "seed", "an integer of 64 bits", c);
    errno = 0;
    s->seed = minus ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    if (errno)
        return json_refuse(err, "seed", "an integer of 64 bits", c);
    s->has_seed = strcmp(text, "-1") != 0;
    return 0;
}

/* A decimal id below the vocabulary's size, or -1. */
static int32_t id_of(const char *key, int vocab)
{
    size_t n = strlen(key);
    long v;

    if (n == 0 || n > 9 || strspn(key, "0123456789") != n)
        return -1;
    v = strtol(key, NULL, 10);
    return v < vocab ? (int32_t)v : -1;
}

static int read_bias(struct parse *p, struct sampling *s, struct err *err)
{
    const cJSON *map = json_take(&p->o, "logit_bias"), *c;
    struct logit_bias *bias;
    size_t n = 0;

    if (!map)
        return 0;
    if (!cJSON_IsObject(map))
        return json_refuse(err, "logit_bias", "an object of token id: bias", map);
    cJSON_ArrayForEach(c, map) n++;
    if (n > (size_t)p->limits->bias_max)
        return err_set_at(err, GD_EINVAL, "logit_bias", "logit_bias: want at most %d ids, got %zu",
            p->limits->bias_max, n);
    bias = arena_alloc(p->arena, n, sizeof(*bias));
    if (!bias)
        return parse_no_memory(err);
    n = 0;
    cJSON_ArrayForEach(c, map)
    {
        char shown[JSON_SHOW_MAX], path[2 * JSON_SHOW_MAX];

        json_show(c->string, shown);
        bias[n].id = id_of(c->string, p->limits->vocab);
        if (bias[n].id < 0)
            return err_set_at(err, GD_EINVAL, "logit_bias",
                "logit_bias: want token ids in 0..%d, got %s", p->limits->vocab - 1, shown);
        snprintf(path, sizeof(path), "logit_bias.%s", shown);
        if (!cJSON_IsNumber(c) || !(c->valuedouble >= -100 && c->valuedouble <= 100))
            return json_refuse(err, path, "a number in -100..100", c);
        bias[n++].bias = (float)c->valuedouble;
    }
    s->bias = bias;
    s->n_bias = n;
    return 0;
}

int parse_sampling(struct parse *p, struct sampling *s, struct err *err)
{
    int64_t top_k;
    int r;

    *s = p->limits->sampling;
    r = read_floats(p, s, err);
    if (r == 0)
        r = read_repeat(p, s, err);
    if (r == 0)
        r = read_seed(p, s, err);
    if (r == 0)
        r = read_bias(p, s, err);
    if (r < 0)
        return r;
    r = json_int(&p->o, "top_k", -1, INT32_MAX, &top_k, err);
    if (r > 0)
        s->top_k = top_k < 0 ? 0 : (int)top_k; /* vLLM's -1 is off */
    return r < 0 ? r : 0;
}
