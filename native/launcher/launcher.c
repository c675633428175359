#define _GNU_SOURCE
#include "launcher.h"
#include "brokers.h"
#include "counts.h"
#include "landlock.h"
#include "notify.h"
#include "parker.h"
#include "plan.h"
#include "processors.h"
#include "relay.h"
#include "upgrade.h"
#include "upgrade_state.h"
#include "util.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define MILLISECOND 1000000ull
#define STOP_NS (10000 * MILLISECOND)
#define ACCEPT_REST_NS (100 * MILLISECOND)

enum {
  EVENTS = 64,
  ACCEPTS_AT_ONCE = 16,
  /* Beside the wardens' sockets: the descriptors of runs that wait (a plan, 0, 1, 2, GO, a log), and a margin. */
  DESCRIPTORS_IN_HAND = 6 * 4096 + 1024,
  OUTCOMES_BUFFER = 8 << 20,       /* of ends that are told while nobody listens; who finds it full waits */
};

static int watch(int epoll, int fd, uint32_t events, uint64_t name)
{
  struct epoll_event event = {.events = events, .data.u64 = name};
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

void imd_launcher_stop_accepting(struct imd_launcher *launcher)
{
  imd_listener_close(&launcher->listener);
  launcher->listening = false;
}

int imd_launcher_listen(struct imd_launcher *launcher, struct imd_error *err)
{
  launcher->listening = false;
  return imd_listener_open(&launcher->listener, launcher->options->socket, launcher->options->max_connections, err);
}

/* The wardens see the end of their sockets, and kill their cells. */
void imd_launcher_stop(struct imd_launcher *launcher)
{
  if (launcher->stopping)
    return;
  launcher->stopping = true;
  launcher->stop_deadline = imd_now_ns() + STOP_NS;
  imd_launcher_stop_accepting(launcher);
  imd_control_close(&launcher->control);
  launcher->outbox.broken = true;
  imd_outbox_flush(&launcher->outbox);
  imd_drop(&launcher->broker, 1);
  imd_close(&launcher->outcomes[0]);   /* where nobody else holds it, no warden waits for room */
  imd_run_forget_waiting(launcher);
  imd_pool_close_all(&launcher->pool);
}

static void fail(struct imd_launcher *launcher, const char *reason)
{
  imd_log("%s: everything is ended", reason);
  launcher->failed = true;
  imd_launcher_stop(launcher);
}

static void parker_lost(struct imd_launcher *launcher)
{
  imd_close(&launcher->parker);
  launcher->parkers[launcher->newest] = -1;
  fail(launcher, "the parker is gone");
}

/* An earlier one, which ends with its last warden. */
static void tend_parker(struct imd_launcher *launcher, uint32_t generation)
{
  if (generation == launcher->generation || imd_pool_has(&launcher->pool, generation))
    return;
  for (uint32_t place = 0; place < IMD_MAX_PARKERS; place++)
    if (launcher->parkers[place] >= 0 && launcher->generations[place] == generation)
      imd_close(&launcher->parkers[place]);
}

/* Its cells are nobody's then. */
static void earlier_parker_lost(struct imd_launcher *launcher, uint32_t place)
{
  imd_close(&launcher->parkers[place]);
  fail(launcher, "an earlier parker is gone");
}

static void cell_gone(struct imd_launcher *launcher, uint64_t number, const struct imd_p_gone *gone)
{
  struct imd_cell *cell = imd_pool_find(&launcher->pool, number);
  if (!cell)
    return;
  /* Its last words may not have been read yet. */
  while (imd_run_warden_spoke(launcher, cell))
    ;
  const uint32_t failures = launcher->pool.failures, generation = cell->generation;
  struct imd_run *run = imd_pool_gone(&launcher->pool, cell, gone);
  imd_run_warden_gone(launcher, run, gone);
  if (launcher->pool.failures > failures && imd_pool_failing(&launcher->pool))
    imd_run_fail_waiting(launcher);
  tend_parker(launcher, generation);
}

static void parker_spoke(struct imd_launcher *launcher, uint32_t place)
{
  _Alignas(8) char packet[sizeof(struct imd_header) + sizeof(struct imd_p_gone)];
  struct imd_header header;
  struct imd_p_gone gone;
  const bool newest = place == launcher->newest;
  while (launcher->parkers[place] >= 0) {
    cleanup_fds struct imd_fds fds = {.count = 0};
    const ssize_t length = imd_recv_packet(launcher->parkers[place], packet, sizeof packet, &fds, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN)
      return;
    if (length <= 0) {
      if (newest)
        parker_lost(launcher);
      else
        earlier_parker_lost(launcher, place);
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
    char rest[sizeof peer->groups[0] * IMD_MAX_GROUPS + PATH_MAX];
  } body = {.head = {.uid = peer->uid, .gid = peer->gid, .pid = peer->pid, .ngroups = peer->ngroups}};
  const size_t groups = peer->ngroups * sizeof peer->groups[0];
  memcpy(body.rest, peer->groups, groups);
  const size_t program = imd_peer_program(connection, peer, body.rest + groups, PATH_MAX);
  const size_t length = sizeof body.head + groups + program;
  imd_outbox_put(&launcher->outbox, IMD_CONN, peer->node.key, &body, length, &connection, 1);
}

/* Whom it would be handed to may have died a moment ago: then the next broker shall have it. */
static bool somebody_serves(const struct imd_launcher *launcher)
{
  struct pollfd broker = {.fd = launcher->broker, .events = POLLRDHUP};
  return launcher->broker >= 0 && poll(&broker, 1, 0) == 0;
}

static void somebody_connected(struct imd_launcher *launcher)
{
  struct imd_listener *listener = &launcher->listener;
  if (!somebody_serves(launcher))
    return;                        /* the end of its socket is dealt with next */
  for (int i = 0; i < ACCEPTS_AT_ONCE && listener->socket >= 0 && !imd_listener_full(listener) &&
                  !imd_outbox_waits(&launcher->outbox);
       i++) {
    const struct imd_peer *peer;
    /* The broker may have closed it before we do. */
    cleanup_dropped int connection = imd_listener_accept(listener, &peer);
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
  const bool wanted = launcher->accept_after == 0 && !imd_listener_full(&launcher->listener) &&
                      launcher->broker >= 0 && !launcher->paused;
  if (wanted == launcher->listening)
    return;
  if (wanted)
    watch(launcher->everybody, launcher->listener.socket, EPOLLIN, IMD_FROM_LISTENER);
  else
    epoll_ctl(launcher->everybody, EPOLL_CTL_DEL, launcher->listener.socket, NULL);
  launcher->listening = wanted;
}

/*
 * SIGTERM ends everything in order: at once, or, where a broker that started this is still there, when that goes (it may
 * have got the same signal, and lets runs end first). SIGHUP has it become what its program is now.
 */
static void take_signals(struct imd_launcher *launcher)
{
  struct signalfd_siginfo info;
  while (read(launcher->signals, &info, sizeof info) == (ssize_t)sizeof info) {
    if (info.ssi_signo == SIGHUP) {
      imd_upgrade_begin(launcher);
    } else if (info.ssi_signo == SIGTERM && !launcher->stopping) {
      launcher->terminated = true;
      if (!launcher->options->standing && launcher->broker >= 0)
        continue;
      imd_notify("STOPPING=1");
      imd_launcher_stop(launcher);
    }
  }
}

static void tend_watchdog(struct imd_launcher *launcher)
{
  if (launcher->watchdog == 0 || imd_now_ns() < launcher->watchdog)
    return;
  imd_notify("WATCHDOG=1");
  launcher->watchdog = imd_now_ns() + launcher->watchdog_interval;
}

/* One broker at a time: the next waits until this one is gone. */
static void tend_control(struct imd_launcher *launcher)
{
  const bool wanted = launcher->broker < 0 && launcher->control.socket >= 0;
  if (wanted == launcher->awaiting)
    return;
  if (wanted)
    watch(launcher->everybody, launcher->control.socket, EPOLLIN, IMD_FROM_CONTROL);
  else if (launcher->control.socket >= 0)
    epoll_ctl(launcher->everybody, EPOLL_CTL_DEL, launcher->control.socket, NULL);
  launcher->awaiting = wanted;
}

static void dispatch(struct imd_launcher *launcher, uint64_t name)
{
  if (name >= IMD_FROM_PARKER) {
    parker_spoke(launcher, (uint32_t)(name - IMD_FROM_PARKER));
  } else if (name == IMD_FROM_SIGNALS) {
    take_signals(launcher);
  } else if (imd_outbox_waits(&launcher->outbox)) {
    /* Something of this round filled the broker's socket: the others stay unread. */
  } else if (name == IMD_FROM_BROKER) {
    if (launcher->broker >= 0 && launcher->upgrade_deadline == 0)
      imd_broker_spoke(launcher);
  } else if (name == IMD_FROM_CONTROL) {
    if (!launcher->stopping)
      imd_broker_knocked(launcher);
  } else if (name == IMD_FROM_LISTENER) {
    if (launcher->upgrade_deadline == 0)
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
    wake = earliest(imd_pool_wake(&launcher->pool, launcher->waiting_count), imd_broker_wake(launcher));
    if (launcher->accept_after != 0)
      wake = earliest(wake, launcher->accept_after);
    wake = earliest(wake, imd_upgrade_wake(launcher));
  }
  if (launcher->watchdog != 0)
    wake = earliest(wake, launcher->watchdog);
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

/* Earlier parkers that have ended. */
static void reap_ended(const struct imd_launcher *launcher)
{
  while (launcher->generation > 0 && waitpid(-1, NULL, WNOHANG) > 0)
    continue;
}

static void serve(struct imd_launcher *launcher)
{
  struct epoll_event events[EVENTS];
  while (!finished(launcher)) {
    if (!launcher->stopping) {
      imd_run_serve_waiting(launcher);
      const bool refill = launcher->upgrade_deadline == 0 || launcher->waiting_count > 0;
      if (refill && imd_pool_tend(&launcher->pool, launcher->waiting_count, launcher->runs.count > 0) < 0)
        parker_lost(launcher);
      tend_listener(launcher);
      tend_control(launcher);
      imd_broker_tend(launcher);
      imd_upgrade_tend(launcher);
    }
    tend_watchdog(launcher);
    reap_ended(launcher);
    const bool full = imd_outbox_waits(&launcher->outbox);
    const int count = epoll_wait(full ? launcher->urgent : launcher->everybody, events, EVENTS, patience(launcher));
    if (full)
      imd_outbox_flush(&launcher->outbox);
    for (int i = 0; i < count; i++)
      if (!full || events[i].data.u64 >= IMD_FROM_PARKER)
        dispatch(launcher, events[i].data.u64);
    if (launcher->outbox.broken && launcher->broker >= 0)
      imd_broker_gone(launcher);
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

static int start_parker(struct imd_launcher *launcher)
{
  cleanup_fd int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  cleanup_fd int mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (launcher->processors < 0)
    launcher->processors = processors_open();
  if (proc < 0 || mounts < 0 || launcher->processors < 0)
    return -1;
  const struct imd_options *options = launcher->options;
  const struct warden_config config = {
      .host_proc = proc,
      .host_mounts = mounts,
      .outcomes = launcher->outcomes[1],
      .cgroup = launcher->subtree.directory,
      .controllers = launcher->subtree.controllers,
      .processors = launcher->processors,
      .open_timeout_ms = options->open_timeout_ms,
      .grant_read = options->grant_read,
      .grant_write = options->grant_write,
      .storage = options->storage,
  };
  imd_plan_require_landlock(landlock_rung());
  pid_t pid;
  launcher->parker = imd_parker_start(&config, options->lock_fds, &pid);
  launcher->pool.generation = launcher->generation;
  while (launcher->newest < IMD_MAX_PARKERS && launcher->parkers[launcher->newest] >= 0)
    launcher->newest++;
  if (launcher->newest == IMD_MAX_PARKERS)
    return -1;
  launcher->parkers[launcher->newest] = launcher->parker;
  launcher->generations[launcher->newest] = launcher->generation;
  return launcher->parker;
}

static int watch_parkers(struct imd_launcher *launcher)
{
  for (uint32_t place = 0; place < IMD_MAX_PARKERS; place++)
    if (launcher->parkers[place] >= 0 &&
        (watch(launcher->everybody, launcher->parkers[place], EPOLLIN, IMD_FROM_PARKER + place) < 0 ||
         watch(launcher->urgent, launcher->parkers[place], EPOLLIN, IMD_FROM_PARKER + place) < 0))
      return -1;
  return 0;
}

static int watch_signals(struct imd_launcher *launcher)
{
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGCHLD);    /* wakes the loop, which reaps */
  launcher->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  return launcher->signals < 0 ? -1 : watch(launcher->everybody, launcher->signals, EPOLLIN, IMD_FROM_SIGNALS);
}

static int make_outcomes(struct imd_launcher *launcher)
{
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, launcher->outcomes) < 0)
    return -1;
  setsockopt(launcher->outcomes[1], SOL_SOCKET, SO_SNDBUFFORCE, &(int){OUTCOMES_BUFFER}, sizeof(int));
  return 0;
}

/* What the launcher that this was before had open. */
static void take_over(struct imd_launcher *launcher, const struct imd_kept_head *head)
{
  memcpy(launcher->parkers, head->parkers, sizeof launcher->parkers);
  memcpy(launcher->generations, head->generations, sizeof launcher->generations);
  memcpy(launcher->outcomes, head->outcomes, sizeof launcher->outcomes);
  launcher->generation = head->generation + 1;
  launcher->processors = head->processors;
  launcher->counts = head->counts;
  launcher->paused = head->paused;
  launcher->failed = head->failed;
  launcher->control = (struct imd_control){
      .socket = head->control, .uid = launcher->options->broker_uid, .address = head->control_address};
  launcher->listener.socket = head->listener;
  launcher->listener.address = head->listener_address;
  launcher->listener.next = head->next_connection;
  launcher->listener.limit = launcher->options->max_connections;
  imd_subtree_take(&launcher->subtree, launcher->options->cgroup, head->subtree, head->controllers, head->swap);
}

static int open_sockets(struct imd_launcher *launcher)
{
  const struct imd_options *options = launcher->options;
  struct imd_error error = IMD_ERROR_INIT;
  if (options->listen_fd >= 0) {
    imd_listener_take(&launcher->listener, options->listen_fd, options->max_connections);
  } else if (imd_launcher_listen(launcher, &error) < 0) {
    imd_log("socket: %s", error.text);
    return -1;
  }
  if (options->control && imd_control_open(&launcher->control, options->control, options->broker_uid, &error) < 0) {
    imd_log("control: %s", error.text);
    return -1;
  }
  return imd_broker_open(launcher, options->control_fd);
}

static int open_all(struct imd_launcher *launcher)
{
  const struct imd_options *options = launcher->options;
  struct imd_inherited *inherited = NULL;
  if (options->state_fd >= 0) {
    inherited = imd_upgrade_read(options->state_fd);
    if (!inherited)
      return -1;
    close(options->state_fd);
    take_over(launcher, imd_upgrade_head(inherited));
  } else {
    imd_subtree_open(&launcher->subtree, options->cgroup);
    if (make_outcomes(launcher) < 0) {
      imd_log("socketpair: %s", strerror(errno));
      return -1;
    }
  }
  launcher->everybody = epoll_create1(EPOLL_CLOEXEC);
  launcher->urgent = epoll_create1(EPOLL_CLOEXEC);
  if (launcher->everybody < 0 || launcher->urgent < 0) {
    imd_log("epoll: %s", strerror(errno));
    return -1;
  }
  const int broker = inherited ? imd_upgrade_head(inherited)->broker : -1;
  const uint64_t alone_until = inherited ? imd_upgrade_head(inherited)->alone_until : 0;
  imd_pool_open(&launcher->pool, options->slot_base, options->slot_count, options->pool_min, options->pool_max, -1,
                launcher->everybody);
  if (inherited && imd_upgrade_restore(launcher, inherited) < 0)
    return -1;
  launcher->counts = counts_open(launcher->counts);   /* before anybody is forked who counts */
  if (launcher->counts < 0) {
    imd_log("the count of payloads: %s", strerror(errno));
    return -1;
  }
  if (start_parker(launcher) < 0) {
    imd_log("no parker: %s", strerror(errno));
    return -1;
  }
  launcher->pool.parker = launcher->parker;
  raise_descriptor_limit(options->slot_count);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (watch_parkers(launcher) < 0 || watch_signals(launcher) < 0) {
    imd_log("epoll: %s", strerror(errno));
    return -1;
  }
  if (!inherited)
    return open_sockets(launcher);
  launcher->alone_until = alone_until;
  for (uint32_t place = 0; place < IMD_MAX_PARKERS; place++)
    tend_parker(launcher, launcher->generations[place]);
  return imd_broker_watch(launcher, broker);
}

int imd_launcher_main(const struct imd_options *options)
{
  struct imd_launcher *launcher = imd_allocate(sizeof *launcher);
  launcher->options = options;
  launcher->broker = launcher->parker = launcher->listener.socket = launcher->control.socket = -1;
  launcher->outcomes[0] = launcher->outcomes[1] = launcher->processors = launcher->signals = launcher->counts = -1;
  for (int i = 0; i < IMD_MAX_PARKERS; i++)
    launcher->parkers[i] = -1;
  TAILQ_INIT(&launcher->waiting);

  if (open_all(launcher) == 0) {
    if (options->standing)
      imd_notify("READY=1");
    launcher->watchdog_interval = options->standing ? imd_notify_interval() : 0;
    launcher->watchdog = launcher->watchdog_interval != 0 ? imd_now_ns() : 0;
    serve(launcher);
  } else {
    launcher->failed = true;
  }
  for (int i = 0; i < IMD_MAX_PARKERS; i++)
    imd_close(&launcher->parkers[i]);
  reap(imd_now_ns() + STOP_NS);
  imd_subtree_close(&launcher->subtree);
  return launcher->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
