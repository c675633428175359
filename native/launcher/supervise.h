/* From the birth of the payload's process to the death of everything that the payload started, and what there is to say of it. */
#ifndef IMMURED_SUPERVISE_H
#define IMMURED_SUPERVISE_H

#include "cell.h"
#include "cgroup.h"
#include "error.h"
#include "payload.h"
#include "run.h"

#include <stdbool.h>

enum { UNKILLABLE_MS = 5000 };

/*
 * Returns when no process of the cell (of an exec: of its cgroup) is left: 0 with `outcome` filled but for `collected`; -1 with `err` when there
 * was no exec (it failed, GO never came, or a kill came before it). `*orphaned`: the launcher is gone, and there is nobody to tell. Afterwards run->over holds.
 *
 * A process that waits for a file system which never answers cannot be killed: after UNKILLABLE_MS its run is over all
 * the same, as killed and with stragglers, and `payload` still names it for kill_cell.
 */
int supervise(struct cell *cell, const struct cgroup *cgroup, struct run *run, struct payload *payload,
              struct imd_outcome *outcome, bool *orphaned, struct imd_error *err);

/* Kills what there is of a cell, or of an exec in one, and waits until it is dead, at most `patience_ms` (-1: for good); whether it is. */
bool kill_cell(struct cell *cell, const struct cgroup *cgroup, struct payload *payload, int patience_ms);

#endif
