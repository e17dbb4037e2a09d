/* vocab.h - the pieces of a tokenizer and the tables that find them. Private to src/model.
 *
 * Built once (create, add every id in order, finish), then only read, by any thread. Texts are
 * kept as a reader sees them: U+2581, SentencePiece's mark for a blank, is a blank here, and a
 * byte token is that byte. Four tables point into the texts:
 *   slots   the pieces that merging may make: text -> id and rank (lower merges first)
 *   trie    the pieces that are matched as they are written, before any merging
 *   joins   the pairs of neighbouring characters inside any mergeable piece. No piece spans a
 *           pair that is not there, so text may be cut at such a place and each part merged alone
 *   bytes   the token of each byte, for characters that are no piece */
#ifndef MODEL_VOCAB_H
#define MODEL_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/err.h"

enum piece_kind {
    PIECE_NORMAL,  /* made by merging characters */
    PIECE_ADDED,   /* matched as written in every text: line breaks, runs of blanks, HTML tags */
    PIECE_CONTROL, /* matched as written, but only where control tokens may be written */
    PIECE_BYTE,    /* "<0xNN>" */
    PIECE_UNUSED   /* never comes from text */
};

struct vocab_piece {
    const char *text; /* as the file writes it */
    size_t len;
    enum piece_kind kind;
    float score; /* of a mergeable piece: the highest merges first */
};

/* A mergeable piece. Longer ones than MERGE_MAX bytes are never made. */
enum { MERGE_MAX = 255, MATCH_MAX = 256, VOCAB_MAX = 1 << 24, VOCAB_JOIN_BITS = 20 };

struct vocab_slot {
    uint64_t word;   /* the text, when it has 8 bytes or fewer; else 32 bits of its hash */
    uint32_t rank;   /* equal scores have equal ranks */
    uint32_t id_len; /* id << 8 | length; length 0: free */
};

struct vocab_edge {
    uint32_t key; /* node << 8 | byte */
    uint32_t child;
};

struct vocab_trie {
    struct vocab_edge *edges; /* a hash table; child 0: free, for the root is nobody's child */
    int edge_bits;
    uint32_t n_nodes, cap_nodes;
    int32_t *ids;     /* per node: the token that ends here, or -1 */
    bool starts[256]; /* bytes that begin a piece */
};

struct vocab {
    const char *key; /* names the list of pieces in errors */
    size_t n, cap;
    char *text;
    size_t text_len, text_cap;
    uint32_t *at;  /* n + 1 beginnings in text */
    uint8_t *kind; /* enum piece_kind */
    float *score;  /* until finish */
    uint32_t *merge_ids;
    size_t n_merge_ids;
    struct vocab_slot *slots;
    int slot_bits;
    uint64_t *joins;
    struct vocab_trie trie;
    int32_t bytes[256];
    int32_t singles[256]; /* pieces of one byte, until finish */
    int32_t unk;
    int32_t ascii[128];            /* the mergeable piece of one such character, or -1 */
    int32_t blanks[MERGE_MAX + 1]; /* the ADDED run of so many blanks, or -1 */
    size_t longest_blanks;         /* 0: none */
    bool blanks_even; /* how a run is cut, see tokenizer_encode.c; the opener sets it */
};

/* key: what error messages call the list ("tokenizer.ggml.tokens"); kept, not copied. */
int vocab_create(struct vocab **out, const char *key, size_t n, struct err *err);
int vocab_add(struct vocab *v, const struct vocab_piece *p, struct err *err);
/* unk: for characters whose bytes have no tokens, or -1. */
int vocab_finish(struct vocab *v, int32_t unk, struct err *err);
void vocab_destroy(struct vocab *v); /* NULL and half-built are fine */

/* The id whose text, as a reader sees it, is exactly this and which encoding can make; or -1. */
int32_t vocab_find(const struct vocab *v, const char *text, size_t len);

/* The longest piece of the trie at the beginning of text, or -1; *len is its length in the text. */
int32_t vocab_match(const struct vocab *v, const char *text, size_t n, bool control, size_t *len);

/* vocab_trie.c */
int vocab_trie_add(struct vocab_trie *t, const char *text, size_t len, int32_t id,
    const uint8_t *kind, struct err *err);
void vocab_trie_free(struct vocab_trie *t);

#endif
