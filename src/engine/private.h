/* private.h - the engine itself, for the files that implement gemmad/engine.h. */
#ifndef ENGINE_PRIVATE_H
#define ENGINE_PRIVATE_H

#include <pthread.h>

#include "engine/kv.h"
#include "engine/queue.h"
#include "engine/runtime.h"
#include "engine/scheduler.h"
#include "gemmad/engine.h"
#include "model/chat.h"
#include "model/chat_parse.h"

/* Most choices of a job, and what a request may carry: bounds on work and memory, far above use. */
enum { CHOICES_MAX = 128, STOPS_MAX = 64, STOP_BYTES_MAX = 4096, TIMEOUT_MS_MAX = 1 << 30 };

struct engine {
    struct engine_opts opts; /* its strings are the caller's: used while opening only */
    struct engine_info info;
    enum chat_format chat;
    struct chat_marks marks;
    struct queue queue;
    pthread_t thread;

    /* Made by the engine thread before open returns, destroyed by it at the end. The tokenizer of
     * rt is read by any thread, the rest by the engine thread alone. */
    struct runtime *rt;
    struct kv *kv;
    struct sched *sched;

    /* Guarded by the queue's lock. */
    bool opened;
    int open_result;
    struct err open_err;
};

#endif
