/* server.h - the HTTP daemon: one loop thread that owns every socket.
 *
 * libuv drives libmicrohttpd (loop.c); a request goes gate -> route -> work -> answer (http.c,
 * routes.c, generate.c). The model is loaded on a helper thread while the server already listens;
 * long text work runs on helper threads too. Everything else in this folder runs on the loop
 * thread and takes no lock. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "gemmad/config.h"
#include "gemmad/engine.h"
#include "gemmad/err.h"

struct server_opts {
    const struct config *config; /* copied */
    struct engine_opts engine;   /* without wake */
    const char *version;
    /* On the loop thread, when the socket listens and when the model is ready. */
    void (*on_listening)(void *ud, const char *url);
    void (*on_ready)(void *ud, const struct engine_info *info, double load_s);
    /* On SIGHUP: reads the settings again; life.c says which are taken over. */
    int (*reload)(void *ud, struct config *fresh, struct err *err);
    void *ud;
};

/* Serves until SIGTERM or SIGINT; 0 after an orderly end. Errors: GD_EINVAL for settings,
 * GD_EIO for sockets, what engine_open() says for the model. */
int server_run(const struct server_opts *opts, struct err *err);

#endif
