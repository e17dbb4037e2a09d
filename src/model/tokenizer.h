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

/* Copies what it needs: the source may be closed afterwards. Keys tokenizer.ggml.*; absent ones
 * have Gemma's values (bos 2, eos 1, unk 3, pad 0, add_bos true). A wrong key is named in
 * err->param. Rules for odd vocabularies: of two pieces with one text the first is made by encoding
 * (a control token before any other); empty pieces, pieces that are not UTF-8 and mergeable ones
 * longer than 255 bytes only decode; a character whose bytes lack tokens becomes the unknown token.
 */
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
/* Control tokens carry no text for a reader: they are skipped when text is made for a client. They
 * are what Hugging Face's tokenizer calls special, and every frame of the chat formats; <mask> and
 * <unusedN> are not among them. */
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);
/* The id whose text, as tokenizer_piece() shows it, is exactly this and which encoding can make;
 * else -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t len);

/* Appends ids; no bos or eos of its own. parse_special: control tokens in the text are recognised;
 * without it they are ordinary characters (user text never becomes a control token: ids_plain of
 * tests/golden/tokenizer). Invalid UTF-8 becomes U+FFFD. GD_ENOMEM, or GD_ETOOBIG above 2 GB. The
 * array grows by realloc: start with zeros, caller frees ids. */
struct token_list {
    int32_t *ids;
    size_t n, cap;
};
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool parse_special,
    struct token_list *out, struct err *err);
void token_list_push(struct token_list *l, int32_t id);
void token_list_free(struct token_list *l);

/* The bytes of one token: U+2581 shown as a space, <0xNN> as that byte, control tokens as their
 * text. Borrowed from the tokenizer, not NUL-terminated. id out of range gives "" and 0. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len);

/* Incremental decoding: bytes in, whole UTF-8 out (golden/tokenizer decode.json gives the rule). */
struct utf8_stream {
    unsigned char pending[4];
    int n;
};
/* Appends to out (3 * (s->n + len) bytes are always enough) and returns how many bytes were
 * written: what is whole, and U+FFFD for each maximal subpart that can no longer become valid. */
size_t utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t len, char *out);
/* What still waited, as U+FFFD (9 bytes at most); the stream is as new then. */
size_t utf8_stream_end(struct utf8_stream *s, char *out);

#endif
