/* An exec: a process forked by a sandbox's keeper, that is the warden of one payload in the keeper's cell. */
#ifndef IMMURED_EXEC_H
#define IMMURED_EXEC_H

#include "ending.h"
#include "order.h"

#include <stdbool.h>
#include <stdint.h>

struct exec_start {
  const struct warden *sandbox;
  uint64_t place;                  /* the number of its cgroup */
  int channel;                     /* to the keeper, in the launcher's place: its end ends the exec, without a word */
  struct birth *birth;             /* shared with the keeper */
  bool network;                    /* lo is up */
};

/*
 * In the child: from its cgroup to its outcome, which it tells the broker itself. Exits with 0 once that is told, or nobody
 * is there to be told. `order`: what the keeper has read, an EXEC; its descriptors end with master and slave where the plan
 * has a TERMINAL. NULL: it comes through the channel, and all that needs no plan is done before.
 */
_Noreturn void exec_main(const struct exec_start *start, struct order *order, pid_t keeper);

#endif
