/* The processors of one run: which, and that no two runs that ask for processors of their own have one in common. */
#ifndef IMMURED_PROCESSORS_H
#define IMMURED_PROCESSORS_H

#include "error.h"
#include "run.h"
#include "warden.h"

/* What the wardens' choices are held in, for `warden_config.processors`; -1 on failure. */
int processors_open(void);

/*
 * From the plan's AFFINITY step, if it has one, into `run->processors`: as many as it says, of those that it names or
 * else of all that we may use. Which of them differs from cell to cell. IMD_STAGE_PROCESSORS: one is named that we may
 * not use, or (EBUSY) too few are left that no other run holds.
 */
int processors_choose(struct run *run, const struct warden_config *config, struct imd_error *err);

/* Others may have them; the end of the calling process does the same. */
void processors_release(const struct run *run, const struct warden_config *config);

#endif
