/* guard_model.c - keys, tensor table and random Q8_0 blocks, written once into a memfd. */
#include "guard_model.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../model/test_gguf_build.h"
#include "kernels/dtype.h"
#include "model/gguf.h"

enum {
    LAYERS = 18,
    WIDTH = 640,
    FFN = 2048,
    HEADS = 4,
    HEAD_DIM = 256,
    VOCAB = 65536,
    Q8_BLOCK = 34, /* bytes of 32 values: an f16 scale, 32 codes */
    ALIGNMENT = 32
};

struct shape {
    const char *name;
    int k, rows; /* rows 0: a vector of k floats */
};

/* Of each layer. */
static const struct shape layer_shapes[] = {{"attn_norm", WIDTH, 0},
    {"attn_q", WIDTH, HEADS *HEAD_DIM}, {"attn_k", WIDTH, HEAD_DIM}, {"attn_v", WIDTH, HEAD_DIM},
    {"attn_q_norm", HEAD_DIM, 0}, {"attn_k_norm", HEAD_DIM, 0},
    {"attn_output", HEADS *HEAD_DIM, WIDTH}, {"post_attention_norm", WIDTH, 0},
    {"ffn_norm", WIDTH, 0}, {"ffn_gate", WIDTH, FFN}, {"ffn_up", WIDTH, FFN},
    {"ffn_down", FFN, WIDTH}, {"post_ffw_norm", WIDTH, 0}};

enum {
    PER_LAYER = sizeof(layer_shapes) / sizeof(layer_shapes[0]),
    TENSORS = LAYERS * PER_LAYER + 2
};

static struct shape shape_of(int i, char name[64])
{
    static const struct shape whole[] = {{"token_embd", WIDTH, VOCAB}, {"output_norm", WIDTH, 0}};
    struct shape s;

    if (i < 2) {
        s = whole[i];
        snprintf(name, 64, "%s.weight", s.name);
    } else {
        s = layer_shapes[(i - 2) % PER_LAYER];
        snprintf(name, 64, "blk.%d.%s.weight", (i - 2) / PER_LAYER, s.name);
    }
    return s;
}

static size_t bytes_of(const struct shape *s)
{
    return s->rows ? (size_t)s->rows * (size_t)(s->k / 32) * Q8_BLOCK : (size_t)s->k * 4;
}

static void put_keys(struct buf *b)
{
    static const struct test_key keys[] = {
        {.key = "general.architecture", .type = GGUF_STRING, .str = "gemma3"},
        {.key = "gemma3.context_length", .type = GGUF_U32, .num = 32768},
        {.key = "gemma3.embedding_length", .type = GGUF_U32, .num = WIDTH},
        {.key = "gemma3.block_count", .type = GGUF_U32, .num = LAYERS},
        {.key = "gemma3.feed_forward_length", .type = GGUF_U32, .num = FFN},
        {.key = "gemma3.attention.head_count", .type = GGUF_U32, .num = HEADS},
        {.key = "gemma3.attention.head_count_kv", .type = GGUF_U32, .num = 1},
        {.key = "gemma3.attention.key_length", .type = GGUF_U32, .num = HEAD_DIM},
        {.key = "gemma3.attention.value_length", .type = GGUF_U32, .num = HEAD_DIM},
        {.key = "gemma3.attention.sliding_window", .type = GGUF_U32, .num = 512},
        {.key = "gemma3.attention.layer_norm_rms_epsilon", .type = GGUF_F32, .num = 1e-6},
        {.key = "gemma3.rope.freq_base", .type = GGUF_F32, .num = 1e6},
    };
    const size_t n = sizeof(keys) / sizeof(keys[0]);

    put_header(b, 3, TENSORS, n);
    for (size_t i = 0; i < n; i++)
        put_key(b, &keys[i]);
}

static void put_table(struct buf *b)
{
    uint64_t offset = 0;
    char name[64];

    for (int i = 0; i < TENSORS; i++) {
        struct shape s = shape_of(i, name);

        put_tensor(b, &(struct test_tensor){.name = name,
                          .type = s.rows ? DTYPE_Q8_0 : DTYPE_F32,
                          .n_dims = s.rows ? 2 : 1,
                          .ne = {s.k, s.rows ? s.rows : 1},
                          .offset = offset});
        offset += (bytes_of(&s) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    put_padding(b, ALIGNMENT);
}

/* Codes as they come, scales near 2^-12: the values of a row of 640 then sum to the size of 1. */
static void put_data(struct buf *b, const struct shape *s)
{
    static uint64_t x = 88172645463325252u;
    const float one = 1;

    for (int i = 0; s->rows == 0 && i < s->k; i++)
        put_bytes(b, &one, sizeof(one));
    for (size_t at = 0; s->rows && at < bytes_of(s); at += Q8_BLOCK) {
        uint64_t block[5];

        for (int i = 0; i < 5; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            block[i] = x;
        }
        memcpy(block, &(uint16_t){0x0c00}, 2); /* the f16 2^-12 */
        put_bytes(b, block, Q8_BLOCK);
    }
    put_padding(b, ALIGNMENT);
}

/* Appends to the file and empties the buffer. */
static int flush(int fd, struct buf *b)
{
    size_t at = 0;

    while (at < b->len) {
        ssize_t n = write(fd, b->data + at, b->len - at);

        if (n <= 0)
            return -1;
        at += (size_t)n;
    }
    buf_clear(b);
    return 0;
}

int guard_model(void)
{
    int fd = memfd_create("guard-model", MFD_CLOEXEC);
    struct buf b = {0};
    char name[64];
    int r = fd < 0 ? -1 : 0;

    put_keys(&b);
    put_table(&b);
    for (int i = 0; r == 0 && i < TENSORS; i++) {
        struct shape s = shape_of(i, name);

        r = flush(fd, &b);
        put_data(&b, &s);
    }
    if (r == 0)
        r = flush(fd, &b);
    buf_free(&b);
    if (r < 0 && fd >= 0)
        close(fd);
    return r < 0 ? -1 : fd;
}
