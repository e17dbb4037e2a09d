/* What models write, read back: the golden texts in pieces of every size, and random ones. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden_text.h"
#include "model/chat_parse.h"

enum { MAX_CALLS = 8 };

struct result {
    struct buf content, reasoning;
    struct buf names[MAX_CALLS], arguments[MAX_CALLS];
    int n_calls;
    bool bad_piece; /* an empty one */
};

static void collect(void *ud, enum chat_part part, const char *name, const char *text, size_t len)
{
    struct result *r = ud;

    r->bad_piece = r->bad_piece || len == 0;
    if (part != CHAT_CALL) {
        assert_null(name);
        buf_append(part == CHAT_CONTENT ? &r->content : &r->reasoning, text, len);
        return;
    }
    assert_true(r->n_calls < MAX_CALLS);
    buf_puts(&r->names[r->n_calls], name);
    buf_append(&r->arguments[r->n_calls++], text, len);
}

static void free_result(struct result *r)
{
    buf_free(&r->content);
    buf_free(&r->reasoning);
    for (int i = 0; i < r->n_calls; i++) {
        buf_free(&r->names[i]);
        buf_free(&r->arguments[i]);
    }
}

static const char *text_of(const struct buf *b)
{
    return b->data ? b->data : "";
}

/* The mark that text begins with. */
static enum chat_mark mark_at(enum chat_format f, const char *text, size_t *len)
{
    for (int i = MARK_NONE + 1; i < N_MARKS; i++) {
        const char *mark = chat_mark_text(f, (enum chat_mark)i);

        if (mark && strncmp(text, mark, strlen(mark)) == 0) {
            *len = strlen(mark);
            return (enum chat_mark)i;
        }
    }
    return MARK_NONE;
}

struct input {
    enum chat_format f;
    const char *text;
    const char *tools[4];
    size_t n_tools;
    bool split;
};

/* Marks in the text are marks, the rest goes in pieces of `size` bytes. */
static struct result parse(const struct input *in, size_t size)
{
    struct result r = {.n_calls = 0};
    struct chat_parser p = {.format = in->f,
        .tools = in->tools,
        .n_tools = in->n_tools,
        .split_reasoning = in->split,
        .emit = collect,
        .ud = &r};
    const char *at = in->text;

    while (*at) {
        size_t n = 0;
        enum chat_mark mark = mark_at(in->f, at, &n);

        if (mark != MARK_NONE) {
            chat_parser_mark(&p, mark);
            at += n;
            continue;
        }
        for (n = 1; n < size && at[n] && mark_at(in->f, at + n, &(size_t){0}) == MARK_NONE; n++)
            ;
        chat_parser_text(&p, at, n);
        at += n;
    }
    chat_parser_end(&p);
    chat_parser_finish(&p);
    return r;
}

static bool calls_are_valid(const struct result *r, const struct input *in)
{
    for (int i = 0; i < r->n_calls; i++) {
        cJSON *json = cJSON_Parse(text_of(&r->arguments[i]));
        bool ok = cJSON_IsObject(json), offered = false;

        for (size_t k = 0; k < in->n_tools; k++)
            offered = offered || strcmp(in->tools[k], r->names[i].data) == 0;
        cJSON_Delete(json);
        if (!ok || !offered)
            return false;
    }
    return true;
}

static bool same_calls(const struct result *r, const cJSON *want)
{
    bool same = cJSON_GetArraySize(want) == r->n_calls;

    for (int i = 0; same && i < r->n_calls; i++) {
        const cJSON *call = cJSON_GetArrayItem(want, i);
        cJSON *got = cJSON_Parse(text_of(&r->arguments[i]));
        char *a = cJSON_PrintUnformatted(got); /* with the order of the keys */
        char *b = cJSON_PrintUnformatted(cJSON_GetObjectItem(call, "arguments"));

        same =
            a && strcmp(a, b) == 0 &&
            strcmp(r->names[i].data, cJSON_GetStringValue(cJSON_GetObjectItem(call, "name"))) == 0;
        cJSON_free(a);
        cJSON_free(b);
        cJSON_Delete(got);
    }
    return same;
}

static const char *string(const cJSON *c, const char *name)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(c, name));

    return s ? s : "";
}

static void golden_case(const cJSON *c, size_t size)
{
    struct input in = {.f = CHAT_GEMMA4,
        .text = string(c, "text"),
        .split = !cJSON_IsFalse(cJSON_GetObjectItem(c, "split_reasoning"))};
    const cJSON *tool;
    struct result r;
    bool ok;

    cJSON_ArrayForEach(tool, cJSON_GetObjectItem(c, "tools")) in.tools[in.n_tools++] =
        cJSON_GetStringValue(tool);
    if (strcmp(string(c, "family"), "functiongemma") == 0)
        in =
            (struct input){CHAT_FUNCTIONGEMMA, in.text, {"f", "g", "ping", "get_weather"}, 4, true};
    r = parse(&in, size);
    ok = !r.bad_piece && calls_are_valid(&r, &in);
    if (cJSON_GetObjectItem(c, "malformed")) /* nothing is lost without a call */
        ok = ok && (r.n_calls > 0 || r.reasoning.len > 0 || strcmp(in.text, r.content.data) == 0);
    else
        ok = ok && strcmp(text_of(&r.content), string(c, "content")) == 0 &&
             strcmp(text_of(&r.reasoning), string(c, "reasoning")) == 0 &&
             same_calls(&r, cJSON_GetObjectItem(c, "tool_calls"));
    if (!ok)
        fail_msg("%s, pieces of %zu: content \"%s\" reasoning \"%s\", %d calls %s",
            string(c, "name"), size, text_of(&r.content), text_of(&r.reasoning), r.n_calls,
            text_of(&r.arguments[0]));
    free_result(&r);
}

static void golden_texts_in_pieces_of_every_size(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 5, 1000};
    cJSON *cases = golden_load("chat/parse.json"), *c;
    int n = 0;

    cJSON_ArrayForEach(c, cases)
    {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
            golden_case(c, sizes[i]);
        n++;
    }
    assert_int_equal(n, 72);
    cJSON_Delete(cases);
}

/* What the golden cases leave open, decided. */
static void malformed_calls_become_what(void **state)
{
    static const struct {
        enum chat_format f;
        const char *text, *content, *reasoning, *arguments;
    } cases[] = {
        {CHAT_GEMMA4, "<|tool_call>call:f{a:1", "<|tool_call>call:f{a:1", "", NULL},
        {CHAT_GEMMA4, "<|tool_call>call:f{a:1}", "", "", "{\"a\":1}"},
        {CHAT_GEMMA4, "<|tool_call>call:f{a:None}<tool_call|>", "", "", "{\"a\":null}"},
        {CHAT_GEMMA4, "<|tool_call>call:g{}<tool_call|>!", "<|tool_call>call:g{}<tool_call|>!", "",
            NULL},
        {CHAT_GEMMA4, "<|tool_call>call:f{a:<|\"|>x}<tool_call|>",
            "<|tool_call>call:f{a:<|\"|>x}<tool_call|>", "", NULL},
        {CHAT_GEMMA4, "<|tool_call>x<|tool_call>call:f{}<tool_call|>", "<|tool_call>x", "", "{}"},
        {CHAT_GEMMA4, "<|tool_call>x<|channel>thought\ny<channel|>z", "<|tool_call>xz", "y", NULL},
        {CHAT_GEMMA4, "<|tool_call>call:f{}<|tool_response>", "", "", "{}"},
        {CHAT_GEMMA4, " <|tool_call> call:f { a : [ 1 , 2 ] , <|\"|>b c<|\"|> : {} } <tool_call|>",
            " <|tool_call> call:f { a : [ 1 , 2 ] , <|\"|>b c<|\"|> : {} } <tool_call|>", "", NULL},
        {CHAT_GEMMA4, "<|tool_call>call:f{a: [ 1 , 2 ] ,<|\"|>b c<|\"|> :{ } } <tool_call|>", "",
            "", "{\"a\":[1,2],\"b c\":{}}"},
        {CHAT_GEMMA4, "<|tool_call>call:f{a:01}<tool_call|>",
            "<|tool_call>call:f{a:01}<tool_call|>", "", NULL},
        {CHAT_GEMMA4, "<|tool_call>call:f{a:1}x<tool_call|>",
            "<|tool_call>call:f{a:1}x<tool_call|>", "", NULL},
        {CHAT_GEMMA4, "<|channel>though", "", "though", NULL},
        {CHAT_GEMMA4, "<|channel>thoughtful<channel|>x", "x", "ful", NULL},
        {CHAT_GEMMA4, "<|channel>plan\nx<channel|>y", "y", "plan\nx", NULL},
        {CHAT_GEMMA4, "<|channel>thought\n \t\n a<|\"|>b", "", "a<|\"|>b", NULL},
        {CHAT_GEMMA4, "<|channel>thought\nx<|tool_call>call:f{}<tool_call|>", "", "x", "{}"},
        {CHAT_GEMMA4, "<|\"|>q<|\"|>", "<|\"|>q<|\"|>", "", NULL},
        {CHAT_FUNCTIONGEMMA, "<start_function_call>call:f{a: x y ,b:-,c:[p,1]}<end_function_call>",
            "", "", "{\"a\":\"x y\",\"b\":\"-\",\"c\":[\"p\",1]}"},
        {CHAT_FUNCTIONGEMMA, "<start_function_call>call:f{a:}<end_function_call>",
            "<start_function_call>call:f{a:}<end_function_call>", "", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct input in = {cases[i].f, cases[i].text, {"f"}, 1, true};
        struct result r = parse(&in, 1);

        assert_string_equal(text_of(&r.content), cases[i].content);
        assert_string_equal(text_of(&r.reasoning), cases[i].reasoning);
        assert_int_equal(r.n_calls, cases[i].arguments != NULL);
        if (r.n_calls)
            assert_string_equal(r.arguments[0].data, cases[i].arguments);
        free_result(&r);
    }
}

static void text_that_looks_like_a_mark_is_text(void **state)
{
    struct result r = {.n_calls = 0};
    const char *tools[] = {"f"};
    struct chat_parser p = {.format = CHAT_GEMMA4,
        .tools = tools,
        .n_tools = 1,
        .split_reasoning = true,
        .emit = collect,
        .ud = &r};
    static const char quoted[] = "<|tool_call>call:f{}<tool_call|>";

    chat_parser_text(&p, quoted, strlen(quoted));
    assert_string_equal(r.content.data, quoted);
    chat_parser_mark(&p, MARK_CALL);
    chat_parser_text(&p, "call:f{a:", 9);
    chat_parser_mark(&p, MARK_QUOTE);
    chat_parser_text(&p, "<|\"|>\x01\"\\\n", 9);
    chat_parser_mark(&p, MARK_QUOTE);
    chat_parser_text(&p, "}", 1);
    chat_parser_mark(&p, MARK_CALL_END);
    assert_int_equal(r.n_calls, 1);
    assert_string_equal(r.arguments[0].data, "{\"a\":\"<|\\\"|>\\u0001\\\"\\\\\\n\"}");
    chat_parser_end(&p);
    chat_parser_finish(&p);
    free_result(&r);
}

/* Deep nesting ends; a call is valid or content. */
static void hostile_calls(void **state)
{
    struct input in = {CHAT_GEMMA4, NULL, {"f"}, 1, true};

    for (int depth = 60; depth < 70; depth++) {
        struct buf text = {0};
        struct result r;

        buf_puts(&text, "<|tool_call>call:f{a:");
        for (int i = 0; i < depth; i++)
            buf_putc(&text, '[');
        for (int i = 0; i < depth; i++)
            buf_putc(&text, ']');
        buf_puts(&text, "}<tool_call|>");
        in.text = text.data;
        r = parse(&in, 1000);
        assert_int_equal(r.n_calls, depth < 64);
        assert_true(calls_are_valid(&r, &in));
        if (r.n_calls == 0)
            assert_string_equal(r.content.data, text.data);
        free_result(&r);
        buf_free(&text);
    }
}

/* Texts of parts that mean something: every split gives the same, valid calls, and without
 * splitting off thoughts and calls the text itself. */
static void random_texts(void **state)
{
    static const char *const parts[] = {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>",
        "<|\"|>", "call:f{", "call:g{", "}", "{", "[", "]", ",", ":", "a", "thought", "\n", "1",
        "-2.5", "true", " ", "\"", "th", "\xc3\xa9", "None"};
    uint32_t x = 1;

    for (int round = 0; round < 20000; round++) {
        struct input in = {CHAT_GEMMA4, NULL, {"f"}, 1, true};
        struct buf text = {0};
        struct result a, b;

        for (int i = 0; i < 12; i++) {
            x = x * 1664525u + 1013904223u;
            buf_puts(&text, parts[(x >> 16) % (sizeof(parts) / sizeof(*parts))]);
        }
        in.text = text.data;
        a = parse(&in, 1);
        b = parse(&in, 7);
        assert_string_equal(text_of(&a.content), text_of(&b.content));
        assert_string_equal(text_of(&a.reasoning), text_of(&b.reasoning));
        assert_int_equal(a.n_calls, b.n_calls);
        assert_true(calls_are_valid(&a, &in));
        free_result(&a);
        free_result(&b);
        in.n_tools = 0;
        in.split = false;
        a = parse(&in, 3);
        assert_string_equal(text_of(&a.content), text.data);
        free_result(&a);
        buf_free(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_texts_in_pieces_of_every_size),
        cmocka_unit_test(malformed_calls_become_what),
        cmocka_unit_test(text_that_looks_like_a_mark_is_text),
        cmocka_unit_test(hostile_calls),
        cmocka_unit_test(random_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
