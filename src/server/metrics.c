#include "server/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/routes.h"

static const int statuses[] = {
    200, 204, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 431, 499, 500, 501, 503, 505};
enum { N_STATUSES = sizeof(statuses) / sizeof(statuses[0]) };
_Static_assert(N_STATUSES < (int)METRICS_STATUSES, "room for one more: the rest");

void metrics_count(struct metrics *m, int route, int status)
{
    int i = 0;

    while (i < N_STATUSES && statuses[i] != status)
        i++;
    m->requests[route][i]++;
}

static void family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(struct buf *out, const char *name, double v)
{
    buf_printf(out, "%s %.17g\n", name, v);
}

static void single(struct buf *out, const char *name, const char *type, const char *help, double v)
{
    family(out, name, type, help);
    number(out, name, v);
}

static void label(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\\' || *value == '"')
            buf_putc(out, '\\');
        if (*value == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, *value);
    }
    buf_putc(out, '"');
}

static void histogram(
    struct buf *out, const char *name, const char *help, const struct histogram *h)
{
    uint64_t n = 0;

    family(out, name, "histogram", help);
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        n += h->counts[i];
        buf_printf(
            out, "%s_bucket{le=\"%.9g\"} %llu\n", name, histogram_bounds[i], (unsigned long long)n);
    }
    n += h->counts[HISTOGRAM_BUCKETS];
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)n);
    buf_printf(out, "%s_sum %.17g\n%s_count %llu\n", name, h->sum, name, (unsigned long long)n);
}

static void write_http(struct buf *out, const struct metrics *m, const struct metrics_view *v)
{
    static const char *const phases[] = {"body", "queued", "prefill", "decode"};

    family(out, "gemmad_http_requests_total", "counter", "Finished requests by route and status.");
    for (int r = 0; r <= routes_count(); r++) {
        for (int s = 0; s <= N_STATUSES; s++) {
            if (m->requests[r][s] == 0)
                continue;
            buf_puts(out, "gemmad_http_requests_total{");
            label(out, "route", routes_name(r));
            if (s < N_STATUSES)
                buf_printf(out, ",status=\"%d\"", statuses[s]);
            else
                buf_puts(out, ",status=\"other\"");
            buf_printf(out, "} %llu\n", (unsigned long long)m->requests[r][s]);
        }
    }
    family(out, "gemmad_client_disconnects_total", "counter",
        "Clients that hung up before their answer was out, by phase.");
    for (int p = 0; p < GONE_PHASES; p++)
        buf_printf(out, "gemmad_client_disconnects_total{phase=\"%s\"} %llu\n", phases[p],
            (unsigned long long)m->gone[p]);
    single(out, "gemmad_auth_failures_total", "counter", "Requests without a valid API key.",
        (double)m->auth_failures);
    single(out, "gemmad_http_timeouts_total", "counter",
        "Connections closed because a header or body did not come in time.", (double)m->timeouts);
    single(out, "gemmad_http_connections", "gauge", "Open client connections.", v->connections);
    single(out, "gemmad_http_requests_in_flight", "gauge", "Requests whose answer is not yet out.",
        v->requests);
    single(out, "gemmad_ready", "gauge", "1 when the model is loaded and new work is taken.",
        v->ready);
}

static void write_engine(struct buf *out, const struct engine_stats *s)
{
    static const char *const reasons[] = {"", "stop", "length", "timeout", "canceled", "error"};

    single(
        out, "gemmad_requests_running", "gauge", "Choices being prefilled or decoded.", s->running);
    single(out, "gemmad_requests_waiting", "gauge", "Jobs in the queue.", s->waiting);
    single(out, "gemmad_queue_tokens", "gauge", "Prompt tokens of the jobs in the queue.",
        (double)s->waiting_tokens);
    single(out, "gemmad_kv_usage_ratio", "gauge", "Used part of the key-value pages, 0 to 1.",
        s->kv_used);
    family(out, "gemmad_jobs_finished_total", "counter",
        "Finished jobs by the reason of the choice that ended last.");
    for (int i = FINISH_STOP; i <= FINISH_ERROR; i++)
        buf_printf(out, "gemmad_jobs_finished_total{reason=\"%s\"} %llu\n", reasons[i],
            (unsigned long long)s->jobs_finished[i]);
    single(out, "gemmad_jobs_refused_total", "counter", "Jobs refused because the queue was full.",
        (double)s->jobs_refused);
    single(out, "gemmad_jobs_canceled_total", "counter", "Jobs given up before they had finished.",
        (double)s->jobs_canceled);
    single(out, "gemmad_prompt_tokens_total", "counter", "Prompt tokens taken in.",
        (double)s->prompt_tokens);
    single(out, "gemmad_cached_tokens_total", "counter", "Prompt tokens found in the prefix cache.",
        (double)s->cached_tokens);
    single(out, "gemmad_completion_tokens_total", "counter", "Tokens generated.",
        (double)s->completion_tokens);
    single(out, "gemmad_preemptions_total", "counter", "Sequences recomputed for want of pages.",
        (double)s->preemptions);
    single(out, "gemmad_head_bytes_total", "counter",
        "Bytes of the head in the steps that used it.", (double)s->head_bytes_whole);
    single(out, "gemmad_head_read_bytes_total", "counter",
        "Bytes of it that were read: fewer when only the likeliest tokens were wanted.",
        (double)s->head_bytes_read);
    single(out, "gemmad_engine_steps_total", "counter", "Steps of the engine.", (double)s->steps);
    single(out, "gemmad_engine_last_step_age_seconds", "gauge",
        "Since the engine last made progress or found nothing to do.",
        (double)s->last_step_ms_ago / 1000);
    histogram(
        out, "gemmad_time_to_first_token_seconds", "From submission to the first token.", &s->ttft);
    histogram(out, "gemmad_inter_token_latency_seconds", "Between two tokens of a choice.",
        &s->inter_token);
    histogram(out, "gemmad_request_duration_seconds", "From submission to the last token.",
        &s->end_to_end);
    histogram(out, "gemmad_queue_time_seconds", "From submission to admission.", &s->queue_time);
    /* The names that the Gateway API's stock endpoint picker reads. */
    single(out, "vllm:num_requests_running", "gauge", "As gemmad_requests_running.", s->running);
    single(out, "vllm:num_requests_waiting", "gauge", "As gemmad_requests_waiting.", s->waiting);
    single(out, "vllm:kv_cache_usage_perc", "gauge", "As gemmad_kv_usage_ratio.", s->kv_used);
}

static void write_build(struct buf *out, const struct metrics_view *v)
{
    family(out, "gemmad_build_info", "gauge", "What is running; always 1.");
    buf_puts(out, "gemmad_build_info{");
    label(out, "version", v->version);
    buf_putc(out, ',');
    label(out, "model", v->model);
    if (v->info) {
        buf_putc(out, ',');
        label(out, "arch", v->info->arch);
        buf_putc(out, ',');
        label(out, "isa", v->info->isa);
        buf_putc(out, ',');
        label(out, "profile", v->info->profile);
        buf_putc(out, ',');
        label(out, "kv_type", v->info->kv_type);
    }
    buf_puts(out, "} 1\n");
    single(out, "gemmad_model_load_seconds", "gauge", "Time the model took to load; 0 before.",
        (double)v->load_ms / 1000);
}

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = -3; /* . and .. and the directory itself */

    if (!d)
        return 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static double resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    long pages = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void write_process(struct buf *out, const struct metrics_view *v)
{
    struct rusage use = {0};
    struct rlimit files = {0};

    getrusage(RUSAGE_SELF, &use);
    getrlimit(RLIMIT_NOFILE, &files);
    single(out, "process_cpu_seconds_total", "counter", "User and system CPU time spent.",
        seconds(use.ru_utime) + seconds(use.ru_stime));
    single(out, "process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
    single(out, "process_open_fds", "gauge", "Open file descriptors.", open_fds());
    single(
        out, "process_max_fds", "gauge", "Limit of open file descriptors.", (double)files.rlim_cur);
    single(out, "process_start_time_seconds", "gauge", "Start, in seconds since the epoch.",
        (double)v->start_time);
}

void metrics_write(struct buf *out, const struct metrics *m, const struct metrics_view *v)
{
    write_build(out, v);
    write_http(out, m, v);
    if (v->stats)
        write_engine(out, v->stats);
    write_process(out, v);
}
