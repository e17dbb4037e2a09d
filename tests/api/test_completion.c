/* POST /v1/completions and what it shares with chat: every field good, wrong, and out of range. */
#include "api_test.h"

static struct api_request *accept(const char *body, const struct api_limits *l)
{
    struct api_request *r = NULL;
    struct err err = {0};

    if (api_parse_completion(&r, body, strlen(body), l, &err) != 0)
        fail_msg("%s: %s", body, err.msg);
    return r;
}

static void a_bare_prompt_gets_the_defaults(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r = accept("{\"prompt\":\"Hi\"}", &l);
    const struct job_params *j = api_request_job(r, 0);

    assert_int_equal(api_request_jobs(r), 1);
    assert_false(api_request_stream(r));
    assert_string_equal(api_request_ignored(r), "");
    assert_int_equal(j->prompt.kind, PROMPT_TEXT);
    assert_int_equal(j->prompt.text_len, 2);
    assert_memory_equal(j->prompt.text, "Hi", 2);
    assert_int_equal(j->n, 1);
    assert_int_equal(j->max_tokens, 16);
    assert_int_equal(j->min_tokens, 0);
    assert_int_equal(j->logprobs, -1);
    assert_false(j->prompt_logprobs);
    assert_true(j->skip_special);
    assert_false(j->include_stop);
    assert_false(j->ignore_eos);
    assert_int_equal(j->n_stop + j->n_stop_ids, 0);
    assert_int_equal(j->timeout_ms, 0);
    assert_true(j->sampling.temperature == 1 && j->sampling.top_p == 1 && j->sampling.top_k == 0);
    assert_true(j->sampling.min_p == 0 && j->sampling.typical_p == 1);
    assert_true(j->sampling.repeat_penalty == 1 && j->sampling.repeat_last_n == 64);
    assert_true(j->sampling.presence_penalty == 0 && j->sampling.frequency_penalty == 0);
    assert_false(j->sampling.has_seed);
    assert_int_equal(j->sampling.n_bias, 0);
    api_request_free(r);
}

static void every_field_reaches_the_job(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r = accept(
        "{\"model\":\"gemma-test\",\"prompt\":\"\",\"n\":2,\"best_of\":2,\"max_tokens\":7,"
        "\"temperature\":0.5,\"top_p\":0.25,\"top_k\":40,\"min_p\":0.125,\"typical_p\":0.75,"
        "\"repeat_penalty\":1.5,\"repeat_last_n\":32,\"presence_penalty\":-2,"
        "\"frequency_penalty\":2,\"seed\":18446744073709551615,\"stop\":[\"a\",\"\\u00e9\"],"
        "\"stop_token_ids\":[3,99],\"ignore_eos\":true,\"min_tokens\":7,\"timeout_ms\":500,"
        "\"logit_bias\":{\"0\":-100,\"99\":1.5},\"include_stop_str_in_output\":true,"
        "\"skip_special_tokens\":false,\"stream\":true,\"logprobs\":5,\"echo\":true,"
        "\"user\":\"u\",\"stream_options\":{\"include_usage\":true},\"return_token_ids\":true}",
        &l);
    const struct job_params *j = api_request_job(r, 0);

    assert_int_equal(j->prompt.text_len, 0);
    assert_int_equal(j->n, 2);
    assert_int_equal(j->max_tokens, 7);
    assert_int_equal(j->min_tokens, 7);
    assert_true(j->sampling.temperature == 0.5f && j->sampling.top_p == 0.25f);
    assert_true(j->sampling.min_p == 0.125f && j->sampling.typical_p == 0.75f);
    assert_int_equal(j->sampling.top_k, 40);
    assert_true(j->sampling.repeat_penalty == 1.5f && j->sampling.repeat_last_n == 32);
    assert_true(j->sampling.presence_penalty == -2 && j->sampling.frequency_penalty == 2);
    assert_true(j->sampling.has_seed && j->sampling.seed == UINT64_MAX);
    assert_int_equal(j->n_stop, 2);
    assert_string_equal(j->stop[0], "a");
    assert_string_equal(j->stop[1], "\xc3\xa9");
    assert_int_equal(j->n_stop_ids, 2);
    assert_int_equal(j->stop_ids[1], 99);
    assert_int_equal(j->sampling.n_bias, 2);
    assert_int_equal(j->sampling.bias[1].id, 99);
    assert_true(j->sampling.bias[0].bias == -100 && j->sampling.bias[1].bias == 1.5f);
    assert_true(j->ignore_eos && j->include_stop && !j->skip_special);
    assert_int_equal(j->logprobs, 5);
    assert_true(j->prompt_logprobs);
    assert_int_equal(j->timeout_ms, 500);
    assert_true(api_request_stream(r));
    assert_string_equal(api_request_ignored(r), "");
    api_request_free(r);
}

static void foreign_conventions_are_translated(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r = accept("{\"prompt\":\"x\",\"top_k\":-1,\"repeat_penalty\":1.5,"
                                   "\"repetition_penalty\":1.5,\"echo\":true}",
        &l);

    assert_int_equal(api_request_job(r, 0)->sampling.top_k, 0);
    assert_int_equal(api_request_job(r, 0)->sampling.repeat_last_n, 64);
    assert_false(api_request_job(r, 0)->prompt_logprobs); /* echo alone scores nothing */
    api_request_free(r);
}

static void all_four_kinds_of_prompt_are_read(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r = accept("{\"prompt\":[\"a\",\"bc\",\"\"],\"n\":3}", &l);

    assert_int_equal(api_request_jobs(r), 3);
    assert_memory_equal(api_request_job(r, 1)->prompt.text, "bc", 2);
    assert_int_equal(api_request_job(r, 2)->n, 3);
    api_request_free(r);
    r = accept("{\"prompt\":[1,2,3]}", &l);
    assert_int_equal(api_request_jobs(r), 1);
    assert_int_equal(api_request_job(r, 0)->prompt.kind, PROMPT_TOKENS);
    assert_int_equal(api_request_job(r, 0)->prompt.n, 3);
    assert_int_equal(api_request_job(r, 0)->prompt.ids[2], 3);
    api_request_free(r);
    r = accept("{\"prompt\":[[1],[2,3]]}", &l);
    assert_int_equal(api_request_jobs(r), 2);
    assert_int_equal(api_request_job(r, 1)->prompt.n, 2);
    assert_int_equal(api_request_job(r, 1)->prompt.ids[0], 2);
    api_request_free(r);
}

static void null_is_absent(void **state)
{
    static const char *const names[] = {"model", "n", "best_of", "max_tokens", "temperature",
        "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repetition_penalty",
        "repeat_last_n", "presence_penalty", "frequency_penalty", "seed", "stop", "stop_token_ids",
        "ignore_eos", "min_tokens", "logit_bias", "stream", "stream_options", "logprobs", "echo",
        "user", "suffix", "return_token_ids", "timeout_ms", "metadata", "tools", "response_format",
        "service_tier", "nobody_knows_this"};
    struct api_limits l = test_limits();

    l.strict = true;
    for (size_t i = 0; i < COUNT(names); i++) {
        char body[128];
        struct api_request *r;

        snprintf(body, sizeof(body), "{\"prompt\":\"x\",\"%s\":null}", names[i]);
        r = accept(body, &l);
        assert_int_equal(api_request_job(r, 0)->max_tokens, 16);
        assert_string_equal(api_request_ignored(r), "");
        api_request_free(r);
    }
}

static void seeds_of_64_bits_are_exact(void **state)
{
    static const struct {
        const char *text;
        uint64_t seed;
        bool has;
    } rows[] = {
        {"0", 0, true},
        {"1", 1, true},
        {"9007199254740993", 9007199254740993u, true},
        {"9223372036854775807", INT64_MAX, true},
        {"-9223372036854775808", (uint64_t)INT64_MIN, true},
        {"-2", (uint64_t)-2, true},
        {"-1", (uint64_t)-1, false},
    };
    struct api_limits l = test_limits();

    for (size_t i = 0; i < COUNT(rows); i++) {
        char body[128];
        struct api_request *r;

        snprintf(body, sizeof(body), "{\"prompt\":\"x\",\"seed\":%s}", rows[i].text);
        r = accept(body, &l);
        assert_true(api_request_job(r, 0)->sampling.seed == rows[i].seed);
        assert_true(api_request_job(r, 0)->sampling.has_seed == rows[i].has);
        api_request_free(r);
    }
}

static void values_that_ask_for_nothing_are_fine(void **state)
{
    static const char *const rest[] = {"\"suffix\":\"\"", "\"best_of\":1", "\"tools\":[]",
        "\"tool_choice\":\"none\"", "\"tool_choice\":\"auto\"", "\"functions\":[]",
        "\"function_call\":\"none\"", "\"parallel_tool_calls\":false",
        "\"response_format\":{\"type\":\"text\"}", "\"modalities\":[\"text\"]",
        "\"reasoning_effort\":\"none\"", "\"verbosity\":\"medium\"", "\"store\":false",
        "\"service_tier\":\"auto\"", "\"service_tier\":\"default\"", "\"metadata\":{\"a\":\"b\"}",
        "\"user\":\"me\"", "\"safety_identifier\":\"x\"", "\"prompt_cache_key\":\"x\"",
        "\"prompt_cache_options\":{}", "\"mirostat\":0", "\"dry_multiplier\":0",
        "\"xtc_probability\":0.0", "\"grammar\":\"\"", "\"use_beam_search\":false",
        "\"length_penalty\":1", "\"cache_prompt\":true", "\"stop\":[]", "\"stop_token_ids\":[]",
        "\"logit_bias\":{}", "\"top_k\":-1", "\"top_k\":0", "\"seed\":-1", "\"priority\":0",
        "\"stream\":true,\"stream_options\":{}",
        "\"stream\":true,\"stream_options\":{\"include_obfuscation\":false}", "\"max_tokens\":-1",
        "\"echo\":true,\"max_tokens\":0", "\"logprobs\":0", "\"logprobs\":20", "\"n\":1.0",
        "\"n\":1e0", "\"chat_template_kwargs\":{}"};
    struct api_limits l = test_limits();

    l.strict = true;
    for (size_t i = 0; i < COUNT(rest); i++) {
        char body[160];
        struct api_request *r;

        snprintf(body, sizeof(body), "{\"prompt\":\"x\",%s}", rest[i]);
        r = accept(body, &l);
        assert_string_equal(api_request_ignored(r), "");
        api_request_free(r);
    }
}

static void bad_bodies_are_refused_by_name(void **state)
{
    static const struct bad_body bad[] = {
#include "bad_completions.inc"
    };
    struct api_limits l = test_limits();

    l.choices_max = 64;
    l.n_max = 32;
    l.prompts_max = 4;
    l.timeout_ms = 60000;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct api_request *r = NULL;
        struct err err = {0};
        int rc = api_parse_completion(&r, bad[i].body, strlen(bad[i].body), &l, &err);

        check_refusal(&bad[i], rc, &err);
        assert_null(r);
    }
}

static void check_bad(const char *body, const char *param, const char *says)
{
    struct bad_body bad = {body, GD_EINVAL, param, says};
    struct api_limits l = test_limits();
    struct api_request *r = NULL;
    struct err err = {0};

    check_refusal(&bad, api_parse_completion(&r, body, strlen(body), &l, &err), &err);
}

static void long_lists_and_strings_are_refused(void **state)
{
    struct buf b = {0};

    buf_puts(&b, "{\"prompt\":\"x\",\"logit_bias\":{\"0\":0");
    for (int i = 1; i <= 1024; i++)
        buf_printf(&b, ",\"%d\":0", i);
    buf_puts(&b, "}}");
    check_bad(b.data, "logit_bias", "at most 1024 ids, got 1025");
    buf_clear(&b);
    buf_printf(&b, "{\"prompt\":\"x\",\"stop\":\"%01025d\"}", 0);
    check_bad(b.data, "stop", "a string of 1..1024 bytes");
    buf_clear(&b);
    buf_puts(&b, "{\"prompt\":\"x\"");
    for (int i = 0; i < 256; i++)
        buf_printf(&b, ",\"%d\":0", i);
    buf_puts(&b, "}");
    check_bad(b.data, "", "the body has more than 256 members");
    buf_free(&b);
}

static void unknown_fields_are_named_once(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r =
        accept("{\"prompt\":\"x\",\"zeta\":1,\"alpha\":[],\"stream\":true,"
               "\"stream_options\":{\"zeta\":1,\"eta\":null},\"a,b\\r\\nX: y\\u00e9\":1}",
            &l);

    assert_string_equal(api_request_ignored(r), "stream_options.zeta, zeta, alpha, a?b??X: y??");
    api_request_free(r);
}

static void the_list_of_ignored_fields_is_bounded(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r;
    struct buf b = {0};

    buf_puts(&b, "{\"prompt\":\"x\"");
    for (int i = 0; i < 250; i++)
        buf_printf(&b, ",\"a_rather_long_name_of_a_field_that_nobody_ever_heard_of_%d\":1", i);
    buf_puts(&b, "}");
    r = accept(b.data, &l);
    assert_true(strlen(api_request_ignored(r)) < 1100);
    assert_string_equal(api_request_ignored(r) + strlen(api_request_ignored(r)) - 5, ", ...");
    api_request_free(r);
    buf_free(&b);
}

static void strict_refuses_what_it_does_not_know(void **state)
{
    static const struct bad_body bad[] = {
        {"{\"prompt\":\"x\",\"zeta\":1}", GD_EINVAL, "zeta", "zeta: no such parameter"},
        {"{\"prompt\":\"x\",\"Temperature\":1}", GD_EINVAL, "Temperature", "no such parameter"},
        {"{\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"q\":1}}", GD_EINVAL,
            "stream_options.q", "no such parameter"},
    };
    struct api_limits l = test_limits();

    l.strict = true;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct api_request *r = NULL;
        struct err err = {0};
        int rc = api_parse_completion(&r, bad[i].body, strlen(bad[i].body), &l, &err);

        check_refusal(&bad[i], rc, &err);
    }
}

static void the_server_s_own_defaults_hold(void **state)
{
    struct api_limits l = test_limits();
    struct api_request *r;

    l.sampling.temperature = 0.25f;
    l.sampling.top_k = 64;
    l.max_tokens_completion = 99;
    l.timeout_ms = 1000;
    r = accept("{\"prompt\":\"x\",\"repetition_penalty\":1.25}", &l);
    assert_true(api_request_job(r, 0)->sampling.temperature == 0.25f);
    assert_int_equal(api_request_job(r, 0)->sampling.top_k, 64);
    assert_int_equal(api_request_job(r, 0)->max_tokens, 99);
    assert_int_equal(api_request_job(r, 0)->timeout_ms, 1000);
    assert_true(api_request_job(r, 0)->sampling.repeat_penalty == 1.25f);
    assert_int_equal(api_request_job(r, 0)->sampling.repeat_last_n, -1); /* as vLLM means it */
    api_request_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bare_prompt_gets_the_defaults),
        cmocka_unit_test(every_field_reaches_the_job),
        cmocka_unit_test(foreign_conventions_are_translated),
        cmocka_unit_test(all_four_kinds_of_prompt_are_read),
        cmocka_unit_test(null_is_absent),
        cmocka_unit_test(seeds_of_64_bits_are_exact),
        cmocka_unit_test(values_that_ask_for_nothing_are_fine),
        cmocka_unit_test(bad_bodies_are_refused_by_name),
        cmocka_unit_test(long_lists_and_strings_are_refused),
        cmocka_unit_test(unknown_fields_are_named_once),
        cmocka_unit_test(the_list_of_ignored_fields_is_bounded),
        cmocka_unit_test(strict_refuses_what_it_does_not_know),
        cmocka_unit_test(the_server_s_own_defaults_hold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
