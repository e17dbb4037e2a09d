/* conn.h - connections: who is there, who hung up, who takes too long. */
#ifndef SERVER_CONN_H
#define SERVER_CONN_H

#include "server/state.h"

/* MHD_OPTION_NOTIFY_CONNECTION. */
void conn_notify(void *server, struct MHD_Connection *mhd, void **context,
    enum MHD_ConnectionNotificationCode code);
struct conn *conn_of(struct MHD_Connection *mhd);

void conn_watch(struct conn *c); /* report a hang-up until conn_idle(); MHD may not */
void conn_idle(struct conn *c);  /* its request is over */

/* Deadlines of headers and bodies, comments into silent streams. */
void conn_tick(struct server *s);
/* Ends every connection; idle_only leaves those with a request. */
void conn_shut_all(struct server *s, bool idle_only);

/* http.c, as MHD calls it. */
void *http_uri(void *ud, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result http_handle(void *ud, struct MHD_Connection *mhd, const char *url,
    const char *method, const char *version, const char *upload, size_t *upload_len, void **cls);
void http_done(
    void *ud, struct MHD_Connection *mhd, void **cls, enum MHD_RequestTerminationCode why);

#endif
