/* What a run and a sandbox have in common: the cell as the plan says, from its cgroup to its network. */
#ifndef IMMURED_STAND_H
#define IMMURED_STAND_H

#include "ending.h"
#include "error.h"

/* The cgroup as cgroup_make makes it (CGROUP_OF_RUN, _OF_SANDBOX), the caller's paths, the mounts, lo as the plan says. */
int stand_up(struct warden *warden, enum cgroup_of of, struct imd_error *err);

#endif
