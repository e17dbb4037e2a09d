/* generate.h - requests that need the engine: completions, chat, embeddings, and the text
 * endpoints. */
#ifndef SERVER_GENERATE_H
#define SERVER_GENERATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct job_event;
struct request;

/* Route answers (routes.h); these may run on a helper thread. */
void generate_chat(struct request *q);
void generate_completion(struct request *q);
void embeddings_answer(struct request *q);
void text_tokenize(struct request *q);
void text_detokenize(struct request *q);
void text_template(struct request *q);

/* Loop thread, from here on. Takes in what the jobs of a waiting request have to say; true when the
 * answer can begin: reply.status is set, or the stream's first bytes are there. */
bool generate_poll(struct request *q);

/* After a wake-up: resumes the request when there is something to do for it. */
void generate_wake(struct request *q);

/* Once in a while: comments into silent streams. */
void generate_tick(struct request *q, int64_t now);

/* MHD's content reader of a stream. */
ssize_t generate_read(void *request, uint64_t pos, char *buf, size_t max);

/* The same for a request for embeddings. */
bool embeddings_poll(struct request *q);

/* What generate.c and embeddings.c share. A 503 with the engine's estimate; true when the queue is
 * full, which is refused before a prompt costs anything; a reply for a job that ended in an error,
 * by its time or by the server's end, false for other ends. */
void generate_busy(struct request *q, const struct err *err);
bool generate_queue_is_full(struct request *q);
bool generate_failed(struct request *q, const struct job_event *ev);

/* Gives the jobs back; unfinished ones are canceled. */
void generate_release(struct request *q);

#endif
