/* metrics.h - counters of the HTTP side, and the Prometheus text of everything. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdint.h>

#include "base/buf.h"
#include "gemmad/engine.h"

enum { METRICS_ROUTES = 16, METRICS_STATUSES = 24 };

/* Where a client was when it hung up. */
enum gone_phase { GONE_BODY, GONE_QUEUED, GONE_PREFILL, GONE_DECODE, GONE_PHASES };

struct metrics {
    uint64_t requests[METRICS_ROUTES][METRICS_STATUSES]; /* by route_index and status */
    uint64_t gone[GONE_PHASES];
    uint64_t auth_failures, timeouts;
};

/* status 499: the client left before its answer was out. */
void metrics_count(struct metrics *m, int route, int status);

struct metrics_view { /* what a scrape shows beside the counters */
    const char *version, *model;
    const struct engine_info *info;   /* NULL while loading */
    const struct engine_stats *stats; /* NULL while loading */
    int connections, requests, ready;
    int64_t load_ms, start_time;
};

/* text/plain; version=0.0.4. */
void metrics_write(struct buf *out, const struct metrics *m, const struct metrics_view *v);
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
