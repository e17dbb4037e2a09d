/* test_shortlist.c - what a sampler asks the head for instead of a row, and that it picks the same.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
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

static void a_shortlist_gives_what_the_row_gives(void **state)
{
    struct sampler *s = sampler_create(&kernels, VOCAB);
    struct candidate *all = calloc(VOCAB, sizeof(*all));
    static float row[VOCAB];
    struct logit best[SHORTLIST_MAX];
    struct logit_bias bias[3];
    int32_t tokens[40], banned[2] = {0, 1};
    struct shortlist list = {.best = best};
    int n_lists = 0, n_draws = 0, n_rows = 0;

    assert_non_null(all);
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
        if (list.draw.scale > 0) {
            best[0] = (struct logit){-1, -INFINITY};
            draw_take(&kernels, &list.draw, 0, row, VOCAB, best);
            list.n = 1;
            n_draws++;
        } else {
            list.n = select_largest(row, VOCAB, list.k, all);
            assert_int_equal(list.n, list.k);
            for (int i = 0; i < list.n; i++) /* in any order */
                best[i] = (struct logit){all[i].id, all[i].logit};
            n_lists++;
        }
        assert_int_equal(sampler_pick_from(s, &list, &in), sampler_pick(s, row, &in));
    }
    assert_true(n_lists > 1000);
    assert_true(n_draws > 400);
    assert_true(n_rows > 100);
    free(all);
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
    p.top_p = 0.9f;
    assert_int_equal(length(&in, VOCAB), 0);
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
        cmocka_unit_test(what_moves_other_tokens_needs_the_row),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
