/*
 * Cgroups of our own v2 subtree, made, limited, killed, measured, removed: a run's and a sandbox's are
 * tenants/<tenant>/<sandbox>, and beneath a sandbox's are `execs`, with one for each exec, and `clerks`. A pause freezes
 * `execs`. The kernel ends a whole run or exec that is out of memory, and of a sandbox one exec.
 */
#ifndef IMMURED_CGROUP_H
#define IMMURED_CGROUP_H

#include "error.h"
#include "plan.h"
#include "warden.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

enum cgroup_of { CGROUP_OF_RUN, CGROUP_OF_SANDBOX, CGROUP_OF_EXEC };

struct cgroup {
  enum cgroup_of of;
  int dir;                         /* -1: the host has no cgroup v2 for us; nothing below does anything then */
  int parent;                      /* in which it has its name: the tenant's, or a sandbox's `execs` */
  int execs;                       /* a sandbox's; -1 */
  int pids_events;                 /* -1: no pids controller */
  int cpu_stat;
  uint32_t controllers;            /* enum imd_feature */
  char tenant_name[72], name[72];
};

#define CGROUP_NONE {.dir = -1, .parent = -1, .execs = -1, .pids_events = -1, .cpu_stat = -1}

/*
 * A run's or a sandbox's, from the plan's CGROUP step. A limit whose controller is not there is refused: plans hold none that
 * cannot hold. So is a sandbox without any cgroup v2: nothing else ends all of an exec, or stops it for a while.
 */
int cgroup_make(struct cgroup *cgroup, const struct warden_config *config, enum cgroup_of of,
                const struct imd_plan_step *step, struct imd_error *err);

/*
 * An exec's, in its sandbox's, before it is known which: by a number of the keeper's. Then its limits, from its plan's step,
 * which has to name this sandbox; before anybody is in it.
 */
int cgroup_make_exec(struct cgroup *cgroup, const struct cgroup *sandbox, uint64_t number, struct imd_error *err);
int cgroup_limit_exec(struct cgroup *cgroup, const struct warden_config *config, const struct cgroup *sandbox,
                      const struct imd_plan_step *step, struct imd_error *err);

/* A sandbox's `clerks`, made at the first call; a descriptor of the caller's. -1 with errno. */
int cgroup_clerks(const struct cgroup *sandbox);

/*
 * cpuset.cpus, before anybody is in it. Only now, at the first run that asks for it, is the controller handed down: every
 * fork into a cgroup that has it takes a lock of the whole host's.
 */
int cgroup_set_processors(struct cgroup *cgroup, const struct warden_config *config, const cpu_set_t *processors,
                          struct imd_error *err);

/* Every process in it dies; false where the kernel has no cgroup.kill. */
bool cgroup_kill(const struct cgroup *cgroup);

/* Some process in it lives. */
bool cgroup_populated(const struct cgroup *cgroup);

/* Until none does, at most `patience_ms` (-1: for good); whether none does. */
bool cgroup_wait(const struct cgroup *cgroup, int patience_ms);

/* A sandbox's execs, one of which lost its warden: its processes die. */
void cgroup_kill_exec(const struct cgroup *sandbox, uint64_t number);

/* A sandbox's execs stop, or go on; and whether they have: every process of theirs stands still. */
int cgroup_freeze(const struct cgroup *sandbox, bool on);
bool cgroup_is_frozen(const struct cgroup *sandbox);
int cgroup_frozen_events(const struct cgroup *sandbox);   /* to poll for POLLPRI; the caller's */

/* CPU time of everything that ever ran in it; 0 without a cgroup. */
uint64_t cgroup_cpu_ns(const struct cgroup *cgroup);

/* How often a fork met the limit. */
uint64_t cgroup_pids_events(const struct cgroup *cgroup);

/* Bytes and processes at this moment; 0 where nothing counts them. */
void cgroup_measure_now(const struct cgroup *cgroup, uint64_t *memory, uint64_t *pids);

/* Fills the figures of an outcome that cgroups measure, and says in `measured` which those are. */
void cgroup_measure(const struct cgroup *cgroup, struct imd_outcome *outcome);

/*
 * Once no process is left in it; waits a little for the kernel to notice. With files in the page cache it may stay for
 * a while (remains.h), but for an exec's: what its sandbox's holds of dead ones is emptied when there are many.
 */
void cgroup_remove(struct cgroup *cgroup);

#endif
