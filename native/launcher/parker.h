/*
 * The parker: a small process that forks wardens, because a fork of this little takes 0.1 ms and never holds up the
 * launcher's loop, and that reaps them and whatever they left. IMD_P_PARK in, IMD_P_CELL and IMD_P_GONE out.
 */
#ifndef IMMURED_PARKER_H
#define IMMURED_PARKER_H

#include "warden.h"

#include <sys/types.h>

/*
 * Forks the parker from a process that is still small and holds no plan. `config` is what every warden inherits, but
 * for slot_base and cell. The parker keeps `locks` (IMD_MAX_LOCKS; -1: none) open until every warden is gone, also
 * when the launcher was killed. Returns the launcher's end of the SEQPACKET socket and the parker's pid, or -1 with errno.
 */
int imd_parker_start(const struct warden_config *config, const int *locks, pid_t *pid);

#endif
