#define _GNU_SOURCE
#include "live.h"
#include "kernel.h"
#include "message.h"
#include "terminal.h"
#include "util.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* A pipe holds 1 MiB at most (fs.pipe-max-size), a terminal less. */
enum { PIECE = 65536, MOST_LEFT = 4 << 20 };

/*
 * A child in the cell's pid namespace, with the payload's effective ids: by no number, however old, can it reach a process
 * outside, or one that is not the payload's. Its real and saved ids are nobody's: else the payload could stop it (kill(2)
 * asks for those of whom it signals). Where and when it runs the payload may still say (sched_setaffinity(2) asks for the
 * effective one): so we do not wait for it.
 */
static void send_messenger(struct live *live, const struct cgroup *cgroup, const struct run *run, int number, bool everybody)
{
  cleanup_fd int members = everybody ? openat(cgroup->dir, "cgroup.procs", O_RDONLY | O_CLOEXEC) : -1;
  struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&live->messenger, .exit_signal = SIGCHLD};
  const pid_t child = sys_clone3(&args);
  if (child < 0) {
    imd_log("no signal %d: %s", number, strerror(errno));
    live->messenger = -1;              /* the kernel writes a number before it may still fail */
  }
  if (child != 0)
    return;
  if (setgroups(0, NULL) < 0 || setresgid(run->gid, run->gid, run->gid) < 0 ||
      setresuid(run->uid ^ 1, run->uid, run->uid ^ 1) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
    _exit(EXIT_FAILURE);
  pid_t group;
  if (!everybody && ioctl(live->terminal, TIOCGPGRP, &group) == 0 && group > 1)
    kill(-group, number);
  FILE *listing = members >= 0 ? fdopen(members, "r") : NULL;
  for (int pid; listing && fscanf(listing, "%d", &pid) == 1;)
    if (pid > 1)
      kill(pid, number);
  _exit(EXIT_SUCCESS);
}

/* Whether the last one is done, or there was none. */
static bool is_messenger_back(struct live *live)
{
  siginfo_t dead = {.si_pid = 0};
  if (live->messenger >= 0 &&
      (waitid(P_PIDFD, (id_t)live->messenger, &dead, WEXITED | WNOHANG) < 0 || dead.si_pid != 0))
    imd_close(&live->messenger);
  return live->messenger < 0;
}

static bool ends_everybody(const struct imd_signal *said)
{
  return said->everybody && said->number == SIGKILL;
}

static void pass_signal(struct live *live, const struct cgroup *cgroup, const struct run *run, const struct payload *payload,
                        const struct imd_signal *said)
{
  const int number = (int)said->number;
  if (ends_everybody(said))
    cgroup_kill(cgroup);
  else if (said->everybody || live->terminal >= 0)
    send_messenger(live, cgroup, run, number, said->everybody != 0);
  else if (payload->pidfd >= 0)
    pidfd_send_signal(payload->pidfd, number, NULL, 0);
}

void live_pass_signals(struct live *live, const struct cgroup *cgroup, const struct run *run, const struct payload *payload)
{
  const enum birth_stage stage = payload_stage(payload);
  if (stage == BIRTH_PREPARING || stage == BIRTH_WAITING)
    return;
  if (stage != BIRTH_STARTED)
    live->signal_count = 0;
  /* One that ends them all waits for no messenger. */
  for (bool back = is_messenger_back(live); live->signal_count > 0 && (back || ends_everybody(&live->signals[0]));
       back = live->messenger < 0) {
    const struct imd_signal said = live->signals[0];
    memmove(live->signals, live->signals + 1, --live->signal_count * sizeof said);
    pass_signal(live, cgroup, run, payload, &said);
  }
}

bool live_waits_for_go(const struct live *live)
{
  return live->signal_count > 0 && live->messenger < 0;
}

/* Before GO the process is still ours, and no signal is meant for it: what comes then is for the program that it will be. */
static void hear_signal(struct live *live, const struct cgroup *cgroup, const struct run *run,
                        const struct payload *payload, const struct imd_signal *heard)
{
  if (heard->number < 1 || heard->number >= NSIG)
    return;
  const struct imd_signal said = {heard->number, heard->everybody != 0};
  size_t kept = 0;
  for (size_t i = 0; i < live->signal_count && !ends_everybody(&said); i++)
    if (memcmp(&live->signals[i], &said, sizeof said) != 0)
      live->signals[kept++] = live->signals[i];
  live->signals[kept++] = said;
  live->signal_count = kept;
  live_pass_signals(live, cgroup, run, payload);
}

/* The pause that is on was one until now; it counts from GO on. */
static uint64_t end_pause(struct live *live, const struct payload *payload, uint64_t now)
{
  const uint64_t pause = now - live->since;
  live->paused = false;
  if (payload_stage(payload) == BIRTH_STARTED && payload->birth->started <= live->since)
    live->paused_ns += pause;
  return pause;
}

void live_stop(struct live *live, const struct payload *payload, uint64_t end)
{
  if (live->paused && end > live->since)
    end_pause(live, payload, end);
  if (!is_messenger_back(live)) {
    pidfd_send_signal(live->messenger, SIGKILL, NULL, 0);
    imd_close(&live->messenger);
  }
}

static uint64_t hear_pause(struct live *live, const struct payload *payload, bool on)
{
  if (on == live->paused)
    return 0;
  const uint64_t now = imd_now_ns();
  if (!on)
    return end_pause(live, payload, now);
  live->paused = true;
  live->since = now;
  return 0;
}

bool live_hear(struct live *live, const struct cell *cell, const struct cgroup *cgroup, const struct run *run,
               const struct payload *payload, const void *packet, size_t size, uint64_t *pause)
{
  const struct imd_header *header = packet;
  const void *body = header + 1;
  const size_t length = size - sizeof *header;
  (void)cell;
  *pause = 0;
  switch (header->type) {
  case IMD_SIGNAL:
    if (length == sizeof(struct imd_signal))
      hear_signal(live, cgroup, run, payload, body);
    return true;
  case IMD_RESIZE:
    if (length == sizeof(struct imd_resize) && live->terminal >= 0)
      terminal_resize(live->terminal, ((const struct imd_resize *)body)->rows, ((const struct imd_resize *)body)->columns);
    return true;
  case IMD_FREEZE:
    if (length == sizeof(struct imd_freeze))
      *pause = hear_pause(live, payload, ((const struct imd_freeze *)body)->on != 0);
    return true;
  default:
    return false;
  }
}

/* How many bytes, 0 when there are none now, -1 at the end. */
static ssize_t take(struct live *live, int which)
{
  static char piece[PIECE];
  ssize_t got;
  do
    got = read(live->inputs[which], piece, sizeof piece);
  while (got < 0 && errno == EINTR);
  if (got > 0)
    exec_log_write(&live->log, which + 1, piece, (size_t)got);
  if (got > 0 || (got < 0 && errno == EAGAIN))
    return got > 0 ? got : 0;
  return -1;
}

void live_take(struct live *live, int which)
{
  if (take(live, which) >= 0)
    return;
  /* A terminal's master is still wanted, and has no end: its slave may be opened anew. */
  if (live->inputs[which] != live->terminal)
    close(live->inputs[which]);
  live->inputs[which] = -1;
}

/* Another exec may hold a writing end that it was passed, and write for ever: what the dead ones left is no more than this. */
void live_drain(struct live *live)
{
  if (live->inputs[0] < 0 && live->log.map && live->terminal >= 0)
    live->inputs[0] = live->terminal;
  for (int which = 0; which < 2; which++)
    for (ssize_t left = MOST_LEFT, got = 0; left > 0 && live->inputs[which] >= 0; left -= got)
      if ((got = take(live, which)) <= 0)
        break;
}
