/* POST /v1/embeddings: what is read, what is refused, and the two shapes of the answer. */
#include <math.h>

#include <cjson/cJSON.h>

#include "api/embeddings.h"
#include "api_test.h"

static struct api_limits limits(void)
{
    struct api_limits l = test_limits();

    l.inputs_max = 4;
    l.embed_width = 8;
    return l;
}

static struct api_embeddings *accept(const char *body)
{
    struct api_limits l = limits();
    struct api_embeddings *e = NULL;
    struct err err = {0};

    if (api_parse_embeddings(&e, body, strlen(body), &l, &err) != 0)
        fail_msg("%s: %s", body, err.msg);
    return e;
}

static void a_string_becomes_one_job(void **state)
{
    struct api_embeddings *e = accept("{\"input\":\"Hi\",\"model\":\"gemma-test\"}");
    const struct job_params *j = api_embeddings_job(e, 0);

    assert_int_equal(api_embeddings_jobs(e), 1);
    assert_string_equal(api_embeddings_ignored(e), "");
    assert_true(j->embed);
    assert_false(j->follows);
    assert_int_equal(j->prompt.kind, PROMPT_TEXT);
    assert_int_equal(j->prompt.text_len, 2);
    assert_memory_equal(j->prompt.text, "Hi", 2);
    assert_int_equal(j->n, 1);
    assert_int_equal(j->timeout_ms, 0);
    api_embeddings_free(e);
}

static void lists_become_a_job_each(void **state)
{
    struct api_embeddings *e = accept("{\"input\":[\"a\",\"bc\",\"a\"],\"timeout_ms\":70}");

    assert_int_equal(api_embeddings_jobs(e), 3);
    assert_memory_equal(api_embeddings_job(e, 1)->prompt.text, "bc", 2);
    assert_false(api_embeddings_job(e, 0)->follows);
    assert_true(api_embeddings_job(e, 1)->follows && api_embeddings_job(e, 2)->follows);
    assert_int_equal(api_embeddings_job(e, 2)->timeout_ms, 70);
    api_embeddings_free(e);

    e = accept("{\"input\":[5,0,99]}");
    assert_int_equal(api_embeddings_jobs(e), 1);
    assert_int_equal(api_embeddings_job(e, 0)->prompt.kind, PROMPT_TOKENS);
    assert_int_equal(api_embeddings_job(e, 0)->prompt.n, 3);
    assert_int_equal(api_embeddings_job(e, 0)->prompt.ids[2], 99);
    api_embeddings_free(e);

    e = accept("{\"input\":[[5],[6,7]]}");
    assert_int_equal(api_embeddings_jobs(e), 2);
    assert_int_equal(api_embeddings_job(e, 1)->prompt.n, 2);
    assert_int_equal(api_embeddings_job(e, 1)->prompt.ids[1], 7);
    api_embeddings_free(e);
}

static void the_rest_is_as_everywhere(void **state)
{
    struct api_embeddings *e = accept("{\"input\":\"x\",\"user\":\"u\",\"dimensions\":null,"
                                      "\"encoding_format\":null,\"zeta\":1,\"alpha\":[]}");

    assert_string_equal(api_embeddings_ignored(e), "zeta, alpha");
    api_embeddings_free(e);
}

static const struct bad_body bad[] = {
    {"", GD_EINVAL, "", "empty"},
    {"[]", GD_EINVAL, "", "must be a JSON object"},
    {"{}", GD_EINVAL, "input", "input: required"},
    {"{\"input\":null}", GD_EINVAL, "input", "input: required"},
    {"{\"prompt\":\"x\"}", GD_EINVAL, "input", "input: required"},
    {"{\"input\":\"\"}", GD_EINVAL, "input", "input: must not be empty"},
    {"{\"input\":[]}", GD_EINVAL, "input", "want a string, an array of strings"},
    {"{\"input\":[\"a\",\"\"]}", GD_EINVAL, "input[1]", "input[1]: must not be empty"},
    {"{\"input\":[\"\"]}", GD_EINVAL, "input[0]", "input[0]: must not be empty"},
    {"{\"input\":[[]]}", GD_EINVAL, "input[0]", "non-empty array of token ids"},
    {"{\"input\":[[1],[]]}", GD_EINVAL, "input[1]", "non-empty array of token ids"},
    {"{\"input\":1}", GD_EINVAL, "input", "input: want a string, an array of strings"},
    {"{\"input\":{}}", GD_EINVAL, "input", "input: want a string, an array of strings"},
    {"{\"input\":[true]}", GD_EINVAL, "input[0]", "a string or a non-empty array"},
    {"{\"input\":[\"a\",1]}", GD_EINVAL, "input[1]", "the same kind as input[0]"},
    {"{\"input\":[[1],\"a\"]}", GD_EINVAL, "input[1]", "the same kind as input[0]"},
    {"{\"input\":[[1],2]}", GD_EINVAL, "input[1]", "a string or a non-empty array"},
    {"{\"input\":[1,\"a\"]}", GD_EINVAL, "input[1]", "a token id in 0..99"},
    {"{\"input\":[1,100]}", GD_EINVAL, "input[1]", "a token id in 0..99, got 100"},
    {"{\"input\":[-1]}", GD_EINVAL, "input[0]", "a token id in 0..99"},
    {"{\"input\":[1.5]}", GD_EINVAL, "input[0]", "a token id in 0..99"},
    {"{\"input\":[[1],[2,1e9]]}", GD_EINVAL, "input[1][1]", "a token id in 0..99"},
    {"{\"input\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", GD_EINVAL, "input", "at most 4 inputs, got 5"},
    {"{\"input\":\"x\",\"dimensions\":0}", GD_EINVAL, "dimensions", "an integer in 1..8, got 0"},
    {"{\"input\":\"x\",\"dimensions\":9}", GD_EINVAL, "dimensions", "an integer in 1..8, got 9"},
    {"{\"input\":\"x\",\"dimensions\":-1}", GD_EINVAL, "dimensions", "an integer in 1..8"},
    {"{\"input\":\"x\",\"dimensions\":2.5}", GD_EINVAL, "dimensions", "an integer in 1..8"},
    {"{\"input\":\"x\",\"dimensions\":\"8\"}", GD_EINVAL, "dimensions", "got a string"},
    {"{\"input\":\"x\",\"encoding_format\":\"int8\"}", GD_EINVAL, "encoding_format",
        "want \"float\" or \"base64\""},
    {"{\"input\":\"x\",\"encoding_format\":1}", GD_EINVAL, "encoding_format", "want a string"},
    {"{\"input\":\"x\",\"model\":\"ada\"}", GD_ENOENT, "model", "`ada` does not exist"},
    {"{\"input\":\"x\",\"user\":1}", GD_EINVAL, "user", "a string"},
    {"{\"input\":\"x\",\"timeout_ms\":0}", GD_EINVAL, "timeout_ms", "an integer in 1.."},
    {"{\"input\":\"x\",\"truncate_prompt_tokens\":5}", GD_ENOTSUP, "truncate_prompt_tokens",
        "not supported"},
    {"{\"input\":\"x\",\"input\":\"y\"}", GD_EINVAL, "input", "given twice"},
};

static void bad_bodies_are_refused_by_name(void **state)
{
    struct api_limits l = limits();

    for (size_t i = 0; i < COUNT(bad); i++) {
        struct api_embeddings *e = NULL;
        struct err err = {0};
        int r = api_parse_embeddings(&e, bad[i].body, strlen(bad[i].body), &l, &err);

        check_refusal(&bad[i], r, &err);
        assert_null(e);
    }
}

static void more_ids_than_the_context_are_told_so(void **state)
{
    static const struct bad_body bad_ids = {
        "65 ids", GD_ECONTEXT, "input[1]", "input[1]: 65 tokens, but the context has 64"};
    struct api_limits l = limits();
    struct api_embeddings *e = NULL;
    struct buf b = {0};
    struct err err = {0};

    buf_puts(&b, "{\"input\":[[1],[1");
    for (int i = 1; i < 65; i++)
        buf_puts(&b, ",1");
    buf_puts(&b, "]]}");
    check_refusal(&bad_ids, api_parse_embeddings(&e, b.data, b.len, &l, &err), &err);
    buf_free(&b);
}

static void strict_refuses_what_it_does_not_know(void **state)
{
    static const struct bad_body unknown = {
        "{\"input\":\"x\",\"zeta\":1}", GD_EINVAL, "zeta", "zeta: no such parameter"};
    struct api_limits l = limits();
    struct api_embeddings *e = NULL;
    struct err err = {0};

    l.strict = true;
    check_refusal(
        &unknown, api_parse_embeddings(&e, unknown.body, strlen(unknown.body), &l, &err), &err);
}

static const float vector[8] = {0.5f, -0.5f, 0.25f, 0.0f, 0.125f, 0.0f, -0.0f, 0.6403124f};

static void floats_are_written_so_that_they_read_back(void **state)
{
    struct api_embeddings *e = accept("{\"input\":[\"a\",\"b\"],\"encoding_format\":\"float\"}");
    struct buf out = {0};
    const cJSON *v, *item;
    cJSON *json;
    int i = 0;

    api_embeddings_add(e, vector, 8, 3, &out);
    assert_int_equal(api_embeddings_added(e), 1);
    api_embeddings_add(e, (const float[8]){1}, 8, 4, &out);
    api_embeddings_end(e, &out);
    assert_int_equal(api_embeddings_tokens(e), 7);
    json = cJSON_Parse(out.data);
    v = cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "data"), 0), "embedding");
    assert_int_equal(cJSON_GetArraySize(v), 8);
    cJSON_ArrayForEach(item, v) assert_true((float)item->valuedouble == vector[i++]);
    cJSON_Delete(json);
    assert_non_null(strstr(out.data, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\","
                                     "\"index\":0,\"embedding\":[0.5,-0.5,0.25,0.0,"));
    assert_non_null(strstr(out.data,
        "]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0]}]"
        ","
        "\"model\":\"gemma-test\",\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7}}"));
    buf_free(&out);
    api_embeddings_free(e);
}

static void base64_holds_little_endian_floats(void **state)
{
    struct api_embeddings *e = accept("{\"input\":\"a\",\"encoding_format\":\"base64\"}");
    struct buf out = {0};

    api_embeddings_add(e, (const float[2]){1, -2}, 2, 3, &out);
    api_embeddings_end(e, &out); /* 00 00 80 3f, 00 00 00 c0 */
    assert_string_equal(out.data,
        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
        "\"embedding\":\"AACAPwAAAMA=\"}],\"model\":\"gemma-test\","
        "\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}}");
    buf_free(&out);
    api_embeddings_free(e);
}

static void fewer_dimensions_are_a_unit_vector_again(void **state)
{
    struct api_embeddings *e = accept("{\"input\":\"a\",\"dimensions\":2}");
    struct buf out = {0};
    float cut[8];
    double sum = 0;

    api_embeddings_add(e, (const float[8]){0.6f, -0.8f, 3}, 8, 1, &out);
    assert_non_null(strstr(out.data, "\"embedding\":[0.6"));
    assert_non_null(strstr(out.data, ",-0.8"));
    assert_null(strstr(out.data, ",3"));
    buf_free(&out);
    api_embeddings_free(e);
    for (int n = 1; n < 8; n++) {
        sum = 0;
        api_embedding_cut(vector, 8, cut, n);
        for (int i = 0; i < n; i++)
            sum += (double)cut[i] * (double)cut[i];
        assert_float_equal(sum, 1, 1e-6);
        assert_true((cut[0] > 0) == (vector[0] > 0));
    }
    api_embedding_cut(vector, 8, cut, 8);
    assert_memory_equal(cut, vector, sizeof(cut));
    api_embedding_cut((const float[4]){0, 0, 0, 1}, 4, cut, 2); /* nothing to scale */
    assert_true(cut[0] == 0 && cut[1] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_string_becomes_one_job),
        cmocka_unit_test(lists_become_a_job_each),
        cmocka_unit_test(the_rest_is_as_everywhere),
        cmocka_unit_test(bad_bodies_are_refused_by_name),
        cmocka_unit_test(more_ids_than_the_context_are_told_so),
        cmocka_unit_test(strict_refuses_what_it_does_not_know),
        cmocka_unit_test(floats_are_written_so_that_they_read_back),
        cmocka_unit_test(base64_holds_little_endian_floats),
        cmocka_unit_test(fewer_dimensions_are_a_unit_vector_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
