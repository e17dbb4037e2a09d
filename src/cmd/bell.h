/* bell.h - a command's thread waits until the engine has news: bell_ring() is its engine_opts.wake.
 */
#ifndef CMD_BELL_H
#define CMD_BELL_H

#include <pthread.h>
#include <stdbool.h>

struct bell {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool rung; /* guarded by lock */
};

#define BELL_INIT                                                  \
    {                                                              \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false \
    }

void bell_ring(void *bell);
void bell_wait(struct bell *b);

#endif
