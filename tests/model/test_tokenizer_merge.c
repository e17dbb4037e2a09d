/* Merging: the scan, the heap and its windows against the rule itself, done naively. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "model/tokenizer_private.h"
#include "model/vocab_lookup.h"

static struct vocab *create(size_t n)
{
    struct vocab *v;
    struct err err;

    assert_int_equal(vocab_create(&v, "pieces", n, &err), 0);
    return v;
}

static void add(struct vocab *v, const char *text, size_t len, float score)
{
    const struct vocab_piece p = {text, len, PIECE_NORMAL, score};
    struct err err;

    assert_int_equal(vocab_add(v, &p, &err), 0);
}

static void finish(struct vocab *v)
{
    struct err err;

    assert_int_equal(vocab_finish(v, 0, &err), 0);
}

/* The rule: of all pairs that make a piece the lowest rank, then the leftmost. */
static void merge_naively(
    const struct vocab *v, const char *text, size_t len, struct token_list *out)
{
    size_t *at = calloc(len + 1, sizeof(*at)), n = 0;
    uint32_t c;

    assert_non_null(at);
    for (size_t i = 0; i < len; i += vocab_char(text + i, &c))
        at[n++] = i;
    at[n] = len;
    for (;;) {
        size_t best = n;
        uint32_t rank = UINT32_MAX;

        for (size_t i = 0; i + 1 < n; i++) {
            const struct vocab_slot *slot = vocab_slot(v, text + at[i], at[i + 2] - at[i]);

            if (slot && slot->rank < rank) {
                rank = slot->rank;
                best = i;
            }
        }
        if (best == n)
            break;
        memmove(at + best + 1, at + best + 2, (n - best - 1) * sizeof(*at));
        n--;
    }
    for (size_t i = 0; i < n; i++)
        token_list_push(out, vocab_find(v, text + at[i], at[i + 1] - at[i]));
    free(at);
}

static void merges_alike(const struct vocab *v, const char *text, size_t len)
{
    struct token_list got = {0}, want = {0};
    struct err err;

    assert_int_equal(merge_unit(v, text, len, &got, &err), 0);
    merge_naively(v, text, len, &want);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.ids, want.ids, got.n * sizeof(*got.ids));
    token_list_free(&got);
    token_list_free(&want);
}

static uint32_t next(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return *x >> 16;
}

/* Every string of 2..5 of three letters is a piece, with a random score of few values. */
static void random_words(void **state)
{
    uint32_t x = 1;

    for (int round = 0; round < 12; round++) {
        struct vocab *v = create(4 + 9 + 27 + 81 + 243);
        char word[3000];

        add(v, "?", 1, 0);
        for (int i = 0; i < 3; i++)
            add(v, &"abc"[i], 1, 0);
        for (size_t len = 2, n = 9; len <= 5; len++, n *= 3) {
            for (size_t i = 0; i < n; i++) {
                char text[5];

                for (size_t k = 0, rest = i; k < len; k++, rest /= 3)
                    text[k] = (char)('a' + rest % 3);
                add(v, text, len, (float)(next(&x) % (round % 2 ? 20 : 30000)));
            }
        }
        finish(v);
        for (size_t i = 0; i < sizeof(word); i++)
            word[i] = (char)('a' + next(&x) % 3);
        for (size_t len = 1; len < 60; len++)
            merges_alike(v, word + 2 * len, len);
        merges_alike(v, word, 500);
        merges_alike(v, word, 1024);
        merges_alike(v, word, 1025);
        merges_alike(v, word, sizeof(word));
        memset(word, 'a', sizeof(word));
        merges_alike(v, word, sizeof(word));
        vocab_destroy(v);
    }
}

/* n different characters, each pair of neighbours a piece, the more to the right the sooner it
 * merges: how the first characters pair depends on the last, so windows must not be trusted. */
static void what_is_far_away_counts(void **state)
{
    for (size_t n = 2999; n <= 3000; n++) {
        struct vocab *v = create(2 * n);
        struct buf text = {0};

        for (size_t i = 0; i < n; i++) {
            char c[4];

            buf_append(&text, c, utf8_encode((uint32_t)(0x4e00 + i), c));
        }
        for (size_t i = 0; i < n; i++)
            add(v, text.data + 3 * i, 3, 0);
        for (size_t i = 0; i + 1 < n; i++)
            add(v, text.data + 3 * i, 6, (float)i);
        add(v, "?", 1, 0);
        finish(v);
        merges_alike(v, text.data, text.len);
        buf_free(&text);
        vocab_destroy(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_words),
        cmocka_unit_test(what_is_far_away_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
