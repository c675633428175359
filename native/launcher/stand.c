#define _GNU_SOURCE
#include "stand.h"
#include "loopback.h"
#include "mounts.h"
#include "peer.h"
#include "plan.h"
#include "processors.h"

static int make_cgroup(struct warden *warden, enum cgroup_of of, struct imd_error *err)
{
  struct imd_plan_step step;
  if (!plan_step(warden->run.plan, IMD_OP_CGROUP, &step))
    return 0;
  err->step = step.index;
  if (cgroup_make(&warden->cgroup, warden->cell.config, of, &step, err) < 0)
    return -1;
  if (warden->run.cpuset &&
      cgroup_set_processors(&warden->cgroup, warden->cell.config, &warden->run.processors, err) < 0)
    return -1;
  err->step = UINT32_MAX;
  return 0;
}

/* The plan's LOOPBACK finds it up; without one it must not be. */
static int settle_network(const struct run *run, struct imd_error *err)
{
  struct imd_plan_step step;
  return plan_step(run->plan, IMD_OP_LOOPBACK, &step) ? 0 : loopback_set(false, err);
}

int stand_up(struct warden *warden, enum cgroup_of of, struct imd_error *err)
{
  cleanup_sources struct sources sources = {NULL, 0};
  if (processors_choose(&warden->run, warden->cell.config, err) < 0 || make_cgroup(warden, of, err) < 0 ||
      peer_open_sources(&warden->cell, &warden->run, &sources, err) < 0 ||
      mounts_apply(&warden->cell, &warden->run, &sources, &warden->held, err) < 0)
    return -1;
  return settle_network(&warden->run, err);
}
