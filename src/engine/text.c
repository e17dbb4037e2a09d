/* text.c - the engine's text functions: any thread, nothing but the immutable tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "engine/private.h"
#include "engine/prompt.h"
#include "model/chat.h"
#include "model/tokenizer.h"

int engine_tokenize(struct engine *e, const char *text, size_t len, bool add_special,
    bool parse_special, int32_t **ids, size_t *n, struct err *err)
{
    struct token_list list = {0};
    int r = prompt_encode(e, text, len, add_special, parse_special, &list, err);

    if (r < 0) {
        token_list_free(&list);
        return r;
    }
    *ids = list.ids;
    *n = list.n;
    return 0;
}

const char *engine_piece(const struct engine *e, int32_t id, size_t *len)
{
    return tokenizer_piece(e->rt->tok, id, len);
}

int engine_detokenize(
    struct engine *e, const int32_t *ids, size_t n, char **text, size_t *len, struct err *err)
{
    struct utf8_stream utf8 = {0};
    struct buf out = {0};

    for (size_t i = 0; i < n; i++) {
        size_t piece_len;
        const char *piece;

        if (ids[i] < 0 || ids[i] >= tokenizer_n_tokens(e->rt->tok)) {
            buf_free(&out);
            return err_set_at(err, GD_EINVAL, "tokens",
                "tokens[%zu]: %d is not one of the model's %d tokens", i, ids[i],
                tokenizer_n_tokens(e->rt->tok));
        }
        piece = tokenizer_piece(e->rt->tok, ids[i], &piece_len);
        buf_reserve(&out, 3 * (piece_len + sizeof(utf8.pending)));
        out.len += utf8_stream_push(&utf8, piece, piece_len, out.data + out.len);
    }
    buf_reserve(&out, 3 * sizeof(utf8.pending));
    out.len += utf8_stream_end(&utf8, out.data + out.len);
    *len = out.len;
    *text = buf_take(&out);
    return 0;
}

int engine_apply_template(
    struct engine *e, const struct prompt *p, char **text, size_t *len, struct err *err)
{
    struct chat_options o = prompt_options(p);
    struct buf out = {0};
    int r = chat_render(e->chat, p->messages, p->n, &o, &out, err);

    if (r < 0) {
        buf_free(&out);
        return r;
    }
    *len = out.len;
    *text = buf_take(&out);
    return 0;
}
