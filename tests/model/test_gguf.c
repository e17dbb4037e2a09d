/* Reading GGUF files: the golden ones, and files that lie. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "kernels/dtype.h"
#include "model/source.h"
#include "test_gguf_build.h"

static struct source *open_golden(const char *below)
{
    struct source *s;
    struct err err = {0};

    if (source_open(&s, golden_path(below), &err) < 0)
        fail_msg("%s: %s", below, err.msg);
    return s;
}

static void golden_files_open(void **state)
{
    static const struct {
        const char *file;
        size_t n_tensors;
    } files[] = {
        {"families/gemma1/model-bf16.gguf", 56},
        {"families/gemma2/model-f16.gguf", 68},
        {"families/gemma2-27b/model-bf16.gguf", 508},
        {"families/gemma3/model-bf16.gguf", 93},
        {"families/gemma3/model-q8_0.gguf", 93},
        {"families/gemma3/model-q4_0.gguf", 93},
        {"families/gemma3-mm/model-bf16.gguf", 93},
        {"families/mixed/model-mixed.gguf", 41},
    };

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct source *s = open_golden(files[i].file);

        assert_int_equal(source_n_tensors(s), files[i].n_tensors);
        for (size_t k = 0; k < files[i].n_tensors; k++) {
            const struct tensor *t = source_tensor_at(s, k);
            const struct dtype_info *d = dtype_find(t->type);

            assert_ptr_equal(source_tensor(s, t->name), t);
            assert_int_equal(
                t->bytes, (size_t)(t->ne[0] / d->block * d->bytes * t->ne[1] * t->ne[2]));
        }
        assert_null(source_tensor_at(s, files[i].n_tensors));
        assert_null(source_tensor(s, "blk.99.attn_q.weight"));
        source_close(s);
    }
}

static void values_have_their_types(void **state)
{
    struct source *s = open_golden("families/gemma3/model-bf16.gguf");
    struct source_array a;
    struct err err;
    const char *str;
    size_t len, n = 0;
    uint32_t u;
    float f;
    bool b;
    int64_t i;

    assert_int_equal(source_str(s, "general.architecture", &str, &len, &err), 1);
    assert_int_equal(len, 6);
    assert_memory_equal(str, "gemma3", 6);
    assert_int_equal(source_u32(s, "gemma3.block_count", &u, &err), 1);
    assert_int_equal(u, 7);
    assert_int_equal(source_f32(s, "gemma3.rope.freq_base", &f, &err), 1);
    assert_true(f == 1e6f);
    assert_int_equal(source_bool(s, "tokenizer.ggml.add_bos_token", &b, &err), 1);
    assert_true(b);
    assert_int_equal(source_u32(s, "no.such.key", &u, &err), 0);

    assert_int_equal(source_array(s, "tokenizer.ggml.tokens", &a, &err), 1);
    assert_int_equal(a.n, 512);
    assert_true(source_array_str(&a, 2, &str, &len));
    assert_int_equal(len, 5);
    assert_memory_equal(str, "<bos>", 5);
    assert_true(source_array_str(&a, 511, &str, &len));
    assert_false(source_array_str(&a, 512, &str, &len));
    assert_false(source_array_int(&a, 0, &i));
    assert_int_equal(source_array(s, "tokenizer.ggml.scores", &a, &err), 1);
    assert_true(source_array_f32(&a, 0, &f));
    assert_true(f == -1000.0f);
    assert_int_equal(source_array(s, "tokenizer.ggml.token_type", &a, &err), 1);
    assert_true(source_array_int(&a, 5, &i));
    assert_int_equal(i, 4);

    assert_int_equal(source_u32(s, "gemma3.rope.freq_base", &u, &err), GD_EFORMAT);
    assert_string_equal(err.param, "gemma3.rope.freq_base");
    assert_int_equal(source_f32(s, "gemma3.block_count", &f, &err), GD_EFORMAT);
    assert_int_equal(source_bool(s, "gemma3.block_count", &b, &err), GD_EFORMAT);
    assert_int_equal(source_str(s, "tokenizer.ggml.tokens", &str, &len, &err), GD_EFORMAT);
    assert_int_equal(source_array(s, "gemma3.block_count", &a, &err), GD_EFORMAT);
    assert_string_equal(err.msg, "The key gemma3.block_count has type u32, but must be an array.");

    while (source_key_at(s, n))
        n++;
    assert_int_equal(n, 31);
    source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files_open),
        cmocka_unit_test(values_have_their_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
