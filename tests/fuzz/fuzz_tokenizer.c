/* The tokenizer. The first byte says what the rest is:
 *   0 text, encoded with the demo model's vocabulary, both ways, and decoded again
 *   1 ids, decoded
 *   2 a vocabulary of small pieces, and a text to encode with it
 *   3 a GGUF file whose vocabulary is opened
 *   4 a tokenizer.json, 5 a tokenizer.model */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "model/chat.h"
#include "model/tokenizer_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
    if (!ok)
        abort();
}

static struct tokenizer *open_file(const char *path)
{
    struct tokenizer *t = NULL;
    struct source *src = NULL;
    struct err err = {0};

    if (source_open(&src, path, &err) == 0 && tokenizer_open(&t, src, &err) < 0)
        require(err.code < 0 && err.msg[0] && !strpbrk(err.msg, "\r\n"));
    source_close(src);
    return t;
}

/* What a reader should see of any bytes: U+FFFD for what is not UTF-8, U+2581 as a blank. */
static void shown(const char *text, size_t n, struct buf *out)
{
    for (size_t at = 0; at < n;) {
        uint32_t cp = 0;
        size_t bad, len = utf8_decode(text + at, n - at, &cp, &bad);

        if (len == 0)
            buf_append(out, "\xef\xbf\xbd", 3);
        else if (cp == 0x2581)
            buf_putc(out, ' ');
        else
            buf_append(out, text + at, len);
        at += len ? len : bad ? bad : n - at;
    }
}

static void join(const struct tokenizer *t, const struct token_list *ids, struct buf *out)
{
    for (size_t i = 0; i < ids->n; i++) {
        size_t len;
        const char *s = tokenizer_piece(t, ids->ids[i], &len);

        require(ids->ids[i] >= 0 && ids->ids[i] < tokenizer_n_tokens(t));
        buf_append(out, s, len);
    }
}

/* lossless: every byte has a token, so the text must come back. */
static void check_text(const struct tokenizer *t, const char *text, size_t n, int lossless)
{
    struct buf want = {0}, got = {0};

    shown(text, n, &want);
    for (int special = 0; special < 2; special++) {
        struct token_list ids = {0};
        struct err err;

        require(tokenizer_encode(t, text, n, special, &ids, &err) == 0);
        for (size_t i = 0; !special && i < ids.n; i++)
            require(!tokenizer_is_control(t, ids.ids[i]) || ids.ids[i] == t->vocab->unk);
        buf_clear(&got);
        join(t, &ids, &got);
        require(!lossless || (got.len == want.len &&
                                 (want.len == 0 || memcmp(got.data, want.data, got.len) == 0)));
        token_list_free(&ids);
    }
    buf_free(&want);
    buf_free(&got);
}

/* A message in a chat: the frames are the only control tokens. */
static void check_chat(const struct tokenizer *t, const char *text, size_t n)
{
    const struct chat_message m[] = {{.role = ROLE_SYSTEM, .content = text, .content_len = n / 2},
        {.role = ROLE_USER, .content = text, .content_len = n}};
    const struct chat_options o = {.add_generation_prompt = true};
    struct token_list ids = {0};
    struct err err;
    size_t n_control = 0;

    require(chat_encode(CHAT_GEMMA3, t, m, 2, &o, &ids, &err) == 0);
    for (size_t i = 0; i < ids.n; i++)
        n_control += tokenizer_is_control(t, ids.ids[i]);
    require(n_control == 4);
    token_list_free(&ids);
}

/* The stream gives whole characters, and in the end what decoding all bytes at once gives. */
static void check_ids(const struct tokenizer *t, const uint8_t *data, size_t size)
{
    struct utf8_stream s = {0};
    struct buf bytes = {0}, want = {0}, got = {0};
    char out[1024];

    for (; size >= 2; data += 2, size -= 2) {
        int32_t id = (int32_t)(data[0] | data[1] << 8) - 100;
        size_t len;
        const char *piece = tokenizer_piece(t, id, &len);

        buf_append(&bytes, piece, len);
        require(3 * (len + 3) <= sizeof(out));
        len = utf8_stream_push(&s, piece, len, out);
        require(utf8_valid(out, len));
        buf_append(&got, out, len);
    }
    buf_append(&got, out, utf8_stream_end(&s, out));
    for (size_t at = 0; at < bytes.len;) {
        uint32_t cp;
        size_t bad, len = utf8_decode(bytes.data + at, bytes.len - at, &cp, &bad);

        buf_append(&want, len ? bytes.data + at : "\xef\xbf\xbd", len ? len : 3);
        at += len ? len : bad ? bad : bytes.len - at;
    }
    require(got.len == want.len && (want.len == 0 || memcmp(got.data, want.data, got.len) == 0));
    buf_free(&bytes);
    buf_free(&want);
    buf_free(&got);
}

/* Pieces: a byte of length and kind, one of score, the text. Then the text to encode. */
static void check_vocabulary(const uint8_t *data, size_t size)
{
    enum { N = 24 };
    struct tokenizer t = {0};
    struct err err;
    char byte[8];

    require(vocab_create(&t.vocab, "pieces", 256 + N, &err) == 0);
    for (unsigned i = 0; i < 256 + N; i++) {
        struct vocab_piece p = {byte, 6, PIECE_BYTE, 0};

        snprintf(byte, sizeof(byte), "<0x%02X>", i & 255);
        if (i >= 256) {
            p = (struct vocab_piece){"", 0, PIECE_NORMAL, 0};
            if (size >= 2) {
                p.len = data[0] & 15;
                p.kind = (enum piece_kind)(data[0] >> 4 & 3);
                p.kind = p.kind == PIECE_BYTE ? PIECE_UNUSED : p.kind;
                p.score = data[1];
                p.text = (const char *)data + 2;
                p.len = p.len > size - 2 ? size - 2 : p.len;
                t.vocab->blanks_even = data[0] >> 7;
                data += 2 + p.len;
                size -= 2 + p.len;
            }
        }
        require(vocab_add(t.vocab, &p, &err) == 0);
    }
    require(vocab_finish(t.vocab, -1, &err) == 0);
    check_text(&t, (const char *)data, size, 1);
    vocab_destroy(t.vocab);
}

static void check_gguf(const uint8_t *data, size_t size)
{
    static const char text[] =
        "The quick  brown\n\n\tfox <end_of_turn><0x41> \xe2\x96\x81 \xff 123";
    int fd = memfd_create("model.gguf", MFD_CLOEXEC);
    struct tokenizer *t;
    char path[64];

    require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    t = open_file(path);
    close(fd);
    if (!t)
        return;
    check_text(t, text, sizeof(text), 0);
    tokenizer_close(t);
}

static void keep(const void *ud, size_t id, struct vocab_piece *p)
{
    p->score = p->score == p->score ? p->score : 0; /* so that more files open */
}

/* unk: the first piece, whatever it is. */
static void check_pieces(const uint8_t *data, size_t size, int json)
{
    static const char text[] = "ab  a\n<x> \xe2\x96\x81\xe2\x96\x81 \xff";
    struct tokenizer t = {0};
    struct err err = {0};
    int r = json ? tokenizer_read_json(&t.vocab, (const char *)data, size, &err)
                 : tokenizer_read_spm(&t.vocab, (const char *)data, size, keep, NULL, &err);

    if (r == 0)
        r = vocab_finish(t.vocab, 0, &err);
    if (r == 0)
        check_text(&t, text, sizeof(text), 0);
    else
        require(err.code == r && err.msg[0] && !strpbrk(err.msg, "\r\n"));
    vocab_destroy(t.vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *demo;

    if (!demo) {
        demo = open_file(DEMO_MODEL);
        require(demo != NULL);
    }
    if (size == 0)
        return 0;
    switch (data[0] % 6) {
    case 0:
        check_text(demo, (const char *)data + 1, size - 1, 1);
        check_chat(demo, (const char *)data + 1, size - 1);
        break;
    case 1: check_ids(demo, data + 1, size - 1); break;
    case 2: check_vocabulary(data + 1, size - 1); break;
    case 3: check_gguf(data + 1, size - 1); break;
    default: check_pieces(data + 1, size - 1, data[0] % 6 == 4);
    }
    return 0;
}
