#define _GNU_SOURCE
#include "launcher.h"
#include "landlock.h"
#include "parker.h"
#include "plan.h"
#include "processors.h"
#include "relay.h"
#include "util.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define MILLISECOND 1000000ull
#define STOP_NS (10000 * MILLISECOND)
#define ACCEPT_REST_NS (100 * MILLISECOND)

enum {
  EVENTS = 64,
  ACCEPTS_AT_ONCE = 16,
  BROKER_MESSAGES_AT_ONCE = 32,
  /* Beside the wardens' sockets: the descriptors of runs that wait (a plan, 0, 1, 2, GO, a log), and a margin. */
  DESCRIPTORS_IN_HAND = 6 * 4096 + 1024,
};

/* epoll's data: a slot, or one of these. */
enum { FROM_BROKER = 1 << 20, FROM_PARKER, FROM_LISTENER };

static int watch(int epoll, int fd, uint32_t events, uint64_t name)
{
  struct epoll_event event = {.events = events, .data.u64 = name};
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void stop_accepting(struct imd_launcher *launcher)
{
  imd_listener_close(&launcher->listener);
  launcher->listening = false;
}

/* The wardens see the end of their sockets, and kill their cells. */
static void stop(struct imd_launcher *launcher)
{
  if (launcher->stopping)
    return;
  launcher->stopping = true;
  launcher->stop_deadline = imd_now_ns() + STOP_NS;
  stop_accepting(launcher);
  launcher->outbox.broken = true;
  imd_outbox_flush(&launcher->outbox);
  imd_close(&launcher->broker);
  imd_run_forget_waiting(launcher);
  imd_pool_close_all(&launcher->pool);
}

static void fail(struct imd_launcher *launcher, const char *reason)
{
  imd_log("%s: everything is ended", reason);
  launcher->failed = true;
  stop(launcher);
}

static int obey(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds)
{
  struct imd_header header;
  memcpy(&header, packet, sizeof header);
  switch (header.type) {
  case IMD_PREPARE:
    return imd_run_prepare(launcher, packet, length, fds);
  case IMD_KILL:
    return imd_run_kill(launcher, packet, length);
  case IMD_CONN_CLOSED:
    imd_listener_forget(&launcher->listener, header.id);
    return 0;
  case IMD_STOP:
    stop_accepting(launcher);
    return 0;
  default:
    imd_log("unknown message %u", header.type);
    return -1;
  }
}

static void broker_spoke(struct imd_launcher *launcher)
{
  static _Alignas(8) char packet[IMD_MAX_PACKET];
  for (int i = 0; i < BROKER_MESSAGES_AT_ONCE && launcher->broker >= 0 && !imd_outbox_waits(&launcher->outbox); i++) {
    cleanup_fds struct imd_fds fds = {.count = 0};
    const ssize_t length = imd_recv_packet(launcher->broker, packet, sizeof packet, &fds, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN)
      return;
    if (length == 0 || (length < 0 && errno != EBADMSG)) {
      stop(launcher);
      return;
    }
    if (length < 0 || obey(launcher, packet, (size_t)length, &fds) < 0)
      fail(launcher, "the broker breaks the protocol");
    if (length > 0)
      explicit_bzero(packet, (size_t)length);   /* plans hold secrets */
  }
}

static void parker_lost(struct imd_launcher *launcher)
{
  imd_close(&launcher->parker);
  fail(launcher, "the parker is gone");
}

static void cell_gone(struct imd_launcher *launcher, uint64_t number, const struct imd_p_gone *gone)
{
  struct imd_cell *cell = imd_pool_find(&launcher->pool, number);
  if (!cell)
    return;
  /* Its last words may not have been read yet. */
  while (imd_run_warden_spoke(launcher, cell))
    ;
  const uint32_t failures = launcher->pool.failures;
  struct imd_run *run = imd_pool_gone(&launcher->pool, cell, gone);
  imd_run_warden_gone(launcher, run, gone);
  if (launcher->pool.failures > failures && imd_pool_failing(&launcher->pool))
    imd_run_fail_waiting(launcher);
}

static void parker_spoke(struct imd_launcher *launcher)
{
  _Alignas(8) char packet[sizeof(struct imd_header) + sizeof(struct imd_p_gone)];
  struct imd_header header;
  struct imd_p_gone gone;
  for (;;) {
    cleanup_fds struct imd_fds fds = {.count = 0};
    const ssize_t length = imd_recv_packet(launcher->parker, packet, sizeof packet, &fds, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN)
      return;
    if (length <= 0) {
      parker_lost(launcher);
      return;
    }
    memcpy(&header, packet, sizeof header);
    if (header.type == IMD_P_CELL && fds.count == 1) {
      imd_pool_made(&launcher->pool, header.id, imd_take_fd(&fds.fd[0]));
    } else if (header.type == IMD_P_GONE && length == sizeof packet) {
      memcpy(&gone, packet + sizeof header, sizeof gone);
      cell_gone(launcher, header.id, &gone);
    }
    /* A cell whose descriptor we could not take: its warden sees that, and GONE follows. */
  }
}

static void announce(struct imd_launcher *launcher, int connection, const struct imd_peer *peer)
{
  struct {
    struct imd_conn head;
    uint32_t groups[IMD_MAX_GROUPS];
  } body = {.head = {.uid = peer->uid, .gid = peer->gid, .pid = peer->pid, .ngroups = peer->ngroups}};
  const size_t groups = peer->ngroups * sizeof peer->groups[0];
  memcpy(body.groups, peer->groups, groups);
  imd_outbox_put(&launcher->outbox, IMD_CONN, peer->node.key, &body, sizeof body.head + groups, &connection, 1);
}

static void somebody_connected(struct imd_launcher *launcher)
{
  struct imd_listener *listener = &launcher->listener;
  for (int i = 0; i < ACCEPTS_AT_ONCE && listener->socket >= 0 && !imd_listener_full(listener) &&
                  !imd_outbox_waits(&launcher->outbox);
       i++) {
    const struct imd_peer *peer;
    cleanup_fd int connection = imd_listener_accept(listener, &peer);
    if (connection >= 0) {
      announce(launcher, connection, peer);
    } else if (errno == EAGAIN) {
      return;
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      imd_log("accept: %s", strerror(errno));
      launcher->accept_after = imd_now_ns() + ACCEPT_REST_NS;
      return;
    }
  }
}

/* The listener is watched only while we would accept. */
static void tend_listener(struct imd_launcher *launcher)
{
  if (launcher->listener.socket < 0)
    return;
  if (launcher->accept_after != 0 && imd_now_ns() >= launcher->accept_after)
    launcher->accept_after = 0;
  const bool wanted = launcher->accept_after == 0 && !imd_listener_full(&launcher->listener);
  if (wanted == launcher->listening)
    return;
  if (wanted)
    watch(launcher->everybody, launcher->listener.socket, EPOLLIN, FROM_LISTENER);
  else
    epoll_ctl(launcher->everybody, EPOLL_CTL_DEL, launcher->listener.socket, NULL);
  launcher->listening = wanted;
}

static void dispatch(struct imd_launcher *launcher, uint64_t name)
{
  if (name == FROM_PARKER) {
    if (launcher->parker >= 0)
      parker_spoke(launcher);
  } else if (imd_outbox_waits(&launcher->outbox)) {
    /* Something of this round filled the broker's socket: the others stay unread. */
  } else if (name == FROM_BROKER) {
    broker_spoke(launcher);
  } else if (name == FROM_LISTENER) {
    somebody_connected(launcher);
  } else {
    imd_run_warden_spoke(launcher, &launcher->pool.cells[name]);
  }
}

static uint64_t earliest(uint64_t one, uint64_t other)
{
  return one < other ? one : other;
}

/* Milliseconds for epoll_wait; -1: for ever. */
static int patience(const struct imd_launcher *launcher)
{
  uint64_t wake;
  if (launcher->stopping) {
    wake = launcher->stop_deadline;
  } else {
    wake = imd_pool_wake(&launcher->pool, launcher->waiting_count);
    if (launcher->accept_after != 0)
      wake = earliest(wake, launcher->accept_after);
  }
  if (wake == UINT64_MAX)
    return -1;
  const uint64_t now = imd_now_ns();
  return wake <= now ? 0 : (int)((wake - now) / MILLISECOND + 1);
}

static bool finished(const struct imd_launcher *launcher)
{
  return launcher->stopping && (launcher->pool.busy == 0 || launcher->parker < 0 ||
                                imd_now_ns() >= launcher->stop_deadline);
}

static void serve(struct imd_launcher *launcher)
{
  struct epoll_event events[EVENTS];
  while (!finished(launcher)) {
    if (!launcher->stopping) {
      imd_run_serve_waiting(launcher);
      if (imd_pool_tend(&launcher->pool, launcher->waiting_count, launcher->runs.count > 0) < 0)
        parker_lost(launcher);
      tend_listener(launcher);
    }
    const bool full = imd_outbox_waits(&launcher->outbox);
    const int count = epoll_wait(full ? launcher->urgent : launcher->everybody, events, EVENTS, patience(launcher));
    if (full)
      imd_outbox_flush(&launcher->outbox);
    for (int i = 0; i < count; i++)
      if (!full || events[i].data.u64 == FROM_PARKER)
        dispatch(launcher, events[i].data.u64);
    if (launcher->outbox.broken)
      stop(launcher);
  }
  if (launcher->pool.busy > 0 && launcher->parker >= 0) {
    imd_log("%u cells did not end in time", launcher->pool.busy);
    launcher->failed = true;
  }
}

/* The parker ends with its last warden; wardens without it are ours, for we are a subreaper. */
static void reap(uint64_t deadline)
{
  for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) >= 0;) {
    if (pid > 0)
      continue;
    if (imd_now_ns() >= deadline)
      return;
    nanosleep(&(struct timespec){.tv_nsec = (long)MILLISECOND}, NULL);
  }
}

/* After the parker's fork: wardens and payloads keep the limit that we were started with. */
static void raise_descriptor_limit(uint32_t slots)
{
  struct rlimit limit;
  const rlim_t wanted = slots + DESCRIPTORS_IN_HAND;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
    return;
  const struct rlimit all = {wanted, limit.rlim_max > wanted ? limit.rlim_max : wanted};
  if (setrlimit(RLIMIT_NOFILE, &all) == 0)
    return;
  /* Above the hard limit only with CAP_SYS_RESOURCE: up to it, then. */
  limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
    imd_log("RLIMIT_NOFILE: %s", strerror(errno));
}

static void say_ready(struct imd_launcher *launcher)
{
  char body[sizeof(struct imd_ready) + PATH_MAX];
  const size_t path = strnlen(launcher->subtree.path, PATH_MAX);
  const long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
  const struct imd_ready ready = {
      .version = IMD_PROTOCOL_VERSION,
      .controllers = launcher->subtree.controllers,
      .landlock_abi = landlock > 0 ? (uint32_t)landlock : 0,
      .slot_base = launcher->options->slot_base,
      .slot_count = launcher->options->slot_count,
      .swap = launcher->subtree.swap,
  };
  memcpy(body, &ready, sizeof ready);
  memcpy(body + sizeof ready, launcher->subtree.path, path);
  imd_outbox_put(&launcher->outbox, IMD_READY, 0, body, sizeof ready + path, NULL, 0);
}

static int start_parker(struct imd_launcher *launcher)
{
  cleanup_fd int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  cleanup_fd int mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  cleanup_fd int processors = processors_open();
  if (proc < 0 || mounts < 0 || processors < 0)
    return -1;
  const struct imd_options *options = launcher->options;
  const struct warden_config config = {
      .host_proc = proc,
      .host_mounts = mounts,
      .outcomes = options->outcome_fd,
      .cgroup = launcher->subtree.directory,
      .controllers = launcher->subtree.controllers,
      .processors = processors,
      .open_timeout_ms = options->open_timeout_ms,
      .grant_read = options->grant_read,
      .grant_write = options->grant_write,
  };
  imd_plan_require_landlock(landlock_rung());
  pid_t pid;
  launcher->parker = imd_parker_start(&config, options->lock_fd, &pid);
  return launcher->parker;
}

static int open_all(struct imd_launcher *launcher)
{
  const struct imd_options *options = launcher->options;
  imd_subtree_open(&launcher->subtree, options->cgroup);
  if (start_parker(launcher) < 0) {
    imd_log("no parker: %s", strerror(errno));
    return -1;
  }
  raise_descriptor_limit(options->slot_count);
  prctl(PR_SET_CHILD_SUBREAPER, 1);

  launcher->everybody = epoll_create1(EPOLL_CLOEXEC);
  launcher->urgent = epoll_create1(EPOLL_CLOEXEC);
  if (launcher->everybody < 0 || launcher->urgent < 0 ||
      watch(launcher->everybody, launcher->broker, EPOLLIN, FROM_BROKER) < 0 ||
      watch(launcher->urgent, launcher->broker, EPOLLOUT, FROM_BROKER) < 0 ||
      watch(launcher->everybody, launcher->parker, EPOLLIN, FROM_PARKER) < 0 ||
      watch(launcher->urgent, launcher->parker, EPOLLIN, FROM_PARKER) < 0) {
    imd_log("epoll: %s", strerror(errno));
    return -1;
  }
  imd_pool_open(&launcher->pool, options->slot_base, options->slot_count, options->pool_min, options->pool_max,
                launcher->parker, launcher->everybody);

  struct imd_error error = IMD_ERROR_INIT;
  if (imd_listener_open(&launcher->listener, options->socket, options->max_connections, &error) < 0) {
    imd_log("socket: %s", error.text);
    return -1;
  }
  return 0;
}

int imd_launcher_main(const struct imd_options *options)
{
  struct imd_launcher *launcher = imd_allocate(sizeof *launcher);
  launcher->options = options;
  launcher->broker = options->control_fd;
  launcher->parker = -1;
  imd_outbox_open(&launcher->outbox, launcher->broker);
  TAILQ_INIT(&launcher->waiting);

  if (open_all(launcher) == 0) {
    say_ready(launcher);
    serve(launcher);
  } else {
    launcher->failed = true;
  }
  imd_close(&launcher->parker);
  reap(imd_now_ns() + STOP_NS);
  imd_subtree_close(&launcher->subtree);
  return launcher->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
