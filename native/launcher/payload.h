/* The payload's first process, from clone3 in its cgroup and pid namespace to execve. */
#ifndef IMMURED_PAYLOAD_H
#define IMMURED_PAYLOAD_H

#include "cell.h"
#include "cgroup.h"
#include "error.h"
#include "run.h"

struct payload {
  pid_t pid;
  int pidfd;
  int channel;                     /* closes at exec; before that, why there was none */
};

#define PAYLOAD_NONE {.pid = -1, .pidfd = -1, .channel = -1}

/*
 * Makes the process and takes it through every step of the plan but the last two: born in its cgroup, with the
 * payload's identity, in its working directory, without capabilities, it waits.
 */
int payload_start(struct payload *payload, const struct cell *cell, const struct cgroup *cgroup,
                  const struct run *run, struct imd_error *err);

/* The filter, and exec. What comes of it arrives on the channel. */
int payload_go(const struct payload *payload, struct imd_error *err);

/* The channel is readable: 0 when the program runs (or the process died: its status says of what), else why not. */
int payload_result(struct payload *payload, struct imd_error *err);

#endif
