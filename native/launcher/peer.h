/* Host paths of a plan, opened by a process that is the caller (or, for granted ones, beneath the operator's grants). */
#ifndef IMMURED_PEER_H
#define IMMURED_PEER_H

#include "cell.h"
#include "error.h"
#include "run.h"

#include <stdbool.h>
#include <stdint.h>

struct source {
  uint32_t step;                   /* the plan's index of the ROOTFS or BIND */
  int mount;                       /* a mount of our own, not attached yet; -1: absent, which its flag allows */
  bool directory;
};

struct sources { struct source *at; uint32_t count; };

/*
 * One child does all of a plan's paths: in the host's mount namespace, with the caller's uids and groups and no
 * capability in effect, within the configuration's open_timeout_ms. What it opened comes back as recursive copies of
 * the mounts (a copy of the top mount alone would uncover what lies beneath the others), private, nosuid, nodev,
 * read-only unless the step says otherwise, and idmapped: the caller's uid, gid and groups on disk are the payload's
 * inside, every other owner is nobody and, in the kernel's rules, nobody's to write.
 */
int peer_open_sources(const struct cell *cell, const struct run *run, struct sources *sources, struct imd_error *err);

/*
 * The payload's supplementary groups, as the host counts them: for each of the caller's one of the cell's own range, to
 * which idmapped mounts map it. So what a group of the caller's may read below a bound directory, or may not where
 * others may, holds for the payload; outside of it these ids own nothing. `within`: IMD_MAX_GROUPS; returns how many.
 */
uint32_t peer_groups(const struct cell *cell, const struct run *run, gid_t *within);

void sources_close(struct sources *sources);
#define cleanup_sources __attribute__((cleanup(sources_close)))

/* File systems that are the kernel's own face and no place for files: never a source, never visible through one. */
bool is_kernel_file_system(uint64_t magic);

#endif
