/* Gemma 4's tokenizer: small GGUF files made here, good and bad, and a golden tokenizer.json. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "golden_text.h"
#include "model/tokenizer_private.h"
#include "test_gguf_build.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static const struct {
    const char *text;
    int type;
} pieces[] = {{"<pad>", CONTROL}, {"<eos>", CONTROL}, {"<bos>", CONTROL}, {"<unk>", CONTROL},
    {"<mask>", CONTROL}, {"<|turn>", CONTROL}, {"<turn|>", CONTROL}, {"<|tool_call>", USER_DEFINED},
    {"<tool_call|>", USER_DEFINED}, {"<|\"|>", USER_DEFINED}, {"<b>", NORMAL}, {"</s>", NORMAL},
    {"a", NORMAL}, {"b", NORMAL}, {"c", NORMAL}, {"\xe2\x96\x81", NORMAL}, {"bc", NORMAL},
    {"ab", NORMAL}, {"\xe2\x96\x81\xe2\x96\x81", NORMAL}, {"abc", NORMAL}, {"aa", NORMAL},
    {"\n", NORMAL}, {"\n\n", NORMAL}, {"<|tool_response>", USER_DEFINED}};

enum { A = 12, B, C, BLANK, BC, AB, BLANKS, ABC, AA, LINE, LINES, RESPONSE, N };

static const char *const merges[] = {
    "b c", "a b", "\xe2\x96\x81 \xe2\x96\x81", "a bc", "ab c", "\n \n"};

enum { N_MERGES = sizeof(merges) / sizeof(*merges) };

/* What is wrong with a file. */
struct wrong {
    const char *without; /* a key */
    const char *merge;   /* in place of the third */
    int type;            /* of the last piece; 0: its own */
    unsigned n_types, n_merges;
    uint32_t merge_type;
};

static void put_list(struct buf *b, const char *key, uint32_t type, unsigned n)
{
    put_string(b, key);
    put_u32(b, GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
}

static void put_merges(struct buf *b, const struct wrong *w)
{
    unsigned n = w->n_merges ? w->n_merges : N_MERGES;
    uint32_t type = w->merge_type ? w->merge_type : GGUF_STRING;

    put_list(b, "tokenizer.ggml.merges", type, n);
    for (unsigned i = 0; i < n; i++) {
        if (type == GGUF_STRING)
            put_string(b, i == 2 && w->merge ? w->merge : merges[i % N_MERGES]);
        else
            put_u32(b, i);
    }
}

/* The file with all 256 byte tokens after the pieces. */
static int open_file(const struct wrong *w, struct tokenizer **t, struct err *err)
{
    const struct test_key model = {
        .key = "tokenizer.ggml.model", .type = GGUF_STRING, .str = "gemma4"};
    const struct test_key arch = {
        .key = "general.architecture", .type = GGUF_STRING, .str = "gemma4"};
    const char *without = w->without ? w->without : "";
    unsigned n_types = w->n_types ? w->n_types : N + 256;
    struct source *src = NULL;
    struct buf b = {0};
    int r;

    put_header(&b, 3, 0, w->without ? 4 : 5);
    put_key(&b, &arch);
    put_key(&b, &model);
    if (strcmp(without, "tokens") != 0) {
        put_list(&b, "tokenizer.ggml.tokens", GGUF_STRING, N + 256);
        for (unsigned i = 0; i < N + 256; i++) {
            char byte[8];

            snprintf(byte, sizeof(byte), "<0x%02X>", (i - N) & 255);
            put_string(&b, i < N ? pieces[i].text : byte);
        }
    }
    if (strcmp(without, "token_type") != 0) {
        put_list(&b, "tokenizer.ggml.token_type", GGUF_I32, n_types);
        for (unsigned i = 0; i < n_types; i++)
            put_u32(&b, (uint32_t)(i + 1 == n_types && w->type ? w->type
                                   : i < N                     ? pieces[i].type
                                                               : BYTE));
    }
    if (strcmp(without, "merges") != 0)
        put_merges(&b, w);
    *t = NULL;
    *err = (struct err){0};
    r = open_bytes(&src, b.data, b.len, err);
    if (r == 0)
        r = tokenizer_open(t, src, err);
    source_close(src);
    buf_free(&b);
    return r;
}

static void gives(
    const struct tokenizer *t, bool special, const char *text, const int *want, size_t n)
{
    struct token_list ids = {0};
    struct err err;

    assert_int_equal(tokenizer_encode(t, text, strlen(text), special, &ids, &err), 0);
    assert_int_equal(ids.n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids.ids[i], want[i]);
    token_list_free(&ids);
}

#define GIVES(special, text, ...)                       \
    gives(t, special, text, (const int[]){__VA_ARGS__}, \
        sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static void merges_rank_the_pieces(void **state)
{
    const struct wrong none = {0};
    struct tokenizer *t;
    struct err err;

    assert_int_equal(open_file(&none, &t, &err), 0);
    GIVES(false, "abc", ABC); /* b c first, then a bc */
    GIVES(false, "ab", AB);
    GIVES(false, "aabcb", A, ABC, B);
    GIVES(false, "aa", A, A); /* no merge makes it */
    GIVES(false, " a  b", BLANK, A, BLANKS, B);
    GIVES(false, "a\n\n\nb", A, LINES, LINE, B);
    GIVES(false, "<b>a</s>", 10, A, 11); /* marks that no merge makes are added tokens */
    GIVES(false, "d", N + 'd');
    GIVES(true, "<|turn><|\"|><mask>", 5, 9, 4);
    tokenizer_close(t);
}

static void no_text_makes_a_mark(void **state)
{
    static const char *const texts[] = {
        "<|turn>", "<|tool_call>", "<tool_call|>", "<|\"|>", "<bos>", "<mask>", "<|tool_response>"};
    const struct wrong none = {0};
    struct tokenizer *t;
    struct err err;

    assert_int_equal(open_file(&none, &t, &err), 0);
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct token_list ids = {0};

        assert_int_equal(tokenizer_encode(t, texts[i], strlen(texts[i]), false, &ids, &err), 0);
        for (size_t k = 0; k < ids.n; k++)
            assert_false(tokenizer_is_control(t, ids.ids[k]));
        token_list_free(&ids);
        assert_true(tokenizer_is_control(t, tokenizer_find(t, texts[i], strlen(texts[i]))));
    }
    assert_true(tokenizer_is_eog(t, 1));
    assert_true(tokenizer_is_eog(t, 6));
    assert_true(tokenizer_is_eog(t, RESPONSE));
    assert_false(tokenizer_is_eog(t, 11));
    assert_int_equal(tokenizer_special(t)->eot, 6);
    assert_true(tokenizer_special(t)->add_bos);
    tokenizer_close(t);
}

static void wrong_files_are_refused_by_their_key(void **state)
{
    static const struct {
        struct wrong w;
        const char *key, *words;
    } files[] = {
        {{.without = "tokens"}, "tokenizer.ggml.tokens", "is missing"},
        {{.without = "token_type"}, "tokenizer.ggml.token_type", "is missing"},
        {{.without = "merges"}, "tokenizer.ggml.merges", "is missing"},
        {{.merge = "ab"}, "tokenizer.ggml.merges", "[2] is not two pieces"},
        {{.merge = ""}, "tokenizer.ggml.merges", "[2] is not two pieces"},
        {{.merge = " "}, "tokenizer.ggml.merges", "[2] is not two pieces"},
        {{.merge = "a "}, "tokenizer.ggml.merges", ""}, /* makes "a": harmless */
        {{.merge = "x y"}, "tokenizer.ggml.merges", "[2] is not two pieces"},
        {{.merge_type = GGUF_U32}, "tokenizer.ggml.merges", "not a list of strings"},
        {{.type = 7}, "tokenizer.ggml.token_type", "want 1 to 6"},
        {{.n_types = N}, "tokenizer.ggml.token_type", "has 24 entries"},
    };

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct tokenizer *t;
        struct err err;
        int r = open_file(&files[i].w, &t, &err);

        if (!files[i].words[0]) {
            assert_int_equal(r, 0);
            tokenizer_close(t);
            continue;
        }
        assert_int_equal(r, GD_EFORMAT);
        assert_null(t);
        assert_string_equal(err.param, files[i].key);
        if (!strstr(err.msg, files[i].words))
            fail_msg("\"%s\" lacks \"%s\"", err.msg, files[i].words);
    }
}

/* The same ids from tokenizer.json. */
static void tokenizer_json_gives_the_golden_ids(void **state)
{
    cJSON *golden = golden_load("families/gemma4-dense/golden.json"), *c;
    struct tokenizer t = {0};
    struct buf text = {0};
    struct err err;
    int n = 0;

    golden_read(golden_path("families/gemma4-dense/tokenizer.json"), &text);
    assert_int_equal(tokenizer_read_json(&t.vocab, text.data, text.len, &err), 0);
    assert_int_equal(vocab_finish(t.vocab, 3, &err), 0);
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(golden, "tokenizer"))
    {
        struct token_list want = {0}, got = {0};
        struct buf in = {0};

        golden_string(cJSON_GetObjectItem(c, "text"), &in);
        golden_ids(cJSON_GetObjectItem(c, "ids"), &want);
        assert_int_equal(tokenizer_encode(&t, in.data ? in.data : "", in.len, true, &got, &err), 0);
        assert_true(same_ids(&got, &want));
        token_list_free(&want);
        token_list_free(&got);
        buf_free(&in);
        n++;
    }
    assert_int_equal(n, 24);
    assert_true(tokenizer_is_control(&t, tokenizer_find(&t, "<|\"|>", 5)));
    vocab_destroy(t.vocab);
    buf_free(&text);
    cJSON_Delete(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_rank_the_pieces),
        cmocka_unit_test(no_text_makes_a_mark),
        cmocka_unit_test(wrong_files_are_refused_by_their_key),
        cmocka_unit_test(tokenizer_json_gives_the_golden_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
