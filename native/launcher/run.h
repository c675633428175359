/* One run as the warden has it: whose it is, and its plan with what several parts need of it, read once. */
#ifndef IMMURED_RUN_H
#define IMMURED_RUN_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct peer {                      /* the caller, as the launcher knows it from the socket */
  uid_t uid;
  gid_t gid;
  uint32_t ngroups;
  const gid_t *groups;
};

struct run {
  uint64_t id;
  struct peer peer;
  const void *plan;                /* checked */
  int launcher;                    /* its end hung up, or a kill, ends every wait */
  int stdio[3];                    /* the payload's 0, 1 and 2 until it has them; -1 then */
  int go;                          /* the pipe of GO, likewise */
  bool terminal;                   /* stdio is one, which becomes the payload's controlling terminal */
  struct live *live;               /* of an exec: live.h; of a run NULL */
  int log;                         /* of a run that is learned from, until its explainer has it; else -1 */
  uint32_t ours;                   /* enum imd_prepare_flag: which of them are pipes of the broker's own */
  bool over;                       /* the payload is dead: a kill comes too late */
  uint64_t wall_ns, cpu_ns;        /* 0: no bound */
  bool kill_on_pids;
  bool confined;                   /* to `processors` (processors.h) */
  bool exclusive;                  /* nobody else who asks for his own has them meanwhile */
  bool cpuset;                     /* by its cgroup too */
  cpu_set_t processors;
  uint32_t inner_uid, inner_gid;   /* the payload's */
  uid_t uid;                       /* and as the host counts them */
  gid_t gid;
};

#define RUN_NONE(socket) {.launcher = (socket), .stdio = {-1, -1, -1}, .go = -1, .log = -1}

#endif
