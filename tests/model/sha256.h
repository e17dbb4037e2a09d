/* sha256.h - for golden files that give only the digest of a long list. */
#ifndef TEST_SHA256_H
#define TEST_SHA256_H

#include <stddef.h>

/* 64 lower-case hex digits and a NUL. */
void sha256_hex(const void *bytes, size_t n, char out[65]);

#endif
