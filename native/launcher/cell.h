/* A cell: its namespaces, its view of the host's programs, its user namespace, and PID 1, which only waits and reaps. */
#ifndef IMMURED_CELL_H
#define IMMURED_CELL_H

#include "covers.h"
#include "error.h"
#include "explain_watch.h"
#include "places.h"
#include "run.h"
#include "view.h"
#include "warden.h"

#include <stdbool.h>

struct cell {
  const struct warden_config *config;
  struct view view;
  int host_pid_ns;                 /* what children outside of the cell are born in */
  int pid_ns, user_ns;             /* the cell's own */
  int table;                       /* tells when a mount goes, see mounts_apply; -1: none that could */
  struct covers covers;            /* the mounts of which none may go */
  int landlock;                    /* its ruleset (landlock.h); -1 where the kernel has none */
  int init;                        /* pidfd of PID 1; -1 once it is dead */
  int leash;                       /* a socket to PID 1, which dies when nobody holds this any more */
  struct explain_watch explain;
  struct places places;            /* of a sandbox */
  bool shared;                     /* in an exec's warden: `init` and `leash` are its explainer's, the cell is its keeper's */
};

/*
 * Makes the cell out of the calling process, which stays in the host's pid and user namespace and in the cell's mount,
 * network, IPC and UTS namespace; its children are born in the cell's pid and time namespace. The user namespace
 * maps the inner ids 0..65535 to the slot's, and no host id besides.
 */
int cell_make(struct cell *cell, const struct warden_config *config, struct imd_error *err);

/*
 * In an exec's warden, whose own `cell->init` and `cell->leash` are -1: a process that explains for this exec alone, and
 * `init`, `leash` and `explain.init` are it. It has what PID 1 has, and dies with its warden.
 */
int cell_start_explainer(struct cell *cell, struct imd_error *err);

/* The calling process's command line and environment, which name paths of the host, become empty: its children's too. */
int cell_forget_arguments(int host_proc, struct imd_error *err);

/* Where children of the caller are born from now on: in the cell (true), or beside us. */
int cell_enter_pids(const struct cell *cell, bool inside);

/* SIGKILL for PID 1 and with it for every process of the cell; does not wait. */
void cell_kill(const struct cell *cell);

/*
 * Waits until no process of the cell is left, at most `patience_ms` (-1: for good); whether none is. The caller has
 * reaped its own children in there: PID 1 waits for them.
 */
bool cell_wait(struct cell *cell, int patience_ms);

/* Waits for a process's death, which its parent may then reap; at most `patience_ms`. */
bool wait_for_death(int pidfd, int patience_ms);

/*
 * In a child that stays beside us: what it must not keep open, should it never return, is closed. The leash, or PID 1
 * would outlive us; the launcher's socket; the payload's descriptors, whose readers wait for their end.
 */
void cell_let_go(const struct cell *cell, const struct run *run);

/* All capabilities away: effective, permitted, inheritable, ambient, and the bounding set of this user namespace. */
int drop_capabilities(void);

#endif
