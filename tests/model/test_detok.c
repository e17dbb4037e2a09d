/* Bytes in, whole UTF-8 out: the byte strings of tokenizer/decode.json, cut in every way. With the
 * real vocabulary (GEMMAD_TEST_REAL_GGUF) its ids too, chunk by chunk. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "golden_text.h"

/* Pushes bytes in pieces of `step` and joins what comes out. */
static void stream(const struct buf *bytes, size_t step, struct buf *out)
{
    struct utf8_stream s = {0};
    char piece[512], end[16];

    buf_clear(out);
    for (size_t at = 0; at < bytes->len; at += step) {
        size_t n = bytes->len - at < step ? bytes->len - at : step;
        size_t written = utf8_stream_push(&s, bytes->data + at, n, piece);

        assert_true(written <= 3 * (n + 3));
        assert_true(utf8_valid(piece, written));
        buf_append(out, piece, written);
    }
    buf_append(out, end, utf8_stream_end(&s, end));
    assert_int_equal(utf8_stream_end(&s, end), 0);
}

static void joined_chunks(const cJSON *c, struct buf *out)
{
    const cJSON *chunk;

    buf_clear(out);
    cJSON_ArrayForEach(chunk, cJSON_GetObjectItem(c, "chunks")) golden_string(chunk, out);
    golden_string(cJSON_GetObjectItem(c, "end"), out);
}

static void the_cuts_do_not_matter(void **state)
{
    cJSON *cases = golden_load("tokenizer/decode.json"), *c;
    struct buf bytes = {0}, want = {0}, got = {0};

    cJSON_ArrayForEach(c, cases)
    {
        buf_clear(&bytes);
        golden_hex(cJSON_GetStringValue(cJSON_GetObjectItem(c, "bytes_hex")), &bytes);
        joined_chunks(c, &want);
        for (size_t step = 1; step <= 100; step++) {
            stream(&bytes, step, &got);
            assert_int_equal(got.len, want.len);
            assert_true(want.len == 0 || memcmp(got.data, want.data, want.len) == 0);
        }
    }
    buf_free(&bytes);
    buf_free(&want);
    buf_free(&got);
    cJSON_Delete(cases);
}

static void a_character_is_kept_until_it_is_whole(void **state)
{
    struct utf8_stream s = {0};
    char out[16];

    assert_int_equal(utf8_stream_push(&s, "a\xf0\x9f", 3, out), 1);
    assert_int_equal(utf8_stream_push(&s, "\x99", 1, out), 0);
    assert_int_equal(utf8_stream_push(&s, "\x82z", 2, out), 5);
    assert_memory_equal(out, "\xf0\x9f\x99\x82z", 5);
    assert_int_equal(utf8_stream_end(&s, out), 0);
}

static void what_cannot_become_valid_is_sent_at_once(void **state)
{
    struct utf8_stream s = {0};
    char out[16];

    assert_int_equal(utf8_stream_push(&s, "\xff", 1, out), 3);
    assert_int_equal(utf8_stream_push(&s, "\xed\xa0", 2, out), 0);
    assert_int_equal(utf8_stream_push(&s, "x", 1, out), 7); /* a surrogate: two subparts */
    assert_int_equal(utf8_stream_push(&s, "\xf4\x90", 2, out), 6);
    assert_int_equal(utf8_stream_push(&s, "\xe2\x96", 2, out), 0);
    assert_int_equal(utf8_stream_push(&s, "x", 1, out), 4);
    assert_memory_equal(out, "\xef\xbf\xbdx", 4);
    assert_int_equal(utf8_stream_push(&s, "\xc3", 1, out), 0);
    assert_int_equal(utf8_stream_end(&s, out), 3);
    assert_int_equal(utf8_stream_end(&s, out), 0);
}

/* skip: what a client sees when control tokens make no text. */
static void chunks_hold(const struct tokenizer *t, const cJSON *c, bool skip)
{
    const char *key = skip && cJSON_GetObjectItem(c, "chunks_skip") ? "chunks_skip" : "chunks";
    const cJSON *id = cJSON_GetObjectItem(c, "ids")->child, *chunk;
    struct utf8_stream s = {0};
    struct buf want = {0};
    char out[512];

    cJSON_ArrayForEach(chunk, cJSON_GetObjectItem(c, key))
    {
        size_t len, written = 0;
        const char *piece = tokenizer_piece(t, id->valueint, &len);

        if (!skip || !tokenizer_is_control(t, id->valueint))
            written = utf8_stream_push(&s, piece, len, out);
        buf_clear(&want);
        golden_string(chunk, &want);
        if (written != want.len || (written && memcmp(out, want.data, written) != 0))
            fail_msg("%s: token %d gives \"%.*s\"",
                cJSON_GetStringValue(cJSON_GetObjectItem(c, "name")), id->valueint, (int)written,
                out);
        id = id->next;
    }
    assert_null(id);
    buf_clear(&want);
    golden_string(cJSON_GetObjectItem(c, strcmp(key, "chunks") == 0 ? "end" : "end_skip"), &want);
    assert_int_equal(utf8_stream_end(&s, out), want.len);
    assert_true(want.len == 0 || memcmp(out, want.data, want.len) == 0);
    buf_free(&want);
}

static void real_tokens_come_out_in_the_right_chunks(void **state)
{
    const char *path = getenv("GEMMAD_TEST_REAL_GGUF");
    struct tokenizer *t;
    cJSON *cases, *c;

    if (!path || !*path) {
        print_message("# SKIPPED: GEMMAD_TEST_REAL_GGUF names no file: chunks are NOT tested\n");
        skip();
    }
    t = open_tokenizer(path);
    cases = golden_load("tokenizer/decode.json");
    cJSON_ArrayForEach(c, cases)
    {
        chunks_hold(t, c, false);
        chunks_hold(t, c, true);
    }
    cJSON_Delete(cases);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cuts_do_not_matter),
        cmocka_unit_test(a_character_is_kept_until_it_is_whole),
        cmocka_unit_test(what_cannot_become_valid_is_sent_at_once),
        cmocka_unit_test(real_tokens_come_out_in_the_right_chunks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
