/* Any body either becomes a request whose answers are valid JSON, or a sentence. One of four
 * targets, by FUZZ_COMPLETION, FUZZ_CHAT, FUZZ_EMBEDDINGS or FUZZ_TEXT: they share the check, not
 * the corpus. */
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "api/api.h"
#include "api/embeddings.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
    if (!ok)
        abort();
}

#ifndef FUZZ_EMBEDDINGS
static const char *piece(void *ud, int32_t id, size_t *len)
{
    static const char *const pieces[] = {"a", "\xf0\x9f", "\x98\x80", "\"", "", "\xff", "\n", "a"};
    const char *s = pieces[id & 7];

    *len = strlen(s);
    return s;
}
#endif

static void check_json(const char *text, size_t n)
{
    cJSON *tree;

    require(utf8_valid(text, n));
    tree = cJSON_ParseWithLength(text, n);
    require(tree != NULL);
    cJSON_Delete(tree);
}

static void check_error(int r, const struct err *err)
{
    struct buf out = {0};

    require(r < 0 && err->code == r && err->msg[0]);
    require(!strpbrk(err->msg, "\r\n") && !strpbrk(err->param, "\r\n"));
    require(api_status(r) >= 400);
    api_error_body(&out, err);
    check_json(out.data, out.len);
    buf_free(&out);
}

static void check_header(const char *value)
{
    for (; *value; value++)
        require(*value >= 0x20 && *value <= 0x7e);
}

static struct api_limits limits(const uint8_t *data, size_t size)
{
    struct api_limits l;

    api_limits_default(&l);
    l.vocab = 300;
    l.ctx_tokens = 128;
    l.fingerprint = "fp";
    l.choices_max = 16;
    l.tools = l.thinking = size % 4 != 0;
    l.strict = size && data[size - 1] == '\n'; /* a trailing newline is no part of the JSON */
    return l;
}

#ifdef FUZZ_TEXT

static void check_text(struct api_text *t)
{
    static const int32_t ids[] = {0, 1, 2, 3, 4, 5};
    struct buf out = {0};

    check_header(t->ignored);
    api_tokenize_body(&out, t, ids, 6, piece, NULL);
    check_json(out.data, out.len);
    for (size_t i = 0; i < t->n_ids; i++)
        require(t->ids[i] >= 0 && t->ids[i] < 300);
    for (size_t i = 0; i < t->prompt.n; i++)
        require(utf8_valid(t->prompt.messages[i].content, t->prompt.messages[i].content_len));
    require(!t->content || utf8_valid(t->content, t->content_len));
    buf_free(&out);
    api_text_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_limits l = limits(data, size);

    for (int i = 0; i < 3; i++) {
        struct api_text *t = NULL;
        struct err err = {0};
        const char *body = (const char *)data;
        int r = i == 0   ? api_parse_tokenize(&t, body, size, &l, &err)
                : i == 1 ? api_parse_detokenize(&t, body, size, &l, &err)
                         : api_parse_template(&t, body, size, &l, &err);

        if (r == 0)
            check_text(t);
        else
            check_error(r, &err);
    }
    return 0;
}

#elif defined(FUZZ_EMBEDDINGS)

static void check_input(const struct job_params *j)
{
    const struct prompt *p = &j->prompt;

    require(j->embed && j->n == 1);
    require(p->kind == PROMPT_TEXT ? p->text_len > 0 && utf8_valid(p->text, p->text_len)
                                   : p->kind == PROMPT_TOKENS && p->n > 0 && p->n <= 128);
    for (size_t i = 0; p->kind == PROMPT_TOKENS && i < p->n; i++)
        require(p->ids[i] >= 0 && p->ids[i] < 300);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const float vector[] = {0.5f, -0.5f, 0.7071068f, 1e-30f};
    struct api_limits l = limits(data, size);
    struct api_embeddings *e = NULL;
    struct buf out = {0};
    struct err err = {0};
    int r;

    l.embed_width = 4;
    r = api_parse_embeddings(&e, (const char *)data, size, &l, &err);
    if (r < 0) {
        check_error(r, &err);
        return 0;
    }
    check_header(api_embeddings_ignored(e));
    require(api_embeddings_jobs(e) >= 1 && api_embeddings_jobs(e) <= (size_t)l.inputs_max);
    for (size_t i = 0; i < api_embeddings_jobs(e); i++) {
        check_input(api_embeddings_job(e, i));
        api_embeddings_add(e, vector, 4, 1, &out);
    }
    api_embeddings_end(e, &out);
    check_json(out.data, out.len);
    buf_free(&out);
    api_embeddings_free(e);
    return 0;
}

#else

/* What the engine may rely on. */
static void check_job(const struct job_params *j, const struct api_limits *l)
{
    const struct sampling *s = &j->sampling;

    require(j->n >= 1 && j->n <= l->n_max && j->max_tokens >= -1 && j->min_tokens >= 0);
    require(j->max_tokens < 0 || j->min_tokens <= j->max_tokens);
    require(j->logprobs >= -1 && j->logprobs <= l->logprobs_max);
    require(s->temperature >= 0 && s->temperature <= 2 && s->top_p >= 0 && s->top_p <= 1);
    require(s->top_k >= 0 && s->repeat_penalty > 0 && s->repeat_last_n >= -1);
    for (size_t i = 0; i < s->n_bias; i++)
        require(s->bias[i].id >= 0 && s->bias[i].id < l->vocab);
    for (size_t i = 0; i < j->n_stop; i++)
        require(j->stop[i][0] && utf8_valid(j->stop[i], strlen(j->stop[i])));
    for (size_t i = 0; i < j->n_stop_ids; i++)
        require(j->stop_ids[i] >= 0 && j->stop_ids[i] < l->vocab);
    if (j->prompt.kind == PROMPT_TEXT)
        require(utf8_valid(j->prompt.text, j->prompt.text_len));
    for (size_t i = 0; j->prompt.kind == PROMPT_TOKENS && i < j->prompt.n; i++)
        require(j->prompt.ids[i] >= 0 && j->prompt.ids[i] < l->vocab);
    for (size_t i = 0; j->prompt.kind == PROMPT_CHAT && i < j->prompt.n; i++)
        require(utf8_valid(j->prompt.messages[i].content, j->prompt.messages[i].content_len));
    for (size_t i = 0; i < j->prompt.n_tools; i++)
        require(j->prompt.tools[i].name[0] && strlen(j->prompt.tools[i].name) <= 64);
}

/* Every record of a stream is "data: JSON", the last one [DONE]. */
static void check_stream(const struct buf *out)
{
    const char *at = out->data;

    require(at != NULL);
    while (strncmp(at, "data: [DONE]\n\n", 14) != 0) {
        const char *end = strstr(at, "\n\n");

        require(strncmp(at, "data: ", 6) == 0 && end != NULL);
        check_json(at + 6, (size_t)(end - at - 6));
        at = end + 2;
    }
    require(at[14] == 0);
}

static void play(struct api_response *rsp, size_t job, int choice, struct buf *out)
{
    static const struct token_alternative top[] = {{1, -0.5f}, {7, -1e30f}};
    const struct event_token tokens[] = {{1, -1, top, 2}, {2, -0.25f, top, 2}, {0, 0, NULL, 0}};
    struct job_event ev = {.kind = EVENT_STARTED, .choice = choice, .stop_id = 1};

    api_response_feed(rsp, job, &ev, out);
    ev = (struct job_event){.kind = EVENT_PROMPT, .tokens = tokens, .n_tokens = 3};
    if (choice == 0)
        api_response_feed(rsp, job, &ev, out);
    ev = (struct job_event){.kind = EVENT_TEXT,
        .choice = choice,
        .text = "\xf0\x9f\x98\x80\"",
        .text_len = 5,
        .tokens = tokens,
        .n_tokens = 3};
    api_response_feed(rsp, job, &ev, out);
#ifdef FUZZ_CHAT
    ev = (struct job_event){.kind = EVENT_TEXT, .choice = choice, .text = "\"h", .text_len = 2};
    ev.channel = CHANNEL_REASONING;
    api_response_feed(rsp, job, &ev, out);
    ev = (struct job_event){
        .kind = EVENT_CALL, .choice = choice, .text = "{\"a\":1}", .text_len = 7};
    ev.name = "f";
    api_response_feed(rsp, job, &ev, out);
#endif
    ev = (struct job_event){
        .kind = EVENT_FINISH, .choice = choice, .finish = FINISH_STOP, .stop_id = 1};
    api_response_feed(rsp, job, &ev, out);
}

static void check_request(struct api_request *r, const struct api_limits *l)
{
    static const int32_t ids[] = {0, 1, 2, 5};
    struct api_response *rsp = api_response_create(r, "x", 1, piece, NULL);
    size_t n_jobs = api_request_jobs(r);
    bool stream = api_request_stream(r);
    int n = api_request_job(r, 0)->n;
    struct buf out = {0};

    check_header(api_request_ignored(r));
    for (size_t i = 0; i < n_jobs; i++)
        check_job(api_request_job(r, i), l);
    api_request_free(r);
    for (size_t i = 0; i < n_jobs; i++) {
        api_response_prompt(rsp, i, ids, 4);
        for (int c = 0; c < n; c++)
            play(rsp, i, c, &out);
    }
    require(api_response_done(rsp));
    if (stream) {
        check_stream(&out);
    } else {
        require(out.len == 0 && api_response_body(rsp, &out) == 200);
        check_json(out.data, out.len);
    }
    buf_free(&out);
    api_response_free(rsp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_limits l = limits(data, size);
    struct api_request *request = NULL;
    struct err err = {0};
#ifdef FUZZ_CHAT
    int r = api_parse_chat(&request, (const char *)data, size, &l, &err);
#else
    int r = api_parse_completion(&request, (const char *)data, size, &l, &err);
#endif

    if (r == 0)
        check_request(request, &l);
    else
        check_error(r, &err);
    return 0;
}

#endif
