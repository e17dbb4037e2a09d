#include "cmd/bell.h"

void bell_ring(void *bell)
{
    struct bell *b = bell;

    pthread_mutex_lock(&b->lock);
    b->rung = true;
    pthread_cond_signal(&b->cond);
    pthread_mutex_unlock(&b->lock);
}

void bell_wait(struct bell *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->rung)
        pthread_cond_wait(&b->cond, &b->lock);
    b->rung = false;
    pthread_mutex_unlock(&b->lock);
}
