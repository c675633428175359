#define _GNU_SOURCE
#include "warden.h"
#include "cell.h"
#include "cgroup.h"
#include "collect.h"
#include "loopback.h"
#include "message.h"
#include "mounts.h"
#include "payload.h"
#include "peer.h"
#include "plan.h"
#include "processors.h"
#include "protect.h"
#include "run.h"
#include "supervise.h"
#include "util.h"

#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { TEARDOWN_NICE = 10 };

struct warden {
  struct cell cell;
  struct cgroup cgroup;
  struct payload payload;
  struct run run;
  struct imd_fds held;             /* places that are not there, see protect.h */
};

/* A prepare as it came: what the run points into. */
struct order {
  void *packet, *plan_copy;
  struct imd_fds fds;
};

static void order_free(struct order *order)
{
  imd_fds_close(&order->fds);
  free(order->packet);
  free(order->plan_copy);
}

/*
 * What we said must arrive. A unix socket that closes with something unread in it gives its other end ECONNRESET
 * before whatever we sent: so nothing more is let in, and what is there is taken out.
 */
_Noreturn static void leave(const struct warden *warden)
{
  char byte;
  shutdown(warden->run.launcher, SHUT_RD);
  while (recv(warden->run.launcher, &byte, 1, MSG_DONTWAIT) > 0)
    continue;
  _exit(EXIT_SUCCESS);
}

_Noreturn static void end(struct warden *warden)
{
  kill_cell(&warden->cell, &warden->cgroup, &warden->payload, -1);
  cgroup_remove(&warden->cgroup);
  leave(warden);
}

/* To the broker, and then to the launcher that it knows. Before there was a run: to the launcher alone. */
static void tell_end(const struct warden *warden, uint32_t type, const struct iovec *body, size_t pieces,
                     const struct imd_fds *fds)
{
  const struct run *run = &warden->run;
  const int broker = run->id != 0 ? warden->cell.config->outcomes : run->launcher;
  const int told = imd_send_packet(broker, type, run->id, body, pieces, fds ? fds->fd : NULL, fds ? fds->count : 0, 0);
  if (told < 0)
    imd_log("the end of run %llu could not be told: %s", (unsigned long long)run->id, strerror(errno));
  else if (run->id != 0)
    imd_send_message(run->launcher, IMD_W_OVER, run->id, NULL, 0, 0);
}

_Noreturn static void fail(struct warden *warden, const struct imd_error *err)
{
  const struct imd_failed failed = {.stage = err->stage, .step = err->step, .error = err->error};
  const struct iovec body[] = {
      {(void *)(uintptr_t)&failed, sizeof failed},
      {(void *)(uintptr_t)err->text, strnlen(err->text, sizeof err->text)},
  };
  /* The protocol's word: by then everything is torn down. What cannot be killed is waited for after it. */
  if (kill_cell(&warden->cell, &warden->cgroup, &warden->payload, UNKILLABLE_MS)) {
    cgroup_remove(&warden->cgroup);
    processors_release(&warden->run, warden->cell.config);
  }
  protect_release(&warden->cell, &warden->run, &warden->held);
  tell_end(warden, IMD_FAILED, body, 2, NULL);
  end(warden);
}

/* The plan's words that more than one part needs. */
static void read_plan(struct run *run, uint32_t slot_base)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op == IMD_OP_DEADLINES) {
      run->wall_ns = step.numbers[0];
      run->cpu_ns = step.numbers[1];
      run->kill_on_pids = step.numbers[2] != 0;
    } else if (step.op == IMD_OP_IDENTITY) {
      run->inner_uid = (uint32_t)step.numbers[0];
      run->inner_gid = (uint32_t)step.numbers[1];
      run->uid = slot_base + run->inner_uid;
      run->gid = slot_base + run->inner_gid;
    }
  }
}

/* A plan in a memfd, which its sender could not change any more, as a copy of ours. */
static int read_memfd(struct order *order, int memfd, size_t length, struct imd_error *err)
{
  struct stat st;
  if (fstat(memfd, &st) < 0 || st.st_size != (off_t)length)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "the plan is not of the length that was said");
  order->plan_copy = malloc(length);
  if (!order->plan_copy)
    return imd_fail(err, IMD_STAGE_PLAN, ENOMEM, "the plan");
  for (size_t done = 0; done < length;) {
    const ssize_t got = pread(memfd, (char *)order->plan_copy + done, length - done, (off_t)done);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return imd_fail(err, IMD_STAGE_PLAN, got < 0 ? errno : EIO, "the plan");
    done += (size_t)got;
  }
  return 0;
}

static int read_order(struct warden *warden, struct order *order, size_t size, struct imd_error *err)
{
  const struct imd_header *header = order->packet;
  const struct imd_w_prepare *prepare = (const void *)(header + 1);
  warden->run.id = header->id;
  if (header->type != IMD_W_PREPARE || size < sizeof *header + sizeof *prepare || prepare->ngroups > IMD_MAX_GROUPS ||
      prepare->plan_length > IMD_MAX_PLAN || prepare->uid == UINT32_MAX || prepare->gid == UINT32_MAX)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "no order that a warden knows");
  const bool in_memfd = prepare->flags & IMD_PLAN_IN_MEMFD;
  warden->run.ours = prepare->flags;
  const size_t offset = imd_w_plan_offset(prepare->ngroups);
  if (size != offset + (in_memfd ? 0 : prepare->plan_length))
    return imd_fail(err, IMD_STAGE_PLAN, 0, "the order is not of the length that it says");
  if (order->fds.count != imd_w_prepare_fds(prepare->flags))
    return imd_fail(err, IMD_STAGE_PLAN, 0, "%u descriptors came with the order", order->fds.count);
  if (in_memfd && read_memfd(order, order->fds.fd[0], prepare->plan_length, err) < 0)
    return -1;

  struct run *run = &warden->run;
  memcpy(run->stdio, order->fds.fd + in_memfd, sizeof run->stdio);
  run->go = order->fds.fd[in_memfd + 3];
  run->log = prepare->flags & IMD_WITH_LOG ? order->fds.fd[in_memfd + 4] : -1;
  run->peer = (struct peer){prepare->uid, prepare->gid, prepare->ngroups, (const gid_t *)(prepare + 1)};
  run->plan = in_memfd ? order->plan_copy : (const char *)order->packet + offset;
  if (imd_plan_check(run->plan, prepare->plan_length, err) < 0)
    return -1;
  read_plan(run, warden->cell.config->slot_base);
  return 0;
}

static int make_cgroup(struct warden *warden, struct imd_error *err)
{
  struct imd_plan_cursor cursor = {.plan = warden->run.plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op != IMD_OP_CGROUP)
      continue;
    err->step = step.index;
    if (cgroup_make(&warden->cgroup, warden->cell.config, &step, err) < 0)
      return -1;
    if (warden->run.cpuset &&
        cgroup_set_processors(&warden->cgroup, warden->cell.config, &warden->run.processors, err) < 0)
      return -1;
  }
  err->step = UINT32_MAX;
  return 0;
}

/* The plan's LOOPBACK finds it up; without one it must not be. */
static int settle_network(const struct run *run, struct imd_error *err)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);)
    if (step.op == IMD_OP_LOOPBACK)
      return 0;
  return loopback_set(false, err);
}

static int prepare(struct warden *warden, struct imd_error *err)
{
  cleanup_sources struct sources sources = {NULL, 0};
  if (processors_choose(&warden->run, warden->cell.config, err) < 0 || make_cgroup(warden, err) < 0 ||
      peer_open_sources(&warden->cell, &warden->run, &sources, err) < 0 ||
      mounts_apply(&warden->cell, &warden->run, &sources, &warden->held, err) < 0 ||
      settle_network(&warden->run, err) < 0)
    return -1;
  if (explain_watch_read(&warden->cell.explain, warden->run.plan, warden->run.log, err) < 0)
    return -1;
  return payload_start(&warden->payload, &warden->cell, &warden->cgroup, &warden->run, err);
}

/* Blocks. 0: the launcher is gone, and so is its cell. */
static size_t wait_for_order(struct warden *warden, struct order *order)
{
  order->packet = malloc(IMD_W_MAX_PACKET);
  const ssize_t got =
      order->packet ? imd_recv_packet(warden->run.launcher, order->packet, IMD_W_MAX_PACKET, &order->fds, 0) : -1;
  return got > 0 ? (size_t)got : 0;
}

static void report(struct warden *warden, struct imd_outcome *outcome)
{
  char space[IMD_VIOLATIONS_SPACE];
  struct findings findings = {.which = 0};
  struct imd_error err = IMD_ERROR_INIT;
  if (collect_files(&warden->cell, &warden->run, &findings, &err) < 0)
    imd_log("nothing collected: %s", err.text);
  outcome->collected = findings.which;
  const size_t violations = explain_watch_report(&warden->cell.explain, space);
  const struct iovec body[] = {{outcome, sizeof *outcome}, {space, violations}};
  /* Who hears of the end may ask for the same processors at once. */
  processors_release(&warden->run, warden->cell.config);
  tell_end(warden, IMD_EXITED, body, 2, &findings.fds);
  imd_fds_close(&findings.fds);
  /* What is left to do has time, and whoever waits for the outcome has not. */
  setpriority(PRIO_PROCESS, 0, TEARDOWN_NICE);
}

static void serve(struct warden *warden)
{
  __attribute__((cleanup(order_free))) struct order order = {.packet = NULL};
  struct imd_error err = IMD_ERROR_INIT;
  const size_t size = wait_for_order(warden, &order);
  if (size == 0)
    return;
  if (read_order(warden, &order, size, &err) < 0 || prepare(warden, &err) < 0)
    fail(warden, &err);
  /* Ours must not keep the payload's pipes open. */
  imd_fds_close(&order.fds);
  memcpy(warden->run.stdio, (int[]){-1, -1, -1}, sizeof warden->run.stdio);
  warden->run.go = warden->run.log = -1;

  struct imd_outcome outcome;
  bool orphaned = false;
  const int result =
      supervise(&warden->cell, &warden->cgroup, &warden->run, &warden->payload, &outcome, &orphaned, &err);
  protect_release(&warden->cell, &warden->run, &warden->held);
  if (result < 0)
    fail(warden, &err);
  if (!orphaned)
    report(warden, &outcome);
}

_Noreturn void warden_main(const struct warden_config *config, int launcher_fd)
{
  struct warden warden = {.cgroup = CGROUP_NONE, .payload = PAYLOAD_NONE, .run = {.launcher = launcher_fd, .stdio = {-1, -1, -1}, .go = -1, .log = -1}};
  struct imd_error err = IMD_ERROR_INIT;
  if (cell_make(&warden.cell, config, &err) < 0)
    fail(&warden, &err);
  if (imd_send_message(launcher_fd, IMD_W_PARKED, config->cell, NULL, 0, 0) == 0)
    serve(&warden);
  end(&warden);
}
