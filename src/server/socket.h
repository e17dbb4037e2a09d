/* socket.h - the listening socket (our own bind, or the one systemd hands over) and what the kernel
 * knows about a client. */
#ifndef SERVER_SOCKET_H
#define SERVER_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/config.h"
#include "gemmad/err.h"

/* Sets *fd (listening, non-blocking, close-on-exec), url for people and whether only this machine
 * can reach it. An address that others can reach needs has_keys or insecure: GD_EINVAL otherwise.
 */
int listen_open(int *fd, char *url, size_t cap, bool *loopback, const struct config *cfg,
    bool has_keys, struct err *err);

struct sockaddr;
bool address_is_loopback(const struct sockaddr *a);

/* A peer whose machine vanished sends no FIN: lets the kernel find out within a minute. */
void socket_keepalive(int fd);
/* What the kernel knows: bytes that have come in so far, and whether the peer has sent its last
 * one. Zeros where it does not say (unix sockets). */
struct socket_facts {
    uint64_t bytes_received;
    bool peer_closed;
};
struct socket_facts socket_facts(int fd);

#endif
