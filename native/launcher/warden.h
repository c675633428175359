/* A cell's warden: one process per cell, used once. The parker forks it; it never returns. */
#ifndef IMMURED_WARDEN_H
#define IMMURED_WARDEN_H

#include <stdbool.h>
#include <stdint.h>

struct warden_config {             /* filled by the launcher at start, inherited by fork */
  uint32_t slot_base;              /* this cell's first host id: 65536 ids */
  int host_proc;                   /* O_PATH|O_DIRECTORY fd of the host's /proc */
  int host_mounts;                 /* fd of the host's mount namespace */
  int outcomes;                    /* SEQPACKET to the broker, all wardens' */
  int cgroup;                      /* directory fd of our own cgroup v2 subtree, -1 without one */
  uint32_t controllers;            /* enum imd_feature */
  int processors;                  /* what runs hold theirs in: processors.h */
  int open_timeout_ms;
  char *const *grant_read;         /* NULL-terminated operator grants */
  char *const *grant_write;
  const char *storage;             /* the state directory, see storage.h; NULL: none */
  uint64_t cell;                   /* number, for names and logs */
  bool templated;                  /* the parker's mount namespace is the template of cells (template.h) */
};

/*
 * Entered with no signal blocked, every disposition the default, cwd /, umask 022, non-dumpable, a process name of
 * its own, oom_score_adj (and its floor) >= 0, and of descriptors only 0, 1, 2, those of the config, `launcher_fd`.
 *
 * Sends IMD_W_PARKED when the cell waits for its run, or IMD_FAILED (id 0) where it could not be made. Then it takes one
 * IMD_W_PREPARE and IMD_KILL, says IMD_FAILED or IMD_EXITED to the broker, and IMD_W_OVER to the launcher. After that, or
 * at the end of `launcher_fd`, it tears the cell down and exits: when it is gone, nothing of the cell is left, and the
 * slot's ids are given to another.
 */
_Noreturn void warden_main(const struct warden_config *config, int launcher_fd /* SEQPACKET */);

#endif
