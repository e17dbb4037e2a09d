/* Chat formats: golden renderings byte for byte, and the same prompts as ids on every vocabulary.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden_chat.h"
#include "base/utf8.h"
#include "golden_text.h"
#include "model/chat.h"
#include "test_gguf_build.h"

static const char demo_file[] = "../../data/gemmad-demo-q8_0.gguf";

static enum chat_format family_format(const cJSON *json)
{
    const char *family = cJSON_GetStringValue(cJSON_GetObjectItem(json, "family"));

    return strcmp(family, "gemma2") == 0    ? CHAT_GEMMA
           : strcmp(family, "gemma3") == 0  ? CHAT_GEMMA3
           : strcmp(family, "gemma3n") == 0 ? CHAT_GEMMA3
                                            : CHAT_NONE;
}

static const char *name_of(const cJSON *json)
{
    return cJSON_GetStringValue(cJSON_GetObjectItem(json, "name"));
}

struct tally {
    int equal, refused, better, left_out;
};

static void golden_case(const cJSON *json, struct tally *tally)
{
    const char *want = cJSON_GetStringValue(cJSON_GetObjectItem(json, "expected"));
    const char *error = cJSON_GetStringValue(cJSON_GetObjectItem(json, "error"));
    struct golden_chat c;
    struct buf got = {0};
    struct err err = {0};
    int r;

    golden_chat_read(&c, json);
    if (c.why_not || c.has_tools) {
        print_message("# left out (%s): %s\n", c.why_not ? c.why_not : "tools", name_of(json));
        tally->left_out++;
        golden_chat_free(&c);
        return;
    }
    r = chat_render(family_format(json), c.m, c.n, &c.o, &got, &err);
    if (want && r == 0 && strcmp(got.data, want) == 0) {
        tally->equal++;
    } else if (!want && r < 0 && (!error || strstr(err.msg, error))) {
        assert_memory_equal(err.param, "messages", 8);
        tally->refused++;
    } else if (c.o.enable_thinking) {
        /* The template does not look at the switch; asking for what is not there is an error. */
        assert_int_equal(r, GD_ENOTSUP);
        assert_string_equal(err.param, "enable_thinking");
        tally->better++;
    } else if (strstr(name_of(json), "developer") ||
               strstr(name_of(json), "gemma2: ") == name_of(json)) {
        /* On purpose: developer is a system message; a list of texts is joined, not printed as
         * Python prints a list. */
        assert_true(strstr(name_of(json), "developer") || strstr(name_of(json), "parts"));
        print_message("# better: %s\n", name_of(json));
        tally->better++;
    } else {
        fail_msg("%s: %s\n%s", name_of(json), err.msg, got.data ? got.data : "");
    }
    buf_free(&got);
    golden_chat_free(&c);
}

static void golden_renderings(void **state)
{
    cJSON *cases = golden_load("chat/cases.json"), *json;
    struct tally tally = {0};

    cJSON_ArrayForEach(json, cases)
    {
        if (family_format(json) != CHAT_NONE)
            golden_case(json, &tally);
    }
    print_message("# %d equal, %d refused alike, %d better on purpose, %d left out\n", tally.equal,
        tally.refused, tally.better, tally.left_out);
    assert_int_equal(tally.equal, 83);
    assert_int_equal(tally.refused, 26);
    assert_int_equal(tally.better, 8);
    assert_int_equal(tally.left_out, 12);
    cJSON_Delete(cases);
}

static size_t count_control(const struct tokenizer *t, const struct token_list *ids)
{
    size_t n = 0;

    for (size_t i = 0; i < ids->n; i++)
        n += tokenizer_is_control(t, ids->ids[i]);
    return n;
}

/* Encoded as messages and as the rendered text; alike unless a message writes control tokens. */
static void encodes_alike(
    const struct tokenizer *t, enum chat_format f, const struct golden_chat *c, const char *name)
{
    struct buf text = {0};
    struct token_list got = {0}, want = {0};
    struct err err = {0};
    bool harmless = true;
    size_t n_frames = 1 + c->o.add_generation_prompt - c->o.continue_final_message;

    if (chat_render(f, c->m, c->n, &c->o, &text, &err) < 0) {
        assert_true(chat_encode(f, t, c->m, c->n, &c->o, &got, &err) < 0);
        return;
    }
    assert_int_equal(chat_encode(f, t, c->m, c->n, &c->o, &got, &err), 0);
    assert_int_equal(tokenizer_encode(t, text.data, text.len, true, &want, &err), 0);
    for (size_t i = 0; i < c->n; i++) {
        struct token_list ids = {0};

        assert_int_equal(
            tokenizer_encode(t, c->m[i].content, c->m[i].content_len, true, &ids, &err), 0);
        harmless = harmless && count_control(t, &ids) == 0;
        token_list_free(&ids);
    }
    n_frames += 2 * (c->n - (c->m[0].role == ROLE_SYSTEM));
    assert_int_equal(count_control(t, &got), n_frames);
    if (harmless && !same_ids(&got, &want)) {
        print_difference(name, &got, &want);
        fail();
    }
    if (!harmless)
        assert_true(count_control(t, &want) > n_frames);
    buf_free(&text);
    token_list_free(&got);
    token_list_free(&want);
}

/* Texts that could merge with a frame's text. */
static void every_border(const struct tokenizer *t)
{
    static const char *const texts[] = {"", "Hi", "\n", "\n\nHi\n\n", "  two blanks", " one",
        "\thi", "er", "s: ", "<", "<b>", "</b>\n", "<end_of_turn", "end_of_turn>", "\xe2\x96\x81",
        "\xc3\xa9"};
    enum { N = sizeof(texts) / sizeof(*texts) };

    for (int i = 0; i < N * N; i++) {
        struct golden_chat c = {.n = 3, .o.add_generation_prompt = true};
        const char *use[3] = {texts[i / N], texts[i % N], texts[(i + 3) % N]};

        for (int k = 0; k < 3; k++) {
            c.m[k].role = (enum chat_role)k; /* system, user, assistant */
            c.m[k].content = use[k];
            c.m[k].content_len = strlen(use[k]);
        }
        encodes_alike(t, CHAT_GEMMA3, &c, "border");
        c.o = (struct chat_options){.continue_final_message = true};
        encodes_alike(t, CHAT_GEMMA3, &c, "border, open");
    }
}

static void encode_golden(const struct tokenizer *t)
{
    cJSON *cases = golden_load("chat/cases.json"), *json;

    cJSON_ArrayForEach(json, cases)
    {
        struct golden_chat c;

        golden_chat_read(&c, json);
        if (family_format(json) != CHAT_NONE && !c.why_not && !c.has_tools)
            encodes_alike(t, family_format(json), &c, name_of(json));
        golden_chat_free(&c);
    }
    cJSON_Delete(cases);
    every_border(t);
}

static void small_vocabularies_encode_as_rendered(void **state)
{
    static const char *const files[] = {
        demo_file, "families/gemma2/model-f16.gguf", "families/gemma3/model-bf16.gguf"};

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct tokenizer *t = open_tokenizer(golden_path(files[i]));

        encode_golden(t);
        tokenizer_close(t);
    }
}

static void real_vocabularies_encode_as_rendered(void **state)
{
    static const char *const variables[] = {"GEMMAD_TEST_REAL_GGUF", "GEMMAD_TEST_GEMMA2_VOCAB"};
    int n = 0;

    for (int i = 0; i < 2; i++) {
        const char *path = getenv(variables[i]);
        struct tokenizer *t;

        if (!path || !*path) {
            print_message(
                "# SKIPPED: %s names no file: chats are NOT tested on it\n", variables[i]);
            continue;
        }
        t = open_tokenizer(path);
        encode_golden(t);
        tokenizer_close(t);
        n++;
    }
    if (n == 0)
        skip();
}

static void the_demo_models_chats_give_their_ids(void **state)
{
    struct tokenizer *t = open_tokenizer(golden_path(demo_file));
    cJSON *golden = golden_load("demo/golden.json"), *p;

    cJSON_ArrayForEach(p, cJSON_GetObjectItem(golden, "prompts"))
    {
        struct golden_chat c;
        struct token_list got = {0}, want = {0};
        struct err err;

        golden_chat_read(&c, p);
        c.o.add_generation_prompt = true;
        golden_ids(cJSON_GetObjectItem(p, "prompt_ids"), &want);
        assert_int_equal(chat_encode(CHAT_GEMMA3, t, c.m, c.n, &c.o, &got, &err), 0);
        assert_true(same_ids(&got, &want));
        token_list_free(&got);
        token_list_free(&want);
        golden_chat_free(&c);
    }
    cJSON_Delete(golden);
    tokenizer_close(t);
}

static void errors_name_the_message(void **state)
{
    static const struct chat_message two_users[] = {
        {.role = ROLE_SYSTEM, .content = "s", .content_len = 1},
        {.role = ROLE_USER, .content = "a", .content_len = 1},
        {.role = ROLE_USER, .content = "b", .content_len = 1}};
    const struct chat_options open = {.continue_final_message = true};
    const struct chat_options both = {true, true, .n_tools = 0}, none = {0};
    struct buf out = {0};
    struct err err;

    assert_int_equal(chat_render(CHAT_GEMMA3, two_users, 3, &none, &out, &err), GD_EINVAL);
    assert_string_equal(err.param, "messages[2].role");
    assert_int_equal(chat_render(CHAT_GEMMA, two_users, 3, &none, &out, &err), GD_EINVAL);
    assert_string_equal(err.param, "messages[0].role");
    assert_int_equal(chat_render(CHAT_NONE, two_users, 3, &none, &out, &err), GD_ENOTSUP);
    assert_non_null(strstr(err.msg, "no chat template"));
    assert_int_equal(chat_render(CHAT_GEMMA3, two_users, 2, &both, &out, &err), GD_EINVAL);
    assert_int_equal(chat_render(CHAT_GEMMA3, two_users, 1, &open, &out, &err), GD_EINVAL);
    assert_string_equal(err.param, "continue_final_message");
    assert_int_equal(out.len, 0); /* nothing was written */
}

static void trimming_is_pythons(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", ""},
        {" \t\r\n\v\f", ""},
        {"\x1c\x1d\x1e\x1f x \x85", "x \x85"}, /* not UTF-8: kept */
        {"\xc2\x85\xc2\xa0x\xe1\x9a\x80\xe2\x80\x80\xe2\x80\x8a", "x"},
        {"\xe2\x80\xa8x\xe2\x80\xa9\xe2\x80\xaf\xe2\x81\x9f\xe3\x80\x80", "x"},
        {"\xe2\x80\x8bx\xef\xbb\xbf", "\xe2\x80\x8bx\xef\xbb\xbf"},
        {"\xe2\x80\x8b", "\xe2\x80\x8b"},
        {" a b ", "a b"},
        {"\xff ", "\xff"},
        {"\x80\x80\x80\x80 ", "\x80\x80\x80\x80"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *text = cases[i].text;
        size_t len = strlen(text);

        utf8_trim(&text, &len);
        assert_int_equal(len, strlen(cases[i].want));
        assert_memory_equal(text, cases[i].want, len);
    }
}

static int pick(enum chat_format *f, const char *setting, const char *template, struct err *err)
{
    const struct test_key key = {
        .key = "tokenizer.chat_template", .type = GGUF_STRING, .str = template};
    const struct test_key arch = {
        .key = "general.architecture", .type = GGUF_STRING, .str = "gemma3"};
    struct source *src;
    struct buf b = {0};
    int r;

    put_header(&b, 3, 0, template ? 2 : 1);
    put_key(&b, &arch);
    if (template)
        put_key(&b, &key);
    assert_int_equal(open_bytes(&src, b.data, b.len, err), 0);
    r = chat_format_pick(f, setting, src, err);
    source_close(src);
    buf_free(&b);
    return r;
}

/* The published ones, shortened where nothing is looked at. */
static const char template2[] =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}{% for message in messages %}{{ '<start_of_turn>' + role + '\n' + "
    "message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt "
    "%}{{'<start_of_turn>model\n'}}{% endif %}";
static const char template3[] =
    "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if "
    "messages[0]['content'] "
    "is string -%}\n        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n ... "
    "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else \"\") }}\n ... "
    "{{ '<end_of_turn>\n' }}\n{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}";

static const char template4[] =
    "{%- macro strip_thinking(text) -%} ... {{- '<|turn>' + role + '\\n' }} ... "
    "{{- '<|channel>thought\\n' + thinking_text + '\\n<channel|>' -}} ... {{- '<turn|>\\n' -}}"
    "{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}";
static const char template_function[] =
    "{{ bos_token }}{{ '<start_of_turn>developer\\n' }}{{ '<start_function_declaration>' }}<escape>"
    "{{ '<end_of_turn>\\n' }}{{ '<start_function_call>call:' }}{{ '<start_of_turn>model\\n' }}";

static void templates_of_gemma4_and_functiongemma_are_known(void **state)
{
    char large[sizeof(template4) + 64];
    enum chat_format f;
    struct err err;

    assert_int_equal(pick(&f, "auto", template4, &err), 0);
    assert_int_equal(f, CHAT_GEMMA4_SMALL);
    for (int i = 0; i < 2; i++) { /* the line break escaped, and as it is */
        snprintf(large, sizeof(large), "%s{{- '<|channel>thought%s<channel|>' -}}", template4,
            i ? "\n" : "\\n");
        assert_int_equal(pick(&f, "auto", large, &err), 0);
        assert_int_equal(f, CHAT_GEMMA4);
    }
    assert_int_equal(pick(&f, "auto", template_function, &err), 0);
    assert_int_equal(f, CHAT_FUNCTIONGEMMA);
    assert_int_equal(pick(&f, "gemma4-interleaved", NULL, &err), 0);
    assert_int_equal(f, CHAT_GEMMA4_INTERLEAVED);
    assert_string_equal(chat_format_name(f), "gemma4-interleaved");
}

static void the_files_template_picks_the_format(void **state)
{
    static const struct {
        const char *file;
        enum chat_format format;
    } files[] = {
        {demo_file, CHAT_GEMMA3},
        {"families/gemma1/model-bf16.gguf", CHAT_GEMMA},
        {"families/gemma3/model-bf16.gguf", CHAT_GEMMA},
    };
    enum chat_format f;
    struct err err;

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct source *src;

        assert_int_equal(source_open(&src, golden_path(files[i].file), &err), 0);
        assert_int_equal(chat_format_pick(&f, "auto", src, &err), 0);
        assert_int_equal(f, files[i].format);
        source_close(src);
    }
    assert_int_equal(pick(&f, "auto", template2, &err), 0);
    assert_int_equal(f, CHAT_GEMMA);
    assert_int_equal(pick(&f, "auto", template3, &err), 0);
    assert_int_equal(f, CHAT_GEMMA3);
    assert_int_equal(pick(&f, "auto", NULL, &err), 0);
    assert_int_equal(f, CHAT_NONE);
}

static void unknown_templates_are_refused_with_the_way_out(void **state)
{
    static const char *const unknown[] = {"", "{{ messages }}",
        "{{ '<|im_start|>' + role }}<start_of_turn><end_of_turn>model",
        "<start_of_turn>developer\n<end_of_turn><start_function_call>model",
        "{{ bos_token }}<|turn>system<turn|>",
        "{% if m.role == 'system' %}<start_of_turn>system\n...'\n\n'<end_of_turn>model",
        "{% if m.role == 'system' %}...<start_of_turn>...<end_of_turn>model"};
    enum chat_format f;
    struct err err;

    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
        assert_int_equal(pick(&f, "auto", unknown[i], &err), GD_ENOTSUP);
        assert_string_equal(err.param, "tokenizer.chat_template");
        assert_non_null(strstr(err.msg, "set chat_format to one of gemma, gemma3, "));
    }
}

static void a_setting_wins_over_the_template(void **state)
{
    static const char *const names[] = {"none", "gemma", "gemma3"};
    enum chat_format f;
    struct err err;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(pick(&f, names[i], "unknown", &err), 0);
        assert_string_equal(chat_format_name(f), names[i]);
    }
    assert_int_equal(pick(&f, "llama2", template3, &err), GD_ENOTSUP);
    assert_string_equal(err.param, "chat_format");
    assert_non_null(strstr(err.msg, "\"llama2\"; there are auto, gemma, "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_renderings),
        cmocka_unit_test(small_vocabularies_encode_as_rendered),
        cmocka_unit_test(real_vocabularies_encode_as_rendered),
        cmocka_unit_test(the_demo_models_chats_give_their_ids),
        cmocka_unit_test(errors_name_the_message),
        cmocka_unit_test(trimming_is_pythons),
        cmocka_unit_test(the_files_template_picks_the_format),
        cmocka_unit_test(templates_of_gemma4_and_functiongemma_are_known),
        cmocka_unit_test(unknown_templates_are_refused_with_the_way_out),
        cmocka_unit_test(a_setting_wins_over_the_template),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
