/* The table of kernels: which levels there are, and how they are named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/kernels.h"

static void names_and_levels_match(void **state)
{
    for (int isa = 0; isa < ISA_COUNT; isa++)
        assert_int_equal(isa_parse(isa_name((enum isa)isa)), isa);
    assert_int_equal(isa_parse("auto"), kernels_best());
    assert_int_equal(isa_parse("sse9"), -1);
    assert_int_equal(isa_parse(""), -1);
}

static void c_is_always_there(void **state)
{
    struct kernels k;

    assert_true(kernels_has(ISA_C));
    assert_true(kernels_has(kernels_best()));
    kernels_init(&k, ISA_C);
    assert_int_equal(k.isa, ISA_C);
    assert_false(k.bf16);
}

static void init_gives_the_level_asked_for_or_less(void **state)
{
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        struct kernels k;

        kernels_init(&k, (enum isa)isa);
        if (kernels_has((enum isa)isa))
            assert_int_equal(k.isa, isa);
        else
            assert_true(k.isa < (enum isa)isa);
        assert_non_null(k.rmsnorm);
        assert_non_null(k.add);
        assert_non_null(k.mul);
        assert_non_null(k.scale);
        assert_non_null(k.geglu);
        assert_non_null(k.softcap);
        assert_non_null(k.rope);
        assert_non_null(k.argmax);
        assert_non_null(k.sum_exp);
        assert_non_null(k.noise_bounds);
        assert_non_null(k.noisy_largest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_levels_match),
        cmocka_unit_test(c_is_always_there),
        cmocka_unit_test(init_gives_the_level_asked_for_or_less),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
