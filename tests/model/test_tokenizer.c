/* The tokenizer on the small vocabularies of the golden files and on files that lie. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden_text.h"
#include "model/source.h"
#include "test_gguf_build.h"

static const char demo_file[] = "../../data/gemmad-demo-q8_0.gguf";

static struct token_list encode(const struct tokenizer *t, const char *s, size_t n, bool special)
{
    struct token_list ids = {0};
    struct err err;

    assert_int_equal(tokenizer_encode(t, s, n, special, &ids, &err), 0);
    return ids;
}

static void join_pieces(const struct tokenizer *t, const struct token_list *ids, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < ids->n; i++) {
        size_t len;
        const char *s = tokenizer_piece(t, ids->ids[i], &len);

        buf_append(out, s, len);
    }
}

/* The ids of a family's case, and the text back from them. */
static void family_case(const struct tokenizer *t, const cJSON *c, const char *family)
{
    const cJSON *other = cJSON_GetObjectItem(c, "sentencepiece_ids");
    struct token_list want = {0}, got;
    struct buf text = {0}, decoded = {0}, back = {0};

    golden_string(cJSON_GetObjectItem(c, "text"), &text);
    golden_string(cJSON_GetObjectItem(c, "decoded"), &decoded);
    /* A Gemma 3 file cuts blanks as SentencePiece does. */
    golden_ids(
        strncmp(family, "gemma3", 6) == 0 && other ? other : cJSON_GetObjectItem(c, "ids"), &want);
    got = encode(t, text.data ? text.data : "", text.len, true);
    if (!same_ids(&got, &want)) {
        print_difference(family, &got, &want);
        fail();
    }
    join_pieces(t, &got, &back);
    assert_int_equal(back.len, decoded.len);
    assert_true(decoded.len == 0 || memcmp(back.data, decoded.data, back.len) == 0);
    token_list_free(&got);
    token_list_free(&want);
    buf_free(&text);
    buf_free(&decoded);
    buf_free(&back);
}

static void every_family_gives_its_ids(void **state)
{
    static const struct {
        const char *golden, *file, *family;
    } files[] = {
        {"families/gemma1/golden.json", "families/gemma1/model-bf16.gguf", "gemma"},
        {"families/gemma2/golden.json", "families/gemma2/model-f16.gguf", "gemma2"},
        {"families/gemma2-27b/golden.json", "families/gemma2-27b/model-bf16.gguf", "gemma2"},
        {"families/gemma3/golden.json", "families/gemma3/model-bf16.gguf", "gemma3"},
        {"families/gemma3-mm/golden.json", "families/gemma3-mm/model-bf16.gguf", "gemma3"},
        {"families/gemma3n/golden.json", "families/gemma3n/model-bf16.gguf", "gemma3n"},
        {"families/gemma4-dense/golden.json", "families/gemma4-dense/model-bf16.gguf", "gemma4"},
        {"families/gemma4-e2b/golden.json", "families/gemma4-e2b/model-bf16.gguf", "gemma4"},
        {"families/gemma4-moe/golden.json", "families/gemma4-moe/model-bf16.gguf", "gemma4"},
    };

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct tokenizer *t = open_tokenizer(golden_path(files[i].file));
        cJSON *golden = golden_load(files[i].golden), *c;
        int n = 0;

        cJSON_ArrayForEach(c, cJSON_GetObjectItem(golden, "tokenizer"))
        {
            family_case(t, c, files[i].family);
            n++;
        }
        assert_true(n >= 10);
        cJSON_Delete(golden);
        tokenizer_close(t);
    }
}

static void the_demo_models_prompts_give_their_ids(void **state)
{
    struct tokenizer *t = open_tokenizer(golden_path(demo_file));
    cJSON *golden = golden_load("demo/golden.json"), *p;
    const cJSON *prompts = cJSON_GetObjectItem(golden, "prompts");

    assert_true(cJSON_GetArraySize(prompts) > 0);
    cJSON_ArrayForEach(p, prompts)
    {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(p, "rendered"));
        struct token_list got = encode(t, text, strlen(text), true), want = {0};

        golden_ids(cJSON_GetObjectItem(p, "prompt_ids"), &want);
        if (!same_ids(&got, &want)) {
            print_difference(text, &got, &want);
            fail();
        }
        token_list_free(&got);
        token_list_free(&want);
    }
    cJSON_Delete(golden);
    tokenizer_close(t);
}

static void the_demo_models_special_tokens(void **state)
{
    struct tokenizer *t = open_tokenizer(golden_path(demo_file));
    const struct tokenizer_special *s = tokenizer_special(t);

    assert_int_equal(tokenizer_n_tokens(t), 4096);
    assert_int_equal(s->bos, 2);
    assert_int_equal(s->eos, 1);
    assert_int_equal(s->unk, 3);
    assert_int_equal(s->pad, 0);
    assert_int_equal(s->eot, 6);
    assert_true(s->add_bos);
    assert_false(s->add_eos);
    for (int32_t id = -1; id <= 4096; id++)
        assert_int_equal(tokenizer_is_eog(t, id), id == 1 || id == 6);
    assert_true(tokenizer_is_control(t, 5));
    assert_false(tokenizer_is_control(t, 7)); /* a line break */
    assert_false(tokenizer_is_control(t, -1));
    assert_false(tokenizer_is_control(t, 4096));
    assert_int_equal(tokenizer_find(t, "<end_of_turn>", 13), 6);
    assert_int_equal(tokenizer_find(t, "\n\n", 2), 8);
    assert_int_equal(tokenizer_find(t, "  ", 2), 22);
    assert_int_equal(tokenizer_find(t, " the", 4), 298);
    assert_int_equal(tokenizer_find(t, "no such piece", 13), -1);
    assert_int_equal(tokenizer_find(t, "", 0), -1);
    tokenizer_close(t);
}

static void untrusted_text_never_makes_a_control_token(void **state)
{
    struct tokenizer *t = open_tokenizer(golden_path(demo_file));
    struct buf text = {0}, back = {0};

    for (int32_t id = 0; id < tokenizer_n_tokens(t); id++) {
        size_t len;
        const char *s = tokenizer_piece(t, id, &len);

        if (tokenizer_is_control(t, id)) {
            buf_puts(&text, "<");
            buf_append(&text, s, len);
            buf_puts(&text, ">\n");
        }
    }
    assert_true(text.len > 50);
    for (int special = 0; special < 2; special++) {
        struct token_list ids = encode(t, text.data, text.len, special);
        bool any = false;

        for (size_t i = 0; i < ids.n; i++)
            any = any || tokenizer_is_control(t, ids.ids[i]);
        assert_int_equal(any, special);
        join_pieces(t, &ids, &back);
        assert_string_equal(back.data, text.data);
        token_list_free(&ids);
    }
    buf_free(&text);
    buf_free(&back);
    tokenizer_close(t);
}

static void pieces_out_of_range_are_empty(void **state)
{
    struct tokenizer *t = open_tokenizer(golden_path(demo_file));
    size_t len = 7;

    assert_string_equal(tokenizer_piece(t, -1, &len), "");
    assert_int_equal(len, 0);
    len = 7;
    assert_string_equal(tokenizer_piece(t, 4096, &len), "");
    assert_int_equal(len, 0);
    tokenizer_close(t);
}

static void bytes_that_are_not_utf8_become_replacement_characters(void **state)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"a\xffz", "a\xef\xbf\xbdz"},
        {"\xe2\x96", "\xef\xbf\xbd"},
        {"\xe2\x96 x", "\xef\xbf\xbd x"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
    };
    struct tokenizer *t = open_tokenizer(golden_path(demo_file));

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct token_list got = encode(t, cases[i].bytes, strlen(cases[i].bytes), false);
        struct token_list want = encode(t, cases[i].text, strlen(cases[i].text), false);

        assert_true(same_ids(&got, &want));
        token_list_free(&got);
        token_list_free(&want);
    }
    tokenizer_close(t);
}

/* Each would take hours if encoding were quadratic. */
static void a_megabyte_without_a_place_to_cut(void **state)
{
    static const char *const units[] = {
        "a", " ", "\n", "ab", "the", "<", "\xe2\x96\x81", "\xf0\x9f\x98\x80"};
    struct tokenizer *t = open_tokenizer(golden_path(demo_file));
    struct buf text = {0}, back = {0};

    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        struct token_list ids;

        buf_clear(&text);
        while (text.len < 1 << 20)
            buf_puts(&text, units[i]);
        ids = encode(t, text.data, text.len, true);
        assert_true(ids.n > 0 && ids.n <= text.len + 3);
        join_pieces(t, &ids, &back);
        if (units[i][0] == '\xe2')
            assert_int_equal(back.len, text.len / 3); /* blanks */
        else
            assert_string_equal(back.data, text.data);
        token_list_free(&ids);
    }
    buf_free(&text);
    buf_free(&back);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_gives_its_ids),
        cmocka_unit_test(the_demo_models_prompts_give_their_ids),
        cmocka_unit_test(the_demo_models_special_tokens),
        cmocka_unit_test(untrusted_text_never_makes_a_control_token),
        cmocka_unit_test(pieces_out_of_range_are_empty),
        cmocka_unit_test(bytes_that_are_not_utf8_become_replacement_characters),
        cmocka_unit_test(a_megabyte_without_a_place_to_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
