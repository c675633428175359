#define _GNU_SOURCE
#include "keeper.h"
#include "keeper_state.h"
#include "mounts.h"
#include "plan.h"
#include "protect.h"
#include "stand.h"
#include "supervise.h"
#include "util.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* --- the end ----------------------------------------------------------------------------------------------------- */

/* Until every exec has told its own end, or is past telling. */
static void wait_for_execs(struct keeper *keeper)
{
  const uint64_t deadline = imd_now_ns() + 2 * UNKILLABLE_MS * 1000000ull;
  while (keeper->count > 0) {
    struct exec *exec = &keeper->execs[keeper->count - 1];
    const uint64_t now = imd_now_ns();
    if (!wait_for_death(exec->pidfd, deadline > now ? (int)((deadline - now) / 1000000u) : 0))
      pidfd_send_signal(exec->pidfd, SIGKILL, NULL, 0);
    keeper_bury_exec(keeper, exec);
  }
}

_Noreturn static void end(struct keeper *keeper)
{
  struct warden *warden = keeper->warden;
  /* An exec that hears of it from us names the same cause as one that sees the mount go itself. */
  const struct imd_kill kill = {.cause = keeper->uncovered ? IMD_CAUSE_VIOLATION : IMD_CAUSE_KILLED};
  /* Each warden ends its own: did everything die at once, a warden might see that before it hears why. */
  if (keeper->orphaned)
    keeper_end_execs(keeper, true);
  else
    keeper_pass_to_all(keeper, IMD_KILL, &kill, sizeof kill);
  if (keeper->spare.pidfd >= 0)
    keeper_end_spare(&keeper->spare);
  wait_for_execs(keeper);
  kill_cell(&warden->cell, &warden->cgroup, &warden->payload, UNKILLABLE_MS);
  warden->run.over = true;
  protect_release(&warden->cell, &warden->run, &warden->held);
  if (!keeper->orphaned) {
    struct imd_outcome outcome;
    keeper_fill_outcome(keeper, &outcome);
    outcome.cause = keeper->cause;
    outcome.wait_code = keeper->wait_code;
    outcome.wait_status = keeper->wait_status;
    outcome.stragglers = keeper->uncovered ? IMD_UNCOVERED : 0;
    const struct iovec body = {&outcome, sizeof outcome};
    ending_tell(warden, IMD_EXITED, &body, 1, NULL);
    setpriority(PRIO_PROCESS, 0, 10);
  }
  places_close(&warden->cell.places);
  ending_leave(warden);
}

static void sentence(struct keeper *keeper, uint32_t cause)
{
  if (keeper->cause == 0)
    keeper->cause = cause;
}

static uint64_t deadline_after(uint64_t wall_ns)
{
  const uint64_t now = imd_now_ns();
  return wall_ns < UINT64_MAX - now ? now + wall_ns : UINT64_MAX;
}

static void look_at_init(struct keeper *keeper)
{
  siginfo_t info = {.si_pid = 0};
  if (waitid(P_PIDFD, (id_t)keeper->warden->cell.init, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid != 0) {
    keeper->wait_code = info.si_code;
    keeper->wait_status = info.si_status;
  }
  sentence(keeper, IMD_CAUSE_SIGNALED);
}

/*
 * A mount went, but none that the plan made. How many there are is what a layer that is laid anew is measured by, and not
 * while one is: then it is for keeper_bury_clerk, which finds one less.
 */
static bool is_covered(const struct keeper *keeper)
{
  struct cell *cell = &keeper->warden->cell;
  uint32_t mounts;
  if (covers_look(&cell->covers) != COVERED)
    return false;
  if (!cell->places.relaying)
    return true;
  if (mounts_count(cell, &mounts) < 0)
    return false;
  if (!keeper_expects_mounts(keeper))
    cell->places.mounts = mounts;
  return true;
}

/* --- the loop ---------------------------------------------------------------------------------------------------- */

static void hear_order(struct keeper *keeper, struct order *order)
{
  const struct imd_header *header = order->packet;
  const void *body = header + 1;
  const size_t size = order->size - sizeof *header;
  const bool own = header->id == keeper->warden->run.id;
  struct imd_error err = IMD_ERROR_INIT;
  switch (header->type) {
  case IMD_EXEC:
    if (keeper_start_exec(keeper, order, &err) < 0)
      keeper_fail_exec(keeper, header->id, &err);
    return;
  case IMD_KILL:
    if (own && size == sizeof(struct imd_kill))
      sentence(keeper, ((const struct imd_kill *)body)->cause);
    else
      keeper_pass_on(keeper, header->id, order->packet, order->size);
    return;
  case IMD_SIGNAL:
  case IMD_RESIZE:
    keeper_pass_on(keeper, header->id, order->packet, order->size);
    return;
  case IMD_CLOSE_STDIN:
    keeper_close_stdin(keeper, header->id);
    return;
  case IMD_FREEZE:
    if (size == sizeof(struct imd_freeze))
      keeper_freeze(keeper, ((const struct imd_freeze *)body)->on != 0);
    return;
  case IMD_EXTEND:
    if (size == sizeof(struct imd_extend))
      keeper->deadline = deadline_after(((const struct imd_extend *)body)->wall_ns);
    return;
  case IMD_MEASURE:
    keeper_measure(keeper);
    return;
  case IMD_W_ASK:
    if (size < sizeof(struct imd_w_ask) || order->fds.count != 1 ||
        keeper_start_clerk(keeper, body, size, order->fds.fd[0]) < 0)
      imd_log("no clerk for sandbox %llu: %s", (unsigned long long)keeper->warden->run.id, strerror(errno));
    return;
  case IMD_W_ALONE:
    keeper_drop_freezing(keeper);
    keeper_end_execs(keeper, false);
    return;
  case IMD_W_AGAIN:
    keeper_tell_kept(keeper);
    return;
  default:
    imd_log("sandbox %llu: unexpected message %u", (unsigned long long)keeper->warden->run.id, header->type);
  }
}

static void hear_launcher(struct keeper *keeper)
{
  struct order order = {.packet = keeper->packet};
  const ssize_t got = imd_recv_packet(keeper->warden->run.launcher, order.packet, IMD_W_MAX_PACKET, &order.fds, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN)
    return;
  if (got <= 0) {
    keeper->orphaned = true;
    sentence(keeper, IMD_CAUSE_KILLED);
    return;
  }
  order.size = (size_t)got;
  hear_order(keeper, &order);
  /* An exec's words, and what its environment holds, are for its own warden. */
  explicit_bzero(order.packet, order.size);
  order.packet = NULL;
  order_free(&order);
}

static int time_left(const struct keeper *keeper)
{
  const uint64_t now = imd_now_ns();
  uint64_t next = keeper->deadline;
  if (keeper->freezing && keeper->freeze_deadline < next)
    next = keeper->freeze_deadline;
  if (keeper->spare_due < next)
    next = keeper->spare_due;
  if (keeper->spare.pidfd >= 0 && keeper->spare_until < next)
    next = keeper->spare_until;
  const uint64_t left = next > now ? (next - now + 999999) / 1000000 : 0;
  return left > INT_MAX ? INT_MAX : (int)left;
}

static void look_at_spare(struct keeper *keeper)
{
  const uint64_t now = imd_now_ns();
  if (keeper->spare.pidfd >= 0 && now >= keeper->spare_until)
    keeper_end_spare(&keeper->spare);
  if (now >= keeper->spare_due)
    keeper_make_spare(keeper);
}

enum { LAUNCHER, INIT, TABLE, FREEZER, SPARE, FIRST };

static void serve_once(struct keeper *keeper)
{
  const struct cell *cell = &keeper->warden->cell;
  const size_t execs = keeper->count, clerks = keeper->clerk_count;
  struct pollfd events[FIRST + MAX_EXECS + MAX_CLERKS];
  events[LAUNCHER] = (struct pollfd){.fd = keeper->warden->run.launcher, .events = POLLIN};
  events[INIT] = (struct pollfd){.fd = cell->init, .events = POLLIN};
  events[TABLE] = (struct pollfd){.fd = cell->table, .events = POLLPRI};
  events[FREEZER] = (struct pollfd){.fd = keeper->frozen_events, .events = POLLPRI};
  events[SPARE] = (struct pollfd){.fd = keeper->spare.pidfd, .events = POLLIN};
  for (size_t i = 0; i < execs; i++)
    events[FIRST + i] = (struct pollfd){.fd = keeper->execs[i].pidfd, .events = POLLIN};
  for (size_t i = 0; i < clerks; i++)
    events[FIRST + execs + i] = (struct pollfd){.fd = keeper->clerks[i], .events = POLLIN};
  if (poll(events, FIRST + execs + clerks, time_left(keeper)) < 0) {
    if (errno != EINTR)
      sentence(keeper, IMD_CAUSE_KILLED);
    return;
  }
  if (events[TABLE].revents && !keeper_expects_mounts(keeper) && !is_covered(keeper)) {
    keeper->uncovered = true;
    sentence(keeper, IMD_CAUSE_VIOLATION);
  }
  if (events[INIT].revents)
    look_at_init(keeper);
  /* From the last: who is buried gives its place to one that was looked at already. */
  for (size_t i = clerks; i-- > 0;)
    if (events[FIRST + execs + i].revents && !keeper_bury_clerk(keeper, i)) {
      keeper->uncovered = true;
      sentence(keeper, IMD_CAUSE_VIOLATION);
    }
  for (size_t i = execs; i-- > 0;)
    if (events[FIRST + i].revents)
      keeper_bury_exec(keeper, &keeper->execs[i]);
  if (imd_now_ns() >= keeper->deadline)
    sentence(keeper, IMD_CAUSE_TIMEOUT);
  keeper_look_at_freezing(keeper);
  if (events[SPARE].revents)
    keeper_end_spare(&keeper->spare);
  if (events[LAUNCHER].revents && keeper->cause == 0)
    hear_launcher(keeper);
  else if (keeper->cause == 0)
    look_at_spare(keeper);
}

static int come_to_life(struct keeper *keeper, struct order *order, struct imd_error *err)
{
  struct warden *warden = keeper->warden;
  struct imd_plan_step step;
  int record = -1;
  struct stat memory;
  if (order_read(order, &warden->run, &record, warden->cell.config->slot_base, err) < 0 ||
      stand_up(warden, CGROUP_OF_SANDBOX, err) < 0 ||
      cell_forget_arguments(warden->cell.config->host_proc, err) < 0)
    return -1;
  /* What is born of us is an exec's warden or a clerk, beside us: only an exec's warden gives birth inside. */
  if (cell_enter_pids(&warden->cell, false) < 0)
    return imd_fail(err, IMD_STAGE_CELL, errno, "the host's pid namespace");
  /* Held for as long as the sandbox lives: were it the broker's own socket, nobody would ever see him gone. */
  if (fstat(record, &memory) < 0 || !S_ISREG(memory.st_mode))
    return imd_fail(err, IMD_STAGE_CELL, 0, "the sandbox's record is no memory");
  keeper->packet = malloc(IMD_W_MAX_PACKET);
  keeper->record = fcntl(record, F_DUPFD_CLOEXEC, 0);
  if (!keeper->packet || keeper->record < 0)
    return imd_fail(err, IMD_STAGE_CELL, errno, "the sandbox's record");
  order_close(order);
  keeper->network = plan_step(warden->run.plan, IMD_OP_LOOPBACK, &step);
  keeper->created = imd_now_ns();
  keeper->deadline = deadline_after(warden->run.wall_ns);
  return 0;
}

_Noreturn void keeper_serve(struct warden *warden, struct order *order)
{
  struct keeper keeper = {.warden = warden, .record = -1, .frozen_events = -1, .spare = EXEC_NONE};
  struct imd_error err = IMD_ERROR_INIT;
  if (come_to_life(&keeper, order, &err) < 0)
    ending_fail(warden, &err);
  keeper_tell(&keeper, IMD_CREATED, warden->run.id, NULL, 0, NULL, 0);
  keeper_tell_launcher(&keeper, IMD_W_CREATED, warden->run.id);
  while (keeper.cause == 0)
    serve_once(&keeper);
  end(&keeper);
}
