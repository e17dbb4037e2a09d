#include "gemmad/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int max_level = LOG_LEVEL_INFO;

static const char *const names[] = {"error", "warn", "info", "debug"};

void log_set_level(enum log_level level)
{
    atomic_store(&max_level, (int)level);
}

int log_level_parse(const char *name, enum log_level *level)
{
    for (int i = 0; i <= LOG_LEVEL_DEBUG; i++) {
        if (strcmp(name, names[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    static const int priority[] = {3, 4, 6, 7}; /* syslog(3) levels, as sd-daemon(3) wants them */
    char line[1024];
    size_t n = 0;
    va_list ap;

    if ((int)level > atomic_load(&max_level))
        return;
    if (isatty(STDERR_FILENO))
        n = (size_t)snprintf(line, sizeof(line), "%s: ", names[level]);
    else
        n = (size_t)snprintf(line, sizeof(line), "<%d>", priority[level]);
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
    va_end(ap);
    n = strlen(line);
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        return; /* a closed stderr must not end the daemon */
}
