/* test_dtype.c - every block format against reference blocks, bit for bit. argv[1] is the folder
 * of the golden blocks: TYPE.bin, TYPE.f32 and index.json. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cjson/cJSON.h>

#include "kernels/dtype.h"

static const char *golden_dir;

/* Whole file, with a NUL behind it; caller frees. */
static uint8_t *read_golden(const char *name, const char *suffix, size_t *bytes)
{
    char path[512];
    FILE *f;
    uint8_t *data;
    long size;

    *bytes = 0;
    snprintf(path, sizeof(path), "%s/%s%s", golden_dir, name, suffix);
    f = fopen(path, "rb");
    if (!f)
        return NULL;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    assert_true(size > 0);
    rewind(f);
    data = malloc((size_t)size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)size, f), size);
    data[size] = 0;
    fclose(f);
    *bytes = (size_t)size;
    return data;
}

static cJSON *read_index(void)
{
    size_t bytes;
    uint8_t *text = read_golden("index", ".json", &bytes);
    cJSON *index = text ? cJSON_Parse((const char *)text) : NULL;

    assert_non_null(index);
    free(text);
    return index;
}

static int number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    assert_true(cJSON_IsNumber(item));
    return item->valueint;
}

/* Equal bits, or equal values (zeros), or both NaN. */
static int same(float a, float b)
{
    return a == b || (isnan(a) && isnan(b));
}

static void check_type(const struct dtype_info *t, int n_blocks)
{
    size_t in_bytes, out_bytes;
    uint8_t *blocks = read_golden(t->name, ".bin", &in_bytes);
    float *want = (float *)read_golden(t->name, ".f32", &out_bytes);
    const size_t n = (size_t)n_blocks * t->block;
    float *got = malloc((n + 1) * sizeof(float));

    assert_non_null(blocks);
    assert_non_null(want);
    assert_non_null(got);
    assert_int_equal(in_bytes, (size_t)n_blocks * t->bytes);
    assert_int_equal(out_bytes, n * sizeof(float));
    got[n] = 42;
    t->to_float(blocks, got, n);
    for (size_t i = 0; i < n; i++)
        if (!same(got[i], want[i]))
            fail_msg("%s value %zu of block %zu: %.9g, want %.9g", t->name, i % t->block,
                i / t->block, (double)got[i], (double)want[i]);
    assert_true(got[n] == 42);

    /* GGUF promises 32-byte alignment, but a row of 17-byte blocks has none. */
    memmove((uint8_t *)want + 1, blocks, (size_t)t->bytes);
    t->to_float((uint8_t *)want + 1, got + 1, (size_t)t->block);
    t->to_float(blocks, want, (size_t)t->block);
    assert_memory_equal(got + 1, want, (size_t)t->block * sizeof(float));
    free(blocks);
    free(want);
    free(got);
}

static void every_type_decodes_to_the_reference_bits(void **state)
{
    cJSON *index = read_index();
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(index, "types"), *entry;
    int checked = 0;

    cJSON_ArrayForEach(entry, types)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "type"));
        const uint32_t id = (uint32_t)number(entry, "ggml_id");
        const struct dtype_info *t = dtype_find(id);

        assert_non_null(name);
        assert_non_null(dtype_name(id)); /* also of types gemmad refuses */
        assert_string_equal(dtype_name(id), name);
        if (!t)
            continue;
        assert_string_equal(t->name, name);
        assert_int_equal(t->block, number(entry, "block"));
        assert_int_equal(t->bytes, number(entry, "bytes"));
        check_type(t, number(entry, "blocks"));
        checked++;
    }
    assert_int_equal(checked, 15); /* all but F32, which has no blocks to decode */
    cJSON_Delete(index);
}

static void a_type_without_a_row_is_not_found(void **state)
{
    static const uint32_t unknown[] = {4, 5, 31, 33, 36, 38, 43, 1000, UINT32_MAX};

    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_null(dtype_find(unknown[i]));
        assert_null(dtype_name(unknown[i]));
    }
    assert_null(dtype_find(16)); /* IQ2_XXS has a name but no arithmetic here */
    assert_string_equal(dtype_name(16), "IQ2_XXS");
}

static void f32_is_copied(void **state)
{
    const float x[3] = {1.5f, -0.0f, 3e38f};
    float y[3];

    dtype_find(DTYPE_F32)->to_float(x, y, 3);
    assert_memory_equal(x, y, sizeof(x));
}

static void every_f16_survives_the_way_to_f32_and_back(void **state)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = f16_to_f32((uint16_t)h);
        const uint16_t back = f32_to_f16(f);

        if (isnan(f))
            assert_int_equal(back, h | 0x200);
        else
            assert_int_equal(back, h);
    }
    assert_true(f16_to_f32(0x3c00) == 1.0f);
    assert_true(f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(f16_to_f32(0xfbff) == -65504.0f);
}

static void f16_rounds_to_nearest_even(void **state)
{
    for (uint32_t h = 0; h < 0x7c00; h++) { /* between a half and the next: exactly and nearly */
        const float low = f16_to_f32((uint16_t)h);
        const float high = h == 0x7bff ? 65536.0f : f16_to_f32((uint16_t)(h + 1));
        const float middle = low + (high - low) / 2;

        assert_int_equal(f32_to_f16(middle), h + (h & 1));
        assert_int_equal(f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(f32_to_f16(-middle), 0x8000 | (h + (h & 1)));
    }
    assert_int_equal(f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
}

static void bf16_rounds_to_nearest_even_and_keeps_nan(void **state)
{
    assert_int_equal(f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(f32_to_bf16(1.00390625f), 0x3f80); /* halfway, down to even */
    assert_int_equal(f32_to_bf16(1.01171875f), 0x3f82); /* halfway, up to even */
    assert_int_equal(f32_to_bf16(nextafterf(1.00390625f, 2)), 0x3f81);
    assert_int_equal(f32_to_bf16(3.4e38f), 0x7f80);
    assert_int_equal(f32_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
    for (uint32_t h = 0; h < 0x10000; h++)
        if (!isnan(bf16_to_f32((uint16_t)h)))
            assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)h)), h);
}

static void quantisers_write_the_reference_bytes(void **state)
{
    size_t x_bytes, q8_bytes, q4_bytes;
    float *x = (float *)read_golden("quantise", ".f32", &x_bytes);
    uint8_t *q8 = read_golden("quantise", ".Q8_0.bin", &q8_bytes);
    uint8_t *q4 = read_golden("quantise", ".Q4_0.bin", &q4_bytes);
    const size_t n = x_bytes / sizeof(float);
    uint8_t got[34];

    assert_non_null(x);
    assert_non_null(q8);
    assert_non_null(q4);
    assert_int_equal(q8_bytes, n / 32 * 34);
    assert_int_equal(q4_bytes, n / 32 * 18);
    for (size_t b = 0; b < n / 32; b++) {
        dtype_quantize_q8_0(x + 32 * b, got, 32);
        if (memcmp(got, q8 + 34 * b, 34) != 0)
            fail_msg("Q8_0 row %zu differs", b);
        dtype_quantize_q4_0(x + 32 * b, got, 32);
        if (memcmp(got, q4 + 18 * b, 18) != 0)
            fail_msg("Q4_0 row %zu differs", b);
    }
    free(x);
    free(q8);
    free(q4);
}

static void quantisers_take_any_float(void **state)
{
    static const float peaks[] = {1e-45f, 1e-38f, 8.4e6f, 1e30f, 3.4e38f, INFINITY, NAN};
    float x[32], y[32];
    uint8_t block[34];

    for (size_t i = 0; i < sizeof(peaks) / sizeof(peaks[0]); i++) {
        for (int j = 0; j < 32; j++)
            x[j] = j == 7 ? peaks[i] : j == 8 ? -peaks[i] / 3 : (float)j;
        dtype_quantize_q8_0(x, block, 32);
        dtype_find(DTYPE_Q8_0)->to_float(block, y, 32);
        for (int j = 0; j < 32; j++)
            assert_true(isfinite(y[j]));
        dtype_quantize_q4_0(x, block, 32);
        dtype_find(DTYPE_Q4_0)->to_float(block, y, 32);
        for (int j = 0; j < 32; j++)
            assert_true(isfinite(y[j]));
    }
}

/* No value is further off than half a step of its 16, and half a step of the scale's own rounding.
 */
static void q6_k_comes_close_to_any_row(void **state)
{
    static const float odd[] = {0, 1e-45f, 8.4e6f, 3.4e38f, INFINITY, -INFINITY, NAN};
    float x[512], y[512];
    uint8_t blocks[2 * 210];
    uint32_t seed = 1;

    for (int round = 0; round < 200; round++) {
        float largest[2] = {0, 0};

        for (int i = 0; i < 512; i++) {
            seed = seed * 1664525 + 1013904223;
            x[i] = (float)(int32_t)seed * 0x1p-31f * (1 + (float)(i / 16 % 7)) * (float)(round % 9);
            largest[i / 256] = fmaxf(largest[i / 256], fabsf(x[i]));
        }
        dtype_quantize_q6_k(x, blocks, 512);
        dtype_find(DTYPE_Q6_K)->to_float(blocks, y, 512);
        for (int i = 0; i < 512; i++) {
            float peak = 0;

            for (int j = i / 16 * 16; j < i / 16 * 16 + 16; j++)
                peak = fmaxf(peak, fabsf(x[j]));
            assert_true(fabsf(y[i] - x[i]) <= peak / 64 + largest[i / 256] / 127 / 2 * 1.01f +
                                                  peak / 32 * 1.01f * (fabsf(x[i]) > peak * 0.96f));
        }
    }
    for (size_t o = 0; o < sizeof(odd) / sizeof(*odd); o++) {
        for (int i = 0; i < 256; i++)
            x[i] = i == 7 ? odd[o] : (float)(i % 5);
        dtype_quantize_q6_k(x, blocks, 256);
        dtype_find(DTYPE_Q6_K)->to_float(blocks, y, 256);
        for (int i = 0; i < 256; i++)
            assert_true(isfinite(y[i]));
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_decodes_to_the_reference_bits),
        cmocka_unit_test(a_type_without_a_row_is_not_found),
        cmocka_unit_test(f32_is_copied),
        cmocka_unit_test(every_f16_survives_the_way_to_f32_and_back),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even_and_keeps_nan),
        cmocka_unit_test(quantisers_write_the_reference_bytes),
        cmocka_unit_test(quantisers_take_any_float),
        cmocka_unit_test(q6_k_comes_close_to_any_row),
    };

    if (argc < 2) {
        fprintf(stderr, "usage: test_dtype GOLDEN_QUANTS_DIR\n");
        return 2;
    }
    golden_dir = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
