/* test_shortlist.c - what a sampler asks the head for instead of a row, and that it picks the same.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/sampler.h"
#include "engine/select.h"
#include "graph/draw.h"
#include "random_rows.h"

enum { VOCAB = 5000 };

static struct kernels kernels;

/* Settings of every kind, most of them such that a shortlist does. */
static void random_settings(struct sampling *p, struct logit_bias *bias)
{
    sampling_default(p);
    p->temperature = uniform() < 0.3f ? 0 : 0.2f + uniform();
    p->top_k = 1 + (int)(60 * uniform());
    p->top_p = uniform() < 0.5f ? 1 : 0.3f + 0.7f * uniform();
    p->min_p = uniform() < 0.7f ? 0 : 0.2f * uniform();
    p->typical_p = uniform() < 0.8f ? 1 : 0.3f + 0.7f * uniform();
    p->repeat_penalty = uniform() < 0.5f ? 1 : 0.9f + uniform();
    p->repeat_last_n = (int)(30 * uniform()) - 1;
    p->presence_penalty = uniform() < 0.7f ? 0 : 2 * uniform() - 0.2f;
    p->frequency_penalty = uniform() < 0.7f ? 0 : 2 * uniform() - 0.2f;
    p->n_bias = uniform() < 0.7f ? 0 : 3;
    p->bias = bias;
    for (int i = 0; i < 3; i++)
        bias[i] = (struct logit_bias){i, uniform() < 0.3f ? -100 : 4 * uniform() - 3.5f};
}

/* The best of a row, in order, of which all from `least` on are known, and some of the others. */
static int known_best(const float *row, float least, int k, struct logit *best)
{
    static struct candidate all[VOCAB];
    static float known[VOCAB];
    int n;

    for (int i = 0; i < VOCAB; i++)
        known[i] = row[i] >= least || i % 3 ? row[i] : NAN;
    n = select_largest(known, VOCAB, k, all);
    for (int i = 0; i < n; i++) {
        int at = i;

        while (at > 0 && (all[i].logit > best[at - 1].value ||
                             (all[i].logit == best[at - 1].value && all[i].id < best[at - 1].id)))
            at--;
        memmove(best + at + 1, best + at, (size_t)(i - at) * sizeof(*best));
        best[at] = (struct logit){all[i].id, all[i].logit};
    }
    return n;
}

/* As the head does. */
static void give(struct shortlist *list, const float *row)
{
    struct logit drawn = {-1, -INFINITY};
    int at = 0, chosen = -1;

    list->drawn = false;
    if (list->draw.scale > 0) {
        draw_take(&kernels, &list->draw, 0, row, VOCAB, &drawn);
        list->n = known_best(row, row[drawn.id], list->k, list->best);
        while (list->choose && at < list->n && list->best[at].id != drawn.id)
            at++;
        chosen = !list->choose ? -1 : at < list->n ? list->choose(list, at) : -1;
        list->drawn = !list->choose || chosen >= 0;
    }
    if (list->drawn) {
        list->n = 1;
        list->best[0] = chosen >= 0 ? list->best[chosen] : drawn;
    } else {
        list->n = list->row_else ? 0 : known_best(row, -INFINITY, list->k, list->best);
    }
}

static void a_shortlist_gives_what_the_row_gives(void **state)
{
    struct sampler *s = sampler_create(&kernels, VOCAB);
    static float row[VOCAB];
    struct logit best[SHORTLIST_MAX];
    struct logit_bias bias[3];
    int32_t tokens[40], banned[2] = {0, 1};
    struct shortlist list = {.best = best};
    int n_lists = 0, n_draws = 0, n_rows = 0;

    for (int round = 0; round < 4000; round++) {
        struct sampling p;
        struct sampler_input in = {.params = &p, .seed = (uint64_t)round, .tokens = tokens};

        fill(row, VOCAB, 4);
        for (int i = 0; i < 20 && round % 3 == 0; i++) /* equal ones, at the edge of the list too */
            row[(int)(VOCAB * uniform())] = 5;
        random_settings(&p, bias);
        in.n_tokens = (int)(40 * uniform());
        in.n_prompt = (int)((float)in.n_tokens * uniform());
        for (int i = 0; i < 40; i++) /* about half of the best */
            tokens[i] = uniform() < 0.5f ? (int32_t)(VOCAB * uniform()) : i;
        for (int i = 0; i < 20; i++)
            row[i] += 4 * uniform();
        in.banned[0].ids = banned;
        in.banned[0].n = round % 4 ? 0 : 2;
        if (round % 8 == 1) { /* a draw from everything */
            sampling_default(&p);
            p.temperature = 0.2f + uniform();
        }
        if (!sampler_shortlist(&in, VOCAB, &list)) {
            n_rows++;
            continue;
        }
        give(&list, row);
        n_draws += list.drawn;
        n_lists += !list.drawn;
        assert_int_equal(list.n, list.drawn ? 1 : list.k);
        assert_int_equal(sampler_pick_from(s, &list, &in), sampler_pick(s, row, &in));
    }
    assert_true(n_lists > 1000);
    assert_true(n_draws > 500);
    assert_true(n_rows > 100);
    sampler_destroy(s);
}

/* Draws from a part of the row, by what little is known of it. */
static void a_draw_from_a_part_is_the_rows_own(void **state)
{
    static const float spread[] = {0.1f, 1, 3, 6, 300};
    static const float top_p[] = {1, 0, 0.3f, 0.9f, 0.95f, 0.999f};
    static const float min_p[] = {0, 0, 0.001f, 0.05f, 1};
    static const int top_k[] = {0, 2, 5, 40, 64, 128, 129, 1000};
    struct sampler *s = sampler_create(&kernels, VOCAB);
    static float row[VOCAB];
    struct logit best[SHORTLIST_MAX];
    struct shortlist list = {.best = best};
    int n_known = 0, n_lists = 0, n_rows = 0;

    for (int round = 0; round < 12000; round++) {
        struct sampling p;
        struct sampler_input in = {.params = &p, .seed = (uint64_t)round};

        sampling_default(&p);
        p.temperature = round % 7 ? 0.3f + 1.5f * uniform() : 1;
        p.top_p = top_p[round % 6];
        p.min_p = min_p[round / 6 % 5];
        p.top_k = top_k[round / 30 % 8];
        if (p.top_p == 1 && p.min_p == 0 && p.top_k == 0)
            continue;
        fill(row, VOCAB, spread[round / 240 % 5]);
        for (int i = 0; i < 20; i++)
            row[i] += 8 * uniform();
        assert_true(sampler_shortlist(&in, VOCAB, &list));
        assert_non_null(list.choose);
        give(&list, row);
        n_known += list.drawn;
        n_lists += !list.drawn && list.n;
        n_rows += !list.n;
        if (list.n)
            assert_int_equal(sampler_pick_from(s, &list, &in), sampler_pick(s, row, &in));
    }
    printf("# %d draws known, %d by lists, %d by rows\n", n_known, n_lists, n_rows);
    assert_true(n_known > 5000);
    assert_true(n_lists > 500);
    assert_true(n_rows > 500);
    sampler_destroy(s);
}

/* Of the list that is asked for; 0: the row. */
static int length(const struct sampler_input *in, int vocab)
{
    struct shortlist list;

    return sampler_shortlist(in, vocab, &list) ? list.k : 0;
}

static void what_moves_other_tokens_needs_the_row(void **state)
{
    struct logit_bias bias = {7, 1};
    struct shortlist list;
    struct sampling p;
    int32_t tokens[200] = {0};
    struct sampler_input in = {.params = &p, .tokens = tokens, .n_tokens = 200, .n_prompt = 10};

    sampling_default(&p);
    p.temperature = 0.5f;
    assert_true(sampler_shortlist(&in, VOCAB, &list));
    assert_true(list.draw.scale == 2); /* a draw from the whole vocabulary */
    assert_null(list.choose);
    p.top_p = 0.9f;
    assert_true(sampler_shortlist(&in, VOCAB, &list));
    assert_true(list.draw.scale == 2 && list.choose && list.row_else);
    p.typical_p = 0.9f;
    assert_int_equal(length(&in, VOCAB), 0);
    p.typical_p = 1;
    p.top_k = 40;
    assert_true(sampler_shortlist(&in, VOCAB, &list));
    assert_true(list.draw.scale == 2 && list.choose && !list.row_else && list.k == 40);
    p.top_k = 0;
    p.top_p = 1;
    p.presence_penalty = 1;
    assert_int_equal(length(&in, VOCAB), 0);
    p.presence_penalty = 0;
    p.temperature = 0;
    assert_true(sampler_shortlist(&in, VOCAB, &list));
    assert_true(list.k == 1 && list.draw.scale == 0);
    p.repeat_penalty = 1.1f; /* of the last 64 */
    assert_int_equal(length(&in, VOCAB), 65);
    p.repeat_penalty = 0.9f;
    assert_int_equal(length(&in, VOCAB), 0);
    p.repeat_penalty = 1;
    p.presence_penalty = 1; /* 190 tokens: too many */
    assert_int_equal(length(&in, VOCAB), 0);
    in.n_tokens = 20;
    assert_int_equal(length(&in, VOCAB), 11);
    p.presence_penalty = -1;
    assert_int_equal(length(&in, VOCAB), 0);
    p.presence_penalty = 0;
    p.bias = &bias;
    p.n_bias = 1;
    assert_int_equal(length(&in, VOCAB), 0);
    bias.bias = -1;
    assert_int_equal(length(&in, VOCAB), 2);
    p.temperature = 1;
    p.top_k = SHORTLIST_MAX;
    assert_int_equal(length(&in, VOCAB), 0);
    p.top_k = SHORTLIST_MAX - 1;
    assert_int_equal(length(&in, VOCAB), SHORTLIST_MAX);
    p.top_k = 20;
    assert_int_equal(length(&in, 20), 0);
}

static int set_up(void **state)
{
    kernels_init(&kernels, kernels_best());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shortlist_gives_what_the_row_gives),
        cmocka_unit_test(a_draw_from_a_part_is_the_rows_own),
        cmocka_unit_test(what_moves_other_tokens_needs_the_row),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
