/* Errors, health and model bodies, to the byte: clients parse them. */
#include "api/api.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void expect(struct buf *b, const char *want)
{
    assert_string_equal(b->data, want);
    buf_free(b);
}

static void every_code_has_its_status(void **state)
{
    static const int want[][2] = {{0, 200}, {GD_EINVAL, 400}, {GD_ENOTSUP, 400}, {GD_ECONTEXT, 400},
        {GD_EAUTH, 401}, {GD_ENOENT, 404}, {GD_ETOOBIG, 413}, {GD_EBUSY, 503}, {GD_ESTOPPING, 503},
        {GD_ECANCELED, 503}, {GD_ENOMEM, 503}, {GD_EFORMAT, 500}, {GD_EIO, 500},
        {GD_EINTERNAL, 500}, {-99, 500}};

    for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++)
        assert_int_equal(api_status(want[i][0]), want[i][1]);
}

static void errors_have_openai_s_four_keys(void **state)
{
    struct buf b = {0};
    struct err err = {0};

    err_fill_at(&err, GD_EINVAL, "temperature", "temperature: want 0..2, got \"x\"");
    api_error_body(&b, &err);
    expect(&b, "{\"error\":{\"message\":\"temperature: want 0..2, got \\\"x\\\"\","
               "\"type\":\"invalid_request_error\",\"param\":\"temperature\",\"code\":null}}");
    err_fill_at(&err, GD_ENOENT, "model", "no such model");
    api_error_body(&b, &err);
    expect(&b, "{\"error\":{\"message\":\"no such model\",\"type\":\"invalid_request_error\","
               "\"param\":\"model\",\"code\":\"model_not_found\"}}");
    err_fill(&err, GD_EAUTH, "wrong key");
    api_error_body(&b, &err);
    expect(&b, "{\"error\":{\"message\":\"wrong key\",\"type\":\"invalid_request_error\","
               "\"param\":null,\"code\":\"invalid_api_key\"}}");
    err_fill_at(&err, GD_ECONTEXT, "prompt", "too long");
    api_error_body(&b, &err);
    expect(&b, "{\"error\":{\"message\":\"too long\",\"type\":\"invalid_request_error\","
               "\"param\":\"prompt\",\"code\":\"context_length_exceeded\"}}");
    err_fill(&err, GD_EBUSY, "queue full");
    api_error_body(&b, &err);
    expect(&b, "{\"error\":{\"message\":\"queue full\",\"type\":\"service_unavailable_error\","
               "\"param\":null,\"code\":\"server_is_overloaded\"}}");
    err_fill(&err, GD_EINTERNAL, "%s", "");
    api_error_body(&b, &err);
    expect(&b, "{\"error\":{\"message\":\"internal error\",\"type\":\"server_error\","
               "\"param\":null,\"code\":null}}");
}

static void http_s_own_refusals_look_the_same(void **state)
{
    struct buf b = {0};

    api_http_error_body(&b, 405, "use POST");
    expect(&b, "{\"error\":{\"message\":\"use POST\",\"type\":\"invalid_request_error\","
               "\"param\":null,\"code\":\"method_not_allowed\"}}");
    api_http_error_body(&b, 429, "slow down");
    expect(&b, "{\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_error\","
               "\"param\":null,\"code\":\"rate_limit_exceeded\"}}");
    api_http_error_body(&b, 500, "oops");
    expect(&b, "{\"error\":{\"message\":\"oops\",\"type\":\"server_error\","
               "\"param\":null,\"code\":null}}");
}

static void every_status_has_its_own_code(void **state)
{
    static const struct {
        int status;
        const char *type, *code;
    } rows[] = {
        {403, "permission_error", "null"},
        {404, "not_found_error", "\"not_found\""},
        {408, "invalid_request_error", "\"request_timeout\""},
        {411, "invalid_request_error", "\"length_required\""},
        {413, "invalid_request_error", "\"request_too_large\""},
        {415, "invalid_request_error", "\"unsupported_media_type\""},
        {431, "invalid_request_error", "\"headers_too_large\""},
        {503, "service_unavailable_error", "\"server_is_overloaded\""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct buf b = {0};
        char want[200];

        api_http_error_body(&b, rows[i].status, "m");
        snprintf(want, sizeof(want),
            "{\"error\":{\"message\":\"m\",\"type\":\"%s\",\"param\":null,\"code\":%s}}",
            rows[i].type, rows[i].code);
        expect(&b, want);
    }
}

static void only_ready_is_200(void **state)
{
    struct buf b = {0};

    assert_int_equal(api_health_body(&b, API_READY), 200);
    expect(&b, "{\"status\":\"ok\"}");
    assert_int_equal(api_health_body(&b, API_LOADING), 503);
    expect(&b, "{\"error\":{\"message\":\"the model is being loaded\",\"type\":"
               "\"service_unavailable_error\",\"param\":null,\"code\":\"loading\"}}");
    assert_int_equal(api_health_body(&b, API_DRAINING), 503);
    buf_clear(&b);
    assert_int_equal(api_health_body(&b, API_STUCK), 503);
    buf_free(&b);
}

static void retry_after_is_a_sane_number(void **state)
{
    assert_int_equal(api_retry_after(0), 1);
    assert_int_equal(api_retry_after(-5), 1);
    assert_int_equal(api_retry_after(NAN), 1);
    assert_int_equal(api_retry_after(1.2), 2);
    assert_int_equal(api_retry_after(1e30), 300);
}

static void models_are_listed_as_openai_does(void **state)
{
    struct engine_info i = {.arch = "gemma3",
        .chat_format = "gemma3",
        .n_params = 268098176,
        .weight_bytes = 291000000,
        .vocab = 262144,
        .width = 640,
        .ctx_train = 32768,
        .ctx_tokens = 4096};
    struct buf b = {0};

    api_models_body(&b, "gemma \"x\"", 1766000000, &i);
    expect(&b, "{\"object\":\"list\",\"data\":[{\"id\":\"gemma \\\"x\\\"\",\"object\":\"model\","
               "\"created\":1766000000,\"owned_by\":\"gemmad\",\"max_model_len\":4096,"
               "\"meta\":{\"arch\":\"gemma3\",\"chat_format\":\"gemma3\",\"n_vocab\":262144,"
               "\"n_ctx\":4096,\"n_ctx_train\":32768,\"n_embd\":640,\"n_params\":268098176,"
               "\"size\":291000000}}]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_status),
        cmocka_unit_test(errors_have_openai_s_four_keys),
        cmocka_unit_test(http_s_own_refusals_look_the_same),
        cmocka_unit_test(every_status_has_its_own_code),
        cmocka_unit_test(only_ready_is_200),
        cmocka_unit_test(retry_after_is_a_sane_number),
        cmocka_unit_test(models_are_listed_as_openai_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
