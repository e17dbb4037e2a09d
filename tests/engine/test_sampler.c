/* test_sampler.c - the sampler against its definition: sort everything, then cut. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "engine/sampler.h"
#include "random_rows.h"

enum { VOCAB = 5000 };

static struct kernels kernels;

/* ---- the definition ---- */

struct entry {
    double p;
    float logit;
    double key;
    int id;
};

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->key < y->key ? -1 : x->key > y->key ? 1 : x->id - y->id;
}

static void normalise(struct entry *e, int n)
{
    double max = -INFINITY, total = 0;

    for (int i = 0; i < n; i++)
        max = e[i].logit > max ? e[i].logit : max;
    for (int i = 0; i < n; i++)
        total += e[i].p = exp(e[i].logit - max);
    for (int i = 0; i < n; i++)
        e[i].p /= total;
}

static int cut_at(const struct entry *e, int n, double target)
{
    double sum = 0;

    for (int i = 0; i < n; i++) {
        sum += e[i].p;
        if (sum >= target)
            return i + 1;
    }
    return n;
}

/* Sorted as the last cut left it. Returns how many survive. */
static int define(struct entry *e, const float *row, int n, const struct sampling *p)
{
    for (int i = 0; i < n; i++)
        e[i] = (struct entry){.logit = row[i], .key = -row[i], .id = i};
    qsort(e, (size_t)n, sizeof(*e), by_key);
    if (p->top_k > 0 && p->top_k < n)
        n = p->top_k;
    normalise(e, n);
    if (p->typical_p < 1) {
        double entropy = 0;

        for (int i = 0; i < n; i++)
            entropy -= e[i].p > 0 ? e[i].p * log(e[i].p) : 0;
        for (int i = 0; i < n; i++)
            e[i].key = fabs(-log(e[i].p) - entropy);
        qsort(e, (size_t)n, sizeof(*e), by_key);
        n = cut_at(e, n, p->typical_p);
        normalise(e, n);
        for (int i = 0; i < n; i++)
            e[i].key = -e[i].logit;
        qsort(e, (size_t)n, sizeof(*e), by_key);
    }
    if (p->top_p < 1)
        n = cut_at(e, n, p->top_p);
    if (p->min_p > 0) {
        int kept = 1;

        while (kept < n && e[kept].logit >= e[0].logit + logf(p->min_p))
            kept++;
        n = kept;
    }
    return n;
}

/* ---- truncation ---- */

static int by_id(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void assert_survivors(struct sampler *s, const float *row, int n, const struct sampling *p)
{
    struct entry *e = xcalloc((size_t)n, sizeof(*e));
    int *want = xcalloc((size_t)n, sizeof(*want)), *got = xcalloc((size_t)n, sizeof(*got));
    const struct candidate *c;
    int n_want = define(e, row, n, p), n_got = sampler_survivors(s, row, p, &c);

    if (n_got < 0) {
        assert_int_equal(n_want, n);
    } else {
        /* Sums in another order may move a cut by one where it falls on a border. */
        assert_int_equal(n_got, n_want);
        for (int i = 0; i < n_want; i++) {
            want[i] = e[i].id;
            got[i] = c[i].id;
        }
        qsort(want, (size_t)n_want, sizeof(*want), by_id);
        qsort(got, (size_t)n_got, sizeof(*got), by_id);
        assert_memory_equal(want, got, (size_t)n_want * sizeof(*want));
    }
    free(e);
    free(want);
    free(got);
}

static void truncation_equals_sorting_everything(void **state)
{
    static const int top_k[] = {0, 1, 7, 40, 1000, 4500, VOCAB, VOCAB + 1};
    static const float top_p[] = {1, 0, 0.1f, 0.5f, 0.95f, 0.9995f};
    static const float min_p[] = {0, 0.05f, 0.3f, 1};
    static const float typical_p[] = {1, 0.2f, 0.9f};
    static const float spread[] = {0.01f, 3, 12};
    struct sampler *s = sampler_create(&kernels, VOCAB);
    static float row[VOCAB];

    for (int i = 0; i < 3; i++) {
        fill(row, VOCAB, spread[i]);
        for (int t = 0; t < 3; t++) {
            for (int j = 0; j < 8 * 6 * 4; j++) {
                struct sampling p;

                sampling_default(&p);
                p.top_k = top_k[j % 8];
                p.top_p = top_p[j / 8 % 6];
                p.min_p = min_p[j / 48];
                p.typical_p = typical_p[t];
                assert_survivors(s, row, VOCAB, &p);
            }
        }
    }
    sampler_destroy(s);
}

static void ties_go_to_the_lower_id(void **state)
{
    struct sampler *s = sampler_create(&kernels, 100);
    struct sampling p;
    const struct candidate *c;
    float row[100] = {0};

    sampling_default(&p);
    p.top_k = 10;
    assert_int_equal(sampler_survivors(s, row, &p, &c), 10);
    for (int i = 0; i < 10; i++)
        assert_true(c[i].id < 10);
    p.top_k = 0;
    p.top_p = 0.2001f;
    assert_int_equal(sampler_survivors(s, row, &p, &c), 21);
    for (int i = 0; i < 21; i++)
        assert_true(c[i].id < 21);
    sampler_destroy(s);
}

/* ---- picking ---- */

static struct sampler_input input_of(const struct sampling *p, uint64_t seed)
{
    return (struct sampler_input){.params = p, .seed = seed};
}

static void greedy_takes_the_first_of_the_largest(void **state)
{
    struct sampler *s = sampler_create(&kernels, 300);
    struct sampling p;
    float row[300];

    sampling_default(&p);
    p.temperature = 0;
    for (int round = 0; round < 50; round++) {
        int a = (int)(uniform() * 299), b = (int)(uniform() * 299);
        struct sampler_input in = input_of(&p, 1);

        fill(row, 300, 5);
        row[a] = row[b] = 100;
        assert_int_equal(sampler_pick(s, row, &in), a < b ? a : b);
    }
    sampler_destroy(s);
}

/* Draws many times and compares frequencies with probabilities: four standard deviations. */
static void assert_frequencies(struct sampler *s, float *row, int n, const struct sampling *p)
{
    enum { DRAWS = 20000 };
    struct entry *e = xcalloc((size_t)n, sizeof(*e));
    int *count = xcalloc((size_t)n, sizeof(*count)), n_left = define(e, row, n, p), seen = 0;

    for (int i = 0; i < n_left; i++)
        e[i].logit /= p->temperature;
    normalise(e, n_left);
    for (int i = 0; i < DRAWS; i++) {
        struct sampler_input in = input_of(p, (uint64_t)i);

        count[sampler_pick(s, row, &in)]++;
    }
    for (int i = 0; i < n_left; i++) {
        double mean = DRAWS * e[i].p, sd = sqrt(mean * (1 - e[i].p)) + 1;

        assert_true(fabs(count[e[i].id] - mean) < 4.5 * sd);
        seen += count[e[i].id];
    }
    assert_int_equal(seen, DRAWS);
    free(e);
    free(count);
}

static void tokens_come_as_often_as_they_should(void **state)
{
    struct sampler *s = sampler_create(&kernels, 40);
    struct sampling p;
    float row[40];

    fill(row, 40, 4);
    for (int i = 0; i < 5; i++) {
        sampling_default(&p);
        p.temperature = i == 1 ? 0.5f : i == 2 ? 2.5f : 1;
        p.top_k = i == 3 ? 5 : 0;
        p.top_p = i == 4 ? 0.8f : 1;
        assert_frequencies(s, row, 40, &p);
    }
    sampler_destroy(s);
}

static void a_whole_vocabulary_is_drawn_from(void **state)
{
    enum { BIG = 10000 };
    struct sampler *s = sampler_create(&kernels, BIG);
    struct sampling p;
    float *row = xcalloc(BIG, sizeof(*row));
    int third = 0;

    sampling_default(&p);
    for (int i = 0; i < 4000; i++) {
        struct sampler_input in = input_of(&p, (uint64_t)i);

        third += sampler_pick(s, row, &in) >= 8192;
    }
    assert_in_range(third, 4000 * 0.1808 - 110, 4000 * 0.1808 + 110);
    free(row);
    sampler_destroy(s);
}

static void seed_choice_and_place_alone_decide(void **state)
{
    struct sampler *a = sampler_create(&kernels, VOCAB), *b = sampler_create(&kernels, VOCAB);
    struct sampling p;
    static float row[VOCAB];
    int32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    int differ = 0;

    sampling_default(&p);
    fill(row, VOCAB, 3);
    for (int i = 0; i < 40; i++) {
        struct sampler_input in = {
            .params = &p, .seed = 7, .choice = i / 8, .tokens = tokens, .n_tokens = i % 8};
        struct sampler_input other = in;
        int32_t id = sampler_pick(a, row, &in);

        assert_int_equal(id, sampler_pick(b, row, &in));
        other.choice++;
        differ += sampler_pick(b, row, &other) != id;
        other = in;
        other.seed++;
        differ += sampler_pick(b, row, &other) != id;
    }
    assert_true(differ > 70);
    sampler_destroy(a);
    sampler_destroy(b);
}

static void bias_and_penalties_move_tokens(void **state)
{
    struct sampler *s = sampler_create(&kernels, 16);
    struct sampling p;
    int32_t tokens[] = {3, 5, 5, 5, 7};
    int32_t banned[] = {9};
    struct logit_bias bias[] = {{3, -100}, {4, 2}};
    struct sampler_input in = {.params = &p, .tokens = tokens, .n_tokens = 5, .n_prompt = 1};
    float row[16], before[16];

    memset(row, 0, sizeof(row));
    row[3] = 10, row[5] = 8, row[7] = 7, row[9] = 6, row[4] = 3;
    memcpy(before, row, sizeof(row));
    sampling_default(&p);
    p.temperature = 0;
    assert_int_equal(sampler_pick(s, row, &in), 3);

    p.repeat_penalty = 2; /* 3: 5, 5: 4, 7: 3.5, 9: 6 */
    p.repeat_last_n = -1;
    assert_int_equal(sampler_pick(s, row, &in), 9);
    in.banned[1].ids = banned, in.banned[1].n = 1;
    assert_int_equal(sampler_pick(s, row, &in), 3);
    p.repeat_last_n = 2; /* 5 and 7 only */
    assert_int_equal(sampler_pick(s, row, &in), 3);
    p.bias = bias, p.n_bias = 2; /* 3 is gone, 4: 5 */
    assert_int_equal(sampler_pick(s, row, &in), 4);
    p.repeat_last_n = 0;
    assert_int_equal(sampler_pick(s, row, &in), 5);

    p.repeat_penalty = 1;
    p.frequency_penalty = 0.5f; /* 5: 6.5, 7: 6.5: the lower id */
    assert_int_equal(sampler_pick(s, row, &in), 5);
    p.presence_penalty = 4; /* 5: 2.5, 7: 2.5; 4 stays 5 */
    assert_int_equal(sampler_pick(s, row, &in), 4);
    p.frequency_penalty = 0;
    p.presence_penalty = -4; /* the prompt's 3 gets nothing */
    assert_int_equal(sampler_pick(s, row, &in), 5);
    assert_memory_equal(row, before, sizeof(row));
    sampler_destroy(s);
}

static void a_negative_logit_is_pushed_down_by_a_repeat(void **state)
{
    struct sampler *s = sampler_create(&kernels, 3);
    struct sampling p;
    int32_t tokens[] = {0};
    struct sampler_input in = {.params = &p, .tokens = tokens, .n_tokens = 1, .n_prompt = 1};
    float row[] = {-1, -1.5f, -9};

    sampling_default(&p);
    p.temperature = 0;
    p.repeat_penalty = 1.4f;
    p.repeat_last_n = 64;
    assert_int_equal(sampler_pick(s, row, &in), 0);
    p.repeat_penalty = 1.6f;
    assert_int_equal(sampler_pick(s, row, &in), 1);
    sampler_destroy(s);
}

static void nan_and_infinity_do_not_crash(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
    struct sampler *s = sampler_create(&kernels, 64);
    struct sampling p;
    float row[64];

    for (int b = 0; b < 5; b++) {
        for (int mode = 0; mode < 16; mode++) {
            struct sampler_input in = input_of(&p, 3);
            struct token_alternative top[LOGPROBS_MAX];
            float logprob;
            int32_t id;

            sampling_default(&p);
            p.temperature = mode & 1 ? 0 : 1;
            p.top_k = mode & 2 ? 5 : 0;
            p.top_p = mode & 4 ? 0.9f : 1;
            p.typical_p = mode & 8 ? 0.9f : 1;
            fill(row, 64, 2);
            for (int i = 0; i < 64; i += 3)
                row[i] = bad[b];
            id = sampler_pick(s, row, &in);
            assert_in_range(id, 0, 63);
            if (isnan(bad[b]) || bad[b] < 0)
                assert_int_not_equal(id % 3, 0);
            sampler_logprobs(s, row, id, LOGPROBS_MAX, &logprob, top);
            assert_true(logprob >= -9999 && logprob <= 0);

            for (int i = 0; i < 64; i++)
                row[i] = NAN;
            assert_int_equal(sampler_pick(s, row, &in), -1);
            sampler_logprobs(s, row, 0, LOGPROBS_MAX, &logprob, top);
            assert_float_equal(logprob, -9999, 0);
        }
    }
    sampler_destroy(s);
}

static void everything_banned_is_an_answer_too(void **state)
{
    struct sampler *s = sampler_create(&kernels, 4);
    struct sampling p;
    int32_t banned[] = {0, 1, 2, 3};
    struct sampler_input in = {.params = &p, .banned = {{banned, 1}, {banned + 1, 3}}};
    float row[] = {1, 2, 3, 4};

    sampling_default(&p);
    assert_int_equal(sampler_pick(s, row, &in), -1);
    p.temperature = 0;
    assert_int_equal(sampler_pick(s, row, &in), -1);
    in.banned[1].n = 2;
    assert_int_equal(sampler_pick(s, row, &in), 3);
    p.temperature = 1;
    assert_int_equal(sampler_pick(s, row, &in), 3);
    sampler_destroy(s);
}

static void log_probabilities_are_of_the_raw_row(void **state)
{
    struct sampler *s = sampler_create(&kernels, VOCAB);
    struct token_alternative top[LOGPROBS_MAX];
    static float row[VOCAB];
    double sum = 0;
    float logprob;
    int n;

    fill(row, VOCAB, 6);
    row[17] = row[4711] = 30;
    row[3] = -1e6f;
    for (int i = 0; i < VOCAB; i++)
        sum += exp(row[i]);
    n = sampler_logprobs(s, row, 100, LOGPROBS_MAX, &logprob, top);
    assert_int_equal(n, LOGPROBS_MAX);
    assert_float_equal(logprob, row[100] - log(sum), 1e-4);
    assert_int_equal(top[0].id, 17);
    assert_int_equal(top[1].id, 4711);
    for (int i = 0; i < n; i++) {
        assert_float_equal(top[i].logprob, row[top[i].id] - log(sum), 1e-4);
        assert_true(i == 0 || top[i].logprob <= top[i - 1].logprob);
    }
    assert_int_equal(sampler_logprobs(s, row, 3, 0, &logprob, NULL), 0);
    assert_float_equal(logprob, -9999, 0);
    sampler_destroy(s);
}

static int set_up(void **state)
{
    kernels_init(&kernels, kernels_best());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncation_equals_sorting_everything),
        cmocka_unit_test(ties_go_to_the_lower_id),
        cmocka_unit_test(greedy_takes_the_first_of_the_largest),
        cmocka_unit_test(tokens_come_as_often_as_they_should),
        cmocka_unit_test(a_whole_vocabulary_is_drawn_from),
        cmocka_unit_test(seed_choice_and_place_alone_decide),
        cmocka_unit_test(bias_and_penalties_move_tokens),
        cmocka_unit_test(a_negative_logit_is_pushed_down_by_a_repeat),
        cmocka_unit_test(nan_and_infinity_do_not_crash),
        cmocka_unit_test(everything_banned_is_an_answer_too),
        cmocka_unit_test(log_probabilities_are_of_the_raw_row),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
