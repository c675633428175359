/* What an exec has and a run has not: a log, a terminal, signals from outside, and pauses in which its clock stands still. */
#ifndef IMMURED_LIVE_H
#define IMMURED_LIVE_H

#include "cell.h"
#include "cgroup.h"
#include "exec_log.h"
#include "payload.h"
#include "protocol.h"
#include "run.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_SIGNALS = 2 * (NSIG - 1) };    /* each to the first process, and to everybody */

struct live {
  struct exec_log log;             /* of one that is kept */
  int inputs[2];                   /* what goes to it: the reading ends of 1 and 2, or a terminal's master; -1 */
  int terminal;                    /* the master; -1 */
  bool paused;
  uint64_t since;                  /* when that began */
  uint64_t paused_ns;              /* all pauses since GO that are over */
  struct imd_signal signals[MOST_SIGNALS];  /* that wait, in their order; of equal ones the last */
  size_t signal_count;
  int messenger;                   /* pidfd of who passes one on; -1: nobody does */
};

#define LIVE_NONE {.log = EXEC_LOG_NONE, .inputs = {-1, -1}, .terminal = -1, .messenger = -1}

/*
 * A packet that the keeper passed on: SIGNAL, RESIZE, FREEZE; false: it is none of these. How long the pause was that this
 * one ended, into `*pause`; else 0.
 */
bool live_hear(struct live *live, const struct cell *cell, const struct cgroup *cgroup, const struct run *run,
               const struct payload *payload, const void *packet, size_t size, uint64_t *pause);

/*
 * The signals that waited for GO, or for the messenger before them. The end of a messenger can be polled for; of GO nobody
 * tells us: look again while live_waits_for_go.
 */
void live_pass_signals(struct live *live, const struct cgroup *cgroup, const struct run *run, const struct payload *payload);
bool live_waits_for_go(const struct live *live);

/*
 * Its main process died at `end`: of a pause that is on, or whose end the keeper has not told us yet; and nobody is there to
 * be signalled any more.
 */
void live_stop(struct live *live, const struct payload *payload, uint64_t end);

/* Input `which` can be read, or its end came: at most one record of it. */
void live_take(struct live *live, int which);

/* All that is there of what goes to the log, once its own processes are dead. Waits for nothing. */
void live_drain(struct live *live);

#endif
