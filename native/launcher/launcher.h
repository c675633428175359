/* The launcher's state: one process, one thread, one loop. */
#ifndef IMMURED_LAUNCHER_H
#define IMMURED_LAUNCHER_H

#include "accept.h"
#include "control.h"
#include "options.h"
#include "outbox.h"
#include "pool.h"
#include "sweep.h"
#include "table.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

TAILQ_HEAD(imd_runs, imd_run);

enum { IMD_MAX_PARKERS = 8 };      /* of which the newest makes cells; the others wait for the end of theirs */

struct imd_launcher {
  const struct imd_options *options;
  struct imd_subtree subtree;
  struct imd_listener listener;
  struct imd_pool pool;
  struct imd_outbox outbox;
  struct imd_table runs;           /* and sandboxes, by number; those that the broker has not heard the end of */
  struct imd_table execs;          /* likewise */
  uint32_t sandboxes;              /* among them */
  struct imd_runs waiting;         /* for a cell */
  uint32_t waiting_count;
  size_t waiting_bytes;

  int broker, parker;              /* SEQPACKET, -1: gone */
  int outcomes[2];                 /* SEQPACKET: the broker's end, of which it has a copy, and the wardens' */
  struct imd_control control;      /* where another broker comes */
  int parkers[IMD_MAX_PARKERS];    /* -1: none. `parker` is among them, at `newest` */
  uint32_t generations[IMD_MAX_PARKERS];
  uint32_t newest, generation;     /* the latter of `parker`; 0 in a launcher that was no other before */
  int processors;                  /* what runs hold theirs in: processors.h */
  int counts;                      /* memfd: counts.h */
  int signals;                     /* signalfd */
  uint64_t upgrade_deadline;       /* ns: it becomes its program as soon as nothing is under way; 0: it does not */
  uint64_t watchdog, watchdog_interval;   /* ns: when to say that the loop turns; 0: nobody watches */
  uint64_t alone_until;            /* ns: without a broker since a while, and who is kept ends then; 0: one is there */
  int everybody;                   /* epoll: broker, parker, listener, control, wardens */
  int urgent;                      /* epoll: the broker's socket can be written; the parker */
  bool listening;                  /* the listener is in `everybody` */
  uint64_t accept_after;           /* ns: after a want of descriptors or memory */
  bool awaiting;                   /* control is in `everybody` */
  bool paused;                     /* nobody is accepted before another broker is there */
  bool terminated;                 /* nothing is kept when the broker goes */
  bool stopping, failed;
  uint64_t stop_deadline;
};

/* epoll's data: a slot, or one of these. */
enum { IMD_FROM_BROKER = 1 << 20, IMD_FROM_LISTENER, IMD_FROM_CONTROL, IMD_FROM_SIGNALS, IMD_FROM_PARKER };   /* + its place */

/* Accept nobody any more; listen anew. */
void imd_launcher_stop_accepting(struct imd_launcher *launcher);
int imd_launcher_listen(struct imd_launcher *launcher, struct imd_error *err);

/* Everything ends. */
void imd_launcher_stop(struct imd_launcher *launcher);

/* Opens what the loop needs, says IMD_READY, serves until nobody is served or kept any more, ends everything. The exit status. */
int imd_launcher_main(const struct imd_options *options);

#endif
