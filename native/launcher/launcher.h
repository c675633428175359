/* The launcher's state: one process, one thread, one loop. */
#ifndef IMMURED_LAUNCHER_H
#define IMMURED_LAUNCHER_H

#include "accept.h"
#include "options.h"
#include "outbox.h"
#include "pool.h"
#include "sweep.h"
#include "table.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

TAILQ_HEAD(imd_runs, imd_run);

struct imd_launcher {
  const struct imd_options *options;
  struct imd_subtree subtree;
  struct imd_listener listener;
  struct imd_pool pool;
  struct imd_outbox outbox;
  struct imd_table runs;           /* by number; those that the broker has not heard the end of */
  struct imd_runs waiting;         /* for a cell */
  uint32_t waiting_count;
  size_t waiting_bytes;

  int broker, parker;              /* SEQPACKET, -1: gone */
  int everybody;                   /* epoll: broker, parker, listener, wardens */
  int urgent;                      /* epoll: the broker's socket can be written; the parker */
  bool listening;                  /* the listener is in `everybody` */
  uint64_t accept_after;           /* ns: after a want of descriptors or memory */
  bool stopping, failed;
  uint64_t stop_deadline;
};

/* Opens what the loop needs, says IMD_READY, serves until the broker is gone, ends everything. The exit status. */
int imd_launcher_main(const struct imd_options *options);

#endif
