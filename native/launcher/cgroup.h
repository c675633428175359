/* A sandbox's cgroup, tenants/<tenant>/<sandbox> of our own v2 subtree: made, limited, killed, measured, removed. */
#ifndef IMMURED_CGROUP_H
#define IMMURED_CGROUP_H

#include "error.h"
#include "plan.h"
#include "warden.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

struct cgroup {
  int dir;                         /* -1: the host has no cgroup v2 for us; nothing below does anything then */
  int tenant;
  int pids_events;                 /* -1: no pids controller */
  int cpu_stat;
  uint32_t controllers;            /* enum imd_feature */
  char tenant_name[72], name[72];
};

#define CGROUP_NONE {.dir = -1, .tenant = -1, .pids_events = -1, .cpu_stat = -1}

/* From the plan's CGROUP step. A limit whose controller is not there is refused: plans hold none that cannot hold. */
int cgroup_make(struct cgroup *cgroup, const struct warden_config *config, const struct imd_plan_step *step,
                struct imd_error *err);

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

/* CPU time of everything that ever ran in it; 0 without a cgroup. */
uint64_t cgroup_cpu_ns(const struct cgroup *cgroup);

/* How often a fork met the limit. */
uint64_t cgroup_pids_events(const struct cgroup *cgroup);

/* Fills the figures of an outcome that cgroups measure, and says in `measured` which those are. */
void cgroup_measure(const struct cgroup *cgroup, struct imd_outcome *outcome);

/*
 * Once no process is left in it; waits a little for the kernel to notice. With files in the page cache it may stay for
 * a while (remains.h).
 */
void cgroup_remove(struct cgroup *cgroup);

#endif
