/* GGUF files that lie: each must give one sentence that names the culprit, and nothing worse. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/dtype.h"
#include "model/hparams.h"
#include "model/source.h"
#include "test_gguf_build.h"
#include "test_source_read.h"

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

static const struct test_key keys[] = {
    {"general.architecture", GGUF_STRING, 0, "gemma3"},
    {"general.alignment", GGUF_U32, 32},
    {"gemma3.block_count", GGUF_U32, 2},
    {"gemma3.context_length", GGUF_U32, 64},
    {"gemma3.embedding_length", GGUF_U32, 8},
    {"gemma3.feed_forward_length", GGUF_ARRAY, 32, NULL, GGUF_I32, 2},
    {"gemma3.attention.head_count", GGUF_U32, 2},
    {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-6},
    {"gemma3.attention.sliding_window", GGUF_U32, 4},
    {"gemma3.attention.sliding_window_pattern", GGUF_ARRAY, 1, NULL, GGUF_BOOL, 2},
    {"tokenizer.ggml.add_bos_token", GGUF_BOOL, 1},
    {"tokenizer.ggml.tokens", GGUF_ARRAY, 0, "word", GGUF_STRING, 4},
    {"wide.f64", GGUF_F64, 1.5},
    {"wide.i64", GGUF_I64, -1},
};

/* 128 bytes, 68 (and 28 of padding), 16. */
static const struct test_tensor tensors[] = {
    {"token_embd.weight", DTYPE_F32, 2, {8, 4}, 0},
    {"blk.0.attn_q.weight", DTYPE_Q8_0, 2, {32, 2}, 128},
    {"output_norm.weight", DTYPE_F32, 1, {4}, 224},
};
enum { DATA_BYTES = 240 };

/* A valid file, whose last byte is the last of a tensor. */
static void build(struct buf *b)
{
    put_header(b, 3, LENGTH(tensors), LENGTH(keys));
    for (size_t i = 0; i < LENGTH(keys); i++)
        put_key(b, &keys[i]);
    for (size_t i = 0; i < LENGTH(tensors); i++)
        put_tensor(b, &tensors[i]);
    put_padding(b, 32);
    for (int i = 0; i < DATA_BYTES; i++)
        buf_putc(b, (char)i);
}

static void the_untouched_file_opens(void **state)
{
    struct buf b = {0};
    struct hparams hp = {0};
    struct source *s = NULL;
    struct err err = {0};

    build(&b);
    if (open_bytes(&s, b.data, b.len, &err) < 0 || hparams_read(&hp, s, &err) < 0)
        fail_msg("%s", err.msg);
    assert_true(read_everything(s) > 0);
    assert_int_equal(source_tensor(s, "blk.0.attn_q.weight")->bytes, 68);
    assert_int_equal(source_tensor(s, "output_norm.weight")->data[15], DATA_BYTES - 1);
    source_close(s);
    b.data[4] = 2; /* version 2 has the same layout */
    assert_int_equal(open_bytes(&s, b.data, b.len, &err), 0);
    source_close(s);
    buf_free(&b);
}

#define BYTES(s) (s), sizeof(s) - 1

/* Bytes written `skip` bytes behind the first occurrence of `find` ("" = the start of the file).
 * Behind a key comes its type (4 bytes), then the value; behind a tensor's name the number of
 * dimensions (4), the dimensions (8 each), type (4) and offset (8). */
static const struct patch {
    const char *find;
    int skip;
    const char *bytes;
    size_t n_bytes;
    int code;
    const char *param, *text;
} patches[] = {
    /* header */
    {"", 0, BYTES("GGUX"), GD_EFORMAT, "magic", "not a GGUF file"},
    {"", 0, BYTES("\0\0\0\0"), GD_EFORMAT, "magic", "not a GGUF file"},
    {"", 0, BYTES("tjgg"), GD_ENOTSUP, "magic", "before GGUF"},
    {"", 4, BYTES("\0\0\0\0"), GD_ENOTSUP, "version", "version 0"},
    {"", 4, BYTES("\1\0\0\0"), GD_ENOTSUP, "version", "version 1"},
    {"", 4, BYTES("\4\0\0\0"), GD_ENOTSUP, "version", "version 4"},
    {"", 4, BYTES("\0\0\0\3"), GD_ENOTSUP, "version", "big-endian"},
    {"", 4, BYTES("\xff\xff\xff\xff"), GD_ENOTSUP, "version", "4294967295"},
    {"", 8, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT, "n_tensors", "at most"},
    {"", 8, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT, "n_tensors", "9223372036854775808"},
    {"", 8, BYTES("\0\0\1\0\0\0\0\0"), GD_EFORMAT, "tensor 4", "1 to 63"},
    {"", 8, BYTES("\4"), GD_EFORMAT, NULL, NULL}, /* padding read as a tensor */
    {"", 16, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT, "n_keys", "at most"},
    {"", 16, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT, "n_keys", "at most"},
    {"", 16, BYTES("\0\0\1\0\0\0\0\0"), GD_EFORMAT, NULL, NULL},
    {"", 16, BYTES("\0"), GD_EFORMAT, NULL, NULL}, /* keys read as tensors */
    /* key names */
    {"", 24, BYTES("\0\0\0\0\0\0\0\0"), GD_EFORMAT, "key 1", "1 to 255"},
    {"", 24, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT, "key 1", "ends after"},
    {"", 24, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT, "key 1", "ends after"},
    {"", 24, BYTES("\0\2"), GD_EFORMAT, "key 1", "1 to 255"},
    {"", 32, BYTES("g\nneral"), GD_EFORMAT, "key 1", "printable"},
    {"", 32, BYTES("g\0neral"), GD_EFORMAT, "key 1", "printable"},
    {"", 32, BYTES("g\xc3\xa4neral"), GD_EFORMAT, "key 1", "printable"},
    {"gemma3.embedding", -24, BYTES("\x15\0\0\0\0\0\0\0gemma3.context_length"), GD_EFORMAT,
        "gemma3.context_length", "twice"},
    {"wide.i64", -3, BYTES("f64"), GD_EFORMAT, "wide.f64", "twice"},
    /* values */
    {"general.architecture", 0, BYTES("\x0d"), GD_EFORMAT, "general.architecture", "type 13"},
    {"general.architecture", 0, BYTES("\xff\xff\xff\xff"), GD_EFORMAT, "general.architecture",
        "4294967295"},
    {"general.architecture", 4, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT, "general.architecture",
        "ends after"},
    {"general.architecture", 4, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT,
        "general.architecture", "ends after"},
    {"general.architecture", 4, BYTES("\xff\xff"), GD_EFORMAT, "general.architecture",
        "ends after"},
    {"add_bos_token", 4, BYTES("\2"), GD_EFORMAT, "tokenizer.ggml.add_bos_token", "bool"},
    {"add_bos_token", 4, BYTES("\xff"), GD_EFORMAT, "tokenizer.ggml.add_bos_token", "255"},
    /* arrays: element type (4), count (8), elements */
    {"sliding_window_pattern", 17, BYTES("\2"), GD_EFORMAT,
        "gemma3.attention.sliding_window_pattern", "bool"},
    {"feed_forward_length", 4, BYTES("\x09"), GD_EFORMAT, "gemma3.feed_forward_length",
        "array of arrays"},
    {"feed_forward_length", 4, BYTES("\x0d"), GD_EFORMAT, "gemma3.feed_forward_length", "type 13"},
    {"feed_forward_length", 4, BYTES("\xff\xff\xff\xff"), GD_EFORMAT, "gemma3.feed_forward_length",
        "4294967295"},
    {"feed_forward_length", 8, BYTES("\0\0\0\0\0\0\0\x10"), GD_EFORMAT,
        "gemma3.feed_forward_length", "at most"},
    {"feed_forward_length", 8, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT,
        "gemma3.feed_forward_length", "at most"},
    {"feed_forward_length", 8, BYTES("\0\0\0\0\0\0\0\x40"), GD_EFORMAT,
        "gemma3.feed_forward_length", "at most"}, /* 2^62 * 4 = 0 */
    {"feed_forward_length", 8, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT,
        "gemma3.feed_forward_length", "at most"},
    {"ggml.tokens", 8, BYTES("\0\0\0\0\0\0\0\x10"), GD_EFORMAT, "tokenizer.ggml.tokens", "at most"},
    {"ggml.tokens", 8, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT,
        "tokenizer.ggml.tokens", "at most"},
    {"feed_forward_length", 8, BYTES("\0\0\0\1"), GD_EFORMAT, "gemma3.feed_forward_length",
        "ends after"},
    {"ggml.tokens", 8, BYTES("\0\0\0\1"), GD_EFORMAT, "tokenizer.ggml.tokens", "ends after"},
    {"ggml.tokens", 8, BYTES("\x40"), GD_EFORMAT, "tokenizer.ggml.tokens", "ends after"},
    {"ggml.tokens", 16, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT,
        "tokenizer.ggml.tokens", "ends after"},
    {"ggml.tokens", 28, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT, "tokenizer.ggml.tokens",
        "ends after"},
    {"ggml.tokens", 52, BYTES("\xff\xff"), GD_EFORMAT, "tokenizer.ggml.tokens", "ends after"},
    /* alignment */
    {"general.alignment", 4, BYTES("\0\0\0\0"), GD_EFORMAT, "general.alignment", "power of two"},
    {"general.alignment", 4, BYTES("\3\0\0\0"), GD_EFORMAT, "general.alignment", "is 3"},
    {"general.alignment", 4, BYTES("\x21"), GD_EFORMAT, "general.alignment", "is 33"},
    {"general.alignment", 4, BYTES("\0\0\0\x80"), GD_EFORMAT, "general.alignment", "2147483648"},
    {"general.alignment", 4, BYTES("\xff\xff\xff\xff"), GD_EFORMAT, "general.alignment",
        "4294967295"},
    {"general.alignment", 4, BYTES("\x40"), GD_EFORMAT, "output_norm.weight", "alignment 64"},
    {"general.alignment", 0, BYTES("\6"), GD_EFORMAT, "general.alignment", "integer"},
    {"general.alignment", 0, BYTES("\5\0\0\0\xff\xff\xff\xff"), GD_EFORMAT, "general.alignment",
        "between 0"},
    /* tensors */
    {"token_embd.weight", -25, BYTES("\0\0\0\0\0\0\0\0"), GD_EFORMAT, "tensor 1", "1 to 63"},
    {"token_embd.weight", -25, BYTES("\x40"), GD_EFORMAT, "tensor 1", "1 to 63"},
    {"token_embd.weight", -25, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT, "tensor 1",
        "ends after"},
    {"token_embd.weight", -1, BYTES("\x7f"), GD_EFORMAT, "tensor 1", "printable"},
    {"token_embd.weight", 0, BYTES("\0"), GD_EFORMAT, "token_embd.weight", "0 dimensions"},
    {"token_embd.weight", 0, BYTES("\5"), GD_EFORMAT, "token_embd.weight", "5 dimensions"},
    {"token_embd.weight", 0, BYTES("\xff\xff\xff\xff"), GD_EFORMAT, "token_embd.weight",
        "4294967295 dimensions"},
    {"token_embd.weight", 4, BYTES("\0"), GD_EFORMAT, "token_embd.weight", "dimension of 0"},
    {"token_embd.weight", 12, BYTES("\0"), GD_EFORMAT, "token_embd.weight", "dimension of 0"},
    {"token_embd.weight", 4, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT,
        "token_embd.weight", "dimension of -1"},
    {"token_embd.weight", 12, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT, "token_embd.weight",
        "dimension of -9223372036854775808"},
    {"token_embd.weight", 12, BYTES("\0\0\0\0\0\0\0\x40"), GD_EFORMAT, "token_embd.weight",
        "too large"},
    {"token_embd.weight", 4, BYTES("\0\0\0\0\1\0\0\0\0\0\0\0\1"), GD_EFORMAT, "token_embd.weight",
        "too large"}, /* 2^32 * 2^32 * 4 = 0 */
    {"token_embd.weight", 12, BYTES("\xff\xff\xff\x7f"), GD_EFORMAT, "token_embd.weight",
        "beyond the end"},
    {"token_embd.weight", 12, BYTES("\5"), GD_EFORMAT, "blk.0.attn_q.weight", "overlaps"},
    {"token_embd.weight", 12, BYTES("\x0a"), GD_EFORMAT, "token_embd.weight", "beyond the end"},
    {"token_embd.weight", 20, BYTES("\x11"), GD_ENOTSUP, "token_embd.weight", "type IQ2_XS"},
    {"token_embd.weight", 20, BYTES("\x12"), GD_ENOTSUP, "token_embd.weight", "requantise"},
    {"token_embd.weight", 20, BYTES("\4"), GD_EFORMAT, "token_embd.weight", "type number 4"},
    {"token_embd.weight", 20, BYTES("\x63"), GD_EFORMAT, "token_embd.weight", "type number 99"},
    {"token_embd.weight", 20, BYTES("\xff\xff\xff\xff"), GD_EFORMAT, "token_embd.weight",
        "type number 4294967295"},
    {"token_embd.weight", 20, BYTES("\2"), GD_EFORMAT, "token_embd.weight", "blocks of 32"},
    {"token_embd.weight", 24, BYTES("\1"), GD_EFORMAT, "token_embd.weight", "no multiple"},
    {"token_embd.weight", 24, BYTES("\xe0"), GD_EFORMAT, "token_embd.weight", "beyond the end"},
    {"token_embd.weight", 24, BYTES("\0\0\0\0\0\0\0\x80"), GD_EFORMAT, "token_embd.weight",
        "beyond the end"},
    {"token_embd.weight", 24, BYTES("\xe0\xff\xff\xff\xff\xff\xff\xff"), GD_EFORMAT,
        "token_embd.weight", "beyond the end"},
    {"attn_q.weight", 24, BYTES("\x60"), GD_EFORMAT, "blk.0.attn_q.weight", "overlaps"},
    {"attn_q.weight", 24, BYTES("\0"), GD_EFORMAT, NULL, "overlaps"},
    {"attn_q.weight", 24, BYTES("\xa0"), GD_EFORMAT, "output_norm.weight", "overlaps"},
    {"output_norm.weight", -26, BYTES("\x11\0\0\0\0\0\0\0token_embd.weight"), GD_EFORMAT,
        "token_embd.weight", "twice"},
    {"output_norm.weight", 12, BYTES("\0\0\0\0\x40"), GD_EFORMAT, "output_norm.weight", NULL},
};

static void lies_are_refused_by_name(void **state)
{
    struct buf good = {0}, bad = {0};

    build(&good);
    for (size_t i = 0; i < LENGTH(patches); i++) {
        const struct patch *p = &patches[i];
        char what[96];
        char *at;
        struct source *s;
        struct err err = {0};
        int r;

        snprintf(what, sizeof(what), "row %zu, %s+%d", i, p->find, p->skip);
        buf_clear(&bad);
        buf_append(&bad, good.data, good.len);
        at = memmem(bad.data, bad.len, p->find, strlen(p->find));
        assert_non_null(at);
        memcpy(at + strlen(p->find) + p->skip, p->bytes, p->n_bytes);
        r = open_bytes(&s, bad.data, bad.len, &err);
        if (r != p->code || err.code != r)
            fail_msg("%s: code %d: %s", what, r, err.msg);
        if (err.param[0] == 0 || (p->param && strcmp(err.param, p->param) != 0))
            fail_msg("%s: param \"%s\": %s", what, err.param, err.msg);
        if (p->text && !strstr(err.msg, p->text))
            fail_msg("%s: no \"%s\" in: %s", what, p->text, err.msg);
        check_sentence(&err);
    }
    buf_free(&good);
    buf_free(&bad);
}

static void every_truncation_is_refused(void **state)
{
    struct buf b = {0};

    build(&b);
    for (size_t n = 0; n < b.len; n++) {
        struct source *s;
        struct err err = {0};
        char what[40];

        snprintf(what, sizeof(what), "the first %zu bytes", n);
        if (open_bytes(&s, b.data, n, &err) == 0)
            fail_msg("%s were taken for a model", what);
        assert_int_equal(err.code, GD_EFORMAT);
        assert_true(err.param[0] != 0);
        check_sentence(&err);
    }
    buf_free(&b);
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static void flipped_bits_never_crash(void **state)
{
    struct buf b = {0};
    char path[64];
    uint64_t random = 1, sum = 0;
    int opened = 0, fd = memfd_create("flips", MFD_CLOEXEC);

    build(&b);
    assert_true(fd >= 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    for (int round = 0; round < 10000; round++) {
        int n_flips = 1 + (int)(next_random(&random) % 8);
        struct source *s;
        struct err err = {0};

        assert_int_equal(pwrite(fd, b.data, b.len, 0), b.len);
        for (int i = 0; i < n_flips; i++) {
            size_t at = next_random(&random) % b.len;
            char c = (char)(b.data[at] ^ (1 << (next_random(&random) % 8)));

            assert_int_equal(pwrite(fd, &c, 1, (off_t)at), 1);
        }
        if (source_open(&s, path, &err) < 0) {
            check_sentence(&err);
            continue;
        }
        sum += read_everything(s);
        source_close(s);
        opened++;
    }
    assert_in_range(opened, 100, 9900); /* both ways out were taken */
    assert_true(sum > 0);
    close(fd);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_untouched_file_opens),
        cmocka_unit_test(lies_are_refused_by_name),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(flipped_bits_never_crash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
