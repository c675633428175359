/* How a warden ends, whether its work was a run, a sandbox or an exec: everything is torn down, and the broker is told. */
#ifndef IMMURED_ENDING_H
#define IMMURED_ENDING_H

#include "cell.h"
#include "cgroup.h"
#include "message.h"
#include "payload.h"
#include "protect.h"
#include "run.h"

#include <sys/uio.h>

struct warden {
  struct cell cell;
  struct cgroup cgroup;
  struct payload payload;
  struct run run;
  struct held held;                /* places that are not there */
};

/* IMD_FAILED about `id` to the broker alone; what is to be torn down is the caller's. -1 with errno. */
int ending_tell_failed(const struct warden_config *config, uint64_t id, const struct imd_error *err);

/* To the broker, and then (but of an exec, whose keeper does) to the launcher that it knows. */
void ending_tell(const struct warden *warden, uint32_t type, const struct iovec *body, size_t pieces,
                 const struct imd_fds *fds);

/* It did not come to its exec, or to life: why. */
_Noreturn void ending_fail(struct warden *warden, const struct imd_error *err);

/* The outcome, with violations and collected files. The caller's nice value is lower afterwards. */
void ending_report(struct warden *warden, struct imd_outcome *outcome);

/* What is left goes, without a word. */
_Noreturn void ending_leave(struct warden *warden);

#endif
