#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 300 };

/* Files hold these: they may never change. */
static void the_values_are_fixed(void **state)
{
    uint8_t bytes[MOST];

    for (int i = 0; i < MOST; i++)
        bytes[i] = (uint8_t)(7 * i);
    assert_int_equal(hash_bytes(0, bytes, 0), 0x78066eeaaacfa1f0);
    assert_int_equal(hash_bytes(1, bytes, 64), 0xc8e836b57ed57395);
    assert_int_equal(hash_bytes(2, bytes, MOST), 0xa2abe5a9e172333b);
}

static void every_bit_and_every_length_counts(void **state)
{
    uint8_t bytes[MOST] = {0};
    uint64_t last = 0;

    for (size_t n = 0; n <= MOST; n++) {
        uint64_t h = hash_bytes(5, bytes, n);

        assert_int_not_equal(h, last);
        assert_int_not_equal(h, hash_bytes(6, bytes, n));
        last = h;
        for (size_t bit = 0; bit < 8 * n; bit += 1 + n % 3) {
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_not_equal(hash_bytes(5, bytes, n), h);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

/* The top bits of two words of one chain, a multiplication alone would let them cancel. */
static void pairs_of_changes_do_not_cancel(void **state)
{
    uint8_t bytes[256] = {0};
    uint64_t h = hash_bytes(0, bytes, sizeof(bytes));

    for (int bit = 0; bit < 64; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        bytes[64 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_not_equal(hash_bytes(0, bytes, sizeof(bytes)), h);
        memset(bytes, 0, sizeof(bytes));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_values_are_fixed),
        cmocka_unit_test(every_bit_and_every_length_counts),
        cmocka_unit_test(pairs_of_changes_do_not_cancel),
    };

    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
