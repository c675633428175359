#define _GNU_SOURCE
#include "clerk.h"
#include "keeper_state.h"
#include "kernel.h"
#include "mounts.h"
#include "util.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

typedef void clerk_main(const struct clerk *clerk);

static clerk_main *clerk_of(uint32_t which)
{
  switch (which) {
  case IMD_CLERK_FILES: return clerk_files;
  case IMD_CLERK_CHANGES: return clerk_changes;
  case IMD_CLERK_SNAPSHOT: return clerk_snapshot;
  default: return NULL;
  }
}

_Noreturn static void be_clerk(const struct keeper *keeper, struct clerk *clerk, clerk_main *serve, pid_t parent)
{
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
    _exit(EXIT_FAILURE);
  struct cell cell = keeper->warden->cell;
  struct run run = keeper->warden->run;
  const struct warden_config *config = cell.config;
  const struct view *view = &cell.view;
  int keep[24 + 6 * IMD_MAX_PLACES] = {
      config->host_proc, config->host_mounts, config->cgroup, cell.host_pid_ns, cell.pid_ns, cell.user_ns, cell.landlock,
      view->root, view->dev, view->proc, view->tmp, clerk->socket};
  size_t count = 12;
  for (uint32_t i = 0; i < cell.places.count; i++) {
    const struct place *place = &cell.places.at[i];
    const int fds[] = {place->root, place->lower, place->saved, place->work, place->stage, place->accepted};
    memcpy(keep + count, fds, sizeof fds);
    count += 6;
  }
  imd_close_others(keep, count);
  /* Nothing of ours is left in what guarded work of the clerk's would close, or wait for. */
  cell.leash = cell.init = cell.table = cell.explain.init = -1;
  run.launcher = -1;
  clerk->cell = &cell;
  clerk->run = &run;
  prctl(PR_SET_NAME, "immured-clerk");
  serve(clerk);
  _exit(EXIT_SUCCESS);
}

int keeper_start_clerk(struct keeper *keeper, const struct imd_w_ask *ask, size_t size, int socket)
{
  const uint32_t *groups = (const void *)(ask + 1);
  struct clerk clerk = {.socket = socket, .attended = ask->uid != UINT32_MAX,
                        .peer = {ask->uid, ask->gid, ask->ngroups, groups}};
  clerk_main *serve = clerk_of(ask->clerk);
  if (!serve || ask->ngroups > IMD_MAX_GROUPS || size != sizeof *ask + ask->ngroups * sizeof *groups ||
      keeper->clerk_count == MAX_CLERKS) {
    errno = serve ? EAGAIN : EINVAL;
    return -1;
  }
  cleanup_fd int cgroup = cgroup_clerks(&keeper->warden->cgroup);
  if (cgroup < 0)
    return -1;
  const pid_t self = getpid();
  int pidfd = -1;
  struct clone_args args = {.flags = CLONE_PIDFD | CLONE_INTO_CGROUP, .pidfd = (uintptr_t)&pidfd,
                            .cgroup = (uint64_t)cgroup, .exit_signal = SIGCHLD};
  const pid_t pid = sys_clone3(&args);
  if (pid == 0)
    be_clerk(keeper, &clerk, serve, self);
  if (pid < 0)
    return -1;
  keeper->clerks[keeper->clerk_count++] = pidfd;
  return 0;
}

bool keeper_bury_clerk(struct keeper *keeper, size_t which)
{
  const struct cell *cell = &keeper->warden->cell;
  siginfo_t dead = {.si_pid = 0};
  while (waitid(P_PIDFD, (id_t)keeper->clerks[which], &dead, WEXITED) < 0 && errno == EINTR)
    continue;
  close(keeper->clerks[which]);
  keeper->clerks[which] = keeper->clerks[--keeper->clerk_count];
  pid_t relaying = dead.si_pid;
  uint32_t mounts;
  if (!cell->places.relaying || relaying == 0 || !atomic_compare_exchange_strong(cell->places.relaying, &relaying, 0))
    return true;
  return mounts_count(cell, &mounts) == 0 && mounts == cell->places.mounts &&
         (!cell->covers.ids || covers_look(&cell->covers) == COVERED);
}

bool keeper_expects_mounts(const struct keeper *keeper)
{
  return keeper->warden->cell.places.relaying && atomic_load(keeper->warden->cell.places.relaying) != 0;
}
