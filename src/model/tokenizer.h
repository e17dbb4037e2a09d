/* tokenizer.h - text <-> token ids, equal to Hugging Face's tokenizers on every golden case.
 *
 * Immutable after open: any thread may use it at once. Never quadratic: a 1 MB word costs n log n.
 */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/err.h"
#include "model/source.h"

struct tokenizer;

/* Copies what it needs: the source may be closed afterwards. */
int tokenizer_open(struct tokenizer **out, const struct source *src, struct err *err);
void tokenizer_close(struct tokenizer *t);

int tokenizer_n_tokens(const struct tokenizer *t);

struct tokenizer_special {
    int32_t bos, eos, unk, pad; /* -1 = none */
    int32_t eot;                /* end of turn, -1 = none */
    bool add_bos, add_eos;
};
const struct tokenizer_special *tokenizer_special(const struct tokenizer *t);
/* True for every token that ends a generation: eos, end of turn and what the file names. */
bool tokenizer_is_eog(const struct tokenizer *t, int32_t id);
/* Control tokens carry no text for a reader: they are skipped when text is made for a client. */
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);
/* The id whose text is exactly this, or -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t len);

/* Appends ids; no bos or eos of its own. parse_special: control tokens in the text are recognised;
 * without it they are ordinary characters (user text never becomes a control token). Invalid UTF-8
 * becomes U+FFFD. The array grows by realloc: start with zeros, caller frees ids. */
struct token_list {
    int32_t *ids;
    size_t n, cap;
};
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool parse_special,
    struct token_list *out, struct err *err);
void token_list_push(struct token_list *l, int32_t id);
void token_list_free(struct token_list *l);

/* The bytes of one token: U+2581 shown as a space, <0xNN> as that byte, control tokens as their
 * text. Borrowed from the tokenizer. id out of range gives "" and 0. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len);

/* Incremental decoding: bytes in, whole UTF-8 out (golden/tokenizer decode.json gives the rule). */
struct utf8_stream {
    unsigned char pending[4];
    int n;
};
/* Appends to out (cap >= 3 * (s->n + len) bytes suffice) and returns how many bytes were written.
 */
size_t utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t len, char *out);
size_t utf8_stream_end(struct utf8_stream *s, char *out);

#endif
