/* test_engine.c - the contract of gemmad/engine.h, on the fake model. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "fake.h"
#include "harness.h"

static struct harness h;

static int set_up(void **state)
{
    fake_reset();
    harness_open(&h, NULL);
    return 0;
}

static int tear_down(void **state)
{
    fake_open_gate();
    harness_close(&h);
    assert_int_equal(fake.n_bad, 0);
    return 0;
}

static void an_answer_is_the_models_own(void **state)
{
    int32_t ids[200];
    struct job_params p = harness_greedy(ids, 100, 40);
    struct result r;
    int n;

    harness_prompt(ids, 100, 1);
    p.ignore_eos = false;
    r = harness_run(&h, &p);
    n = fake_answer(ids, 100, 40, false);
    assert_int_equal(r.answers[0].n, n);
    assert_memory_equal(r.answers[0].ids, ids + 100, (size_t)n * sizeof(*ids));
    for (int i = 0, at = 0; i < n; i++) {
        if (ids[100 + i] >= FAKE_BYTE)
            assert_int_equal(r.answers[0].text.data[at++], (char)(ids[100 + i] - FAKE_BYTE));
    }
    assert_true(r.started);
    result_free(&r);
}

static void an_end_token_ends_and_makes_no_text(void **state)
{
    int32_t ids[400];
    struct result r;
    int n;

    harness_prompt(ids, 100, 5);
    n = fake_answer(ids, 100, 300, false);
    assert_in_range(n, 2, 299);
    for (int shown = 0; shown < 2; shown++) {
        struct job_params p = harness_greedy(ids, 100, 300);

        p.ignore_eos = false;
        p.skip_special = !shown;
        p.include_stop = shown;
        r = harness_run(&h, &p);
        assert_int_equal(r.answers[0].finish, FINISH_STOP);
        assert_int_equal(r.answers[0].stop_id, FAKE_EOT);
        assert_string_equal(r.answers[0].stop_string, "");
        assert_int_equal(r.answers[0].n, n);
        assert_int_equal(r.answers[0].text.len, n - 1 + (shown ? 5 : 0));
        result_free(&r);
    }
}

static void ignored_end_tokens_are_passed_over(void **state)
{
    int32_t ids[400];
    struct job_params p = harness_greedy(ids, 100, 200);
    struct result r;
    int n, n_end = 0;

    harness_prompt(ids, 100, 5);
    r = harness_run(&h, &p);
    n = fake_answer(ids, 100, 200, true);
    assert_int_equal(r.answers[0].finish, FINISH_LENGTH);
    assert_int_equal(r.answers[0].n, n);
    assert_memory_equal(r.answers[0].ids, ids + 100, (size_t)n * sizeof(*ids));
    for (int i = 0; i < n; i++)
        n_end += ids[100 + i] < FAKE_BYTE;
    assert_true(n_end > 0);
    assert_int_equal(r.answers[0].text.len, n - n_end);
    result_free(&r);
}

static void min_tokens_holds_ends_and_stops_off(void **state)
{
    int32_t ids[400];
    struct job_params p = harness_greedy(ids, 100, 300);
    struct result r;
    int n;
    char first[] = "?";
    const char *stop[] = {first};
    int32_t stop_id;

    harness_prompt(ids, 100, 5);
    n = fake_answer(ids, 100, 300, false);
    first[0] = (char)(ids[100] - FAKE_BYTE);
    stop_id = ids[101];
    p.ignore_eos = false;
    p.min_tokens = n;
    r = harness_run(&h, &p);
    assert_true(r.answers[0].n > n); /* token n would have been the end */
    assert_memory_equal(r.answers[0].ids, ids + 100, (size_t)(n - 1) * sizeof(*ids));
    result_free(&r);

    p.min_tokens = 3;
    p.stop = stop;
    p.n_stop = 1;
    p.stop_ids = &stop_id;
    p.n_stop_ids = 1;
    r = harness_run(&h, &p);
    assert_true(r.answers[0].n > 3);
    assert_int_equal(r.answers[0].ids[0], ids[100]);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(r.answers[0].ids[i], stop_id);
    result_free(&r);
}

static void stop_strings_cut_the_text(void **state)
{
    int32_t ids[400];
    struct result r;
    char text[64], stop_text[8];
    const char *stop[] = {"\xff never", stop_text};

    fake.end_every = 0;
    harness_prompt(ids, 100, 7);
    fake_answer(ids, 100, 60, true);
    for (int i = 0; i < 60; i++)
        text[i] = (char)(ids[100 + i] - FAKE_BYTE);
    memcpy(stop_text, text + 20, 4);
    stop_text[4] = 0;
    for (int include = 0; include < 2; include++) {
        struct job_params p = harness_greedy(ids, 100, 60);

        p.stop = stop;
        p.n_stop = 2;
        p.include_stop = include;
        r = harness_run(&h, &p);
        assert_int_equal(r.answers[0].finish, FINISH_STOP);
        assert_string_equal(r.answers[0].stop_string, stop_text);
        assert_int_equal(r.answers[0].stop_id, -1);
        assert_int_equal(r.answers[0].n, 24);
        assert_int_equal(r.answers[0].text.len, include ? 24 : 20);
        assert_memory_equal(r.answers[0].text.data, text, r.answers[0].text.len);
        result_free(&r);
    }
}

static void held_back_text_comes_at_the_end(void **state)
{
    int32_t ids[400];
    struct job_params p = harness_greedy(ids, 100, 20);
    struct result r;
    char stop_text[32] = "";
    const char *stop[] = {stop_text};

    fake.end_every = 0;
    harness_prompt(ids, 100, 7);
    fake_answer(ids, 100, 20, true);
    for (int i = 15; i < 20; i++)
        stop_text[i - 15] = (char)(ids[100 + i] - FAKE_BYTE);
    stop_text[5] = '!'; /* the answer ends before it is complete */
    p.stop = stop;
    p.n_stop = 1;
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].finish, FINISH_LENGTH);
    assert_int_equal(r.answers[0].text.len, 20);
    result_free(&r);
}

static void a_stop_id_ends(void **state)
{
    int32_t ids[400];
    struct job_params p = harness_greedy(ids, 100, 60);
    int32_t stop_ids[] = {0, 0};
    struct result r;
    int first = 0;

    fake.end_every = 0;
    harness_prompt(ids, 100, 8);
    fake_answer(ids, 100, 60, true);
    stop_ids[1] = ids[110];
    while (ids[100 + first] != ids[110])
        first++;
    p.stop_ids = stop_ids;
    p.n_stop_ids = 2;
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].finish, FINISH_STOP);
    assert_int_equal(r.answers[0].stop_id, ids[110]);
    assert_int_equal(r.answers[0].n, first + 1);
    assert_int_equal(r.answers[0].text.len, first);
    result_free(&r);
}

static void a_text_is_whole_characters(void **state)
{
    int32_t ids[] = {FAKE_BOS, FAKE_BYTE + 'a'};
    struct job_params p = harness_greedy(ids, 2, 6);
    /* Only these bytes can be drawn: the first of a character of two, again and again. */
    struct logit_bias bias[] = {{FAKE_BYTE + 0xc3, 1000}};
    struct result r;

    fake.end_every = 0;
    p.sampling.bias = bias;
    p.sampling.n_bias = 1;
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].n, 6);
    assert_string_equal(r.answers[0].text.data,
        "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    result_free(&r);
}

static void max_tokens_0_only_evaluates(void **state)
{
    int32_t ids[100];
    struct job_params p = harness_greedy(ids, 100, 0);
    struct result r;

    harness_prompt(ids, 100, 1);
    p.n = 3;
    r = harness_run(&h, &p);
    assert_true(r.started);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r.answers[i].finish, FINISH_LENGTH);
        assert_int_equal(r.answers[i].n, 0);
        assert_int_equal(r.answers[i].usage.prompt_tokens, 100);
    }
    result_free(&r);
}

static void the_context_may_be_filled_to_the_brim(void **state)
{
    static int32_t ids[2048];
    struct job_params p = harness_greedy(ids, 2000, -1);
    struct result r;

    harness_prompt(ids, 2000, 1);
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].n, 48);
    assert_int_equal(r.answers[0].finish, FINISH_LENGTH);
    fake_answer(ids, 2000, 48, true);
    assert_memory_equal(r.answers[0].ids, ids + 2000, 48 * sizeof(*ids));
    result_free(&r);
}

static void log_probabilities_are_the_models(void **state)
{
    int32_t ids[200];
    struct job_params p = harness_greedy(ids, 50, 10);
    struct result r;
    int at = 0;

    harness_prompt(ids, 50, 3);
    p.logprobs = 4;
    p.prompt_logprobs = true;
    p.sampling.temperature = 1;
    p.sampling.has_seed = true;
    r = harness_run(&h, &p);
    memcpy(ids + 50, r.answers[0].ids, 10 * sizeof(*ids));
    assert_int_equal(r.prompt.n, 50);
    assert_int_equal(r.prompt.n_tops[0], 0);
    assert_float_equal(r.prompt.logprobs[0], 0, 0);
    assert_int_equal(r.prompt.ids[0], ids[0]);
    for (int i = 1; i < 60; i++) {
        const struct answer *a = i < 50 ? &r.prompt : &r.answers[0];
        int t = i < 50 ? i : i - 50;
        float logits[FAKE_VOCAB];
        double sum = 0;

        at = i == 50 ? 0 : at;
        fake_logits(ids, i, logits);
        for (int v = 0; v < FAKE_VOCAB; v++)
            sum += exp(logits[v]);
        assert_int_equal(a->ids[t], ids[i]);
        assert_float_equal(a->logprobs[t], logits[ids[i]] - log(sum), 1e-4);
        assert_int_equal(a->n_tops[t], 4);
        for (int k = 0; k < 4; k++, at++) {
            assert_float_equal(a->tops[at].logprob, logits[a->tops[at].id] - log(sum), 1e-4);
            assert_true(k == 0 || a->tops[at].logprob <= a->tops[at - 1].logprob);
        }
    }
    result_free(&r);
}

static void the_same_seed_gives_the_same_text(void **state)
{
    int32_t ids[100];
    struct job_params p = harness_greedy(ids, 100, 30);
    struct result a, b, c;

    harness_prompt(ids, 100, 3);
    p.sampling.temperature = 1;
    p.sampling.has_seed = true;
    p.sampling.seed = 42;
    p.n = 3;
    a = harness_run(&h, &p);
    p.n = 2;
    b = harness_run(&h, &p);
    p.sampling.seed = 43;
    c = harness_run(&h, &p);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(a.answers[i].text.data, b.answers[i].text.data);
        assert_string_not_equal(a.answers[i].text.data, c.answers[i].text.data);
    }
    assert_string_not_equal(a.answers[0].text.data, a.answers[1].text.data);
    assert_string_not_equal(a.answers[1].text.data, a.answers[2].text.data);
    result_free(&a);
    result_free(&b);
    result_free(&c);
}

static void without_a_seed_texts_differ(void **state)
{
    int32_t ids[100];
    struct job_params p = harness_greedy(ids, 100, 30);
    struct result a, b;

    harness_prompt(ids, 100, 3);
    p.sampling.temperature = 1;
    a = harness_run(&h, &p);
    b = harness_run(&h, &p);
    assert_string_not_equal(a.answers[0].text.data, b.answers[0].text.data);
    result_free(&a);
    result_free(&b);
}

static void a_broken_model_is_an_error_not_a_crash(void **state)
{
    int32_t ids[10];
    struct job_params p = harness_greedy(ids, 10, 5);
    struct result r;

    harness_prompt(ids, 10, 3);
    fake.nan_logits = true;
    r = harness_run(&h, &p);
    assert_int_equal(r.answers[0].finish, FINISH_ERROR);
    assert_int_equal(r.answers[0].err.code, GD_EINTERNAL);
    assert_true(strlen(r.answers[0].err.msg) > 10);
    result_free(&r);
}

/* ---- text ---- */

static void prompts_are_made_of_text_ids_or_messages(void **state)
{
    const struct chat_message messages[] = {{.role = ROLE_USER, .content = "hi", .content_len = 2}};
    struct job_params p;
    struct result r;
    struct job *j;

    job_params_default(&p);
    p.max_tokens = 1;
    p.prompt.kind = PROMPT_TEXT;
    p.prompt.text = "ab";
    p.prompt.text_len = 2;
    j = harness_submit(&h, &p);
    assert_int_equal(job_prompt_tokens(j), 3);
    assert_int_equal(job_prompt_ids(j)[0], FAKE_BOS);
    assert_int_equal(job_prompt_ids(j)[2], FAKE_BYTE + 'b');
    r = harness_collect(&h, j, 1);
    result_free(&r);

    p.prompt.text = "<bos>a"; /* no second bos */
    p.prompt.text_len = 6;
    j = harness_submit(&h, &p);
    assert_int_equal(job_prompt_tokens(j), 2);
    r = harness_collect(&h, j, 1);
    result_free(&r);

    p.prompt.kind = PROMPT_CHAT;
    p.prompt.messages = messages;
    p.prompt.n = 1;
    j = harness_submit(&h, &p);
    assert_int_equal(job_prompt_tokens(j), 4);
    r = harness_collect(&h, j, 1);
    result_free(&r);
}

static void text_functions_round_trip(void **state)
{
    const struct chat_message messages[] = {{.role = ROLE_USER, .content = "hi", .content_len = 2}};
    struct prompt chat = {.kind = PROMPT_CHAT, .messages = messages, .n = 1};
    const int32_t broken[] = {FAKE_BYTE + 0xe2, FAKE_BYTE + 'x'};
    struct err err;
    int32_t *ids, bad[] = {5, FAKE_VOCAB};
    size_t n, len;
    char *text;

    assert_int_equal(engine_tokenize(h.e, "h\xc3\xa9", 3, true, true, &ids, &n, &err), 0);
    assert_int_equal(n, 4);
    assert_int_equal(engine_detokenize(h.e, ids + 1, n - 1, &text, &len, &err), 0);
    assert_int_equal(len, 3);
    assert_string_equal(text, "h\xc3\xa9");
    free(ids);
    free(text);

    assert_int_equal(engine_detokenize(h.e, broken, 2, &text, &len, &err), 0);
    assert_string_equal(text, "\xef\xbf\xbdx");
    free(text);
    assert_int_equal(engine_detokenize(h.e, bad, 2, &text, &len, &err), GD_EINVAL);
    assert_non_null(strstr(err.msg, "tokens[1]"));
    assert_int_equal(engine_detokenize(h.e, NULL, 0, &text, &len, &err), 0);
    assert_string_equal(text, "");
    free(text);

    assert_int_equal(engine_apply_template(h.e, &chat, &text, &len, &err), 0);
    assert_string_equal(text, "<bos>hi\n");
    free(text);
    chat.n = 0;
    assert_int_equal(engine_apply_template(h.e, &chat, &text, &len, &err), GD_EINVAL);
    assert_string_equal(engine_piece(h.e, FAKE_EOT, &len), "<end>");
    assert_string_equal(engine_piece(h.e, -1, &len), "");
    assert_int_equal(len, 0);
}

/* ---- refusals ---- */

static int refuse(const struct job_params *p, const char *param)
{
    struct job *j = NULL;
    struct err err = {0};
    int r = job_submit(&j, h.e, p, NULL, &err);

    assert_null(j);
    assert_string_equal(err.param, param);
    assert_true(strlen(err.msg) > 5);
    return r;
}

static void bad_parameters_are_named(void **state)
{
    int32_t ids[10], bad_id = FAKE_VOCAB;
    const char *empty[] = {"a", ""};
    struct logit_bias bias = {-1, 1};
    struct job_params p = harness_greedy(ids, 10, 5);

    harness_prompt(ids, 10, 1);
#define REFUSED(name, field, value)                    \
    do {                                               \
        struct job_params q = p;                       \
        q.field = value;                               \
        assert_int_equal(refuse(&q, name), GD_EINVAL); \
    } while (0)
    REFUSED("temperature", sampling.temperature, -0.1f);
    REFUSED("temperature", sampling.temperature, NAN);
    REFUSED("top_p", sampling.top_p, 1.1f);
    REFUSED("top_k", sampling.top_k, -1);
    REFUSED("min_p", sampling.min_p, INFINITY);
    REFUSED("typical_p", sampling.typical_p, -1);
    REFUSED("repeat_penalty", sampling.repeat_penalty, 0);
    REFUSED("repeat_last_n", sampling.repeat_last_n, -2);
    REFUSED("presence_penalty", sampling.presence_penalty, NAN);
    REFUSED("frequency_penalty", sampling.frequency_penalty, NAN);
    REFUSED("n", n, 0);
    REFUSED("n", n, 1000);
    REFUSED("max_tokens", max_tokens, -2);
    REFUSED("min_tokens", min_tokens, 6);
    REFUSED("logprobs", logprobs, 21);
    REFUSED("timeout_ms", timeout_ms, -1);
    REFUSED("prompt", prompt.n, 0);
#undef REFUSED
    p.stop = empty;
    p.n_stop = 2;
    assert_int_equal(refuse(&p, "stop"), GD_EINVAL);
    p.n_stop = 0;
    p.stop_ids = &bad_id;
    p.n_stop_ids = 1;
    assert_int_equal(refuse(&p, "stop_token_ids"), GD_EINVAL);
    p.n_stop_ids = 0;
    p.sampling.bias = &bias;
    p.sampling.n_bias = 1;
    assert_int_equal(refuse(&p, "logit_bias"), GD_EINVAL);
    p.sampling.n_bias = 0;
    ids[3] = -1;
    assert_int_equal(refuse(&p, "prompt"), GD_EINVAL);
}

static void what_cannot_fit_is_refused_with_numbers(void **state)
{
    static int32_t ids[3000];
    struct job_params p = harness_greedy(ids, 2000, 49);
    struct job *j;
    struct err err;

    harness_prompt(ids, 3000, 1);
    assert_int_equal(job_submit(&j, h.e, &p, NULL, &err), GD_ECONTEXT);
    assert_string_equal(err.param, "max_tokens");
    assert_non_null(strstr(err.msg, "2000"));
    assert_non_null(strstr(err.msg, "49"));
    assert_non_null(strstr(err.msg, "2048"));
    p.prompt.n = 2048;
    p.max_tokens = -1;
    assert_int_equal(refuse(&p, "prompt"), GD_ECONTEXT);
    p.prompt.n = 2049;
    p.max_tokens = 0;
    assert_int_equal(refuse(&p, "prompt"), GD_ECONTEXT);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(an_answer_is_the_models_own),
        CASE(an_end_token_ends_and_makes_no_text),
        CASE(ignored_end_tokens_are_passed_over),
        CASE(min_tokens_holds_ends_and_stops_off),
        CASE(stop_strings_cut_the_text),
        CASE(held_back_text_comes_at_the_end),
        CASE(a_stop_id_ends),
        CASE(a_text_is_whole_characters),
        CASE(max_tokens_0_only_evaluates),
        CASE(the_context_may_be_filled_to_the_brim),
        CASE(log_probabilities_are_the_models),
        CASE(the_same_seed_gives_the_same_text),
        CASE(without_a_seed_texts_differ),
        CASE(a_broken_model_is_an_error_not_a_crash),
        CASE(prompts_are_made_of_text_ids_or_messages),
        CASE(text_functions_round_trip),
        CASE(bad_parameters_are_named),
        CASE(what_cannot_fit_is_refused_with_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
