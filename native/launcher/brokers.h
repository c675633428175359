/* Brokers come and go: what each says, what a new one is told, and what is kept while none is there. */
#ifndef IMMURED_BROKERS_H
#define IMMURED_BROKERS_H

#include "launcher.h"

/* The broker that is there from the start, or -1; READY is said to it. -1 with a line in the log. */
int imd_broker_open(struct imd_launcher *launcher, int broker);

/* A broker that has been told all that (upgrade.h), or -1. */
int imd_broker_watch(struct imd_launcher *launcher, int broker);

/* The broker's socket, or that of control, has something. */
void imd_broker_spoke(struct imd_launcher *launcher);
void imd_broker_knocked(struct imd_launcher *launcher);

/* It is gone, or breaks what was agreed: what can be kept is kept for the next. */
void imd_broker_gone(struct imd_launcher *launcher);

/* What is due for want of a broker; and when next (imd_now_ns), UINT64_MAX: never. */
void imd_broker_tend(struct imd_launcher *launcher);
uint64_t imd_broker_wake(const struct imd_launcher *launcher);

#endif
