/* What a hostile body can cost: cJSON's memory is counted, and what the validator refuses must cost
 * none. */
#include <cjson/cJSON.h>

#include "api_test.h"

static size_t held, peak;
static long until_failure = -1; /* allocations that still succeed; -1: all do */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

static int out_of_memory(void)
{
    return until_failure >= 0 && until_failure-- == 0;
}

void *__wrap_malloc(size_t n)
{
    return out_of_memory() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return out_of_memory() ? NULL : __real_calloc(n, size);
}

/* The size stands before the block. */
static void *counting_malloc(size_t n)
{
    size_t *p = malloc(n + 2 * sizeof(size_t));

    if (!p)
        return NULL;
    *p = n;
    held += n;
    peak = held > peak ? held : peak;
    return p + 2;
}

static void counting_free(void *p)
{
    size_t *block = p;

    if (!block)
        return;
    held -= block[-2];
    free(block - 2);
}

static int setup(void **state)
{
    cJSON_Hooks hooks = {counting_malloc, counting_free};

    cJSON_InitHooks(&hooks);
    return 0;
}

static int teardown(void **state)
{
    cJSON_InitHooks(NULL);
    return 0;
}

/* prefix, then as many units as fit into bytes, then suffix. */
static void fill(
    struct buf *b, size_t bytes, const char *prefix, const char *unit, const char *suffix)
{
    size_t n = strlen(unit);

    buf_clear(b);
    buf_puts(b, prefix);
    while (b->len + n + strlen(suffix) <= bytes)
        buf_append(b, unit, n);
    buf_puts(b, suffix);
}

static int parse(const struct buf *b)
{
    struct api_limits l = test_limits();
    struct api_request *r = NULL;
    struct err err = {0};
    int rc;

    peak = 0;
    l.ctx_tokens = 1 << 20;
    rc = api_parse_completion(&r, b->data, b->len, &l, &err);
    api_request_free(r);
    assert_int_equal(held, 0);
    return rc;
}

static void refused_bodies_cost_no_tree(void **state)
{
    static const struct {
        const char *prefix, *unit, *suffix;
        int code;
    } rows[] = {
        {"", "[", "", GD_EINVAL},
        {"", "{\"a\":", "", GD_EINVAL},
        {"{\"prompt\":[0", ",0", "]}", GD_ETOOBIG},
        {"{\"prompt\":[[]", ",[]", "]}", GD_ETOOBIG},
        {"{\"prompt\":[\"\"", ",\"\"", "]}", GD_ETOOBIG},
        {"{\"prompt\":\"", "\\ud83d\\ude00", "\\ud83d\"}", GD_EINVAL},
        {"{\"n\":", "1", "}", GD_EINVAL},
        {"", " ", "", GD_EINVAL},
    };
    struct buf b = {0};

    for (size_t i = 0; i < COUNT(rows); i++) {
        fill(&b, 2 << 20, rows[i].prefix, rows[i].unit, rows[i].suffix);
        assert_int_equal(parse(&b), rows[i].code);
        assert_int_equal(peak, 0);
    }
    fill(&b, (8 << 20) + 1, "{\"prompt\":\"", "x", "\"}");
    assert_int_equal(parse(&b), GD_ETOOBIG);
    assert_int_equal(peak, 0);
    buf_free(&b);
}

static void accepted_bodies_cost_what_they_hold(void **state)
{
    struct buf b = {0};

    fill(&b, 1 << 20, "{\"prompt\":\"", "\\u00e9", "\"}");
    assert_int_equal(parse(&b), 0);
    assert_true(peak < b.len + 1000);
    fill(&b, 399000, "{\"prompt\":[0", ",0", "]}"); /* just below 200000 values */
    assert_int_equal(parse(&b), 0);
    assert_true(peak < 200000 * sizeof(cJSON));
    buf_free(&b);
}

static int parse_any(int kind, const char *body, struct err *err)
{
    struct api_limits l = test_limits();
    struct api_request *r = NULL;
    struct api_text *t = NULL;
    size_t n = strlen(body);
    int rc;

    l.fingerprint = "fp";
    rc = kind == 0   ? api_parse_completion(&r, body, n, &l, err)
         : kind == 1 ? api_parse_chat(&r, body, n, &l, err)
                     : api_parse_template(&t, body, n, &l, err);
    api_request_free(r);
    api_text_free(t);
    return rc;
}

/* Every allocation fails once; the sanitizer's leak check watches the ways out. */
static void memory_that_runs_out_is_an_error(void **state)
{
    static const char *const bodies[] = {
        "{\"prompt\":[[1],[2,3]],\"stop\":[\"a\"],\"stop_token_ids\":[1],\"logit_bias\":{\"1\":1}}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
    };

    for (int kind = 0; kind < 3; kind++) {
        int r = GD_ENOMEM;
        long n;

        for (n = 0; n < 1000 && r != 0; n++) {
            struct err err = {0};

            until_failure = n;
            r = parse_any(kind, bodies[kind], &err);
            until_failure = -1;
            assert_true(r == 0 || (r == GD_ENOMEM && err.code == GD_ENOMEM));
            assert_int_equal(held, 0);
        }
        assert_int_equal(r, 0);
        assert_true(n > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_bodies_cost_no_tree),
        cmocka_unit_test(accepted_bodies_cost_what_they_hold),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
