/* What the service manager is told, where one listens: sd_notify's datagram, without its library. */
#ifndef IMMURED_NOTIFY_H
#define IMMURED_NOTIFY_H

#include <stdint.h>

/* `READY=1`, `WATCHDOG=1`, `STOPPING=1`, to NOTIFY_SOCKET. */
void imd_notify(const char *state);

/* Nanoseconds between two WATCHDOG=1, half of what WATCHDOG_USEC allows; 0: nobody watches. */
uint64_t imd_notify_interval(void);

#endif
