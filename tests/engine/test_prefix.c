/* test_prefix.c - beginnings that are computed once: what is taken over, what is forgotten, and
 * that an answer never shows it. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/private.h"
#include "fake.h"
#include "harness.h"

static struct harness h;
static struct engine_opts opts;

static int set_up(void **state)
{
    fake_begin(&h, &opts);
    return 0;
}

static int tear_down(void **state)
{
    fake_close(&h);
    return 0;
}

/* Runs a greedy request, checks the answer, leaves it after the prompt in ids; returns how many
 * tokens were taken over. */
static int ask(int32_t *ids, int n, int max)
{
    struct job_params p = harness_greedy(ids, n, max);
    struct result r = harness_run(&h, &p);
    int cached = r.answers[0].usage.cached_tokens;

    fake_answer(ids, n, max, true);
    assert_int_equal(r.answers[0].n, max);
    assert_memory_equal(r.answers[0].ids, ids + n, (size_t)max * sizeof(*ids));
    result_free(&r);
    return cached;
}

static void the_same_prompt_is_computed_once(void **state)
{
    static int32_t ids[600];
    struct engine_stats s;

    harness_prompt(ids, 500, 1);
    harness_open(&h, &opts);
    assert_int_equal(ask(ids, 500, 5), 0);
    harness_wait_idle(&h);
    fake.n_runs = 0;
    assert_int_equal(ask(ids, 500, 5), 448);
    harness_wait_idle(&h);
    assert_int_equal(fake.runs[0].past, 448);
    assert_int_equal(fake.runs[0].n_tokens, 52);
    engine_stats(h.e, &s);
    assert_int_equal(s.cached_tokens, 448);
    assert_int_equal(s.prompt_tokens, 1000);

    /* The last token is always computed, for its logits. */
    assert_int_equal(ask(ids, 448, 5), 384);
    assert_int_equal(ask(ids, 449, 5), 448);
}

static void the_next_turn_computes_what_is_new(void **state)
{
    static int32_t ids[2048];
    int n = 100;

    harness_prompt(ids, n, 1);
    harness_open(&h, &opts);
    assert_int_equal(ask(ids, n, 200), 0);
    for (int turn = 0; turn < 4; turn++) {
        int known = n + 200 - 1; /* the last token of an answer is never computed */

        n += 200;
        harness_prompt(ids + n, 50, (unsigned)turn + 7);
        n += 50;
        assert_int_equal(ask(ids, n, 200), known / 64 * 64);
    }
}

static void prompts_that_part_share_their_beginning(void **state)
{
    static int32_t ids[600];

    harness_open(&h, &opts);
    for (int i = 0; i < 5; i++) {
        harness_prompt(ids, 300, 1);
        harness_prompt(ids + 300, 200, (unsigned)i + 2);
        assert_int_equal(ask(ids, 500, 20), i ? 256 : 0);
    }
}

static void callers_that_come_together_share_too(void **state)
{
    static int32_t ids[4][1300];
    struct job *jobs[4];
    int cached = 0;

    harness_open(&h, &opts);
    fake_close_gate();
    for (int i = 0; i < 4; i++) {
        struct job_params p = harness_greedy(ids[i], 1200, 20);

        harness_prompt(ids[i], 1100, 1);
        harness_prompt(ids[i] + 1100, 100, (unsigned)i + 2);
        jobs[i] = harness_submit(&h, &p);
    }
    fake_open_gate();
    for (int i = 0; i < 4; i++) {
        struct result r = harness_collect(&h, jobs[i], 1);

        fake_answer(ids[i], 1200, 20, true);
        assert_memory_equal(r.answers[0].ids, ids[i] + 1200, 20 * sizeof(**ids));
        cached += r.answers[0].usage.cached_tokens;
        result_free(&r);
    }
    assert_int_equal(cached, 3 * (1100 / 64 * 64)); /* the first computes, the others wait for it */
}

static void a_scored_prompt_is_computed_whole(void **state)
{
    static int32_t ids[400];
    struct job_params p = harness_greedy(ids, 300, 3);
    struct result r;

    harness_prompt(ids, 300, 1);
    harness_open(&h, &opts);
    ask(ids, 300, 3);
    p.prompt_logprobs = true;
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].usage.cached_tokens, 0);
    assert_int_equal(r.prompt.n, 300);
    result_free(&r);
    assert_int_equal(ask(ids, 300, 3), 256);
}

static void without_the_setting_nothing_is_kept(void **state)
{
    static int32_t ids[600];

    harness_prompt(ids, 500, 1);
    opts.prefix_cache = false;
    harness_open(&h, &opts);
    assert_int_equal(ask(ids, 500, 5), 0);
    assert_int_equal(ask(ids, 500, 5), 0);
}

static void old_beginnings_make_room_for_new_ones(void **state)
{
    static int32_t ids[700];
    int first, again;

    opts.kv_bytes = 60 * FAKE_PAGE_BYTES;
    opts.ctx_tokens = 1024;
    harness_open(&h, &opts);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 20; i++) {
            harness_prompt(ids, 600, i);
            ask(ids, 600, 30);
        }
    }
    /* The last one is still there, the one before many others is not. */
    harness_prompt(ids, 600, 19);
    first = ask(ids, 600, 5);
    harness_prompt(ids, 600, 3);
    again = ask(ids, 600, 5);
    assert_int_equal(first, 576);
    assert_int_equal(again, 0);
}

static void a_parting_keeps_its_window(void **state)
{
    static int32_t ids[1100];

    /* Sliding pages: one sequence and little more. */
    fake.window = 200;
    opts.ctx_tokens = 1088;
    opts.max_sequences = 1;
    opts.kv_bytes = (17 + 17 + 20) * FAKE_PAGE_BYTES;
    harness_open(&h, &opts);
    for (unsigned i = 0; i < 6; i++) {
        harness_prompt(ids, 320, 1);
        harness_prompt(ids + 320, 680, i + 2);
        /* The first passed the parting without knowing of it. When the second came the window there
         * was perhaps gone, but it marked the place: from the third on it is kept. */
        if (i < 2)
            ask(ids, 1000, 50);
        else
            assert_int_equal(ask(ids, 1000, 50), 320);
    }
}

/* ---- pages against a model of them ---- */

enum { TABLES = 6, CTX_PAGES = 8, CTX = CTX_PAGES * KV_PAGE, WINDOW = 150, OPS = 30000 };

static const struct kv_layout layout = {
    .group = {{.n_layers = 1, .page_bytes = FAKE_PAGE_BYTES},
        {.n_layers = 1, .window = WINDOW, .page_bytes = FAKE_PAGE_BYTES}},
};

struct text {
    struct kv_table t;
    int32_t tokens[CTX];
    int past;
};

static uint32_t lcg = 1;

static unsigned next(unsigned n)
{
    lcg = lcg * 1664525u + 1013904223u;
    return (lcg >> 16) % n;
}

static int32_t *slot(struct kv *kv, struct text *x, int g, int pos)
{
    return (int32_t *)(kv_memory(kv)->base[g] +
                       x->t.pages[g][pos / KV_PAGE] * (size_t)FAKE_PAGE_BYTES) +
           pos % KV_PAGE;
}

static void check(struct kv *kv, struct text *x)
{
    for (int pos = 0; pos < x->past; pos++) {
        assert_int_equal(*slot(kv, x, KV_GLOBAL, pos), x->tokens[pos]);
        if (pos > x->past - WINDOW)
            assert_int_equal(*slot(kv, x, KV_SLIDING, pos), x->tokens[pos]);
    }
}

static int extend(struct kv *kv, struct text *x, int n)
{
    if (x->past + n > CTX || !kv_reserve(kv, &x->t, x->past, x->past + n))
        return 0;
    for (int i = 0; i < n; i++) {
        /* Two letters for each page: many texts begin alike. */
        if ((x->past + i) % KV_PAGE == 0)
            x->tokens[x->past + i] = 100 + (int32_t)next(2);
        else
            x->tokens[x->past + i] = x->tokens[x->past + i - 1];
        *slot(kv, x, KV_GLOBAL, x->past + i) = x->tokens[x->past + i];
        *slot(kv, x, KV_SLIDING, x->past + i) = x->tokens[x->past + i];
    }
    x->past += n;
    kv_commit(kv, &x->t, x->tokens, x->past);
    kv_trim(kv, &x->t, x->past);
    return n;
}

static void drop(struct kv *kv, struct text *x)
{
    kv_drop(kv, &x->t);
    x->past = 0;
}

static void pages_always_hold_what_they_should(void **state)
{
    static struct text texts[TABLES];
    struct kv_plan plan = {.n_pages = {20, 14}};
    struct err err;
    struct kv *kv;
    int adopted = 0, extended = 0;

    assert_int_equal(kv_open(&kv, &layout, &plan, true, &err), 0);
    for (int i = 0; i < TABLES; i++)
        kv_table_init(&texts[i].t, CTX);
    for (int op = 0; op < OPS; op++) {
        struct text *x = &texts[next(TABLES)], *y = &texts[next(TABLES)];
        unsigned what = next(10);

        if (what < 6) {
            extended += extend(kv, x, 1 + (int)next(100));
        } else if (what == 6) {
            drop(kv, x);
        } else if (what == 7 && x != y) {
            drop(kv, y);
            memcpy(y->tokens, x->tokens, sizeof(x->tokens));
            y->past = x->past;
            kv_share(kv, &y->t, &x->t);
        } else if (what > 7) { /* a prompt that may be known */
            int32_t letters[CTX];
            int past;

            if (x->past % KV_PAGE != 0 || next(2))
                drop(kv, x);
            memcpy(letters, x->tokens, sizeof(letters));
            for (int pos = x->past; pos < CTX; pos++)
                letters[pos] = pos % KV_PAGE ? letters[pos - 1] : 100 + (int32_t)next(2);
            past = kv_adopt(kv, &x->t, letters, x->past, (int)next(CTX));
            assert_true(past >= x->past);
            adopted += past - x->past;
            memcpy(x->tokens, letters, sizeof(letters));
            x->past = past;
        }
        check(kv, x);
        check(kv, y);
    }
    for (int i = 0; i < TABLES; i++) {
        drop(kv, &texts[i]);
        kv_table_finish(&texts[i].t);
    }
    assert_int_equal(kv_free_pages(kv, KV_GLOBAL), 20);
    assert_int_equal(kv_free_pages(kv, KV_SLIDING), 14);
    assert_true(adopted > 1000 && extended > 1000);
    kv_close(kv);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(the_same_prompt_is_computed_once),
        CASE(the_next_turn_computes_what_is_new),
        CASE(prompts_that_part_share_their_beginning),
        CASE(callers_that_come_together_share_too),
        CASE(a_scored_prompt_is_computed_whole),
        CASE(without_the_setting_nothing_is_kept),
        CASE(old_beginnings_make_room_for_new_ones),
        CASE(a_parting_keeps_its_window),
        cmocka_unit_test(pages_always_hold_what_they_should),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
