/* log.h - one line per event on stderr, with a journald priority prefix when stderr is no terminal.
 *
 * error = someone must act; warn = degraded; info = lifecycle and one line per
 * request; debug = off by default. A short sentence, then key=value pairs.
 * Never a prompt, never an answer. Any thread may log. */
#ifndef GEMMAD_LOG_H
#define GEMMAD_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
/* 0 and *level set, or -1 when the name is none of error, warn, info, debug. */
int log_level_parse(const char *name, enum log_level *level);
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
