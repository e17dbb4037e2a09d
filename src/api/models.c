/* models.c - GET /v1/models and GET /v1/models/{id}. */
#include <string.h>

#include "api/api.h"
#include "api/write.h"

static void field(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, ",\"%s\":", name);
    write_int(out, value);
}

/* max_model_len is what vLLM's clients read, meta what llama.cpp's do. */
void api_model_body(struct buf *out, const char *id, int64_t created, const struct engine_info *i)
{
    buf_puts(out, "{\"id\":");
    write_string(out, id, strlen(id));
    buf_puts(out, ",\"object\":\"model\"");
    field(out, "created", created);
    buf_puts(out, ",\"owned_by\":\"gemmad\"");
    field(out, "max_model_len", i->ctx_tokens);
    buf_puts(out, ",\"meta\":{\"arch\":");
    write_string(out, i->arch, strlen(i->arch));
    buf_puts(out, ",\"chat_format\":");
    write_string(out, i->chat_format, strlen(i->chat_format));
    field(out, "n_vocab", i->vocab);
    field(out, "n_ctx", i->ctx_tokens);
    field(out, "n_ctx_train", i->ctx_train);
    field(out, "n_embd", i->width);
    field(out, "n_params", i->n_params);
    field(out, "size", i->weight_bytes);
    buf_puts(out, "}}");
}

void api_models_body(struct buf *out, const char *id, int64_t created, const struct engine_info *i)
{
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    api_model_body(out, id, created, i);
    buf_puts(out, "]}");
}
