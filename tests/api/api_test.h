/* api_test.h - what the tests of src/api share. */
#ifndef TESTS_API_API_TEST_H
#define TESTS_API_API_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/api.h"
#include "base/utf8.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static inline struct api_limits test_limits(void)
{
    struct api_limits l;

    api_limits_default(&l);
    l.model = "gemma-test";
    l.fingerprint = "fp_1";
    l.vocab = 100;
    l.ctx_tokens = 64;
    return l;
}

/* A body that must be refused: with this code, this param, and a sentence that holds this text. */
struct bad_body {
    const char *body;
    int code;
    const char *param;
    const char *says;
};

static inline void check_refusal(const struct bad_body *b, int r, const struct err *err)
{
    struct buf out = {0};

    if (r != b->code || err->code != b->code || strcmp(err->param, b->param) != 0 ||
        !strstr(err->msg, b->says))
        fail_msg("%s\n  want %d, param \"%s\", \"...%s...\"\n  got  %d, param \"%s\", \"%s\"",
            b->body, b->code, b->param, b->says, r, err->param, err->msg);
    assert_null(strpbrk(err->msg, "\n\r"));
    api_error_body(&out, err);
    assert_true(utf8_valid(out.data, out.len));
    buf_free(&out);
}

#endif
