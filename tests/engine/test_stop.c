/* test_stop.c - stop strings over every border between pieces, against a search of the whole text.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/stop.h"

enum { MAX_STOPS = 4 };

struct result {
    int stop;
    struct buf text;
};

/* The definition: the first position at which a string is complete; there, the longest. */
static struct result search(const char *text, const char *const *stops, size_t n, bool include)
{
    struct result r = {.stop = -1};
    size_t len = strlen(text), cut = len;

    for (size_t end = 1; end <= len && r.stop < 0; end++) {
        for (size_t i = 0; i < n; i++) {
            size_t m = strlen(stops[i]);

            if (m <= end && memcmp(text + end - m, stops[i], m) == 0 &&
                (r.stop < 0 || m > strlen(stops[r.stop])))
                r.stop = (int)i;
        }
        if (r.stop >= 0)
            cut = include ? end : end - strlen(stops[r.stop]);
    }
    buf_append(&r.text, text, cut);
    return r;
}

/* What must be held back after `text`: its longest end that begins a stop string. */
static size_t must_hold(const char *text, size_t len, const char *const *stops, size_t n)
{
    for (size_t hold = len; hold > 0; hold--) {
        for (size_t i = 0; i < n; i++) {
            if (hold < strlen(stops[i]) && memcmp(text + len - hold, stops[i], hold) == 0)
                return hold;
        }
    }
    return 0;
}

/* Pushes text cut at the set bits of `cuts` (bit i: after byte i) and at `cut_every` when > 0. */
static void check(const char *text, const char *const *stops, size_t n, unsigned cuts, bool include)
{
    struct stop_set *set = stop_set_create(stops, n);
    struct stop_scan scan;
    struct result want = search(text, stops, n, include), got = {.stop = -1};
    size_t len = strlen(text), start = 0;

    stop_scan_init(&scan, set);
    for (size_t i = 0; i < len && got.stop < 0; i++) {
        if (i + 1 < len && !(cuts >> (i % 32) & 1))
            continue;
        got.stop = stop_scan_push(&scan, text + start, i + 1 - start, include, &got.text);
        start = i + 1;
        if (got.stop < 0)
            assert_int_equal(got.text.len, start - must_hold(text, start, stops, n));
    }
    if (got.stop < 0)
        stop_scan_end(&scan, &got.text);
    assert_int_equal(got.stop, want.stop);
    assert_int_equal(got.text.len, want.text.len);
    if (want.text.len)
        assert_memory_equal(got.text.data, want.text.data, want.text.len);
    buf_free(&want.text);
    buf_free(&got.text);
    stop_scan_finish(&scan);
    stop_set_destroy(set);
}

static void every_split_of_a_text_gives_the_same(void **state)
{
    static const struct {
        const char *text;
        const char *stops[MAX_STOPS];
    } cases[] = {
        {"hello wor", {"world"}},
        {"a stop b", {"stop"}},
        {"aaaaaab", {"aaab"}},
        {"abcabcabd!", {"abcabd"}},
        {"xabcy", {"abcd", "bc"}},
        {"xabcdy", {"cd", "abcd", "d"}},
        {"\xc3\xa9t\xc3\xa9 fin", {"\xc3\xa9 f"}},
        {"ababababac", {"ababac", "bac"}},
        {"nothing", {"zzz", "q"}},
        {"ends abc", {"abcd", "bcde", "c e"}},
        {"no stops", {NULL}},
        {"\n\nUser:", {"\nUser:", "\n\nUser"}},
    };

    for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++) {
        size_t n = 0, len = strlen(cases[c].text);

        while (n < MAX_STOPS && cases[c].stops[n])
            n++;
        for (unsigned cuts = 0; cuts < 1u << (len - 1); cuts++) {
            check(cases[c].text, cases[c].stops, n, cuts, false);
            check(cases[c].text, cases[c].stops, n, cuts, true);
        }
    }
}

static unsigned next(void)
{
    static uint32_t x = 1;

    x = x * 1664525u + 1013904223u;
    return x >> 16;
}

static void random_texts_over_two_letters_give_the_same(void **state)
{
    for (int round = 0; round < 3000; round++) {
        char text[40], stop[MAX_STOPS][8];
        const char *stops[MAX_STOPS];
        size_t n, len;

        len = 1 + next() % (sizeof(text) - 1);
        for (size_t i = 0; i < len; i++)
            text[i] = "ab"[next() & 1];
        text[len] = 0;
        n = next() % (MAX_STOPS + 1);
        for (size_t i = 0; i < n; i++) {
            size_t m = 3 + next() % 5;

            for (size_t j = 0; j < m; j++)
                stop[i][j] = "ab"[next() & 1];
            stop[i][m] = 0;
            stops[i] = stop[i];
        }
        check(text, stops, n, next() * 65537u, round & 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_of_a_text_gives_the_same),
        cmocka_unit_test(random_texts_over_two_letters_give_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
