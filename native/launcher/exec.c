#define _GNU_SOURCE
#include "exec.h"
#include "live.h"
#include "plan.h"
#include "processors.h"
#include "supervise.h"
#include "util.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

/* What the keeper has open for itself and for other execs is none of this one's. */
static void let_go(const struct exec_start *start, const struct order *order)
{
  const struct cell *cell = &start->sandbox->cell;
  const struct warden_config *config = cell->config;
  const struct cgroup *cgroup = &start->sandbox->cgroup;
  const struct view *view = &cell->view;
  const int ours[] = {config->host_proc, config->host_mounts, config->outcomes, config->cgroup, config->processors,
                      cell->host_pid_ns, cell->pid_ns, cell->user_ns, cell->landlock, view->root, view->dev, view->proc,
                      view->tmp, cgroup->execs, start->channel};
  const size_t count = sizeof ours / sizeof ours[0], fds = order ? order->fds.count : 0;
  int keep[sizeof ours / sizeof ours[0] + IMD_MAX_FDS];
  memcpy(keep, ours, sizeof ours);
  if (fds > 0)
    memcpy(keep + count, order->fds.fd, fds * sizeof(int));
  imd_close_others(keep, count + fds);
}

/* The walls that are the sandbox's, and of which an exec's plan only tells again. */
static int check_walls(const struct warden *exec, const struct exec_start *start, struct imd_error *err)
{
  const struct run *run = &exec->run, *sandbox = &start->sandbox->run;
  struct imd_plan_step step;
  if (run->inner_uid != sandbox->inner_uid || run->inner_gid != sandbox->inner_gid)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "an identity that is not the sandbox's");
  if (!start->network && plan_step(run->plan, IMD_OP_LANDLOCK, &step) && !(step.numbers[1] & IMD_LANDLOCK_NO_NETWORK))
    return imd_fail(err, IMD_STAGE_PLAN, 0, "LANDLOCK without the sandbox's LOOPBACK leaves the network open");
  return 0;
}

static int limit(struct warden *exec, const struct exec_start *start, struct imd_error *err)
{
  struct imd_plan_step step;
  if (!plan_step(exec->run.plan, IMD_OP_CGROUP, &step))
    return 0;
  err->step = step.index;
  if (cgroup_limit_exec(&exec->cgroup, exec->cell.config, &start->sandbox->cgroup, &step, err) < 0)
    return -1;
  if (exec->run.cpuset && cgroup_set_processors(&exec->cgroup, exec->cell.config, &exec->run.processors, err) < 0)
    return -1;
  err->step = UINT32_MAX;
  return 0;
}

/* `fds`: log, eventfd, reading ends. */
static int open_log(struct live *live, int *fds, struct imd_error *err)
{
  if (exec_log_open(&live->log, fds[0], fds[1], err) < 0)
    return -1;
  fds[1] = -1;
  if (live->terminal >= 0) {
    live->inputs[0] = live->terminal;
    return 0;
  }
  /* What is in a pipe may be gone before we read it: the payload can open it too, and so can whoever it passed it to. */
  for (int i = 0; i < 2; i++) {
    live->inputs[i] = imd_take_fd(&fds[2 + i]);
    if (fcntl(live->inputs[i], F_SETFL, O_NONBLOCK) < 0)
      return imd_fail(err, IMD_STAGE_PROCESS, errno, "what goes to the log");
  }
  return 0;
}

/* Before the plan is known. */
static int make_ready(struct warden *exec, const struct exec_start *start, struct imd_error *err)
{
  if (cell_enter_pids(&exec->cell, true) < 0)
    return imd_fail(err, IMD_STAGE_PROCESS, errno, "the cell's pid namespace");
  if (cgroup_make_exec(&exec->cgroup, &start->sandbox->cgroup, start->place, err) < 0)
    return -1;
  return explain_watch_make(&exec->cell.explain, err);
}

/* The last two descriptors of an order with a TERMINAL. */
static void take_terminal(struct warden *exec, struct order *order)
{
  struct imd_plan_step step;
  if (!plan_step(order->plan, IMD_OP_TERMINAL, &step))
    return;
  const int slave = order->fds.fd[order->fds.count - 1];
  exec->run.live->terminal = imd_take_fd(&order->fds.fd[order->fds.count - 2]);
  exec->run.terminal = true;
  memcpy(exec->run.stdio, (int[]){slave, slave, slave}, sizeof exec->run.stdio);
}

static int prepare(struct warden *exec, const struct exec_start *start, struct order *order, struct imd_error *err)
{
  struct imd_exec said;
  struct explain_watch *explain = &exec->cell.explain;
  uint32_t first;
  if (order_read_exec(order, &exec->run, &said, &first, err) < 0)
    return -1;
  order_read_plan(&exec->run, exec->cell.config->slot_base);
  take_terminal(exec, order);
  if (check_walls(exec, start, err) < 0 || processors_choose(&exec->run, exec->cell.config, err) < 0 ||
      limit(exec, start, err) < 0)
    return -1;
  explain->shared->network = start->network;
  if (explain_watch_read(explain, exec->run.plan, exec->run.log, err) < 0 ||
      ((said.flags & IMD_EXEC_KEPT) &&
       open_log(exec->run.live, order->fds.fd + first + IMD_W_PREPARE_FDS, err) < 0))
    return -1;
  return payload_start(&exec->payload, &exec->cell, &exec->cgroup, &exec->run, err);
}

static void serve(struct warden *exec, const struct exec_start *start, struct order *order, int ready,
                  struct imd_error *err)
{
  exec->run.id = ((const struct imd_header *)order->packet)->id;
  const int prepared = ready < 0 ? ready : prepare(exec, start, order, err);
  /* Ours must not keep the payload's pipes or terminal open. */
  order_close(order);
  memcpy(exec->run.stdio, (int[]){-1, -1, -1}, sizeof exec->run.stdio);
  exec->run.go = exec->run.log = -1;
  if (prepared < 0)
    ending_fail(exec, err);

  struct imd_outcome outcome;
  bool orphaned = false;
  const int result = supervise(&exec->cell, &exec->cgroup, &exec->run, &exec->payload, &outcome, &orphaned, err);
  live_drain(exec->run.live);
  if (orphaned)
    return;
  if (result < 0)
    ending_fail(exec, err);
  ending_report(exec, &outcome);
}

_Noreturn void exec_main(const struct exec_start *start, struct order *order, pid_t keeper)
{
  /* Nothing of a sandbox outlives its keeper. */
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != keeper)
    _exit(EXIT_FAILURE);
  let_go(start, order);
  struct live live = LIVE_NONE;
  struct warden exec = {.cell = start->sandbox->cell, .cgroup = CGROUP_NONE, .payload = {-1, -1, start->birth, NULL},
                        .run = RUN_NONE(start->channel), .held = HELD_NONE};
  exec.cell.shared = true;
  exec.cell.init = exec.cell.leash = exec.cell.table = -1;
  exec.cell.places.count = 0;
  exec.run.peer = start->sandbox->run.peer;
  exec.run.live = &live;

  struct imd_error err = IMD_ERROR_INIT;
  struct order later = {.packet = NULL, .added = TERMINAL_FDS};
  const int ready = make_ready(&exec, start, &err);
  /* A descriptor more than the order says is a terminal's: the keeper put them there. */
  if (order || order_wait(&later, start->channel))
    serve(&exec, start, order ? order : &later, ready, &err);
  ending_leave(&exec);
}
