/* routes.h - the table of what can be asked for. */
#ifndef SERVER_ROUTES_H
#define SERVER_ROUTES_H

#include <stdbool.h>
#include <stddef.h>

#include "server/gate.h"

struct request;

struct route {
    const char *path;
    bool is_prefix;     /* something not empty must follow path */
    enum method method; /* METHOD_GET (HEAD too) or METHOD_POST */
    /* Fills q->reply, or submits jobs. GET: on the loop thread. POST: possibly on a helper thread,
     * so only the request, the engine and settings that never change may be touched. */
    void (*answer)(struct request *q);
    bool is_probe; /* answered while loading, draining and above max_connections */
    bool is_open;  /* without a key */
};

/* NULL when there is none; *tail is what follows a prefix. */
const struct route *routes_find(const char *path, const char **tail);
void routes_allow(const struct route *r, char *out, size_t cap); /* "GET, HEAD, OPTIONS" */

int routes_count(void);
int routes_index(const struct route *r); /* NULL: routes_count() */
const char *routes_name(int index);      /* for metrics and the log: "none" for the last */

#endif
