/* hash.h - a checksum of bytes as fast as memory gives them: against accidents, not against
 * enemies. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Of the n bytes and their number, continuing from another hash or any number. A change of any one
 * 8-byte word always changes it, other changes but for one in 2^64. Little endian machines agree.
 */
uint64_t hash_bytes(uint64_t from, const void *p, size_t n);

#endif
