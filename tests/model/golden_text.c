#include "golden_text.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/source.h"
#include "sha256.h"
#include "test_gguf_build.h"

/* cJSON's strings end at a NUL, so an escaped one is read as a character that no file has. */
static const char stand_in[] = "\xee\x86\xa7"; /* U+E1A7 */
static const char escape[4] = {'E', '1', 'A', '7'};

void golden_read(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    char chunk[1 << 14];
    size_t n;

    if (!f)
        fail_msg("cannot read %s", path);
    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        buf_append(out, chunk, n);
    fclose(f);
}

cJSON *golden_load(const char *below)
{
    struct buf b = {0};
    cJSON *json;

    golden_read(golden_path(below), &b);
    buf_putc(&b, '\n');
    assert_null(strstr(b.data, stand_in));
    for (char *at = b.data; (at = strstr(at, "\\u0000"));)
        memcpy(at + 2, escape, sizeof(escape));
    json = cJSON_ParseWithLength(b.data, b.len);
    if (!json)
        fail_msg("%s is not JSON", below);
    buf_free(&b);
    return json;
}

void golden_string(const cJSON *string, struct buf *out)
{
    const char *s = cJSON_GetStringValue(string), *at;

    assert_non_null(s);
    for (; (at = strstr(s, stand_in)); s = at + 3) {
        buf_append(out, s, (size_t)(at - s));
        buf_putc(out, 0);
    }
    buf_puts(out, s);
}

void golden_hex(const char *hex, struct buf *out)
{
    for (unsigned byte; *hex && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        buf_putc(out, (char)byte);
}

void golden_input(const cJSON *c, struct buf *out)
{
    const cJSON *hex = cJSON_GetObjectItem(c, "bytes_hex"),
                *repeat = cJSON_GetObjectItem(c, "repeat");

    if (hex) {
        golden_hex(cJSON_GetStringValue(hex), out);
    } else if (repeat) {
        for (int i = cJSON_GetObjectItem(repeat, "count")->valueint; i > 0; i--)
            golden_string(cJSON_GetObjectItem(repeat, "unit"), out);
    } else {
        golden_string(cJSON_GetObjectItem(c, "text"), out);
    }
}

void golden_ids(const cJSON *array, struct token_list *out)
{
    const cJSON *id;

    assert_true(cJSON_IsArray(array));
    cJSON_ArrayForEach(id, array) token_list_push(out, id->valueint);
}

bool same_ids(const struct token_list *a, const struct token_list *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->ids, b->ids, a->n * sizeof(*a->ids)) == 0);
}

static void print_from(const char *what, const struct token_list *l, size_t from)
{
    print_message("#   %s (%zu ids, from %zu):", what, l->n, from);
    for (size_t i = from; i < l->n && i < from + 12; i++)
        print_message(" %d", l->ids[i]);
    print_message("\n");
}

void print_difference(const char *name, const struct token_list *got, const struct token_list *want)
{
    size_t at = 0;

    while (at < got->n && at < want->n && got->ids[at] == want->ids[at])
        at++;
    print_message("# %s\n", name);
    print_from("got", got, at);
    print_from("want", want, at);
}

struct tokenizer *open_tokenizer(const char *path)
{
    struct source *src = NULL;
    struct tokenizer *t = NULL;
    struct err err = {0};

    if (source_open(&src, path, &err) < 0 || tokenizer_open(&t, src, &err) < 0)
        fail_msg("%s: %s", path, err.msg);
    source_close(src);
    return t;
}

static bool case_holds(const struct tokenizer *t, const cJSON *c, const char *ids, bool special)
{
    struct token_list got = {0}, want = {0};
    struct buf text = {0};
    struct err err;
    bool same;

    golden_input(c, &text);
    golden_ids(cJSON_GetObjectItem(c, ids), &want);
    assert_int_equal(
        tokenizer_encode(t, text.data ? text.data : "", text.len, special, &got, &err), 0);
    same = same_ids(&got, &want);
    if (!same)
        print_difference(cJSON_GetStringValue(cJSON_GetObjectItem(c, "name")), &got, &want);
    buf_free(&text);
    token_list_free(&got);
    token_list_free(&want);
    return same;
}

bool golden_cases_hold(const struct tokenizer *t, const char *below)
{
    cJSON *cases = golden_load(below), *c;
    int n = 0, n_bad = 0;

    cJSON_ArrayForEach(c, cases)
    {
        const char *plain = cJSON_GetObjectItem(c, "ids_plain") ? "ids_plain" : "ids";

        n += 2;
        n_bad += !case_holds(t, c, "ids", true);
        n_bad += !case_holds(t, c, plain, false);
    }
    print_message("# %s: %d of %d encodings as expected\n", below, n - n_bad, n);
    cJSON_Delete(cases);
    return n > 0 && n_bad == 0;
}

void golden_mixed(const cJSON *mixed, struct buf *out)
{
    const cJSON *fragments = cJSON_GetObjectItem(mixed, "fragments"), *f;
    size_t min = (size_t)cJSON_GetObjectItem(mixed, "min_bytes")->valueint;
    size_t first = out->len, n = (size_t)cJSON_GetArraySize(fragments), i = 0;
    uint32_t x = (uint32_t)cJSON_GetObjectItem(mixed, "seed")->valueint;
    struct buf texts = {0};
    size_t *at = calloc(n + 1, sizeof(*at));
    char digest[65];

    assert_non_null(at);
    cJSON_ArrayForEach(f, fragments)
    {
        golden_string(f, &texts);
        at[++i] = texts.len;
    }
    while (out->len - first < min) {
        x = x * 1664525u + 1013904223u;
        i = (x >> 16) % n;
        buf_append(out, texts.data + at[i], at[i + 1] - at[i]);
    }
    buf_free(&texts);
    free(at);
    sha256_hex(out->data + first, out->len - first, digest);
    assert_string_equal(digest, cJSON_GetStringValue(cJSON_GetObjectItem(mixed, "sha256_text")));
}
