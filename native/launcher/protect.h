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
#include "guard.h"
#include "run.h"

/* Each directory between the writable mount that holds `path` and `path` becomes a mount point. */
int protect_pin(const struct view *view, const char *path, struct imd_error *err);

/*
 * `absent` is an enum imd_absent. What is held comes into `findings` as a descriptor, for protect_release.
 * Fails with IMD_STAGE_TARGET: absent and refused, a symbolic link on the way, a file with other names as well (which
 * could be written by those), a place that could not be held.
 */
int protect_place(const struct cell *cell, const struct run *run, const char *path, uint64_t absent,
                  struct findings *findings, struct imd_error *err);

/* Once no process of the run is left. Removes what nobody holds any more; closes all. Failures are logged. */
void protect_release(const struct cell *cell, const struct run *run, struct imd_fds *held);

#endif
