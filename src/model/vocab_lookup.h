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

/* The n <= 8 bytes at s as a number, as if zeros followed them; little-endian machines only. */
static inline uint64_t vocab_word(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    uint32_t a, b;

    if (n == 8)
        return vocab_load8(s);
    if (n >= 4) { /* two loads that overlap agree where they do */
        memcpy(&a, s, 4);
        memcpy(&b, s + n - 4, 4);
        return a | (uint64_t)b << 8 * (n - 4);
    }
    return n == 0 ? 0
                  : p[0] | (uint64_t)p[n / 2] << 8 * (n / 2) | (uint64_t)p[n - 1] << 8 * (n - 1);
}

static inline uint64_t vocab_mix(uint64_t h)
{
    h *= 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static inline uint64_t vocab_hash(const char *s, size_t n)
{
    uint64_t h = n << 56;

    if (n <= 8)
        return vocab_mix(h ^ vocab_word(s, n));
    for (; n > 8; s += 8, n -= 8) {
        h = (h ^ vocab_load8(s)) * 0xa0761d6478bd642fu;
        h ^= h >> 32;
    }
    return vocab_mix(h ^ vocab_load8(s + n - 8)); /* overlaps what came before it */
}

static inline bool vocab_same(const char *a, const char *b, size_t n)
{
    size_t i = 0;

    if (n <= 8)
        return vocab_word(a, n) == vocab_word(b, n);
    for (; i + 8 < n; i += 8) {
        if (vocab_load8(a + i) != vocab_load8(b + i))
            return false;
    }
    return vocab_load8(a + n - 8) == vocab_load8(b + n - 8);
}

/* The mergeable piece that is this text, or NULL. */
static inline const struct vocab_slot *vocab_slot(const struct vocab *v, const char *s, size_t n)
{
    size_t mask = ((size_t)1 << v->slot_bits) - 1;
    uint64_t h, word;

    if (n == 0 || n > MERGE_MAX)
        return NULL;
    h = vocab_hash(s, n);
    word = n <= 8 ? vocab_word(s, n) : h >> 32;
    for (size_t i = h & mask;; i = (i + 1) & mask) {
        const struct vocab_slot *slot = &v->slots[i];

        if (slot->id_len == 0)
            return NULL;
        if (slot->word == word && (slot->id_len & 255) == n &&
            (n <= 8 || vocab_same(v->text + v->at[slot->id_len >> 8], s, n)))
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
