/* Opening vocabularies that lie or lack something: each is refused with its key, or handled by a
 * rule that a header states. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/tokenizer.h"
#include "test_gguf_build.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

struct piece {
    const char *text;
    int type;
    float score;
};

enum { MAX_PIECES = 400, MAX_KEYS = 32 };

/* A vocabulary to be written, and the keys beside the three lists. */
struct vocabulary {
    struct piece pieces[MAX_PIECES];
    char bytes[256][8];
    unsigned n, n_scores, n_types;
    struct test_key keys[MAX_KEYS];
    unsigned n_keys;
};

static unsigned add(struct vocabulary *v, const char *text, int type, float score)
{
    v->pieces[v->n] = (struct piece){text, type, score};
    v->n_scores = v->n_types = v->n + 1;
    return v->n++;
}

/* The ids of Gemma's first tokens, all bytes (from id 6), then a few pieces. */
static void small_vocabulary(struct vocabulary *v)
{
    *v = (struct vocabulary){.n = 0};
    add(v, "<pad>", CONTROL, -1000);
    add(v, "<eos>", CONTROL, -1000);
    add(v, "<bos>", CONTROL, -1000);
    add(v, "<unk>", UNKNOWN, -1000);
    add(v, "<start_of_turn>", CONTROL, -1000);
    add(v, "<end_of_turn>", CONTROL, -1000);
    for (unsigned b = 0; b < 256; b++) {
        snprintf(v->bytes[b], sizeof(v->bytes[b]), "<0x%02X>", b & 255);
        add(v, v->bytes[b], BYTE, 0);
    }
    add(v, "ab", NORMAL, -1);
    add(v, "a", NORMAL, -2);
    add(v, "b", NORMAL, -3);
    v->keys[v->n_keys++] =
        (struct test_key){.key = "general.architecture", .type = GGUF_STRING, .str = "gemma3"};
    v->keys[v->n_keys++] =
        (struct test_key){.key = "tokenizer.ggml.model", .type = GGUF_STRING, .str = "llama"};
}

static void put_list(struct buf *b, const char *key, uint32_t type, unsigned n)
{
    put_string(b, key);
    put_u32(b, GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
}

static int open_vocabulary(const struct vocabulary *v, struct tokenizer **t, struct err *err)
{
    struct source *src = NULL;
    struct buf b = {0};
    int r;

    put_header(&b, 3, 0, v->n_keys + 3);
    for (unsigned i = 0; i < v->n_keys; i++)
        put_key(&b, &v->keys[i]);
    put_list(&b, "tokenizer.ggml.tokens", GGUF_STRING, v->n);
    for (unsigned i = 0; i < v->n; i++)
        put_string(&b, v->pieces[i].text);
    put_list(&b, "tokenizer.ggml.scores", GGUF_F32, v->n_scores);
    for (unsigned i = 0; i < v->n_scores; i++)
        put_bytes(&b, &v->pieces[i].score, 4);
    put_list(&b, "tokenizer.ggml.token_type", GGUF_I32, v->n_types);
    for (unsigned i = 0; i < v->n_types; i++)
        put_u32(&b, (uint32_t)v->pieces[i].type);
    *t = NULL;
    *err = (struct err){0};
    r = open_bytes(&src, b.data, b.len, err);
    if (r == 0)
        r = tokenizer_open(t, src, err);
    source_close(src);
    buf_free(&b);
    return r;
}

static void refused(const struct vocabulary *v, int code, const char *param, const char *words)
{
    struct tokenizer *t;
    struct err err;

    assert_int_equal(open_vocabulary(v, &t, &err), code);
    assert_null(t);
    assert_string_equal(err.param, param);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, words);
}

static struct tokenizer *opened(const struct vocabulary *v)
{
    struct tokenizer *t;
    struct err err;

    if (open_vocabulary(v, &t, &err) < 0)
        fail_msg("%s", err.msg);
    return t;
}

static void gives(
    const struct tokenizer *t, const char *text, bool special, const int32_t *want, size_t n)
{
    struct token_list ids = {0};
    struct err err;

    assert_int_equal(tokenizer_encode(t, text, strlen(text), special, &ids, &err), 0);
    assert_int_equal(ids.n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids.ids[i], want[i]);
    token_list_free(&ids);
}
#define GIVES(t, text, special, ...)                        \
    gives(t, text, special, (const int32_t[]){__VA_ARGS__}, \
        sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void set_key(struct vocabulary *v, const char *key, uint32_t type, double num)
{
    v->keys[v->n_keys++] = (struct test_key){.key = key, .type = type, .num = num};
}

static void absent_keys_have_gemmas_defaults(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;
    const struct tokenizer_special *s;

    small_vocabulary(&v);
    t = opened(&v);
    s = tokenizer_special(t);
    assert_int_equal(s->bos, 2);
    assert_int_equal(s->eos, 1);
    assert_int_equal(s->unk, 3);
    assert_int_equal(s->pad, 0);
    assert_int_equal(s->eot, 5);
    assert_true(s->add_bos);
    assert_false(s->add_eos);
    assert_true(tokenizer_is_eog(t, 5));
    GIVES(t, "ab<eos>", true, 262, 1);
    tokenizer_close(t);
}

static void ids_must_be_in_range(void **state)
{
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
        "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        struct vocabulary v;

        small_vocabulary(&v);
        set_key(&v, keys[i], GGUF_U32, v.n);
        refused(&v, GD_EFORMAT, keys[i], "is 265, but there are 265 tokens");
        set_key(&v, keys[i], GGUF_U32, 4294967295.0);
        v.keys[v.n_keys - 2] = v.keys[v.n_keys - 1];
        v.n_keys--;
        refused(&v, GD_EFORMAT, keys[i], "tokens");
    }
}

static void more_tokens_may_end_a_generation(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;

    small_vocabulary(&v);
    set_key(&v, "tokenizer.ggml.eom_token_id", GGUF_U32, 4);
    v.keys[v.n_keys++] = (struct test_key){.key = "tokenizer.ggml.eos_token_ids",
        .type = GGUF_ARRAY,
        .elem_type = GGUF_I32,
        .n = 1,
        .num = 263};
    add(&v, "</s>", USER_DEFINED, -1000);
    t = opened(&v);
    assert_true(tokenizer_is_eog(t, 1));
    assert_true(tokenizer_is_eog(t, 4));
    assert_true(tokenizer_is_eog(t, 5));
    assert_true(tokenizer_is_eog(t, 263));
    assert_false(tokenizer_is_eog(t, tokenizer_find(t, "</s>", 4))); /* an HTML tag */
    tokenizer_close(t);
    v.keys[v.n_keys - 1].num = 266;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.eos_token_ids", "no id of a token");
    v.keys[v.n_keys - 1].num = -1;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.eos_token_ids", "no id of a token");
}

static void the_lists_must_agree(void **state)
{
    struct vocabulary v;

    small_vocabulary(&v);
    v.n_scores--;
    refused(
        &v, GD_EFORMAT, "tokenizer.ggml.scores", "264 entries, but tokenizer.ggml.tokens has 265");
    v.n_scores++;
    v.n_types = 0;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.token_type", "has 0 entries");
    v.n = v.n_scores = v.n_types = 0;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.tokens", "has 0 entries");
}

static void scores_and_types_must_make_sense(void **state)
{
    struct vocabulary v;

    small_vocabulary(&v);
    v.pieces[262].score = NAN;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.tokens", "score of tokenizer.ggml.tokens[262]");
    small_vocabulary(&v);
    v.pieces[263].type = 7;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.token_type", "[263] is 7, want 1 to 6");
    v.pieces[263].type = BYTE;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.tokens", "[263] is a byte token");
}

static void other_tokenizers_are_refused(void **state)
{
    struct vocabulary v;

    small_vocabulary(&v);
    v.keys[1].str = "gpt2";
    refused(&v, GD_ENOTSUP, "tokenizer.ggml.model", "\"gpt2\"");
    v.n_keys--;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.model", "no tokenizer");
    small_vocabulary(&v);
    set_key(&v, "tokenizer.ggml.add_space_prefix", GGUF_BOOL, 1);
    refused(&v, GD_ENOTSUP, "tokenizer.ggml.add_space_prefix", "is true");
    small_vocabulary(&v);
    set_key(&v, "tokenizer.ggml.add_bos_token", GGUF_U32, 1);
    refused(&v, GD_EFORMAT, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_bos_token");
}

static void a_missing_byte_token_gives_the_unknown_token(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;

    small_vocabulary(&v);
    v.pieces[6 + 'c'] = (struct piece){"xx", NORMAL, -9};
    t = opened(&v);
    GIVES(t, "acb", false, 263, 3, 264);
    tokenizer_close(t);
    v.pieces[6 + '\t'] = (struct piece){"\t", USER_DEFINED, -1000};
    t = opened(&v);
    GIVES(t, "a\tb", false, 263, 6 + '\t', 264);
    tokenizer_close(t);
    v.pieces[3].type = NORMAL;
    refused(&v, GD_EFORMAT, "tokenizer.ggml.tokens", "neither a token <0x63> nor an unknown token");
}

static void of_two_pieces_with_one_text_the_first_is_made(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;
    size_t len;

    small_vocabulary(&v);
    add(&v, "ab", NORMAL, 5); /* a better score does not matter */
    add(&v, "<b>", USER_DEFINED, -1000);
    add(&v, "<b>", USER_DEFINED, -1000);
    add(&v, "", NORMAL, 0);
    add(&v, "", CONTROL, 0);
    t = opened(&v);
    GIVES(t, "ab<b>", false, 262, 266);
    assert_memory_equal(tokenizer_piece(t, 265, &len), "ab", 2);
    assert_int_equal(len, 2);
    tokenizer_piece(t, 268, &len);
    assert_int_equal(len, 0);
    tokenizer_close(t);
}

static void a_control_token_wins_over_the_same_text(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;

    small_vocabulary(&v);
    add(&v, "<x>", USER_DEFINED, -1000);
    add(&v, "<x>", CONTROL, -1000);
    t = opened(&v);
    GIVES(t, "<x>", true, 266);
    GIVES(t, "<x>", false, 6 + '<', 6 + 'x', 6 + '>');
    tokenizer_close(t);
}

static void equal_scores_merge_from_the_left(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;

    small_vocabulary(&v);
    add(&v, "ba", NORMAL, -1); /* as "ab" */
    t = opened(&v);
    GIVES(t, "abab", false, 262, 262);
    GIVES(t, "baba", false, 265, 265);
    GIVES(t, "aba", false, 262, 263);
    tokenizer_close(t);
    v.pieces[265].score = 0;
    t = opened(&v);
    GIVES(t, "abab", false, 263, 265, 264);
    tokenizer_close(t);
}

static void frames_are_control_whatever_their_type(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;

    small_vocabulary(&v);
    v.pieces[4].type = USER_DEFINED;
    add(&v, "<start_of_image>", USER_DEFINED, -1000);
    add(&v, "<unused7>", CONTROL, -1000);
    add(&v, "<mask>", CONTROL, -1000);
    t = opened(&v);
    assert_true(tokenizer_is_control(t, 4));
    assert_true(tokenizer_is_control(t, 265));
    assert_false(tokenizer_is_control(t, 266));
    GIVES(t, "<unused7><mask>", false, 266, 267);
    GIVES(t, "<start_of_image>", true, 265);
    tokenizer_close(t);
}

static void tokens_that_end_a_text_are_control(void **state)
{
    struct vocabulary v;
    struct tokenizer *t;

    small_vocabulary(&v);
    v.pieces[1].type = v.pieces[2].type = USER_DEFINED;
    add(&v, "<|end|>", USER_DEFINED, -1000);
    add(&v, "\n", USER_DEFINED, -1000);
    set_key(&v, "tokenizer.ggml.eos_token_id", GGUF_U32, 265);
    set_key(&v, "tokenizer.ggml.eom_token_id", GGUF_U32, 266);
    t = opened(&v);
    for (int32_t id = 0; id < tokenizer_n_tokens(t); id++)
        assert_int_equal(tokenizer_is_control(t, id), id <= 5 || id == 265);
    assert_true(tokenizer_is_eog(t, 266)); /* a line break that ends: text all the same */
    GIVES(t, "a\n<eos>", true, 263, 266, 1);
    tokenizer_close(t);
}

static void long_pieces_have_limits(void **state)
{
    char text[300];
    struct vocabulary v;
    struct tokenizer *t;
    size_t len;

    memset(text, 'a', sizeof(text));
    text[257] = 0;
    small_vocabulary(&v);
    add(&v, text, USER_DEFINED, 0);
    refused(&v, GD_EFORMAT, "tokenizer.ggml.tokens", "[265] has 257 bytes");
    v.pieces[265].type = NORMAL; /* decodes, is never made */
    t = opened(&v);
    assert_memory_equal(tokenizer_piece(t, 265, &len), text, 257);
    assert_int_equal(len, 257);
    assert_int_equal(tokenizer_find(t, text, 257), -1);
    tokenizer_close(t);
    text[256] = 0;
    v.pieces[265].type = USER_DEFINED;
    t = opened(&v);
    GIVES(t, text, false, 265);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_keys_have_gemmas_defaults),
        cmocka_unit_test(ids_must_be_in_range),
        cmocka_unit_test(more_tokens_may_end_a_generation),
        cmocka_unit_test(the_lists_must_agree),
        cmocka_unit_test(scores_and_types_must_make_sense),
        cmocka_unit_test(other_tokenizers_are_refused),
        cmocka_unit_test(a_missing_byte_token_gives_the_unknown_token),
        cmocka_unit_test(of_two_pieces_with_one_text_the_first_is_made),
        cmocka_unit_test(a_control_token_wins_over_the_same_text),
        cmocka_unit_test(equal_scores_merge_from_the_left),
        cmocka_unit_test(frames_are_control_whatever_their_type),
        cmocka_unit_test(tokens_that_end_a_text_are_control),
        cmocka_unit_test(long_pieces_have_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
