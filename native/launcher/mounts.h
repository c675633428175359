/* A plan's steps from ROOTFS to LOOPBACK: what is mounted, hidden, written and sealed before the payload exists. */
#ifndef IMMURED_MOUNTS_H
#define IMMURED_MOUNTS_H

#include "cell.h"
#include "error.h"
#include "peer.h"
#include "protect.h"
#include "run.h"

/*
 * In the plan's order, into the cell's mount namespace. Steps that walk through a caller's own file system (which may
 * never answer) are done by a child, within the configuration's open_timeout_ms. Consumes the sources' mounts.
 * `held` is for protect_release, after a failure too.
 *
 * What stands on names in a caller's tree (protected, hidden, or mounted there) goes with the name: where the host
 * renames another file over it or removes it, the kernel takes the mount away, from every namespace. `cell->table`
 * then answers POLLPRI, as for a mount that a caller's tree brought along; `cell->covers` are those that the plan made.
 * Fails with ESTALE where one of them went before that.
 */
int mounts_apply(struct cell *cell, const struct run *run, struct sources *sources, struct held *held,
                 struct imd_error *err);

/* How many mounts the cell has; the caller is in it. -1 with errno. */
int mounts_count(const struct cell *cell, uint32_t *count);

#endif
