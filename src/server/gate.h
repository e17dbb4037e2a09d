/* gate.h - what a request's header says, and whether it may pass.
 *
 * libmicrohttpd 0.9.75 accepts Content-Length beside Transfer-Encoding, two Content-Lengths, and
 * header names with spaces, and goes on with what a smuggler put behind them. So every request is
 * looked at here before anything is read of its body; what fails is answered and the connection
 * closed. */
#ifndef SERVER_GATE_H
#define SERVER_GATE_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

enum method { METHOD_OTHER, METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_OPTIONS };

struct header {
    enum method method;
    int64_t content_length;                       /* -1 = none */
    bool chunked, expects_continue, accepts_body; /* accepts_body: one of the first two is there */
    /* Borrowed from MHD, NULL when absent. */
    const char *host, *authorization, *content_type, *request_id;
    /* When status is not 0 the request is refused with it, and the connection closed. */
    int status;
    const char *why;

    int n_host, n_length, n_encoding; /* the gate's own */
};

enum { HEADER_BYTES_MAX = 32 << 10, URI_BYTES_MAX = 8 << 10 };

void gate_read(struct header *h, struct MHD_Connection *conn, const char *uri, const char *method,
    const char *version);

/* "application/json", parameters allowed. */
bool gate_is_json(const char *content_type);

/* True when the Host header's name, port cut off, is in the comma list, or is a loopback name or
 * `bound` when the list is "auto". */
bool gate_host_allowed(const char *host, const char *list, const char *bound);

#endif
