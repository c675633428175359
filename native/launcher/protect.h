/*
 * Places inside what may be written that stay as they are.
 *
 * What is there is mounted over itself, read-only, and each directory between it and the writable mount over itself
 * too: a mount point can neither be renamed nor removed by who sees it as one. What is not there is held: an empty file
 * stands in its place for as long as a run needs it, and is removed by the last run that does.
 */
#ifndef IMMURED_PROTECT_H
#define IMMURED_PROTECT_H

#include "cell.h"
#include "error.h"
#include "run.h"

/*
 * The files that are held. Their file system is a caller's, and may never answer who closes one (close asks a FUSE server):
 * so they wait in a socket, in no process's table, until protect_release; and what is left goes with the process that has it.
 */
struct held {
  int in, out;
  uint32_t count;                  /* of who puts them in */
};

#define HELD_NONE {.in = -1, .out = -1}

int held_open(struct held *held, struct imd_error *err);

/* Each directory between the writable mount that holds `path` and `path` becomes a mount point. */
int protect_pin(const struct view *view, const char *path, struct imd_error *err);

/*
 * `absent` is an enum imd_absent. What is held comes into `held`, for protect_release; it stays open here too.
 * Fails with IMD_STAGE_TARGET: absent and refused, a symbolic link on the way, a file with other names as well (which
 * could be written by those), a place that could not be held.
 */
int protect_place(const struct cell *cell, const struct run *run, const char *path, uint64_t absent, struct held *held,
                  struct imd_error *err);

/* Once no process of the run is left. Removes what nobody holds any more. Failures are logged. */
void protect_release(const struct cell *cell, const struct run *run, const struct held *held);

#endif
