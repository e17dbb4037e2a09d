/* notify.h - sd_notify(3) without libsystemd: one datagram to $NOTIFY_SOCKET, nothing without it.
 */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

#include <stdint.h>

void notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Milliseconds between two WATCHDOG=1 that keep the service manager calm; 0 = it does not watch. */
int64_t notify_watchdog_ms(void);

#endif
