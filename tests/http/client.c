#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum { ARGS_MAX = 24, FDS_MAX = 4096 };

int64_t test_ms(void)
{
    return clock_ns() / 1000000;
}

void sleep_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* ---- files ---- */

static char dir[] = "/tmp/gemmad-test-XXXXXX";

static void remove_dir(void)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    if (system(command) != 0)
        print_error("%s is left\n", dir);
}

const char *test_file(const char *name, const char *text)
{
    static char path[2][128];
    static int turn;
    static bool made;
    char *p = path[turn ^= 1];
    FILE *f;

    if (!made) {
        assert_non_null(mkdtemp(dir));
        atexit(remove_dir);
        made = true;
    }
    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    f = fopen(p, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return p;
}

/* ---- the daemon ---- */

static void fake_command(const char **argv, const char *const *args, bool with_port)
{
    int n = 0;

    argv[n++] = GEMMAD_FAKE;
    argv[n++] = "--model=/nowhere/fake.gguf";
    if (with_port)
        argv[n++] = "--port=0";
    for (int i = 0; args && args[i] && n < ARGS_MAX - 1; i++)
        argv[n++] = args[i];
    argv[n] = NULL;
}

static void run(const char *const *argv, int pass_fd)
{
    char pid[16];

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves no daemon behind */
    if (pass_fd >= 0) {
        dup2(pass_fd, 3);
        snprintf(pid, sizeof(pid), "%d", (int)getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "1", 1);
    }
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

void daemon_start(struct daemon *d, const char *const *args)
{
    const char *argv[ARGS_MAX];

    fake_command(argv, args, true);
    daemon_start_command(d, argv, -1);
}

void daemon_start_command(struct daemon *d, const char *const *argv, int pass_fd)
{
    int out[2], log;
    char line[256] = "";
    size_t n = 0;

    signal(SIGPIPE, SIG_IGN);
    memset(d, 0, sizeof(*d));
    snprintf(d->log, sizeof(d->log), "/tmp/gemmad-http-XXXXXX");
    log = mkstemp(d->log);
    assert_true(log >= 0);
    assert_int_equal(pipe(out), 0);
    d->pid = fork();
    if (d->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        close(out[0]);
        run(argv, pass_fd);
    }
    close(out[1]);
    close(log);
    d->out = out[0];
    while (n < sizeof(line) - 1 && read(d->out, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = 0;
    if (sscanf(line, "listening on %127s", d->url) != 1)
        fail_msg("the daemon did not start: %s", line);
    d->port = atoi(strrchr(d->url, ':') + 1);
}

void daemon_wait_ready(struct daemon *d)
{
    int64_t until = test_ms() + PATIENCE_MS;
    struct answer a;

    do {
        ask(d, &a, "GET", "/health");
        if (a.status == 200) {
            answer_free(&a);
            return;
        }
        answer_free(&a);
        sleep_ms(10);
    } while (test_ms() < until);
    fail_msg("the daemon does not become ready");
}

int daemon_wait(struct daemon *d)
{
    int64_t until = test_ms() + PATIENCE_MS;
    int status;

    while (waitpid(d->pid, &status, WNOHANG) == 0) {
        if (test_ms() > until) {
            kill(d->pid, SIGKILL);
            waitpid(d->pid, &status, 0);
            fail_msg("the daemon does not end");
        }
        sleep_ms(5);
    }
    close(d->out);
    d->pid = 0;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

bool daemon_log_has(const struct daemon *d, const char *text)
{
    FILE *f = fopen(d->log, "r");
    char line[4096];
    bool found = false;

    assert_non_null(f);
    while (!found && fgets(line, sizeof(line), f))
        found = strstr(line, text) != NULL;
    fclose(f);
    return found;
}

int daemon_stop(struct daemon *d, int signum)
{
    int r;

    if (signum)
        kill(d->pid, signum);
    r = daemon_wait(d);
    if (r != 0 || daemon_log_has(d, "ERROR: ") || daemon_log_has(d, "WARNING: ThreadSanitizer")) {
        char command[128];

        snprintf(command, sizeof(command), "cat %s >&2", d->log);
        if (system(command) != 0)
            print_error("no log\n");
    }
    unlink(d->log);
    return r;
}

int daemon_fails(const char *const *args, char *out, size_t cap)
{
    const char *argv[ARGS_MAX];
    int err[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t pid;

    assert_int_equal(pipe(err), 0);
    pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);

        dup2(null, STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        close(err[0]);
        fake_command(argv, args, false);
        run(argv, -1);
    }
    close(err[1]);
    while (n < cap - 1 && (got = read(err[0], out + n, cap - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = 0;
    close(err[0]);
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- connections ---- */

/* Bytes read beyond an answer, by descriptor: they belong to the next one. */
static struct buf rest[FDS_MAX];

int dial(const struct daemon *d)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
        .sin_port = htons((uint16_t)d->port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && fd < FDS_MAX);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    buf_free(&rest[fd]);
    return fd;
}

void hang_up(int fd)
{
    buf_free(&rest[fd]);
    close(fd);
}

void hang_up_hard(int fd)
{
    struct linger l = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    hang_up(fd);
}

void say_bytes(int fd, const void *p, size_t n)
{
    const char *s = p;

    while (n > 0) {
        ssize_t put = send(fd, s, n, MSG_NOSIGNAL);

        if (put < 0) /* the server may close while we talk: what it answered tells the rest */
            return;
        s += put;
        n -= (size_t)put;
    }
}

void say(int fd, const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&s, fmt, ap);
    va_end(ap);
    assert_true(n >= 0);
    say_bytes(fd, s, (size_t)n);
    free(s);
}

void post(int fd, const char *path, const char *body)
{
    say(fd,
        "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s",
        path, strlen(body), body);
}

/* More bytes into rest[fd]; false when the peer has closed. */
static bool more(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n;

    if (poll(&p, 1, PATIENCE_MS) <= 0)
        fail_msg("no byte came in %d ms", PATIENCE_MS);
    buf_reserve(&rest[fd], 65536);
    n = recv(fd, rest[fd].data + rest[fd].len, 65536, 0);
    if (n <= 0)
        return false;
    rest[fd].len += (size_t)n;
    rest[fd].data[rest[fd].len] = 0;
    return true;
}

static void take(int fd, size_t n, struct buf *out)
{
    struct buf *b = &rest[fd];

    buf_append(out, b->data, n);
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

/* Takes everything up to and with `end`; false when the peer closed before. */
static bool take_until(int fd, const char *end, struct buf *out)
{
    char *at;

    while (!rest[fd].len || !(at = memmem(rest[fd].data, rest[fd].len, end, strlen(end)))) {
        if (!more(fd))
            return false;
    }
    take(fd, (size_t)(at - rest[fd].data) + strlen(end), out);
    return true;
}

static bool take_bytes(int fd, size_t n, struct buf *out)
{
    while (rest[fd].len < n) {
        if (!more(fd)) {
            take(fd, rest[fd].len, out);
            return false;
        }
    }
    if (n)
        take(fd, n, out);
    return true;
}

void hear_head(int fd, struct answer *a)
{
    memset(a, 0, sizeof(*a));
    if (!take_until(fd, "\r\n\r\n", &a->head))
        return;
    if (sscanf(a->head.data, "HTTP/1.1 %d ", &a->status) != 1)
        fail_msg("not an answer: %s", a->head.data);
    if (a->status == 100) { /* an interim answer; the real one follows */
        buf_free(&a->head);
        hear_head(fd, a);
    }
}

const char *answer_header(const struct answer *a, const char *name)
{
    static char value[1024];
    char key[64];
    const char *at;
    size_t n;

    snprintf(key, sizeof(key), "\r\n%s: ", name);
    at = a->head.data ? strcasestr(a->head.data, key) : NULL;
    if (!at)
        return "";
    at += strlen(key);
    n = strcspn(at, "\r");
    snprintf(value, sizeof(value), "%.*s", (int)n, at);
    return value;
}

bool hear_chunk(int fd, struct answer *a)
{
    struct buf line = {0}, crlf = {0};
    unsigned long n;

    if (!take_until(fd, "\r\n", &line)) {
        buf_free(&line);
        return false;
    }
    n = strtoul(line.data, NULL, 16);
    buf_free(&line);
    if (!take_bytes(fd, n, &a->body) || !take_bytes(fd, 2, &crlf)) {
        buf_free(&crlf);
        return false;
    }
    assert_memory_equal(crlf.data, "\r\n", 2);
    buf_free(&crlf);
    a->n_chunks += n > 0;
    a->complete = n == 0;
    return n > 0;
}

void hear(int fd, struct answer *a)
{
    hear_head(fd, a);
    if (!a->status)
        return;
    if (strcmp(answer_header(a, "Transfer-Encoding"), "chunked") == 0) {
        while (hear_chunk(fd, a))
            ;
    } else if (*answer_header(a, "Content-Length")) {
        a->complete =
            take_bytes(fd, strtoul(answer_header(a, "Content-Length"), NULL, 10), &a->body);
    } else if (a->status != 204) {
        while (more(fd))
            ;
        take(fd, rest[fd].len, &a->body);
        a->complete = true;
    }
    if (!a->body.data)
        buf_puts(&a->body, "");
}

void answer_free(struct answer *a)
{
    buf_free(&a->head);
    buf_free(&a->body);
}

bool is_closed(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t until = test_ms() + ms;
    char skip[4096];

    while (test_ms() < until) {
        if (poll(&p, 1, (int)(until - test_ms())) > 0 && recv(fd, skip, sizeof(skip), 0) <= 0)
            return true;
    }
    return false;
}

void ask(const struct daemon *d, struct answer *a, const char *method, const char *path)
{
    int fd = dial(d);

    say(fd, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", method, path);
    if (strcmp(method, "HEAD") == 0)
        hear_head(fd, a);
    else
        hear(fd, a);
    hang_up(fd);
}

void ask_post(const struct daemon *d, struct answer *a, const char *path, const char *body)
{
    int fd = dial(d);

    post(fd, path, body);
    hear(fd, a);
    hang_up(fd);
}

double metric(const struct daemon *d, const char *name)
{
    struct answer a;
    char key[128];
    const char *at;
    double v = -1;

    ask(d, &a, "GET", "/metrics");
    assert_int_equal(a.status, 200);
    snprintf(key, sizeof(key), "\n%s ", name);
    at = strstr(a.body.data, key);
    if (at)
        v = strtod(at + strlen(key), NULL);
    answer_free(&a);
    return v;
}

void wait_metric(const struct daemon *d, const char *name, double value)
{
    int64_t until = test_ms() + PATIENCE_MS;

    while (metric(d, name) != value) {
        if (test_ms() > until)
            fail_msg("%s is %g, not %g", name, metric(d, name), value);
        sleep_ms(5);
    }
}
