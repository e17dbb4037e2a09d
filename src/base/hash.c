#include "base/hash.h"

#include <string.h>

/* Eight chains, because a multiplication takes three cycles and one can begin in each. */
enum { CHAINS = 8, CHUNK = CHAINS * 8 };

/* For a given word a one-to-one function of h, and the other way round. */
static inline uint64_t mix(uint64_t h, uint64_t word)
{
    h ^= word;
    h = h << 29 | h >> 35;
    return h * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */
}

static inline void mix_chunk(uint64_t h[CHAINS], const uint8_t *p)
{
    for (int i = 0; i < CHAINS; i++) {
        uint64_t word;

        memcpy(&word, p + 8 * i, sizeof(word));
        h[i] = mix(h[i], word);
    }
}

uint64_t hash_bytes(uint64_t from, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t h[CHAINS], out;
    uint8_t last[CHUNK] = {0};
    size_t whole = n / CHUNK * CHUNK;

    for (int i = 0; i < CHAINS; i++)
        h[i] = (uint64_t)i;
    for (size_t at = 0; at < whole; at += CHUNK)
        mix_chunk(h, p + at);
    if (whole < n) {
        memcpy(last, p + whole, n - whole);
        mix_chunk(h, last);
    }
    out = mix(from, n);
    for (int i = 0; i < CHAINS; i++)
        out = mix(out, h[i]);
    return out ^ out >> 32;
}
