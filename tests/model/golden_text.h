/* golden_text.h - reading tests/golden's JSON for the tests of text. */
#ifndef TEST_GOLDEN_TEXT_H
#define TEST_GOLDEN_TEXT_H

#include <cjson/cJSON.h>

#include "base/buf.h"
#include "model/tokenizer.h"

/* Appends a file; ends the test when it cannot. */
void golden_read(const char *path, struct buf *out);
/* A JSON file below tests/golden; the caller deletes it. Ends the test when it is not there. */
cJSON *golden_load(const char *below);

/* Appends a string of it, which may hold NULs. */
void golden_string(const cJSON *string, struct buf *out);
/* Appends the input of a tokenizer case: text, bytes_hex or repeat. */
void golden_input(const cJSON *c, struct buf *out);
void golden_hex(const char *hex, struct buf *out);

/* Appends the ids of an array. */
void golden_ids(const cJSON *array, struct token_list *out);
bool same_ids(const struct token_list *a, const struct token_list *b);
/* Prints both lists from their first difference on. */
void print_difference(
    const char *name, const struct token_list *got, const struct token_list *want);

/* The tokenizer of a GGUF file or Hugging Face folder; ends the test when it does not open. */
struct tokenizer *open_tokenizer(const char *path);

/* True when every case of the file gives its ids, and its ids_plain for untrusted text. Prints the
 * cases that do not. */
bool golden_cases_hold(const struct tokenizer *t, const char *below);

/* Appends the megabyte of mixed text of tokenizer/mixed.json, and checks its digest. */
void golden_mixed(const cJSON *mixed, struct buf *out);

#endif
