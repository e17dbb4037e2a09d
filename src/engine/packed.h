/* packed.h - the file that keeps a runtime's packed weights from one start to the next
 * (graph/packed_file.h). Private to the runtime.
 *
 * It is a cache: nothing that is wrong with it keeps the model from being served. What was found
 * and done is logged, each in one line. A file that is no file of packed weights is never touched.
 * Called from the runtime's thread, around the builds:
 *
 *   packed_open    maps and checks the file; the store then takes from it what it has
 *   packed_keep    after the builds: has the file written on a thread of its own when the store had
 *                  to pack, so that nobody waits for the disk
 *   packed_close   stops that thread, which leaves nothing behind; after the graphs are gone */
#ifndef ENGINE_PACKED_H
#define ENGINE_PACKED_H

#include "base/pool.h"

struct packed;
struct weight_store;

/* Never fails. path is copied, store and pool are borrowed. */
struct packed *packed_open(const char *path, struct weight_store *store, struct pool *pool);
void packed_keep(struct packed *p);
void packed_close(struct packed *p); /* NULL is fine */

#endif
