/* tokenizer_private.h - what the tokenizer's files share. */
#ifndef MODEL_TOKENIZER_PRIVATE_H
#define MODEL_TOKENIZER_PRIVATE_H

#include "base/buf.h"
#include "model/tokenizer.h"
#include "model/vocab.h"

enum { TOKENIZER_MAX_EOG = 16 };

struct tokenizer {
    struct vocab *vocab;
    struct tokenizer_special special;
    int32_t eog[TOKENIZER_MAX_EOG];
    int n_eog;
};

/* How a piece that a file calls special, or not, is treated (see tokenizer.c). */
enum piece_kind tokenizer_kind(const char *text, size_t len, bool special);
/* The same for SentencePiece's types, which tokenizer.ggml.token_type has, too; -1: no such type.
 */
enum { PIECE_TYPE_NORMAL = 1 };
int tokenizer_kind_of_type(int64_t type, const char *text, size_t len);

/* Adds id to the tokens that end a generation; -1 and ids that are there already are fine. */
int tokenizer_add_eog(struct tokenizer *t, int32_t id, const char *key, struct err *err);

/* Gemma 1 and 2 cut long runs of blanks another way than Gemma 3 (tokenizer_encode.c); only
 * tokenizer.json says so itself. */
int tokenizer_blank_rule(struct vocab *v, const struct source *src, struct err *err);

/* The readers: all pieces, not finished, and what else the files say. */
int tokenizer_read_gguf(struct tokenizer *t, const struct source *src, struct err *err);
int tokenizer_read_folder(struct tokenizer *t, const struct source *src, struct err *err);

/* One file's text -> the pieces, not finished; *out may be half-built on failure. over() may change
 * the piece that will get this id. */
typedef void tokenizer_override(const void *ud, size_t id, struct vocab_piece *p);
int tokenizer_read_bpe(struct vocab **out, const struct source *src, struct err *err);
int tokenizer_read_json(struct vocab **out, const char *text, size_t len, struct err *err);
int tokenizer_read_spm(struct vocab **out, const char *text, size_t len, tokenizer_override *over,
    const void *ud, struct err *err);

/* A file of the folder: 1, 0 when there is none, GD_E... (longer than max is GD_EFORMAT). */
int tokenizer_read_file(
    const struct source *src, const char *file, size_t max, struct buf *out, struct err *err);
/* The folder's chat template: 1, 0 when it has none, GD_E... */
int tokenizer_folder_template(const struct source *src, struct buf *out, struct err *err);

/* Room for n more ids; GD_ENOMEM. */
int token_list_reserve(struct token_list *l, size_t n, struct err *err);

/* tokenizer_merge.c: the ids of text[0..len), which is valid UTF-8 without a place to cut, are
 * appended to out. */
int merge_unit(
    const struct vocab *v, const char *text, size_t len, struct token_list *out, struct err *err);

#endif
