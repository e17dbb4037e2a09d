/* vocab_lookup.h - the lookups of the merge loop, inline. Private to the tokenizer. */
#ifndef MODEL_VOCAB_LOOKUP_H
#define MODEL_VOCAB_LOOKUP_H

#include <string.h>

#include "model/vocab.h"

static inline uint64_t vocab_load8(const char *s)
{
    uint64_t v;

    memcpy(&v, s, 8);
    return v;
}

static inline uint64_t vocab_load4(const char *s)
{
    uint32_t v;

    memcpy(&v, s, 4);
    return v;
}

/* n <= 3 bytes; different texts of one length give different numbers. */
static inline uint64_t vocab_load3(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;

    return n ? p[0] | (uint64_t)p[n / 2] << 8 | (uint64_t)p[n - 1] << 16 : 0;
}

static inline uint64_t vocab_hash(const char *s, size_t n)
{
    uint64_t h = n * 0x9e3779b97f4a7c15u, a, b = 0;

    for (; n > 16; s += 8, n -= 8) {
        h = (h ^ vocab_load8(s)) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    if (n >= 8) {
        a = vocab_load8(s);
        b = vocab_load8(s + n - 8);
    } else if (n >= 4) {
        a = vocab_load4(s) << 32 | vocab_load4(s + n - 4);
    } else {
        a = vocab_load3(s, n);
    }
    h = (h ^ a) * 0xd6e8feb86659fd93u;
    h = (h ^ h >> 32 ^ b) * 0xa0761d6478bd642fu;
    return h ^ h >> 32;
}

static inline bool vocab_same(const char *a, const char *b, size_t n)
{
    if (n < 4)
        return vocab_load3(a, n) == vocab_load3(b, n);
    if (n < 8)
        return vocab_load4(a) == vocab_load4(b) && vocab_load4(a + n - 4) == vocab_load4(b + n - 4);
    for (; n > 8; a += 8, b += 8, n = n > 16 ? n - 8 : 8) {
        if (vocab_load8(a) != vocab_load8(b))
            return false;
        if (n <= 16) { /* the last 8 bytes may overlap what was compared */
            a += n - 16;
            b += n - 16;
        }
    }
    return vocab_load8(a) == vocab_load8(b);
}

/* The mergeable piece that is this text, or NULL. */
static inline const struct vocab_slot *vocab_slot(const struct vocab *v, const char *s, size_t n)
{
    size_t mask = ((size_t)1 << v->slot_bits) - 1;
    uint64_t h;

    if (n == 0 || n > MERGE_MAX)
        return NULL;
    h = vocab_hash(s, n);
    for (size_t i = h & mask;; i = (i + 1) & mask) {
        const struct vocab_slot *slot = &v->slots[i];

        if (slot->id_len == 0)
            return NULL;
        if (slot->tag == (uint32_t)(h >> 32) && (slot->id_len & 255) == n &&
            vocab_same(v->text + slot->at, s, n))
            return slot;
    }
}

/* The bit of a pair of characters in vocab.joins; characters are given as their UTF-8 bytes. Two
 * pairs may share a bit: then text is not cut where it could be, which only costs time. */
static inline uint32_t vocab_join(uint32_t left, uint32_t right)
{
    return (left * 0x9e3779b1u ^ right * 0x85ebca77u) * 0xc2b2ae3du >> (32 - VOCAB_JOIN_BITS);
}

static inline bool vocab_joins(const struct vocab *v, uint32_t left, uint32_t right)
{
    uint32_t i = vocab_join(left, right);

    return v->joins[i / 64] >> i % 64 & 1;
}

/* The bytes of the character at s, which is valid UTF-8; *c is the character for vocab_join(). */
static inline size_t vocab_char(const char *s, uint32_t *c)
{
    const unsigned char *p = (const unsigned char *)s;

    *c = p[0];
    if (p[0] < 0x80)
        return 1;
    *c |= (uint32_t)p[1] << 8;
    if (p[0] < 0xe0)
        return 2;
    *c |= (uint32_t)p[2] << 16;
    if (p[0] < 0xf0)
        return 3;
    *c |= (uint32_t)p[3] << 24;
    return 4;
}

#endif
