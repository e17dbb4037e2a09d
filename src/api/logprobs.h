/* logprobs.h - log-probabilities in the two shapes clients know: four parallel arrays in
 * completions, one list of objects in chat. Private to api. */
#ifndef API_LOGPROBS_H
#define API_LOGPROBS_H

#include <stdbool.h>
#include <stddef.h>

#include "api/api.h"
#include "api/request.h"
#include "base/buf.h"

struct logprobs {
    struct buf tokens, values, top, offsets; /* comma lists; chat uses tokens alone */
    size_t n;                                /* entries */
};

/* How tokens are shown. */
struct token_view {
    const struct shape *shape;
    api_piece *piece;
    void *ud;
};

/* offset: characters of the text before this token. known is false for the first token of a
 * prompt, which nothing came before: its values are null. */
void logprobs_add(struct logprobs *lp, const struct token_view *view, const struct event_token *t,
    size_t offset, bool known);
/* The object of one or two parts, one after the other; "null" when both are empty or NULL. */
void logprobs_write(struct buf *out, const struct token_view *view, const struct logprobs *first,
    const struct logprobs *second);
void logprobs_clear(struct logprobs *lp);
void logprobs_free(struct logprobs *lp);

#endif
