#define _GNU_SOURCE
#include "guard.h"
#include "kernel.h"
#include "util.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct result {
  uint32_t failed, reserved;
  uint64_t which;
  struct imd_error err;
};

enum waited run_wait(const struct run *run, int fd, uint64_t deadline)
{
  struct pollfd events[] = {{.fd = fd, .events = POLLIN}, {.fd = run->launcher, .events = run->over ? 0 : POLLIN}};
  for (;;) {
    const uint64_t now = imd_now_ns();
    const int left = deadline > now ? (int)((deadline - now + 999999) / 1000000) : 0;
    const int ready = poll(events, 2, left);
    if (ready < 0 && errno == EINTR)
      continue;
    if (ready < 0)
      return WAITED_IN_VAIN;
    if (events[0].revents)
      return WAITED_READY;
    if (events[1].revents)
      return WAITED_KILLED;
    if (left == 0)
      return WAITED_TOO_LONG;
  }
}

static int wait_for_result(const struct cell *cell, const struct run *run, int socket, struct imd_error *err)
{
  switch (run_wait(run, socket, imd_now_ns() + (uint64_t)cell->config->open_timeout_ms * 1000000u)) {
  case WAITED_READY: return 0;
  case WAITED_KILLED:
    return imd_fail(err, IMD_STAGE_KILLED, 0, "killed while waiting for a file system of the caller's");
  case WAITED_TOO_LONG:
    return imd_fail(err, IMD_STAGE_DEADLINE, ETIMEDOUT, "a file system of the caller's did not answer");
  default: return imd_fail(err, IMD_STAGE_MOUNT, errno, "waiting for a file system");
  }
}

static int take_result(int socket, struct findings *findings, struct imd_error *err)
{
  _Alignas(8) char buffer[sizeof(struct imd_header) + sizeof(struct result)];
  struct result result;
  findings->fds.count = 0;
  if (imd_recv_packet(socket, buffer, sizeof buffer, &findings->fds, 0) != (ssize_t)sizeof buffer)
    return imd_fail(err, IMD_STAGE_MOUNT, 0, "the process before a file system of the caller's died");
  memcpy(&result, buffer + sizeof(struct imd_header), sizeof result);
  findings->which = result.which;
  if (!result.failed)
    return 0;
  *err = result.err;
  return -1;
}

_Noreturn static void be_guarded(const struct cell *cell, const struct run *run, int socket, guarded_work *work,
                                 void *argument)
{
  cell_let_go(cell, run);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct findings findings = {.which = 0};
  struct result result = {.err = IMD_ERROR_INIT};
  result.failed = work(argument, &findings, &result.err) < 0;
  result.which = findings.which;
  const struct iovec body = {&result, sizeof result};
  imd_send_packet(socket, 0, 0, &body, 1, findings.fds.fd, findings.fds.count, 0);
  _exit(EXIT_SUCCESS);
}

int guarded_call(const struct cell *cell, const struct run *run, guarded_work *work, void *argument,
                 struct findings *findings, struct imd_error *err)
{
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "a socket");
  cleanup_fd int ours = pair[0];
  cleanup_fd int theirs = pair[1];
  cleanup_fd int pidfd = -1;
  /* Not in the cell's pid namespace, whose end would wait for it. */
  if (cell_enter_pids(cell, false) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the host's pid namespace");
  struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
  const pid_t pid = sys_clone3(&args);
  if (pid == 0)
    be_guarded(cell, run, theirs, work, argument);
  const int error = errno;
  if (cell_enter_pids(cell, true) < 0)
    _exit(EXIT_FAILURE);
  if (pid < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, error, "a process before a file system of the caller's");
  imd_close(&theirs);

  struct findings unwanted = {.which = 0};
  int result = wait_for_result(cell, run, ours, err);
  if (result == 0)
    result = take_result(ours, findings ? findings : &unwanted, err);
  imd_fds_close(&unwanted.fds);
  /* One that is stuck in the kernel cannot be waited for; whoever inherits it reaps it. */
  pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
  waitid(P_PIDFD, (id_t)pidfd, NULL, WEXITED | WNOHANG);
  return result;
}
