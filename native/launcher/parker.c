#define _GNU_SOURCE
#include "parker.h"
#include "message.h"
#include "options.h"
#include "remains.h"
#include "template.h"
#include "util.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* How long what a dead warden left behind may take to die, and how long everything may, once the launcher is gone. */
#define LAST_WORDS_NS (10 * 1000000000ull)

struct warden {
  pid_t pid;                       /* 0: reaped, but not without a trace; see `lost` */
  uint64_t cell;
  int status;
  uint64_t deadline;               /* of a lost one: report it then, whatever still lives */
};

struct parker {
  const struct warden_config *config;
  int launcher;                    /* -1: it is gone */
  int signals;
  struct warden *wardens;
  size_t count, space;
  struct template template;        /* what the wardens' mount namespaces are copies of */
  size_t lost;                     /* wardens that ended badly and are not reported yet */
  uint64_t deadline;               /* once the launcher is gone */
};

_Noreturn static void become_warden(const struct parker *parker, uint64_t cell, uint32_t slot_base, int launcher)
{
  struct warden_config config = *parker->config;
  config.slot_base = slot_base;
  config.cell = cell;
  config.templated = true;
  int keep[] = {config.host_proc, config.host_mounts, config.cgroup, config.outcomes, config.processors, launcher};
  imd_close_others(keep, sizeof keep / sizeof keep[0]);

  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  prctl(PR_SET_NAME, "immured-warden");
  warden_main(&config, launcher);
}

static void report_gone(const struct parker *parker, uint64_t cell, int status, int error, bool unsure)
{
  const struct imd_p_gone gone = {.status = status, .error = error, .unsure = unsure};
  if (parker->launcher >= 0)
    imd_send_message(parker->launcher, IMD_P_GONE, cell, &gone, sizeof gone, 0);
}

static void park(struct parker *parker, uint64_t cell, uint32_t slot_base)
{
  if (parker->count == parker->space) {
    const size_t space = parker->space ? parker->space * 2 : 64;
    struct warden *more = realloc(parker->wardens, space * sizeof *more);
    if (!more) {
      report_gone(parker, cell, 0, ENOMEM, false);
      return;
    }
    parker->wardens = more;
    parker->space = space;
  }
  struct imd_error err = IMD_ERROR_INIT;
  if (template_refresh(&parker->template, parker->config->host_mounts, &err) < 0) {
    imd_log("the template of cells: %s", err.text);
    report_gone(parker, cell, 0, err.error ? err.error : EIO, false);
    return;
  }
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
    report_gone(parker, cell, 0, errno, false);
    return;
  }
  cleanup_fd int ours = pair[0];
  cleanup_fd int theirs = pair[1];
  /* A whole plan in one packet, whatever the host's default is. */
  setsockopt(ours, SOL_SOCKET, SO_SNDBUFFORCE, &(int){4 * IMD_W_MAX_PACKET}, sizeof(int));

  const pid_t pid = fork();
  if (pid == 0)
    become_warden(parker, cell, slot_base, theirs);
  if (pid < 0) {
    report_gone(parker, cell, 0, errno, false);
    return;
  }
  parker->wardens[parker->count++] = (struct warden){.pid = pid, .cell = cell};
  /* Should this fail, our end closes here, the warden sees that and ends, and its end is reported. */
  imd_send_packet(parker->launcher, IMD_P_CELL, cell, NULL, 0, &ours, 1, 0);
}

static struct warden *find(const struct parker *parker, pid_t pid)
{
  for (size_t i = 0; i < parker->count; i++)
    if (parker->wardens[i].pid == pid)
      return &parker->wardens[i];
  return NULL;
}

static void forget(struct parker *parker, struct warden *warden)
{
  *warden = parker->wardens[--parker->count];
}

static void reap(struct parker *parker)
{
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    struct warden *warden = find(parker, pid);
    if (!warden)
      continue;                    /* left by a warden that was lost */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
      report_gone(parker, warden->cell, status, 0, false);
      forget(parker, warden);
      continue;
    }
    warden->pid = 0;
    warden->status = status;
    warden->deadline = imd_now_ns() + LAST_WORDS_NS;
    parker->lost++;
  }
}

/* Have we a child that is no warden? They come to us from wardens that died before them. */
static bool orphans_live(const struct parker *parker)
{
  int fd = openat(parker->config->host_proc, "thread-self/children", O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return true;
  FILE *children = fdopen(fd, "r");
  if (!children) {
    close(fd);
    return true;
  }
  bool live = false;
  for (int pid; !live && fscanf(children, "%d", &pid) == 1;)
    live = !find(parker, pid);
  fclose(children);
  return live;
}

/* The range of ids of a lost warden may be used again only once nothing that has them lives. */
static void report_lost(struct parker *parker)
{
  if (parker->lost == 0)
    return;
  const bool live = orphans_live(parker);
  const uint64_t now = imd_now_ns();
  for (size_t i = parker->count; i-- > 0;) {
    struct warden *warden = &parker->wardens[i];
    if (warden->pid != 0 || (live && now < warden->deadline))
      continue;
    report_gone(parker, warden->cell, warden->status, 0, live);
    forget(parker, warden);
    parker->lost--;
  }
}

static void take_request(struct parker *parker)
{
  _Alignas(8) char buffer[sizeof(struct imd_header) + sizeof(struct imd_p_park)];
  cleanup_fds struct imd_fds fds = {.count = 0};
  const ssize_t got = imd_recv_packet(parker->launcher, buffer, sizeof buffer, &fds, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN)
    return;
  if (got == (ssize_t)sizeof buffer) {
    struct imd_header header;
    struct imd_p_park request;
    memcpy(&header, buffer, sizeof header);
    memcpy(&request, buffer + sizeof header, sizeof request);
    park(parker, header.id, request.slot_base);
    return;
  }
  /* The wardens see the end of their own sockets; we stay for their sake. */
  imd_close(&parker->launcher);
  parker->deadline = imd_now_ns() + LAST_WORDS_NS;
}

static void take_signals(const struct parker *parker)
{
  struct signalfd_siginfo info[8];
  (void)!read(parker->signals, info, sizeof info);
}

/* Milliseconds until there is something to do without being told; -1: never. */
static int patience(const struct parker *parker)
{
  if (parker->lost > 0)
    return 20;
  return parker->launcher < 0 ? 1000 : -1;
}

_Noreturn static void serve(struct parker *parker)
{
  while (parker->launcher >= 0 || (parker->count > 0 && imd_now_ns() < parker->deadline)) {
    struct pollfd events[] = {
        {.fd = parker->signals, .events = POLLIN},
        {.fd = parker->launcher, .events = POLLIN},
    };
    if (poll(events, 2, patience(parker)) < 0 && errno != EINTR)
      break;
    if (events[0].revents)
      take_signals(parker);
    reap(parker);
    report_lost(parker);
    if (parker->launcher >= 0 && events[1].revents)
      take_request(parker);
  }
  if (parker->count > 0)
    imd_log("%zu wardens did not end", parker->count);
  _exit(parker->count > 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/*
 * A process that root once set below 0 can go back there, and so can its children: writing the value as root raises
 * that floor, for every warden and payload to come.
 */
static void raise_oom_floor(int host_proc)
{
  char text[16];
  if (imd_read_at(host_proc, "self/oom_score_adj", text, sizeof text) < 0)
    return;
  if (text[0] == '-')
    strcpy(text, "0");
  if (imd_write_at(host_proc, "self/oom_score_adj", text) < 0)
    imd_log("oom_score_adj: %s", strerror(errno));
}

_Noreturn static void become_parker(const struct warden_config *config, const int *locks, int launcher)
{
  int keep[6 + IMD_MAX_LOCKS] = {config->host_proc, config->host_mounts, config->cgroup, config->outcomes, config->processors, launcher};
  memcpy(keep + 6, locks, IMD_MAX_LOCKS * sizeof *locks);
  imd_close_others(keep, sizeof keep / sizeof keep[0]);
  prctl(PR_SET_NAME, "immured-parker");
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  raise_oom_floor(config->host_proc);
  remains_open(config->cgroup);

  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  struct parker parker = {
      .config = config, .launcher = launcher, .signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK),
      .template = {.host_etc = -1}};
  if (parker.signals < 0) {
    imd_log("signalfd: %s", strerror(errno));
    _exit(EXIT_FAILURE);
  }
  serve(&parker);
}

int imd_parker_start(const struct warden_config *config, const int *locks, pid_t *pid)
{
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return -1;
  cleanup_fd int ours = pair[0];
  cleanup_fd int theirs = pair[1];
  *pid = fork();
  if (*pid == 0)
    become_parker(config, locks, theirs);
  return *pid < 0 ? -1 : imd_take_fd(&ours);
}
