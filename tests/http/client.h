/* client.h - a daemon as a child process, and an HTTP client that can be as rude as it likes. */
#ifndef TESTS_HTTP_CLIENT_H
#define TESTS_HTTP_CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "base/buf.h"

enum { PATIENCE_MS = 20000 }; /* any wait that is longer is a failed test: sanitizers are slow */

struct daemon {
    pid_t pid;
    int port;
    int out;       /* its stdout */
    char log[64];  /* file with its stderr */
    char url[128]; /* as printed */
};

/* Starts gemmad-fake on a free port; args ends in NULL. Fails the test when no address is printed.
 */
void daemon_start(struct daemon *d, const char *const *args);
/* The same for the words of another command, the program first, as they are. pass_fd: a listening
 * socket to hand over as systemd does; -1 = none. */
void daemon_start_command(struct daemon *d, const char *const *argv, int pass_fd);
void daemon_wait_ready(struct daemon *d);
/* Sends the signal (0 = none) and returns the exit status, or -signal. */
int daemon_stop(struct daemon *d, int signum);
int daemon_wait(struct daemon *d);
bool daemon_log_has(const struct daemon *d, const char *text);
/* Runs to the end without a port: for settings that are refused. stderr goes to out. */
int daemon_fails(const char *const *args, char *out, size_t cap);

/* Writes a file into a folder of this process that goes away with it; the path lives until the call
 * after the next. */
const char *test_file(const char *name, const char *text);

int64_t test_ms(void);
void sleep_ms(int ms);

int dial(const struct daemon *d);
void hang_up(int fd);      /* close */
void hang_up_hard(int fd); /* close with a reset */
void say(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void say_bytes(int fd, const void *p, size_t n);
/* POST with Content-Type and Content-Length. */
void post(int fd, const char *path, const char *body);

struct answer {
    int status;            /* 0 = the connection ended without an answer */
    struct buf head, body; /* body: chunks joined */
    bool complete;         /* the body ended as its framing said */
    int n_chunks;
};

/* Reads one answer; the bytes behind it stay with the connection. */
void hear(int fd, struct answer *a);
/* Only the head, or only the next chunk of a chunked body: false at its end. */
void hear_head(int fd, struct answer *a);
bool hear_chunk(int fd, struct answer *a);
void answer_free(struct answer *a);
/* Value of a header, "" when absent; valid until the next call. */
const char *answer_header(const struct answer *a, const char *name);
/* True when the peer closes within the time. */
bool is_closed(int fd, int ms);

/* One request on a connection of its own. */
void ask(const struct daemon *d, struct answer *a, const char *method, const char *path);
void ask_post(const struct daemon *d, struct answer *a, const char *path, const char *body);

/* A sample of /metrics, -1 when absent; name with labels as it is written there. */
double metric(const struct daemon *d, const char *name);
/* Waits until the sample has this value. */
void wait_metric(const struct daemon *d, const char *name, double value);

/* Chat and completion bodies for the fake engine. */
#define CHAT(script) "{\"messages\":[{\"role\":\"user\",\"content\":\"" script "\"}]}"
#define CHAT_STREAM(script) \
    "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"" script "\"}]}"

#endif
