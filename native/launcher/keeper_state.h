/* What a keeper knows of its sandbox, its execs and its clerks. */
#ifndef IMMURED_KEEPER_STATE_H
#define IMMURED_KEEPER_STATE_H

#include "ending.h"
#include "message.h"
#include "order.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MAX_EXECS = 512,                 /* that live at the same time */
  MAX_CLERKS = 32,
  TELL_MS = 10000,                 /* how long what is to be told waits for a broker that reads slowly */
  FREEZE_MS = 5000,                /* how long processes may take to stand still */
  SPARE_END_MS = 1000,
};
#define SPARE_AFTER_NS 3000000ull  /* of quiet, before a warden is made ahead of need */
#define SPARE_FOR_NS 10000000000ull

struct exec {
  uint64_t number;
  pid_t pid;
  int pidfd, channel;              /* of its warden; channel -1: it is ending */
  struct birth *birth;             /* shared with it */
  bool kept, silent;               /* silent: nobody is to hear of its end */
  int fds[IMD_KEPT_FDS];           /* of one that is kept; the last -1 once its stdin was closed */
  int terminal;                    /* the master of one that is kept; -1 */
  uint64_t place;                  /* the number of its cgroup */
};

#define EXEC_NONE {.pidfd = -1, .channel = -1, .terminal = -1, .fds = {-1, -1, -1, -1, -1}}
#define EXEC_FREE ((struct exec)EXEC_NONE)

struct keeper {
  struct warden *warden;
  void *packet;                    /* room for one order */
  int record;                      /* the broker's memory of the sandbox */
  bool network;                    /* lo is up */
  uint64_t created, deadline;      /* imd_now_ns; deadline: its time to live is over */
  struct exec *execs;
  size_t count, space;
  uint64_t places;                 /* the number of the last cgroup of an exec */
  struct exec spare;               /* a warden that waits for an exec; its pidfd -1: there is none */
  uint64_t spare_due, spare_until; /* when to make one; when to let go of it */
  int clerks[MAX_CLERKS];          /* pidfds */
  size_t clerk_count;
  bool frozen, freezing;           /* freezing: on the way to `freeze_to` */
  bool freeze_to, freeze_asked;    /* freeze_asked: a broker waits for FROZEN */
  uint64_t freeze_deadline;
  int frozen_events;               /* -1: not freezing */
  uint32_t cause;                  /* 0: it lives */
  int wait_code, wait_status;      /* of PID 1, where that is the cause */
  bool uncovered, orphaned;        /* orphaned: the launcher is gone */
};

/* --- keeper_tell.c: to broker and launcher ----------------------------------------------------------------------- */

void keeper_tell(const struct keeper *keeper, uint32_t type, uint64_t id, const void *body, size_t size, const int *fds,
                 uint32_t nfds);
void keeper_tell_launcher(const struct keeper *keeper, uint32_t type, uint64_t id);
void keeper_fill_outcome(const struct keeper *keeper, struct imd_outcome *outcome);
void keeper_measure(const struct keeper *keeper);
void keeper_tell_kept(const struct keeper *keeper);

/* --- keeper_execs.c ---------------------------------------------------------------------------------------------- */

/* From an EXEC, whose descriptors it may take; what is wrong with it is for keeper_fail_exec. */
int keeper_start_exec(struct keeper *keeper, struct order *order, struct imd_error *err);
void keeper_fail_exec(const struct keeper *keeper, uint64_t id, const struct imd_error *err);

/* Its warden is dead. Its place in `execs` becomes the last one's. */
void keeper_bury_exec(struct keeper *keeper, struct exec *exec);

/* A packet of the broker's about one exec; a message to all. */
void keeper_pass_on(const struct keeper *keeper, uint64_t number, const void *packet, size_t size);
void keeper_pass_to_all(const struct keeper *keeper, uint32_t type, const void *body, size_t size);

/* Those that are not kept, or all, end without a word. */
void keeper_end_execs(struct keeper *keeper, bool all);
void keeper_close_stdin(const struct keeper *keeper, uint64_t number);

void keeper_make_spare(struct keeper *keeper);
void keeper_end_spare(struct exec *spare);

/* --- keeper_pause.c ---------------------------------------------------------------------------------------------- */

/* FREEZE; answered by FROZEN once it is so, or cannot be. */
void keeper_freeze(struct keeper *keeper, bool on);
void keeper_look_at_freezing(struct keeper *keeper);

/* It is frozen, or on the way there. */
bool keeper_stands_still(const struct keeper *keeper);

/* The broker that asked is gone: one that is on its way to be frozen goes on. */
void keeper_drop_freezing(struct keeper *keeper);

/* --- keeper_clerks.c --------------------------------------------------------------------------------------------- */

int keeper_start_clerk(struct keeper *keeper, const struct imd_w_ask *ask, size_t size, int socket);
/* False: it laid a layer anew, and a mount is missing. */
bool keeper_bury_clerk(struct keeper *keeper, size_t which);

/* A clerk lays a captured directory's layer anew: its mounts are counted when it is buried. */
bool keeper_expects_mounts(const struct keeper *keeper);

#endif
