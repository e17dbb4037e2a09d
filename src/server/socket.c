#include "server/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h> /* netinet/tcp.h has not the whole tcp_info */
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024, FIRST_PASSED_FD = 3 };

bool address_is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    if (a->sa_family == AF_INET6) {
        const struct in6_addr *six = &((const struct sockaddr_in6 *)a)->sin6_addr;

        return IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127);
    }
    return a->sa_family == AF_UNIX;
}

/* Numeric addresses and localhost only: no resolver that could block or be lied to. */
static int resolve(struct addrinfo **out, const struct config *cfg, struct err *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    char host[CONFIG_NAME_MAX], port[16];
    size_t n;

    snprintf(
        host, sizeof(host), "%s", strcmp(cfg->host, "localhost") == 0 ? "127.0.0.1" : cfg->host);
    n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        memmove(host, host + 1, n - 2);
        host[n - 2] = 0;
    }
    snprintf(port, sizeof(port), "%d", cfg->port);
    if (!*host || getaddrinfo(host, port, &hints, out) != 0)
        return err_set_at(err, GD_EINVAL, "host",
            "host: \"%.80s\" is neither an IP address nor localhost", cfg->host);
    return 0;
}

static int bind_one(int *out, const struct addrinfo *a, const struct config *cfg, struct err *err)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, off = 0;

    if (fd < 0)
        return err_set(err, GD_EIO, "cannot make a socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->ai_family ==
        AF_INET6) /* :: takes IPv4 clients as well, whatever the machine's default */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int why = errno;

        close(fd);
        return err_set(
            err, GD_EIO, "cannot listen on %.80s port %d: %s", cfg->host, cfg->port, strerror(why));
    }
    *out = fd;
    return 0;
}

/* sd_listen_fds(3): exactly one socket, meant for this process. -1 = none. */
static int passed_fd(void)
{
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

    if (!pid || !n || strtol(pid, NULL, 10) != getpid() || strcmp(n, "1") != 0)
        return -1;
    return FIRST_PASSED_FD;
}

static void describe(int fd, char *url, size_t cap, bool *loopback)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof(a);
    char host[INET6_ADDRSTRLEN + 20] = "", port[16] = "";

    getsockname(fd, (struct sockaddr *)&a, &n);
    *loopback = address_is_loopback((struct sockaddr *)&a);
    if (a.ss_family == AF_UNIX) {
        snprintf(url, cap, "unix:%s", ((struct sockaddr_un *)&a)->sun_path);
        return;
    }
    getnameinfo((struct sockaddr *)&a, n, host, sizeof(host), port, sizeof(port),
        NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(url, cap, a.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host, port);
}

int listen_open(int *out, char *url, size_t cap, bool *loopback, const struct config *cfg,
    bool has_keys, struct err *err)
{
    struct addrinfo *a = NULL;
    int fd = passed_fd(), r;

    if (fd >= 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    } else {
        r = resolve(&a, cfg, err);
        if (r < 0)
            return r;
        if (!address_is_loopback(a->ai_addr) && !has_keys && !cfg->insecure) {
            freeaddrinfo(a);
            goto refuse;
        }
        r = bind_one(&fd, a, cfg, err);
        freeaddrinfo(a);
        if (r < 0)
            return r;
    }
    describe(fd, url, cap, loopback);
    if (*loopback || has_keys || cfg->insecure) {
        *out = fd;
        return 0;
    }
    close(fd);
refuse:
    return err_set_at(err, GD_EINVAL, "host",
        "host %.60s can be reached from other machines: set api_key_file, or insecure = true if "
        "everybody there may use it",
        cfg->host);
}

void socket_keepalive(int fd)
{
    int on = 1, idle_s = 30, interval_s = 10, count = 3, unacked_ms = 60000;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof(unacked_ms));
}

/* The kernel's numbers of TCP states; only netinet/tcp.h names them for programs. */
enum { STATE_CLOSE = 7, STATE_CLOSE_WAIT = 8 };

struct socket_facts socket_facts(int fd)
{
    struct tcp_info i = {0};
    socklen_t n = sizeof(i);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n) < 0)
        return (struct socket_facts){0};
    return (struct socket_facts){
        i.tcpi_bytes_received, i.tcpi_state == STATE_CLOSE_WAIT || i.tcpi_state == STATE_CLOSE};
}
