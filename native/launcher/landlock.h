/*
 * Landlock, the second wall: where the first ones (mounts, ids, no capabilities, the filter) had a hole, this one still
 * refuses. It says nothing of reading; of the rest, by the kernel's ABI (the rung; docs/isolation.md has the table):
 *
 *   2   writing, making, removing and moving files anywhere but beneath what the plan lets be written
 *   3   cutting files short, the same
 *   4   with IMD_LANDLOCK_NO_NETWORK: TCP bind and connect
 *   5   ioctl on device nodes anywhere but beneath /dev
 *   6   abstract sockets and signals of anybody outside of this run
 *   7   refusals go to the audit log, of programs executed later too; those of domains that the payload makes do not
 *   9   sockets with a path that somebody outside of this run listens on, wherever they are
 *   10  with IMD_LANDLOCK_NO_NETWORK: UDP bind, connect and send
 *
 * The rules are few, and each is added where its directory is open anyway: what a cell has from the start when it is
 * parked, each writable mount of a plan when it is attached. On a run's way that is a system call for each of the
 * latter and one to enforce it all.
 */
#ifndef IMMURED_LANDLOCK_H
#define IMMURED_LANDLOCK_H

#include "error.h"
#include "plan.h"
#include "view.h"

#include <stdbool.h>
#include <stdint.h>

/* What plans are held to on this kernel: 0 for none (before ABI 2 no file could move between directories). */
uint32_t landlock_rung(void);

/* A cell's rules: its ruleset into `*ruleset` (-1 where the kernel has none). Fails with IMD_STAGE_CELL. */
int landlock_make(const struct view *view, int *ruleset, struct imd_error *err);

/* A place of the plan's that may be written. Fails with IMD_STAGE_MOUNT. */
int landlock_allow(int ruleset, int place, bool directory, const char *path, struct imd_error *err);

/* The step, in the payload's process, which has no_new_privs. Fails with IMD_STAGE_PROCESS. */
int landlock_restrict(int ruleset, const struct view *view, const struct imd_plan_step *step, struct imd_error *err);

#endif
