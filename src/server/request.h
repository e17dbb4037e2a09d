/* request.h - one request, from its first line to the end of its answer.
 *
 * Loop thread only, except while `working` is set: then a helper thread owns body, reply and the
 * fields of the generation. */
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include "server/state.h"

enum request_state {
    REQUEST_HEAD,   /* the request line is there */
    REQUEST_BODY,   /* header accepted, body coming in */
    REQUEST_WORK,   /* text work, here or on a helper thread */
    REQUEST_WAIT,   /* jobs submitted, answer not begun */
    REQUEST_ANSWER, /* response queued at MHD */
};

struct route;

/* What goes out when it is not a stream. */
struct reply {
    int status; /* 0 = not decided */
    const char *type;
    struct buf body;
    bool close;
    int retry_after; /* seconds; 0 = no header */
    char allow[40];  /* 405 and OPTIONS */
};

struct request {
    struct server *srv;
    struct conn *conn; /* NULL once MHD has let go of it */
    struct request *next, **at;
    const struct route *route; /* NULL: no such path */
    enum request_state state;
    int64_t start_ms, state_ms;
    char id[72];
    char *uri;        /* path, query cut off */
    char method[8];   /* for the log */
    const char *tail; /* what follows the route's prefix */
    char key_name[32];

    bool begun;           /* the handler has seen the header */
    bool suspended, gone; /* gone: the client hung up */
    bool working;
    uv_work_t work;

    struct api_limits limits; /* as they were when the work began: a helper thread reads them */
    struct buf body;
    size_t received; /* of the body, kept or not */
    struct reply reply;

    /* generation */
    struct api_response *rsp;
    struct api_embeddings *embeddings; /* instead of rsp */
    struct job **jobs;
    size_t n_jobs;
    bool stream;
    bool started;  /* a job was admitted: the head may go out */
    bool decoding; /* text has come */
    size_t sent;   /* of reply.body, by a stream */
    int64_t quiet_ms;
    char created_id[48];
    char ignored[512];
};

/* request.c */
struct request *request_create(struct conn *c, const char *uri);
void request_free(struct request *q);
/* In and out of server.requests: those whose body has come and whose answer is not out. */
void request_link(struct request *q);
void request_unlink(struct request *q);
/* The id for X-Request-Id: the client's, where it is decent, or a new one. */
void request_set_id(struct request *q, const char *asked);
void reply_error(struct request *q, const struct err *err);
void reply_status(struct request *q, int status, const char *message);
/* One line, at debug level for probes; end says what cut the answer short, or "". */
void request_log(const struct request *q, int status, const char *end);

/* http.c */
void http_suspend(struct request *q);
void http_resume(struct request *q);
void http_gone(struct request *q); /* the client left: cancels, and lets MHD close */

#endif
