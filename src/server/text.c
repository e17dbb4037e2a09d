/* text.c - /tokenize, /detokenize, /apply-template: text work without the engine thread. These run
 * on a helper thread when the body is large. */
#include <stdlib.h>
#include <string.h>

#include "server/generate.h"
#include "server/request.h"

static const char *piece(void *ud, int32_t id, size_t *len)
{
    return engine_piece(ud, id, len);
}

typedef int parse_fn(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err);
typedef int work_fn(struct engine *e, const struct api_text *t, struct buf *out, struct err *err);

static void answer(struct request *q, parse_fn *parse, work_fn *work)
{
    struct api_text *t = NULL;
    struct err err = {0};
    int r = parse(&t, q->body.data ? q->body.data : "", q->body.len, &q->limits, &err);

    if (r == 0)
        r = work(q->srv->engine, t, &q->reply.body, &err);
    if (r == 0) {
        memccpy(q->ignored, t->ignored, 0, sizeof(q->ignored) - 1);
        q->reply.status = 200;
        q->reply.type = API_JSON_TYPE;
    } else {
        reply_error(q, &err);
    }
    api_text_free(t);
}

static int tokenize(struct engine *e, const struct api_text *t, struct buf *out, struct err *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    int r = engine_tokenize(
        e, t->content, t->content_len, t->add_special, t->parse_special, &ids, &n, err);

    if (r == 0)
        api_tokenize_body(out, t, ids, n, piece, e);
    free(ids);
    return r;
}

static int detokenize(struct engine *e, const struct api_text *t, struct buf *out, struct err *err)
{
    char *text = NULL;
    size_t n = 0;
    int r = engine_detokenize(e, t->ids, t->n_ids, &text, &n, err);

    if (r == 0)
        api_detokenize_body(out, text, n);
    free(text);
    return r;
}

static int apply_template(
    struct engine *e, const struct api_text *t, struct buf *out, struct err *err)
{
    char *text = NULL;
    size_t n = 0;
    int r = engine_apply_template(e, &t->prompt, &text, &n, err);

    if (r == 0)
        api_template_body(out, text, n);
    free(text);
    return r;
}

void text_tokenize(struct request *q)
{
    answer(q, api_parse_tokenize, tokenize);
}

void text_detokenize(struct request *q)
{
    answer(q, api_parse_detokenize, detokenize);
}

void text_template(struct request *q)
{
    answer(q, api_parse_template, apply_template);
}
