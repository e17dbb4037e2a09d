/* tokenizer_spm.c - SentencePiece's tokenizer.model -> the pieces of a vocabulary.
 *
 * A protobuf: ModelProto { repeated SentencePiece pieces = 1; TrainerSpec = 2; NormalizerSpec = 3
 * }, SentencePiece { string piece = 1; float score = 2; Type type = 3 }. A piece's id is its place.
 */
#include <string.h>

#include "model/tokenizer_private.h"

#define NAME "tokenizer.model"

enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };

struct field {
    uint64_t number, value; /* value: of a VARINT */
    int wire;
    const unsigned char *bytes; /* of BYTES and the fixed ones */
    size_t len;
};

struct message {
    const unsigned char *at, *end;
    bool bad;
};

static uint64_t varint(struct message *m)
{
    uint64_t v = 0;

    for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        unsigned char byte = *m->at++;

        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return v;
    }
    m->bad = true;
    return 0;
}

/* False at the end and when the message is bad. */
static bool next_field(struct message *m, struct field *f)
{
    uint64_t tag, len;

    if (m->bad || m->at == m->end)
        return false;
    tag = varint(m);
    *f = (struct field){.number = tag >> 3, .wire = (int)(tag & 7)};
    if (f->wire == VARINT) {
        f->value = varint(m);
        return !m->bad;
    }
    len = f->wire == BYTES ? varint(m) : f->wire == FIXED64 ? 8 : 4;
    if (m->bad || (f->wire != BYTES && f->wire != FIXED64 && f->wire != FIXED32) ||
        len > (uint64_t)(m->end - m->at)) {
        m->bad = true;
        return false;
    }
    f->bytes = m->at;
    f->len = (size_t)len;
    m->at += len;
    return true;
}

static struct message inside(const struct field *f)
{
    return (struct message){f->bytes, f->bytes + f->len, f->wire != BYTES};
}

/* over: what tokenizer_config.json says of this id. */
static int add_piece(struct vocab *v, const struct field *from, tokenizer_override *over,
    const void *ud, struct err *err)
{
    struct message m = inside(from);
    struct vocab_piece p = {"", 0, PIECE_NORMAL, 0};
    uint64_t type = PIECE_TYPE_NORMAL;
    struct field f;
    int kind;

    while (next_field(&m, &f)) {
        if (f.number == 1 && f.wire == BYTES) {
            p.text = (const char *)f.bytes;
            p.len = f.len;
        } else if (f.number == 2 && f.wire == FIXED32) {
            memcpy(&p.score, f.bytes, 4);
        } else if (f.number == 3 && f.wire == VARINT) {
            type = f.value;
        }
    }
    kind = type > 6 ? -1 : tokenizer_kind_of_type((int64_t)type, p.text, p.len);
    if (m.bad || kind < 0)
        return err_set_at(
            err, GD_EFORMAT, NAME, NAME ": piece %zu is not as SentencePiece writes it", v->n);
    p.kind = (enum piece_kind)kind;
    over(ud, v->n, &p);
    return vocab_add(v, &p, err);
}

/* NormalizerSpec { add_dummy_prefix = 3; remove_extra_whitespaces = 4 }, both true by default. */
static int check_normalizer(const struct field *from, struct err *err)
{
    struct message m = inside(from);
    bool prefix = true, squeeze = true;
    struct field f;

    while (next_field(&m, &f)) {
        if (f.number == 3 && f.wire == VARINT)
            prefix = f.value != 0;
        if (f.number == 4 && f.wire == VARINT)
            squeeze = f.value != 0;
    }
    if (m.bad)
        return err_set_at(err, GD_EFORMAT, NAME, NAME ": the normalizer is cut off");
    if (prefix || squeeze)
        return err_set_at(err, GD_ENOTSUP, NAME,
            NAME
            ": it adds or removes blanks (add_dummy_prefix, remove_extra_whitespaces), which no "
            "Gemma does");
    return 0;
}

int tokenizer_read_spm(struct vocab **out, const char *text, size_t len, tokenizer_override *over,
    const void *ud, struct err *err)
{
    const unsigned char *begin = (const unsigned char *)text;
    struct message m = {begin, begin + len, false};
    size_t n = 0;
    struct field f;
    int r = 0;

    while (next_field(&m, &f)) {
        n += f.number == 1;
        if (f.number == 3)
            r = check_normalizer(&f, err);
        if (r < 0)
            return r;
    }
    if (m.bad)
        return err_set_at(err, GD_EFORMAT, NAME, NAME ": not a SentencePiece model");
    r = vocab_create(out, NAME, n, err);
    m = (struct message){begin, begin + len, false};
    while (r == 0 && next_field(&m, &f)) {
        if (f.number == 1)
            r = add_piece(*out, &f, over, ud, err);
    }
    return r;
}
