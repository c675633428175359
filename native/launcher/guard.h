/* Work that touches a caller's file system is done by a child under a deadline: the warden itself never waits for one. */
#ifndef IMMURED_GUARD_H
#define IMMURED_GUARD_H

#include "cell.h"
#include "error.h"
#include "message.h"
#include "run.h"

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
