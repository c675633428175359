#define _GNU_SOURCE
#include "order.h"
#include "plan.h"
#include "util.h"

#include <string.h>
#include <sys/stat.h>

void order_close(struct order *order)
{
  imd_fds_drop(&order->fds);
}

void order_free(struct order *order)
{
  order_close(order);
  free(order->packet);
  free(order->plan_copy);
  order->packet = order->plan_copy = NULL;
}

bool order_wait(struct order *order, int launcher)
{
  order->packet = malloc(IMD_W_MAX_PACKET);
  const ssize_t got =
      order->packet ? imd_recv_packet(launcher, order->packet, IMD_W_MAX_PACKET, &order->fds, 0) : -1;
  order->size = got > 0 ? (size_t)got : 0;
  return got > 0;
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

void order_read_plan(struct run *run, uint32_t slot_base)
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

/* The plan behind `offset`, or in the first descriptor: checked, and of this kind. */
static int place_plan(struct order *order, size_t offset, uint32_t length, uint32_t flags, uint32_t kind,
                      struct imd_error *err)
{
  const bool in_memfd = flags & IMD_PLAN_IN_MEMFD;
  if (length > IMD_MAX_PLAN || order->size != offset + (in_memfd ? 0 : length))
    return imd_fail(err, IMD_STAGE_PLAN, 0, "the order is not of the length that it says");
  if (in_memfd && read_memfd(order, order->fds.fd[0], length, err) < 0)
    return -1;
  order->plan = in_memfd ? order->plan_copy : (const char *)order->packet + offset;
  return imd_plan_check(order->plan, length, err) < 0 ? -1 : imd_plan_is(order->plan, kind, err);
}

static int count_fds(const struct order *order, uint32_t expected, struct imd_error *err)
{
  return order->fds.count == expected
             ? 0 : imd_fail(err, IMD_STAGE_PLAN, 0, "%u descriptors came with the order", order->fds.count);
}

int order_read(struct order *order, struct run *run, int *record, uint32_t slot_base, struct imd_error *err)
{
  const struct imd_header *header = order->packet;
  const struct imd_w_prepare *prepare = (const void *)(header + 1);
  const bool lives = header->type == IMD_W_CREATE;
  run->id = header->id;
  if ((!lives && header->type != IMD_W_PREPARE) || order->size < sizeof *header + sizeof *prepare ||
      prepare->ngroups > IMD_MAX_GROUPS || prepare->uid == UINT32_MAX || prepare->gid == UINT32_MAX ||
      (lives && (prepare->flags & ~(uint32_t)IMD_PLAN_IN_MEMFD)))
    return imd_fail(err, IMD_STAGE_PLAN, 0, "no order that a warden knows");
  const uint32_t in_memfd = !!(prepare->flags & IMD_PLAN_IN_MEMFD);
  const uint32_t fds = lives ? IMD_W_CREATE_FDS + in_memfd : imd_w_prepare_fds(prepare->flags);
  if (count_fds(order, fds, err) < 0 ||
      place_plan(order, imd_w_plan_offset(prepare->ngroups), prepare->plan_length, prepare->flags,
                 lives ? IMD_PLAN_SANDBOX : IMD_PLAN_RUN, err) < 0)
    return -1;

  run->ours = prepare->flags;
  if (lives) {
    *record = order->fds.fd[in_memfd];
  } else {
    memcpy(run->stdio, order->fds.fd + in_memfd, sizeof run->stdio);
    run->go = order->fds.fd[in_memfd + 3];
    run->log = prepare->flags & IMD_WITH_LOG ? order->fds.fd[in_memfd + 4] : -1;
  }
  run->peer = (struct peer){prepare->uid, prepare->gid, prepare->ngroups, (const gid_t *)(prepare + 1)};
  run->plan = order->plan;
  order_read_plan(run, slot_base);
  return 0;
}

int order_read_exec(struct order *order, struct run *run, struct imd_exec *exec, uint32_t *first, struct imd_error *err)
{
  const struct imd_header *header = order->packet;
  const uint32_t known =
      IMD_PLAN_IN_MEMFD | IMD_OURS_0 | IMD_OURS_1 | IMD_OURS_2 | IMD_WITH_LOG | IMD_EXEC_KEPT;
  run->id = header->id;
  if (order->size < sizeof *header + sizeof *exec)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "no order that a keeper knows");
  memcpy(exec, header + 1, sizeof *exec);
  if (exec->flags & ~known)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "unknown flags %#x", exec->flags);
  const uint32_t own = imd_w_exec_fds(exec->flags);
  if (order->fds.count < own || order->fds.count > own + order->added)
    return count_fds(order, own, err);
  if (place_plan(order, sizeof *header + sizeof *exec, exec->plan_length, exec->flags, IMD_PLAN_EXEC, err) < 0)
    return -1;
  *first = !!(exec->flags & IMD_PLAN_IN_MEMFD);
  memcpy(run->stdio, order->fds.fd + *first, sizeof run->stdio);
  run->go = order->fds.fd[*first + 3];
  run->log = exec->flags & IMD_WITH_LOG ? order->fds.fd[own - 1] : -1;
  run->ours = exec->flags;
  run->plan = order->plan;
  return 0;
}
