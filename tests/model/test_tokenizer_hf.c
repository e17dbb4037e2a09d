/* Tokenizer files of Hugging Face folders: the same ids as Hugging Face's, the same vocabulary as
 * the GGUF's, and files that lie. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden_text.h"
#include "model/chat.h"
#include "model/source.h"
#include "model/tokenizer_private.h"
#include "test_gguf_build.h"
#include "test_hf_build.h"

static const char *const families[] = {"gemma1", "gemma2", "gemma3", "gemma3-mm"};
enum { N_FAMILIES = sizeof(families) / sizeof(*families) };

static const char *family_file(const char *family, const char *file)
{
    char below[128];

    snprintf(below, sizeof(below), "families/%s/%s", family, file);
    return golden_path(below);
}

/* Puts a family's file into the temporary folder. */
static void copy_file(const char *family, const char *file)
{
    struct buf b = {0};

    golden_read(family_file(family, file), &b);
    hf_file_write(file, b.data, b.len);
    buf_free(&b);
}

/* A Gemma 3 without tokenizer files. */
static void fresh_folder(void)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer.model",
        "tokenizer_config.json", "generation_config.json", "chat_template.jinja"};

    hf_folder_write(&(struct hf_folder){0});
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
        hf_file_remove(files[i]);
}

static int open_folder(struct tokenizer **t, struct err *err)
{
    struct source *src = NULL;
    int r;

    *t = NULL;
    *err = (struct err){0};
    if (source_open(&src, hf_folder_path(), err) < 0)
        fail_msg("%s", err->msg);
    r = tokenizer_open(t, src, err);
    source_close(src);
    return r;
}

/* which: the member with the ids of this file; ids where a case has no such member. */
static void family_ids_hold(const struct tokenizer *t, const char *family, const char *which)
{
    char below[128];
    cJSON *golden, *c;
    int n = 0;

    snprintf(below, sizeof(below), "families/%s/golden.json", family);
    golden = golden_load(below);
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(golden, "tokenizer"))
    {
        const cJSON *ids = cJSON_GetObjectItem(c, which);
        struct token_list got = {0}, want = {0};
        struct buf text = {0};
        struct err err;

        golden_string(cJSON_GetObjectItem(c, "text"), &text);
        golden_ids(ids ? ids : cJSON_GetObjectItem(c, "ids"), &want);
        assert_int_equal(
            tokenizer_encode(t, text.data ? text.data : "", text.len, true, &got, &err), 0);
        if (!same_ids(&got, &want)) {
            print_difference(family, &got, &want);
            fail();
        }
        token_list_free(&got);
        token_list_free(&want);
        buf_free(&text);
        n++;
    }
    assert_true(n > 10);
    cJSON_Delete(golden);
}

static void tokenizer_json_gives_hugging_faces_ids(void **state)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        struct tokenizer *t = open_tokenizer(family_file(families[i], ""));

        family_ids_hold(t, families[i], "ids");
        tokenizer_close(t);
    }
}

static void tokenizer_model_gives_sentencepieces_ids(void **state)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        struct tokenizer *t;
        struct err err;

        fresh_folder();
        copy_file(families[i], "tokenizer.model");
        if (i % 2) /* does without */
            copy_file(families[i], "tokenizer_config.json");
        assert_int_equal(open_folder(&t, &err), 0);
        family_ids_hold(t, families[i], "sentencepiece_ids");
        assert_true(tokenizer_is_control(t, tokenizer_find(t, "<start_of_turn>", 15)));
        tokenizer_close(t);
    }
}

static void same_vocabulary(const struct tokenizer *a, const struct tokenizer *b)
{
    assert_int_equal(tokenizer_n_tokens(a), tokenizer_n_tokens(b));
    for (int32_t id = 0; id < tokenizer_n_tokens(a); id++) {
        size_t n, m;
        const char *x = tokenizer_piece(a, id, &n), *y = tokenizer_piece(b, id, &m);

        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        assert_int_equal(tokenizer_is_control(a, id), tokenizer_is_control(b, id));
        assert_int_equal(tokenizer_is_eog(a, id), tokenizer_is_eog(b, id));
    }
    assert_memory_equal(tokenizer_special(a), tokenizer_special(b), sizeof(*tokenizer_special(a)));
}

static void folder_and_gguf_are_one_vocabulary(void **state)
{
    struct tokenizer *gguf = open_tokenizer(family_file("gemma3", "model-bf16.gguf"));
    struct tokenizer *json = open_tokenizer(family_file("gemma3", "")), *model;
    struct err err;

    fresh_folder();
    copy_file("gemma3", "tokenizer.model");
    copy_file("gemma3", "tokenizer_config.json");
    assert_int_equal(open_folder(&model, &err), 0);
    same_vocabulary(gguf, json);
    same_vocabulary(gguf, model);
    tokenizer_close(gguf);
    tokenizer_close(json);
    tokenizer_close(model);
}

static void a_folder_without_a_tokenizer_says_so(void **state)
{
    struct tokenizer *t;
    struct err err;

    fresh_folder();
    assert_int_equal(open_folder(&t, &err), GD_ENOENT);
    assert_non_null(strstr(err.msg, "has neither tokenizer.json nor tokenizer.model"));
}

static void config_refused(const char *file, const char *text, const char *param)
{
    struct tokenizer *t;
    struct err err;

    fresh_folder();
    copy_file("gemma3", "tokenizer.model");
    hf_file_write(file, text, strlen(text));
    if (open_folder(&t, &err) == 0)
        fail_msg("%s opens with %s", file, text);
    assert_null(t);
    assert_string_equal(err.param, param);
}

static void configs_that_lie_are_refused(void **state)
{
    static const char config[] = "tokenizer_config.json", generation[] = "generation_config.json";

    config_refused(config, "{", config);
    config_refused(config, "{\"bos_token\": \"<nobody>\"}", "bos_token");
    config_refused(config, "{\"eos_token\": {\"content\": 5}}", "eos_token");
    config_refused(config, "{\"unk_token\": 5}", "unk_token");
    config_refused(config, "{\"add_bos_token\": \"yes\"}", "add_bos_token");
    config_refused(config, "{\"add_eos_token\": 1}", "add_eos_token");
    config_refused(config, "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}",
        "added_tokens_decoder");
    config_refused(config, "{\"added_tokens_decoder\": {\"5\": 7}}", "added_tokens_decoder");
    config_refused(config,
        "{\"added_tokens_decoder\": {\"99999999999999999999\": {\"content\": \"a\"}}}",
        "added_tokens_decoder");
    config_refused(generation, "{\"eos_token_id\": 512}", "eos_token_id");
    config_refused(generation, "{\"eos_token_id\": [1, -1]}", "eos_token_id");
    config_refused(generation, "{\"eos_token_id\": [1, 1.5]}", "eos_token_id");
    config_refused(generation, "{\"eos_token_id\": \"1\"}", "eos_token_id");
}

static void configs_name_tokens_and_ends(void **state)
{
    static const char config[] = "{\"bos_token\": {\"content\": \"<b>\"}, \"eos_token\": null, "
                                 "\"add_bos_token\": false, \"add_eos_token\": true}";
    static const char generation[] = "{\"eos_token_id\": [1, 300]}";
    struct tokenizer *t;
    struct err err;

    fresh_folder();
    copy_file("gemma3", "tokenizer.model");
    hf_file_write("tokenizer_config.json", config, strlen(config));
    hf_file_write("generation_config.json", generation, strlen(generation));
    assert_int_equal(open_folder(&t, &err), 0);
    assert_int_equal(tokenizer_special(t)->bos, 12);
    assert_int_equal(tokenizer_special(t)->eos, 1);
    assert_int_equal(tokenizer_special(t)->eot, 17);
    assert_false(tokenizer_special(t)->add_bos);
    assert_true(tokenizer_special(t)->add_eos);
    for (int32_t id = 0; id < tokenizer_n_tokens(t); id++)
        assert_int_equal(tokenizer_is_eog(t, id), id == 1 || id == 17 || id == 300);
    tokenizer_close(t);
}

static void template_gives(const char *file, const char *text, int code, enum chat_format want)
{
    enum chat_format f = CHAT_NONE;
    struct source *src;
    struct err err;

    if (file)
        hf_file_write(file, text, strlen(text));
    assert_int_equal(source_open(&src, hf_folder_path(), &err), 0);
    assert_int_equal(chat_format_pick(&f, "auto", src, &err), code);
    assert_int_equal(f, want);
    source_close(src);
}

static void a_folders_template_picks_the_format(void **state)
{
    static const char config[] = "tokenizer_config.json";
    static const char list[] =
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"x\"}, {\"name\": "
        "\"default\", \"template\": \"<start_of_turn>model<end_of_turn>\"}]}";
    static const char gemma3[] =
        "{% if system %}'\\n\\n'{% endif %}<start_of_turn>model<end_of_turn>";

    fresh_folder();
    template_gives(NULL, NULL, 0, CHAT_NONE);
    template_gives(config, "{}", 0, CHAT_NONE);
    template_gives(config, "{\"chat_template\": \"{{ x }}\"}", GD_ENOTSUP, CHAT_NONE);
    template_gives(config, list, 0, CHAT_GEMMA);
    template_gives("chat_template.jinja", gemma3, 0, CHAT_GEMMA3);
    template_gives("chat_template.jinja", "", GD_ENOTSUP, CHAT_NONE);
}

#define SIGN "\xe2\x96\x81"
static const char small[] =
    "{\"added_tokens\": [{\"id\": 1, \"content\": \"<eos>\", \"special\": true, \"lstrip\": "
    "false},\n"
    " {\"id\": 2, \"content\": \"<b>\", \"special\": false}],\n"
    " \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
    "\"" SIGN "\"},\n"
    " \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}},\n"
    " \"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"ignore_merges\": false,\n"
    " \"vocab\": {\"<unk>\": 0, \"<eos>\": 1, \"a\": 3, \"b\": 4, \"\\u0061b\": 5, \"xyz\": 6},\n"
    " \"merges\": [[\"a\", \"b\"]]}, \"other\": [1, {\"deep\": [null, -1.5e3]}]}";

/* `small` with the first `find` replaced. */
static int read_small(struct vocab **v, const char *find, const char *replace, struct err *err)
{
    const char *at = strstr(small, find);
    struct buf b = {0};
    int r;

    assert_non_null(at);
    buf_append(&b, small, (size_t)(at - small));
    buf_puts(&b, replace);
    buf_puts(&b, at + strlen(find));
    *v = NULL;
    r = tokenizer_read_json(v, b.data, b.len, err);
    if (r == 0)
        r = vocab_finish(*v, 0, err);
    buf_free(&b);
    return r;
}

static void json_reads(const char *find, const char *replace)
{
    struct tokenizer t = {0};
    struct token_list ids = {0};
    struct err err;

    if (read_small(&t.vocab, find, replace, &err) < 0)
        fail_msg("%s: %s", replace, err.msg);
    assert_int_equal(tokenizer_encode(&t, "ab<b>axyzb<eos>", 15, true, &ids, &err), 0);
    assert_int_equal(ids.n, 8); /* x, y and z have no bytes, and no merge makes xyz */
    assert_memory_equal(ids.ids, ((int32_t[]){5, 2, 3, 0, 0, 0, 4, 1}), 8 * sizeof(int32_t));
    token_list_free(&ids);
    vocab_destroy(t.vocab);
}

static void a_small_tokenizer_json_is_read(void **state)
{
    json_reads("{", "{");
    json_reads("[\"a\", \"b\"]", "\"a b\"");
    json_reads("[\"a\", \"b\"]", "[ \"\\u0061\" , \"b\" ]");
    json_reads("\"a\": 3, \"b\": 4", "\"b\": 4, \"a\": 3");
    json_reads(" \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}},", "");
    json_reads("{\"type\": \"Split\", \"pattern\": {\"String\": \" \"}}", "null");
}

static void tokenizer_jsons_that_lie_are_refused(void **state)
{
    static const struct {
        const char *find, *replace;
        int code;
    } cases[] = {
        {"\"a\": 3", "\"a\": 4", GD_EFORMAT},
        {"\"a\": 3", "\"a\": -1", GD_EFORMAT},
        {"\"a\": 3", "\"a\": 3.5", GD_EFORMAT},
        {"\"a\": 3", "\"a\": 99999999", GD_EFORMAT},
        {"\"a\": 3", "\"a\": 99999999999999999999", GD_EFORMAT},
        {"\"a\": 3", "\"a\": \"3\"", GD_EFORMAT},
        {"\"a\": 3", "\"a\"", GD_EFORMAT},
        {"\"a\": 3", "\"a\\x\": 3", GD_EFORMAT},
        {"\"a\": 3", "\"a\\u12\": 3", GD_EFORMAT},
        {"\"a\": 3", "\"a\n\": 3", GD_EFORMAT},
        {"[\"a\", \"b\"]", "[\"a\"]", GD_EFORMAT},
        {"[\"a\", \"b\"]", "[\"a\", \"b\", \"\"]", GD_EFORMAT},
        {"[\"a\", \"b\"]", "[\"a\", 5]", GD_EFORMAT},
        {"[\"a\", \"b\"]", "[\"b\", \"a\"]", GD_EFORMAT},
        {"[\"a\", \"b\"]", "\"ab\"", GD_EFORMAT},
        {"[\"a\", \"b\"]", "\"a b \"", GD_EFORMAT},
        {"\"merges\"", "\"Merges\"", GD_EFORMAT},
        {"\"vocab\"", "\"Vocab\"", GD_EFORMAT},
        {"\"id\": 2", "\"id\": 1", GD_EFORMAT},
        {"\"id\": 2", "\"id\": -2", GD_EFORMAT},
        {"\"id\": 2, ", "", GD_EFORMAT},
        {"\"special\": false}", "\"special\": false", GD_EFORMAT},
        {"\"special\": false", "\"special\": 0", GD_EFORMAT},
        {"\"special\": false", "\"special\": false, \"single_word\": true", GD_ENOTSUP},
        {"\"special\": false", "\"special\": false, \"rstrip\": true", GD_ENOTSUP},
        {"\"BPE\"", "\"Unigram\"", GD_ENOTSUP},
        {"\"ignore_merges\": false", "\"ignore_merges\": true", GD_ENOTSUP},
        {"\"Replace\"", "\"NFKC\"", GD_ENOTSUP},
        {"{\"String\": \" \"}, \"content\"", "{\"Regex\": \" \"}, \"content\"", GD_ENOTSUP},
        {"\"content\": \"" SIGN "\"", "\"content\": \"_\"", GD_ENOTSUP},
        {"\"normalizer\"", "\"Normalizer\"", GD_ENOTSUP},
        {"\"Split\"", "\"ByteLevel\"", GD_ENOTSUP},
        {"[null, -1.5e3]", "[nil]", GD_EFORMAT},
        {"-1.5e3]}]}", "-1.5e3]}]} x", GD_EFORMAT},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct vocab *v;
        struct err err;
        int r = read_small(&v, cases[i].find, cases[i].replace, &err);

        if (r != cases[i].code)
            fail_msg("%s -> %s: %d, want %d", cases[i].find, cases[i].replace, r, cases[i].code);
        assert_string_equal(err.param, "tokenizer.json");
        vocab_destroy(v);
    }
}

static void every_cut_of_a_file_is_refused(void **state)
{
    for (size_t n = 0; n + 1 < sizeof(small); n++) {
        struct vocab *v = NULL;
        struct err err;

        assert_int_equal(tokenizer_read_json(&v, small, n, &err), GD_EFORMAT);
        vocab_destroy(v);
    }
}

static void no_override(const void *ud, size_t id, struct vocab_piece *p)
{
}

static void protobufs_that_lie_do_no_harm(void **state)
{
    struct buf b = {0};
    uint32_t x = 1;

    golden_read(family_file("gemma1", "tokenizer.model"), &b);
    for (int round = 0; round < 400; round++) {
        struct vocab *v = NULL;
        struct err err = {0};
        size_t n = b.len;
        char was;

        x = x * 1664525u + 1013904223u;
        was = b.data[x % b.len];
        if (round % 2)
            n = x % b.len;
        else
            b.data[x % b.len] = (char)(x >> 24);
        if (tokenizer_read_spm(&v, b.data, n, no_override, NULL, &err) < 0)
            assert_string_equal(err.param, "tokenizer.model");
        vocab_destroy(v);
        b.data[x % b.len] = was;
    }
    buf_free(&b);
}

static void sentencepiece_models_of_others_are_refused(void **state)
{
    static const char prefix[] =
        "\x0a\x05\x0a\x01\x61\x18\x01\x1a\x02\x18\x01"; /* add_dummy_prefix */
    static const char kind[] = "\x0a\x05\x0a\x01\x61\x18\x07\x1a\x04\x18\x00\x20\x00";
    struct vocab *v = NULL;
    struct err err;

    assert_int_equal(
        tokenizer_read_spm(&v, prefix, sizeof(prefix) - 1, no_override, NULL, &err), GD_ENOTSUP);
    assert_int_equal(
        tokenizer_read_spm(&v, kind, sizeof(kind) - 1, no_override, NULL, &err), GD_EFORMAT);
    vocab_destroy(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_json_gives_hugging_faces_ids),
        cmocka_unit_test(tokenizer_model_gives_sentencepieces_ids),
        cmocka_unit_test(folder_and_gguf_are_one_vocabulary),
        cmocka_unit_test(a_folder_without_a_tokenizer_says_so),
        cmocka_unit_test(configs_that_lie_are_refused),
        cmocka_unit_test(configs_name_tokens_and_ends),
        cmocka_unit_test(a_folders_template_picks_the_format),
        cmocka_unit_test(a_small_tokenizer_json_is_read),
        cmocka_unit_test(tokenizer_jsons_that_lie_are_refused),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(protobufs_that_lie_do_no_harm),
        cmocka_unit_test(sentencepiece_models_of_others_are_refused),
    };

    return cmocka_run_group_tests(tests, hf_folder_create, hf_folder_remove);
}
