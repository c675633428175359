/*
 * Our own cgroup v2 subtree: DIR for the controllers, DIR/tenants/TENANT/SANDBOX for the runs. Nothing above DIR is
 * ever written.
 */
#ifndef IMMURED_SWEEP_H
#define IMMURED_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

struct imd_subtree {
  int directory;                   /* -1: there is no cgroup v2 for us */
  const char *path;                /* "" then */
  uint32_t controllers;            /* enum imd_feature */
  bool swap;                       /* memory.swap.max exists */
};

/*
 * Makes the subtree, kills and removes what an earlier launcher left in it (waiting a few seconds at most), and
 * enables the controllers that we were given. Without cgroup v2, without permission or with a `path` of NULL there is
 * no subtree, and the log says why; the broker then names the weaker means, or refuses.
 */
void imd_subtree_open(struct imd_subtree *subtree, const char *path);

/* The one that another launcher had opened at `path` (upgrade.h): nothing in it is touched. */
void imd_subtree_take(struct imd_subtree *subtree, const char *path, int directory, uint32_t features, bool swap);

/* Kills and removes one run's cgroup, whose warden died before it could. */
void imd_subtree_end_run(const struct imd_subtree *subtree, const char *tenant, const char *sandbox);

/* Kills and removes everything, DIR too. */
void imd_subtree_close(struct imd_subtree *subtree);

#endif
