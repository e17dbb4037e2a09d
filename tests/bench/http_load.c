/* http_load.c - streaming clients against a running server, and what they saw.
 *
 * Each client sends POST /v1/completions with a prompt of English sentences that nobody has sent
 * before (nothing comes out of the prefix cache), reads the event stream, and starts over until the
 * requests are used up. After random tokens a model writes characters that take three tokens each
 * and reach the client as one event: gaps of three steps, which are not what is measured here. One
 * thread with poll(), and with short turns: it shall not take the server's CPUs, nor time its own
 * waiting for them. */
#include "bench/http_load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"

enum { MAX_CLIENTS = 1024 };

static const char usage[] =
    "usage: http_load [--host 127.0.0.1] [--port 8080] [--key KEY] [--clients 1] [--requests 8]\n"
    "                 [--prompt 128] [--gen 128] [--seed 1] [--json]\n"
    "Streams completions from a running gemmad: --clients at a time, --requests in all, prompts "
    "of\n"
    "--prompt words (one token each in a Gemma's vocabulary), --gen tokens each. Prints the time\n"
    "to the first token, the time between tokens, and tokens per second.\n";

/* Sentences go: the ADJECTIVE NOUN VERB the NOUN CONJUNCTION. */
static const char *const adjectives[16] = {"old", "young", "small", "great", "green", "quiet",
    "strange", "happy", "dark", "bright", "rich", "poor", "tall", "famous", "tired", "new"};
static const char *const nouns[16] = {"man", "woman", "king", "teacher", "doctor", "river", "house",
    "garden", "city", "bird", "horse", "train", "book", "letter", "friend", "captain"};
static const char *const verbs[16] = {"saw", "found", "left", "loved", "followed", "remembered",
    "called", "watched", "helped", "wanted", "missed", "reached", "visited", "heard", "met",
    "knew"};
static const char *const conjunctions[4] = {"and", "but", "because", "while"};

static int connect_to(const struct options *o)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (inet_pton(AF_INET, o->host, &a.sin_addr) != 1) {
        fprintf(stderr, "http_load: %s is no IPv4 address\n", o->host);
        exit(2);
    }
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        fprintf(
            stderr, "http_load: cannot connect to %s:%d: %s\n", o->host, o->port, strerror(errno));
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static unsigned next_random(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static const char *next_word(int i, unsigned *random)
{
    unsigned r = next_random(random);

    switch (i % 7) {
    case 1: return adjectives[r % 16];
    case 2:
    case 5: return nouns[r % 16];
    case 3: return verbs[r % 16];
    case 6: return conjunctions[r % 4];
    default: return "the";
    }
}

static void write_request(struct buf *out, const struct options *o, unsigned *random)
{
    struct buf body = {0};

    buf_printf(&body,
        "{\"stream\":true,\"stream_options\":{\"include_usage\":true},\"ignore_eos\":true,"
        "\"max_tokens\":%d,\"prompt\":\"",
        o->gen);
    for (int i = 0; i < o->prompt; i++)
        buf_printf(&body, "%s%s", i ? " " : "", next_word(i, random));
    buf_puts(&body, "\"}");
    buf_printf(out, "POST /v1/completions HTTP/1.1\r\nHost: %s:%d\r\n", o->host, o->port);
    if (o->key)
        buf_printf(out, "Authorization: Bearer %s\r\n", o->key);
    buf_printf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", body.len,
        body.data);
    buf_free(&body);
}

static void send_all(int fd, const struct buf *b)
{
    for (size_t at = 0; at < b->len;) {
        ssize_t n = send(fd, b->data + at, b->len - at, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* the answer, or its absence, will tell */
        at += (size_t)n;
    }
}

static void start(struct client *c, const struct options *o, unsigned *random)
{
    struct buf request = {0};

    write_request(&request, o, random);
    if (c->fd < 0)
        c->fd = connect_to(o);
    answer_begin(&c->answer, clock_ns());
    send_all(c->fd, &request);
    buf_free(&request);
}

/* Takes what has arrived; true when the answer is complete or the connection is gone. */
static bool receive(struct client *c, struct totals *t)
{
    char data[65536];
    ssize_t n = recv(c->fd, data, sizeof(data), 0);
    bool done;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    done = n <= 0 || answer_take(&c->answer, data, (size_t)n, clock_ns(), t);
    if (done)
        answer_end(&c->answer, t);
    if (n <= 0 || (done && !c->answer.keep_alive)) {
        close(c->fd);
        c->fd = -1;
    }
    return done;
}

static void run(const struct options *o, struct totals *t)
{
    struct client *clients = xcalloc((size_t)o->clients, sizeof(*clients));
    struct pollfd *fds = xcalloc((size_t)o->clients, sizeof(*fds));
    unsigned random = o->seed;
    int started = 0, busy = 0;

    for (int i = 0; i < o->clients; i++) {
        clients[i].fd = -1;
        fds[i].fd = -1;
        fds[i].events = POLLIN;
    }
    t->began = clock_ns();
    do {
        for (int i = 0; i < o->clients && started < o->requests; i++) {
            if (fds[i].fd >= 0)
                continue;
            start(&clients[i], o, &random);
            fds[i].fd = clients[i].fd;
            started++;
            busy++;
        }
        poll(fds, (nfds_t)o->clients, -1);
        for (int i = 0; i < o->clients; i++) {
            if (fds[i].fd >= 0 && fds[i].revents && receive(&clients[i], t)) {
                fds[i].fd = -1;
                busy--;
            }
        }
    } while (busy > 0 || started < o->requests);
    t->ended = clock_ns();
    for (int i = 0; i < o->clients; i++) {
        if (clients[i].fd >= 0)
            close(clients[i].fd);
        answer_free(&clients[i].answer);
    }
    free(clients);
    free(fds);
}

static int number(const char *name, const char *text, int min, int max)
{
    char *end;
    long v = strtol(text, &end, 10);

    if (end == text || *end || v < min || v > max) {
        fprintf(stderr, "http_load: --%s must be %d to %d, got %s\n", name, min, max, text);
        exit(2);
    }
    return (int)v;
}

static void read_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {{"host", 1, NULL, 'h'}, {"port", 1, NULL, 'p'},
        {"key", 1, NULL, 'k'}, {"clients", 1, NULL, 'c'}, {"requests", 1, NULL, 'r'},
        {"prompt", 1, NULL, 'l'}, {"gen", 1, NULL, 'g'}, {"seed", 1, NULL, 's'},
        {"json", 0, NULL, 'j'}, {"help", 0, NULL, 'H'}, {0}};
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (c) {
        case 'h': o->host = optarg; break;
        case 'p': o->port = number("port", optarg, 1, 65535); break;
        case 'k': o->key = optarg; break;
        case 'c': o->clients = number("clients", optarg, 1, MAX_CLIENTS); break;
        case 'r': o->requests = number("requests", optarg, 1, 1000000); break;
        case 'l': o->prompt = number("prompt", optarg, 1, 1000000); break;
        case 'g': o->gen = number("gen", optarg, 1, 1000000); break;
        case 's': o->seed = (unsigned)number("seed", optarg, 0, 1 << 30); break;
        case 'j': o->json = true; break;
        case 'H': fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "http_load: what is %s?\n%s", argv[optind], usage);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct options o = {.host = "127.0.0.1",
        .port = 8080,
        .clients = 1,
        .requests = 8,
        .prompt = 128,
        .gen = 128,
        .seed = 1};
    struct totals t = {0};

    signal(SIGPIPE, SIG_IGN);
    cpu_short_turns();
    read_options(&o, argc, argv);
    run(&o, &t);
    totals_print(&t, &o);
    totals_free(&t);
    return t.n_ok == o.requests ? 0 : 1;
}
