/* Requests with broken bytes, in pieces, cut off anywhere: whatever comes, the daemon lives, leaks
 * nothing and serves the next client. Most useful under the sanitizers. */
#include "client.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { ROUNDS = 3000, OPEN_AT_ONCE = 16, REQUEST_MAX = 4096 };

static struct daemon d;
static uint32_t state_of_dice = 20261124; /* a failure must reproduce */

static unsigned dice(unsigned n)
{
    state_of_dice = state_of_dice * 1664525 + 1013904223;
    return (state_of_dice >> 8) % n;
}

#define HEAD "Host: localhost\r\nContent-Type: application/json\r\n"

static const char *const seeds[] = {
    "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /v1/models/fake HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\r\n\r\nGET /metrics "
    "HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /tokenize HTTP/1.1\r\n" HEAD "Content-Length: 16\r\n\r\n{\"content\":\"ab\"}",
    "POST /tokenize HTTP/1.1\r\n" HEAD
    "Transfer-Encoding: chunked\r\n\r\n10\r\n{\"content\":\"ab\"}\r\n0\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\n" HEAD "Expect: 100-continue\r\nContent-Length: "
    "40\r\n\r\n{\"prompt\":\"tokens=2\",\"n\":2,\"stream\":true}",
    "POST /v1/chat/completions HTTP/1.1\r\n" HEAD
    "Content-Length: 61\r\n\r\n{\"messages\":[{\"role\":\"user\",\"content\":\"tokens=3 "
    "step=2\"}]}   ",
    "POST /v1/chat/completions HTTP/1.1\r\n" HEAD "Content-Length: 75\r\n\r\n"
    "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"tokens=9 step=1\"}]}     ",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
};

static size_t mutate(char *out, const char *seed)
{
    static const char *const tokens[] = {"\r\n", "\r\n\r\n", ":", " ", "%00", "\"", "{", "[", "0",
        "99999999999", "-1", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n",
        "Host: b\r\n", "\\u0000", "\xff\xfe"};
    size_t n = strlen(seed);

    memcpy(out, seed, n);
    for (unsigned k = dice(4); k > 0; k--) {
        size_t at = dice((unsigned)n), len = dice(8) + 1;
        const char *t = tokens[dice(sizeof(tokens) / sizeof(tokens[0]))];

        switch (dice(4)) {
        case 0: out[at] = (char)dice(256); break;
        case 1: /* insert */
            if (n + strlen(t) < REQUEST_MAX) {
                memmove(out + at + strlen(t), out + at, n - at);
                memcpy(out + at, t, strlen(t));
                n += strlen(t);
            }
            break;
        case 2: /* take away */
            len = len < n - at ? len : n - at - 1;
            memmove(out + at, out + at + len, n - at - len);
            n -= len;
            break;
        default: /* repeat the rest */
            if (n + n - at < REQUEST_MAX) {
                memmove(out + n, out + at, n - at);
                n += n - at;
            }
        }
    }
    return dice(5) ? n : dice((unsigned)n) + 1; /* some are cut off */
}

static void talk(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        size_t piece = dice(3) ? n : dice((unsigned)n) + 1;

        say_bytes(fd, bytes, piece);
        bytes += piece;
        n -= piece;
    }
}

static void leave(int fd)
{
    switch (dice(4)) {
    case 0: hang_up_hard(fd); return;
    case 1: shutdown(fd, SHUT_WR); break;
    case 2: is_closed(fd, 5); break;
    default: break;
    }
    hang_up(fd);
}

static void garbage_hurts_nobody(void **state)
{
    char request[2 * REQUEST_MAX];
    int open[OPEN_AT_ONCE];
    double fds, rss = 0;
    struct answer a;

    for (int i = 0; i < OPEN_AT_ONCE; i++)
        open[i] = -1;
    fds = metric(&d, "process_open_fds");
    for (int i = 0; i < ROUNDS; i++) {
        int *slot = &open[dice(OPEN_AT_ONCE)];

        if (*slot >= 0)
            leave(*slot);
        *slot = dial(&d);
        talk(*slot, request, mutate(request, seeds[dice(sizeof(seeds) / sizeof(seeds[0]))]));
        if (i % 500 == 0) {
            ask_post(&d, &a, "/v1/chat/completions", CHAT("tokens=2"));
            assert_int_equal(a.status, 200);
            answer_free(&a);
        }
        if (i == ROUNDS / 3)
            rss = metric(&d, "process_resident_memory_bytes");
    }
    for (int i = 0; i < OPEN_AT_ONCE; i++) {
        if (open[i] >= 0)
            hang_up(open[i]);
    }
    wait_metric(&d, "gemmad_requests_running", 0);
    wait_metric(&d, "gemmad_requests_waiting", 0);
    wait_metric(&d, "gemmad_http_requests_in_flight", 0);
    wait_metric(&d, "gemmad_http_connections", 1);
    assert_true(metric(&d, "process_open_fds") <= fds + 1);
    print_message("# resident memory grew by %.1f MB in two thirds of the rounds\n",
        (metric(&d, "process_resident_memory_bytes") - rss) / 1e6);
}

int main(void)
{
    static const char *const args[] = {"--max_sequences=8", "--queue_max=64", NULL};
    const struct CMUnitTest tests[] = {cmocka_unit_test(garbage_hurts_nobody)};
    int r;

    daemon_start(&d, args);
    daemon_wait_ready(&d);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    return daemon_stop(&d, SIGTERM) != 0 || r;
}
