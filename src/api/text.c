/* text.c - /tokenize, /detokenize and /apply-template, in llama.cpp's shapes. */
#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "api/request.h"
#include "api/write.h"
#include "base/utf8.h"

/* The public part first, so that a pointer to it is a pointer to all. */
struct text {
    struct api_text pub;
    struct arena arena;
    cJSON *root;
    struct buf ignored;
};

typedef int read_fn(struct parse *p, struct api_text *t, struct err *err);

void api_text_free(struct api_text *t)
{
    struct text *all = (struct text *)t;

    if (!all)
        return;
    cJSON_Delete(all->root);
    arena_free(&all->arena);
    buf_free(&all->ignored);
    free(all);
}

static int parse_text(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, read_fn *read, struct err *err)
{
    struct text *t = calloc(1, sizeof(*t));
    struct parse p;
    int r;

    if (!t)
        return parse_no_memory(err);
    p = (struct parse){.limits = l, .arena = &t->arena, .ignored = &t->ignored};
    r = parse_open(&p, body, len, err);
    if (r == 0) {
        t->root = p.json.root;
        r = read(&p, &t->pub, err);
    }
    if (r >= 0)
        r = params_rest(&p.o, l->strict, &t->ignored, err);
    if (r < 0) {
        api_text_free(&t->pub);
        return r;
    }
    t->pub.ignored = t->ignored.len ? t->ignored.data : "";
    *out = &t->pub;
    return 0;
}

static int read_tokenize(struct parse *p, struct api_text *t, struct err *err)
{
    int r = json_string(&p->o, "content", &t->content, err);

    if (r == 0)
        return err_set_at(err, GD_EINVAL, "content", "content: required");
    t->parse_special = true;
    if (r > 0)
        r = json_bool(&p->o, "add_special", &t->add_special, err);
    if (r >= 0)
        r = json_bool(&p->o, "parse_special", &t->parse_special, err);
    if (r >= 0)
        r = json_bool(&p->o, "with_pieces", &t->with_pieces, err);
    if (r >= 0)
        t->content_len = strlen(t->content);
    return r;
}

static int read_detokenize(struct parse *p, struct api_text *t, struct err *err)
{
    const cJSON *array = NULL;
    int n = 0, r;

    r = json_array(&p->o, "tokens", INT32_MAX, &array, &n, err);
    if (r < 0)
        return r;
    if (r == 0)
        return err_set_at(err, GD_EINVAL, "tokens", "tokens: required");
    return parse_ids(p, array, "tokens", &t->ids, &t->n_ids, err);
}

static int read_template(struct parse *p, struct api_text *t, struct err *err)
{
    bool one_call;

    return parse_conversation(p, &t->prompt, &one_call, err);
}

int api_parse_tokenize(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err)
{
    return parse_text(out, body, len, l, read_tokenize, err);
}

int api_parse_detokenize(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err)
{
    return parse_text(out, body, len, l, read_detokenize, err);
}

int api_parse_template(struct api_text **out, const char *body, size_t len,
    const struct api_limits *l, struct err *err)
{
    return parse_text(out, body, len, l, read_template, err);
}

static void write_piece(struct buf *out, const char *piece, size_t n)
{
    if (utf8_valid(piece, n)) {
        write_string(out, piece, n);
        return;
    }
    write_bytes(out, piece, n);
}

void api_tokenize_body(struct buf *out, const struct api_text *t, const int32_t *ids, size_t n,
    api_piece *piece, void *piece_ud)
{
    buf_puts(out, "{\"tokens\":[");
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t len = 0;

        if (i)
            buf_putc(out, ',');
        if (!t->with_pieces) {
            write_int(out, ids[i]);
            continue;
        }
        bytes = piece(piece_ud, ids[i], &len);
        buf_puts(out, "{\"id\":");
        write_int(out, ids[i]);
        buf_puts(out, ",\"piece\":");
        write_piece(out, bytes, len);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

static void text_body(struct buf *out, const char *name, const char *text, size_t len)
{
    buf_printf(out, "{\"%s\":", name);
    write_string(out, text, len);
    buf_putc(out, '}');
}

void api_detokenize_body(struct buf *out, const char *text, size_t len)
{
    text_body(out, "content", text, len);
}

void api_template_body(struct buf *out, const char *text, size_t len)
{
    text_body(out, "prompt", text, len);
}
