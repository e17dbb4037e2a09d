#include "server/gate.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

static const char *const token_chars = "!#$%&'*+-.^_`|~0123456789"
                                       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static void refuse(struct header *h, int status, const char *why)
{
    if (h->status) /* the first reason stays */
        return;
    h->status = status;
    h->why = why;
}

static bool is_token(const char *s, size_t n)
{
    return n > 0 && strspn(s, token_chars) == n;
}

static void read_length(struct header *h, const char *value)
{
    int64_t n = 0;

    if (!*value || value[strspn(value, "0123456789")] || strlen(value) > 15) {
        refuse(h, 400, "Content-Length is not a number");
        return;
    }
    for (const char *p = value; *p; p++)
        n = n * 10 + (*p - '0');
    h->content_length = n;
}

/* Fields that may stand there once; a second one is a 400. */
static void read_single(struct header *h, const char *name, const char *value)
{
    const struct {
        const char *name;
        const char **at;
        const char *twice;
    } single[] = {
        {"Authorization", &h->authorization, "more than one Authorization header"},
        {"Content-Type", &h->content_type, "more than one Content-Type header"},
        {"X-Request-Id", &h->request_id, "more than one X-Request-Id header"},
    };

    for (size_t i = 0; i < sizeof(single) / sizeof(single[0]); i++) {
        if (strcasecmp(name, single[i].name) != 0)
            continue;
        if (*single[i].at)
            refuse(h, 400, single[i].twice);
        *single[i].at = value;
    }
}

static enum MHD_Result read_header(void *ud, enum MHD_ValueKind kind, const char *name,
    size_t name_len, const char *value, size_t value_len)
{
    struct header *h = ud;

    if (!is_token(name, name_len)) {
        refuse(h, 400, "a header name holds a character that it may not");
        return MHD_YES;
    }
    if (!value)
        value = "";
    if (strlen(value) != value_len && value_len > 0)
        refuse(h, 400, "a header value holds a NUL byte");
    if (strcasecmp(name, "Host") == 0) {
        h->n_host++;
        h->host = value;
    } else if (strcasecmp(name, "Content-Length") == 0) {
        h->n_length++;
        read_length(h, value);
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        h->n_encoding++;
        h->chunked = true;
        if (strcasecmp(value, "chunked") != 0)
            refuse(h, 400, "Transfer-Encoding can only be chunked");
    } else if (strcasecmp(name, "Expect") == 0) {
        h->expects_continue = true;
        if (strcasecmp(value, "100-continue") != 0)
            refuse(h, 417, "Expect can only be 100-continue");
    } else {
        read_single(h, name, value);
    }
    return MHD_YES;
}

static enum method read_method(struct header *h, const char *method)
{
    static const char *const names[] = {"", "GET", "HEAD", "POST", "OPTIONS"};

    if (!is_token(method, strlen(method)))
        refuse(h, 400, "the method is not a token");
    for (int i = METHOD_GET; i <= METHOD_OPTIONS; i++) {
        if (strcmp(method, names[i]) == 0) /* case matters in a method */
            return (enum method)i;
    }
    return METHOD_OTHER;
}

void gate_read(struct header *h, struct MHD_Connection *conn, const char *uri, const char *method,
    const char *version)
{
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    bool http11 = strcmp(version, MHD_HTTP_VERSION_1_1) == 0;

    *h = (struct header){.content_length = -1};
    if (!http11 && strcmp(version, MHD_HTTP_VERSION_1_0) != 0)
        refuse(h, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    if (strlen(uri) > URI_BYTES_MAX)
        refuse(h, 414, "the URI is too long");
    else if (size && size->header_size > HEADER_BYTES_MAX)
        refuse(h, 431, "the header is too large");
    h->method = read_method(h, method);
    MHD_get_connection_values_n(conn, MHD_HEADER_KIND, read_header, h);
    h->accepts_body = h->n_length > 0 || h->chunked;
    if (h->n_length > 0 && h->n_encoding > 0)
        refuse(h, 400, "Content-Length and Transfer-Encoding exclude each other");
    if (h->n_length > 1)
        refuse(h, 400, "more than one Content-Length header");
    if (h->n_encoding > 1)
        refuse(h, 400, "more than one Transfer-Encoding header");
    if (h->n_encoding && !http11)
        refuse(h, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (h->n_host > 1 || (http11 && h->n_host == 0))
        refuse(h, 400, "there must be exactly one Host header");
}

bool gate_is_json(const char *type)
{
    static const char json[] = "application/json";
    size_t n = sizeof(json) - 1;

    return type && strncasecmp(type, json, n) == 0 &&
           (!type[n] || type[n] == ';' || type[n] == ' ' || type[n] == '\t');
}

static bool same(const char *a, size_t n, const char *b, size_t m)
{
    return n == m && strncasecmp(a, b, n) == 0;
}

bool gate_host_allowed(const char *host, const char *list, const char *bound)
{
    static const char *const local[] = {"localhost", "127.0.0.1", "[::1]"};
    size_t n;

    if (strcmp(list, "*") == 0 || !host) /* HTTP/1.0 without Host: no browser sends that */
        return true;
    n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    if (n > strlen(host) || (host[n] && host[n] != ':'))
        return false;
    if (strcmp(list, "auto") == 0) {
        for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
            if (same(host, n, local[i], strlen(local[i])))
                return true;
        }
        return same(host, n, bound, strlen(bound)) ||
               (*host == '[' && n > 2 && same(host + 1, n - 2, bound, strlen(bound)));
    }
    for (const char *p = list; *p;) {
        size_t len;

        p += strspn(p, ", ");
        len = strcspn(p, ", ");
        if (len > 0 && same(host, n, p, len))
            return true;
        p += len;
    }
    return false;
}
