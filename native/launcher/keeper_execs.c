#define _GNU_SOURCE
#include "exec.h"
#include "keeper_state.h"
#include "kernel.h"
#include "plan.h"
#include "terminal.h"
#include "util.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

void keeper_fail_exec(const struct keeper *keeper, uint64_t id, const struct imd_error *err)
{
  ending_tell_failed(keeper->warden->cell.config, id, err);
  keeper_tell_launcher(keeper, IMD_W_OVER, id);
}

static struct exec *find_exec(const struct keeper *keeper, uint64_t number)
{
  for (size_t i = 0; i < keeper->count; i++)
    if (keeper->execs[i].number == number)
      return &keeper->execs[i];
  return NULL;
}

static int make_room(struct keeper *keeper, struct imd_error *err)
{
  if (keeper->count == MAX_EXECS)
    return imd_fail(err, IMD_STAGE_SANDBOX, EAGAIN, "%d execs live in it", MAX_EXECS);
  if (keeper->count < keeper->space)
    return 0;
  const size_t space = keeper->space ? keeper->space * 2 : 16;
  struct exec *more = realloc(keeper->execs, space * sizeof *more);
  if (!more)
    return imd_fail(err, IMD_STAGE_SANDBOX, ENOMEM, "one more exec");
  keeper->execs = more;
  keeper->space = space;
  return 0;
}

static bool is_eventfd(int host_proc, int fd)
{
  char path[32], name[32] = "";
  snprintf(path, sizeof path, "self/fd/%d", fd);
  return readlinkat(host_proc, path, name, sizeof name - 1) > 0 && strcmp(name, "anon_inode:[eventfd]") == 0;
}

static bool is_pipe_or_null(int fd)
{
  struct stat st;
  return fstat(fd, &st) == 0 &&
         (S_ISFIFO(st.st_mode) || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)));
}

/*
 * Root reads and writes these, and holds them for as long as the exec lives. What a file of /proc says of a process is decided
 * by who reads it, and a socket of the broker's own would outlive him here: nothing but what they are for.
 */
static int check_kept(const struct keeper *keeper, const int *fds, struct imd_error *err)
{
  if (!is_eventfd(keeper->warden->cell.config->host_proc, fds[1]))
    return imd_fail(err, IMD_STAGE_PROCESS, 0, "what should tell of a log is no eventfd");
  for (int i = 2; i < IMD_KEPT_FDS; i++)
    if (!is_pipe_or_null(fds[i]))
      return imd_fail(err, IMD_STAGE_PROCESS, 0, "descriptor %d of an exec that is kept is no pipe", i);
  return 0;
}

/* What a broker that comes later is given: ours from now on, and its warden has its own. */
static void keep_descriptors(struct exec *exec, struct imd_fds *fds, uint32_t first, bool terminal)
{
  exec->kept = true;
  if (terminal)
    exec->terminal = imd_take_fd(&fds->fd[fds->count - TERMINAL_FDS]);
  for (int i = 0; i < IMD_KEPT_FDS; i++)
    exec->fds[i] = imd_take_fd(&fds->fd[first + IMD_W_PREPARE_FDS + i]);
}

/* A warden for an exec; for one that is yet to come where `order` is NULL. */
static int fork_warden(struct keeper *keeper, struct order *order, struct exec *exec, struct imd_error *err)
{
  int pair[2];
  exec->place = ++keeper->places;
  exec->birth = payload_birth();
  if (!exec->birth)
    return imd_fail(err, IMD_STAGE_PROCESS, errno, "memory");
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return imd_fail(err, IMD_STAGE_PROCESS, errno, "a socket");
  exec->channel = pair[0];
  cleanup_fd int theirs = pair[1];
  /* A whole plan in one packet, whatever the host's default is. */
  setsockopt(exec->channel, SOL_SOCKET, SO_SNDBUFFORCE, &(int){4 * IMD_W_MAX_PACKET}, sizeof(int));
  const struct exec_start start = {.sandbox = keeper->warden, .place = exec->place, .channel = theirs,
                                   .birth = exec->birth, .network = keeper->network};
  const pid_t self = getpid();
  struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&exec->pidfd, .exit_signal = SIGCHLD};
  exec->pid = sys_clone3(&args);
  if (exec->pid == 0)
    exec_main(&start, order, self);
  return exec->pid < 0 ? imd_fail(err, IMD_STAGE_PROCESS, errno, "an exec's warden") : 0;
}

static void forget_exec(struct exec *exec)
{
  imd_close(&exec->pidfd);
  imd_close(&exec->channel);
  imd_close(&exec->terminal);
  for (int i = 0; i < IMD_KEPT_FDS; i++)
    imd_close(&exec->fds[i]);
  if (exec->birth)
    munmap(exec->birth, sizeof *exec->birth);
}

/* Master and slave go behind the order's descriptors. */
static int open_terminal(const struct keeper *keeper, struct order *order, uint64_t id, bool *opened,
                         struct imd_error *err)
{
  struct imd_plan_step step;
  int master, slave;
  *opened = plan_step(order->plan, IMD_OP_TERMINAL, &step);
  if (!*opened)
    return 0;
  err->step = step.index;
  /* The payload's ids are the sandbox's. */
  if (terminal_open(&keeper->warden->cell, &keeper->warden->run, step.numbers[0], step.numbers[1], &master, &slave, err) < 0)
    return -1;
  order->added = TERMINAL_FDS;
  order->fds.fd[order->fds.count++] = master;
  order->fds.fd[order->fds.count++] = slave;
  keeper_tell(keeper, IMD_TERMINAL, id, NULL, 0, &master, 1);
  err->step = UINT32_MAX;
  return 0;
}

/* To the warden that waits, if there is one and it takes it; else to a new one. */
static int hand_over(struct keeper *keeper, struct order *order, struct exec *exec, struct imd_error *err)
{
  if (keeper->spare.pidfd >= 0) {
    *exec = keeper->spare;
    keeper->spare = EXEC_FREE;
    if (imd_forward_packet(exec->channel, order->packet, order->size, order->fds.fd, order->fds.count, MSG_DONTWAIT) == 0)
      return 0;
    keeper_end_spare(exec);
    *exec = EXEC_FREE;
  }
  return fork_warden(keeper, order, exec, err);
}

int keeper_start_exec(struct keeper *keeper, struct order *order, struct imd_error *err)
{
  struct run run = RUN_NONE(-1);
  struct imd_exec said;
  struct exec exec = EXEC_NONE;
  uint32_t first;
  bool terminal;
  if (order_read_exec(order, &run, &said, &first, err) < 0)
    return -1;
  if (keeper_stands_still(keeper))
    return imd_fail(err, IMD_STAGE_SANDBOX, EBUSY, "the sandbox is paused");
  if (find_exec(keeper, run.id))
    return imd_fail(err, IMD_STAGE_SANDBOX, EEXIST, "an exec of this number lives");
  if ((said.flags & IMD_EXEC_KEPT) && check_kept(keeper, order->fds.fd + first + IMD_W_PREPARE_FDS, err) < 0)
    return -1;
  if (make_room(keeper, err) < 0 || open_terminal(keeper, order, run.id, &terminal, err) < 0)
    return -1;
  if (hand_over(keeper, order, &exec, err) < 0) {
    forget_exec(&exec);
    return -1;
  }
  exec.number = run.id;
  if (said.flags & IMD_EXEC_KEPT)
    keep_descriptors(&exec, &order->fds, first, terminal);
  keeper->execs[keeper->count++] = exec;
  keeper->spare_due = imd_now_ns() + SPARE_AFTER_NS;
  return 0;
}

/* --- a warden that waits ----------------------------------------------------------------------------------------- */

/*
 * Most of what an exec takes to begin is a process and a cgroup, and is the same for every exec: so one is made while nobody
 * waits. It has nothing of an exec before it: our copy of its order is gone by then.
 */
void keeper_make_spare(struct keeper *keeper)
{
  struct imd_error err = IMD_ERROR_INIT;
  keeper->spare_due = UINT64_MAX;
  keeper->spare_until = imd_now_ns() + SPARE_FOR_NS;
  if (keeper->spare.pidfd >= 0 || fork_warden(keeper, NULL, &keeper->spare, &err) == 0)
    return;
  imd_log("no warden ahead of need: %s", err.text);
  forget_exec(&keeper->spare);
  keeper->spare = EXEC_FREE;
}

void keeper_end_spare(struct exec *spare)
{
  imd_close(&spare->channel);
  if (!wait_for_death(spare->pidfd, SPARE_END_MS))
    pidfd_send_signal(spare->pidfd, SIGKILL, NULL, 0);
  while (waitid(P_PIDFD, (id_t)spare->pidfd, NULL, WEXITED) < 0 && errno == EINTR)
    continue;
  forget_exec(spare);
  *spare = EXEC_FREE;
}

/* --- their ends -------------------------------------------------------------------------------------------------- */

/* Its warden is gone. One that ended well has told its end, or was to tell nobody. */
void keeper_bury_exec(struct keeper *keeper, struct exec *exec)
{
  siginfo_t info = {.si_pid = 0};
  struct imd_error err = IMD_ERROR_INIT;
  while (waitid(P_PIDFD, (id_t)exec->pidfd, &info, WEXITED) < 0 && errno == EINTR)
    continue;
  if (info.si_code != CLD_EXITED || info.si_status != 0) {
    cgroup_kill_exec(&keeper->warden->cgroup, exec->place);
    imd_fail(&err, IMD_STAGE_LOST, 0, "the exec's warden %s %d",
             info.si_code == CLD_EXITED ? "ended with status" : "was killed by signal", info.si_status);
    if (!exec->silent && !keeper->orphaned)
      ending_tell_failed(keeper->warden->cell.config, exec->number, &err);
  }
  if (!keeper->orphaned)
    keeper_tell_launcher(keeper, IMD_W_OVER, exec->number);
  forget_exec(exec);
  *exec = keeper->execs[--keeper->count];
  if (keeper->count == 0 && keeper->spare.pidfd < 0)
    keeper->spare_due = 0;
}

/* A packet of the broker's about one exec, to whom it concerns; about one that is over, to nobody. */
void keeper_pass_on(const struct keeper *keeper, uint64_t number, const void *packet, size_t size)
{
  const struct exec *exec = find_exec(keeper, number);
  if (exec && exec->channel >= 0 && send(exec->channel, packet, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EPIPE)
    imd_log("exec %llu hears nothing: %s", (unsigned long long)number, strerror(errno));
}

void keeper_pass_to_all(const struct keeper *keeper, uint32_t type, const void *body, size_t size)
{
  for (size_t i = 0; i < keeper->count; i++)
    if (keeper->execs[i].channel >= 0)
      imd_send_message(keeper->execs[i].channel, type, keeper->execs[i].number, body, size, MSG_DONTWAIT);
}

/* By the end of their channel, as a launcher's own end ends a run. */
void keeper_end_execs(struct keeper *keeper, bool all)
{
  for (size_t i = 0; i < keeper->count; i++) {
    struct exec *exec = &keeper->execs[i];
    if (exec->kept && !all)
      continue;
    exec->silent = true;
    imd_close(&exec->channel);
  }
}

void keeper_close_stdin(const struct keeper *keeper, uint64_t number)
{
  struct exec *exec = find_exec(keeper, number);
  if (exec)
    imd_close(&exec->fds[IMD_KEPT_FDS - 1]);
}
