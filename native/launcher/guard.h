/* Work that touches a caller's file system is done by a child under a deadline: the warden itself never waits for one. */
#ifndef IMMURED_GUARD_H
#define IMMURED_GUARD_H

#include "cell.h"
#include "error.h"
#include "message.h"
#include "run.h"

/* How a wait for one of our own children ended; WAITED_IN_VAIN: poll failed, with errno. */
enum waited { WAITED_READY, WAITED_KILLED, WAITED_TOO_LONG, WAITED_IN_VAIN };

/* Until `fd` can be read, the launcher has something to say (unless the run is over), or imd_now_ns is `deadline`. */
enum waited run_wait(const struct run *run, int fd, uint64_t deadline);

/* What such work brings back: descriptors, and which of the things asked for they are. */
struct findings {
  struct imd_fds fds;
  uint64_t which;
};

typedef int guarded_work(void *argument, struct findings *findings, struct imd_error *err);

/*
 * work(argument) in a child that shares our namespaces, within open_timeout_ms; fails as it fails, or with
 * IMD_STAGE_DEADLINE. The child's changes to memory are lost but for `findings`.
 */
int guarded_call(const struct cell *cell, const struct run *run, guarded_work *work, void *argument,
                 struct findings *findings, struct imd_error *err);

#endif
