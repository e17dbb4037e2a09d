/* test_kv.c - pages: who holds them, when they are copied, when they come back. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "engine/kv.h"

enum { GLOBAL_BYTES = 256, SLIDING_BYTES = 128, WINDOW = 100 };

static const struct kv_layout layout = {
    .group = {{.n_layers = 2, .page_bytes = GLOBAL_BYTES},
        {.n_layers = 4, .window = WINDOW, .page_bytes = SLIDING_BYTES}},
};

static struct kv *open_pages(uint32_t n_global, uint32_t n_sliding)
{
    struct kv_plan plan = {.n_pages = {n_global, n_sliding}};
    struct kv *kv;
    struct err err;

    assert_int_equal(kv_open(&kv, &layout, &plan, false, &err), 0);
    return kv;
}

static void assert_free(const struct kv *kv, uint32_t n_global, uint32_t n_sliding)
{
    assert_int_equal(kv_free_pages(kv, KV_GLOBAL), n_global);
    assert_int_equal(kv_free_pages(kv, KV_SLIDING), n_sliding);
}

static uint8_t *page(const struct kv *kv, const struct kv_table *t, int g, int i)
{
    return kv_memory(kv)->base[g] + t->pages[g][i] * layout.group[g].page_bytes;
}

static void a_sequence_takes_what_it_needs_and_gives_all_back(void **state)
{
    struct kv *kv = open_pages(10, 10);
    struct kv_table t;

    kv_table_init(&t, 640);
    assert_true(kv_reserve(kv, &t, 0, 1));
    assert_free(kv, 9, 9);
    assert_true(kv_reserve(kv, &t, 1, 64));
    assert_free(kv, 9, 9);
    assert_true(kv_reserve(kv, &t, 64, 65));
    assert_free(kv, 8, 8);
    assert_true(kv_reserve(kv, &t, 65, 640));
    assert_free(kv, 0, 0);
    assert_float_equal(kv_used(kv), 1, 0);
    kv_drop(kv, &t);
    assert_free(kv, 10, 10);
    assert_float_equal(kv_used(kv), 0, 0);
    kv_table_finish(&t);
    kv_close(kv);
}

static size_t resident(const void *p, size_t bytes)
{
    static unsigned char in[16384];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;

    assert_true(bytes / page <= sizeof(in));
    assert_int_equal(mincore((void *)(uintptr_t)p, bytes, in), 0);
    for (size_t i = 0; i < bytes / page; i++)
        n += in[i] & 1;
    return n * page;
}

/* The first write to a page must not wait until the kernel has cleared a huge one around it. */
static void a_written_page_makes_no_other_resident(void **state)
{
    enum { PAGE_BYTES = 65536, PAGES = 512 };
    const struct kv_layout large = {.group = {{.n_layers = 2, .page_bytes = PAGE_BYTES}}};
    const struct kv_plan plan = {.n_pages = {PAGES}};
    struct kv_table t;
    struct kv *kv;
    struct err err;
    const uint8_t *base;

    assert_int_equal(kv_open(&kv, &large, &plan, false, &err), 0);
    base = kv_memory(kv)->base[KV_GLOBAL];
    kv_table_init(&t, 640);
    assert_true(kv_reserve(kv, &t, 0, 1));
    assert_int_equal(resident(base, PAGES * PAGE_BYTES), 0);
    memset(
        kv_memory(kv)->base[KV_GLOBAL] + t.pages[KV_GLOBAL][0] * (size_t)PAGE_BYTES, 1, PAGE_BYTES);
    assert_int_equal(resident(base, PAGES * PAGE_BYTES), PAGE_BYTES);
    kv_drop(kv, &t);
    kv_table_finish(&t);
    kv_close(kv);
}

static void too_few_pages_change_nothing(void **state)
{
    struct kv *kv = open_pages(10, 3);
    struct kv_table t;

    kv_table_init(&t, 640);
    assert_true(kv_reserve(kv, &t, 0, 64));
    assert_false(kv_reserve(kv, &t, 64, 64 * 4 + 1)); /* 4 more, 2 sliding ones are there */
    assert_free(kv, 9, 2);
    assert_true(kv_reserve(kv, &t, 64, 64 * 3));
    assert_free(kv, 7, 0);
    kv_drop(kv, &t);
    kv_table_finish(&t);
    kv_close(kv);
}

static void pages_below_the_window_come_back(void **state)
{
    struct kv *kv = open_pages(16, 16);
    struct kv_table t;

    kv_table_init(&t, 1024);
    assert_true(kv_reserve(kv, &t, 0, 256));
    /* The query at 163 reads 64..163: page 0 is out of reach; the one at 162 still reads 63. */
    kv_trim(kv, &t, 162);
    assert_int_equal(kv_held(&t, KV_SLIDING), 4);
    kv_trim(kv, &t, 163);
    assert_int_equal(kv_held(&t, KV_SLIDING), 3);
    assert_free(kv, 12, 13);
    for (int pos = 256; pos < 1024; pos++) {
        assert_true(kv_reserve(kv, &t, pos, pos + 1));
        kv_trim(kv, &t, pos + 1);
        assert_true(kv_held(&t, KV_SLIDING) <= kv_pages_for(kv, KV_SLIDING, 1024, 1));
        assert_true(t.first[KV_SLIDING] * KV_PAGE <= pos + 1 - WINDOW + 1);
    }
    assert_int_equal(kv_held(&t, KV_GLOBAL), 16);
    kv_drop(kv, &t);
    assert_free(kv, 16, 16);
    kv_table_finish(&t);
    kv_close(kv);
}

static void shared_pages_are_copied_when_written(void **state)
{
    struct kv *kv = open_pages(10, 10);
    struct kv_table a, b;

    kv_table_init(&a, 640);
    kv_table_init(&b, 640);
    assert_true(kv_reserve(kv, &a, 0, 100));
    memset(page(kv, &a, KV_GLOBAL, 0), 1, GLOBAL_BYTES);
    memset(page(kv, &a, KV_GLOBAL, 1), 2, GLOBAL_BYTES);
    memset(page(kv, &a, KV_SLIDING, 1), 3, SLIDING_BYTES);
    kv_share(kv, &b, &a);
    assert_free(kv, 8, 8);

    /* Page 1 is copied, page 0 is full and stays shared. */
    assert_true(kv_reserve(kv, &b, 100, 101));
    assert_free(kv, 7, 7);
    assert_int_equal(a.pages[KV_GLOBAL][0], b.pages[KV_GLOBAL][0]);
    assert_int_not_equal(a.pages[KV_GLOBAL][1], b.pages[KV_GLOBAL][1]);
    assert_memory_equal(page(kv, &a, KV_GLOBAL, 1), page(kv, &b, KV_GLOBAL, 1), GLOBAL_BYTES);
    assert_memory_equal(page(kv, &a, KV_SLIDING, 1), page(kv, &b, KV_SLIDING, 1), SLIDING_BYTES);

    /* The other one is alone with its page now: no copy. */
    assert_true(kv_reserve(kv, &a, 100, 101));
    assert_free(kv, 7, 7);
    kv_drop(kv, &a);
    assert_free(kv, 8, 8);
    assert_int_equal(*page(kv, &b, KV_GLOBAL, 0), 1);
    kv_drop(kv, &b);
    assert_free(kv, 10, 10);
    kv_table_finish(&a);
    kv_table_finish(&b);
    kv_close(kv);
}

static void a_copy_needs_a_free_page(void **state)
{
    struct kv *kv = open_pages(2, 2);
    struct kv_table a, b;

    kv_table_init(&a, 640);
    kv_table_init(&b, 640);
    assert_true(kv_reserve(kv, &a, 0, 100));
    kv_share(kv, &b, &a);
    assert_false(kv_reserve(kv, &b, 100, 101));
    kv_drop(kv, &a);
    assert_true(kv_reserve(kv, &b, 100, 101));
    kv_drop(kv, &b);
    kv_table_finish(&a);
    kv_table_finish(&b);
    kv_close(kv);
}

static void a_group_without_layers_needs_no_pages(void **state)
{
    struct kv_layout global_only = layout;
    struct kv_plan plan;
    struct kv_need need = {
        .ctx_tokens = 640, .max_sequences = 2, .max_chunk = 64, .no_prefixes = true};
    struct kv *kv;
    struct kv_table t;
    struct err err;

    global_only.group[KV_SLIDING] = (struct kv_group){0};
    assert_int_equal(kv_plan(&plan, &global_only, &need, 1 << 20, &err), 0);
    assert_int_equal(plan.n_pages[KV_GLOBAL], 20);
    assert_int_equal(plan.n_pages[KV_SLIDING], 0);
    assert_int_equal(kv_open(&kv, &global_only, &plan, true, &err), 0);
    kv_table_init(&t, 640);
    assert_true(kv_reserve(kv, &t, 0, 640));
    kv_trim(kv, &t, 640);
    kv_drop(kv, &t);
    kv_table_finish(&t);
    kv_close(kv);
}

static void a_plan_splits_memory_by_need(void **state)
{
    struct kv_plan plan;
    struct kv_need need = {
        .ctx_tokens = 6400, .max_sequences = 4, .max_chunk = 64, .no_prefixes = true};
    struct err err;

    /* One sequence: 100 global pages, ceil((99 + 64) / 64) + 1 = 4 sliding; each other: 100 and
     * ceil(100 / 64) + 1 = 3. */
    assert_int_equal(kv_plan(&plan, &layout, &need, 1 << 30, &err), 0);
    assert_int_equal(plan.n_pages[KV_GLOBAL], 400);
    assert_int_equal(plan.n_pages[KV_SLIDING], 13);
    assert_int_equal(plan.bytes, 400 * GLOBAL_BYTES + 13 * SLIDING_BYTES);
    assert_int_equal(plan.ctx_tokens, 6400);
    need.no_prefixes = false; /* eight more windows, for beginnings that are kept */
    assert_int_equal(kv_plan(&plan, &layout, &need, 1 << 30, &err), 0);
    assert_int_equal(plan.n_pages[KV_SLIDING], 13 + 8 * 3);
    need.no_prefixes = true;

    /* Half of it: never less than one sequence, never more than the budget. */
    assert_int_equal(kv_plan(&plan, &layout, &need, 200 * GLOBAL_BYTES, &err), 0);
    assert_true(plan.bytes <= 200 * GLOBAL_BYTES);
    assert_true(plan.n_pages[KV_GLOBAL] >= 100 && plan.n_pages[KV_SLIDING] >= 4);
    assert_true(plan.n_pages[KV_GLOBAL] > 190);

    assert_int_equal(kv_plan(&plan, &layout, &need, 100 * GLOBAL_BYTES, &err), GD_ENOMEM);
    assert_string_equal(err.param, "ctx_tokens");
    assert_non_null(strstr(err.msg, "6400"));
}

static void a_plan_shrinks_the_context_when_it_may(void **state)
{
    struct kv_plan plan;
    struct kv_need need = {
        .ctx_tokens = 131072, .shrink_ctx = true, .max_sequences = 4, .max_chunk = 512};
    struct err err;

    assert_int_equal(kv_plan(&plan, &layout, &need, 100 * GLOBAL_BYTES, &err), 0);
    assert_true(plan.ctx_tokens > 64 * 80 && plan.ctx_tokens <= 64 * 100);
    assert_int_equal(plan.ctx_tokens % KV_PAGE, 0);
    assert_true(plan.bytes <= 100 * GLOBAL_BYTES);
    assert_int_equal(kv_plan(&plan, &layout, &need, 10, &err), GD_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_takes_what_it_needs_and_gives_all_back),
        cmocka_unit_test(a_written_page_makes_no_other_resident),
        cmocka_unit_test(too_few_pages_change_nothing),
        cmocka_unit_test(pages_below_the_window_come_back),
        cmocka_unit_test(shared_pages_are_copied_when_written),
        cmocka_unit_test(a_copy_needs_a_free_page),
        cmocka_unit_test(a_group_without_layers_needs_no_pages),
        cmocka_unit_test(a_plan_splits_memory_by_need),
        cmocka_unit_test(a_plan_shrinks_the_context_when_it_may),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
