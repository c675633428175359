/* The warden's part in explaining: it hands the listener to PID 1, answers where PID 1 does not, and reads what it kept. */
#ifndef IMMURED_EXPLAIN_WATCH_H
#define IMMURED_EXPLAIN_WATCH_H

#include "error.h"
#include "explain.h"
#include "plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct explain_watch {
  struct explain_shared *shared;   /* with PID 1 */
  int init;                        /* the socket whose other end is PID 1's descriptor 0 */
  pid_t init_pid;
  int channel, payload_channel;    /* where the payload's process says that it has a listener, and hears that we took it */
  int log;                         /* PID 1's, of a run that is learned from; else -1 */
  int listener;                    /* -1: not explained, or nobody is left to be */
  const struct sock_filter *program;
  size_t length;                   /* of the base program, in instructions; 0: the plan has no EXPLAIN */
  uint64_t tick;                   /* when to see whether PID 1 keeps up; 0: it is idle, the listener is watched */
  uint64_t seen_id, seen_answered; /* what it was at last time */
  bool seen_waiting;               /* and whether a call waited to be taken */
  uint64_t busy_until;             /* how long one that gets no processor is waited for; 0: it is not known to get none */
  bool handed;                     /* PID 1 has the listener */
  bool stalled;                    /* it does not: we answer at once */
  uint32_t unexplained, refused;   /* calls that we answered in its place, and refused of them */
};

/* At parking: what PID 1 and the payload's process inherit. */
int explain_watch_make(struct explain_watch *watch, struct imd_error *err);

/* The plan's EXPLAIN, if it has one, into the memory shared with PID 1. The plan stays, `log` (or -1) is copied. */
int explain_watch_read(struct explain_watch *watch, const void *plan, int log, struct imd_error *err);

/* The payload's process has a listener, descriptor `number` of its own: ours too. PID 1 gets it with the first call. */
int explain_watch_take(struct explain_watch *watch, int payload, int number, struct imd_error *err);

/* The descriptor to poll for POLLIN, or -1; what to do when poll says something of it. */
int explain_watch_fd(const struct explain_watch *watch);
void explain_watch_heard(struct explain_watch *watch, short events);

/* At watch->tick, if it is not 0. `host_proc`: the host's /proc. */
void explain_watch_look(struct explain_watch *watch, int host_proc, uint64_t now);

/* PID 1's processor time for this run, ns; 0 where it explained nothing. */
uint64_t explain_watch_cpu(const struct explain_watch *watch);

/*
 * struct imd_violations and what follows it, of at most IMD_VIOLATIONS_SPACE bytes: copied, every length and kind
 * checked. How long it is; 0 where there is nothing to say.
 */
size_t explain_watch_report(const struct explain_watch *watch, void *space);

#endif
