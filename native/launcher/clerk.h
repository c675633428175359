/*
 * Clerks: what is asked of a live sandbox from outside is served by a process of its own, short-lived, in the sandbox.
 *
 * Born with the keeper's memory as it was then: host root in the cell's mount namespace (and its network, IPC and UTS), in
 * the host's pid and user namespace, in the cgroup S/clerks, so that what it writes counts as the sandbox's. Dies with the
 * keeper. Open: 0, 1, 2, the cell's and the config's descriptors, the places', `socket`. What a clerk does not need it drops
 * first. A pause of the sandbox does not stop it; the sandbox's end does.
 */
#ifndef IMMURED_CLERK_H
#define IMMURED_CLERK_H

#include "cell.h"
#include "run.h"

#include <stdbool.h>

struct clerk {
  const struct cell *cell;         /* cell->places: the sandbox's own writable places */
  const struct run *run;           /* the sandbox: its plan (kind SANDBOX), who made it, the payload's ids */
  bool attended;                   /* whether there is a `peer` */
  struct peer peer;                /* who asks, as the launcher knows it from the connection that the ASK named */
  int socket;                      /* SEQPACKET to the broker; its end ends the clerk */
};

_Noreturn void clerk_files(const struct clerk *clerk);
_Noreturn void clerk_changes(const struct clerk *clerk);
_Noreturn void clerk_snapshot(const struct clerk *clerk);

#endif
