#define _GNU_SOURCE
#include "supervise.h"
#include "live.h"
#include "message.h"
#include "pin_watch.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

/* The least time between two looks at the cpu time. */
#define CPU_STEP_NS 5000000u
/* And between two looks at whether GO came, while signals wait for it. */
#define GO_STEP_NS 1000000u
enum { TRACER_MS = 10 };

struct watch {
  struct cell *cell;
  const struct cgroup *cgroup;
  struct run *run;
  struct payload *payload;
  uint64_t end;                    /* the death of the main process; 0: it lives */
  uint64_t birth_deadline;         /* it waits for GO by then, or something of its plan does not answer */
  uint64_t wall_look;              /* when the wall time may have passed; 0: no bound */
  uint64_t cpu_look;               /* when to look at the cpu time next; 0: never */
  uint32_t processors;
  uint64_t patience;               /* when what was killed should be dead; 0: nothing was killed */
  uint32_t cause;                  /* 0: nothing happened yet */
  bool orphaned, late, init_gone;
  bool uncovered;                  /* a mount of the cell's went: the host moved what it stood on */
  int pinned[IMD_MAX_PINNED];      /* what the broker is to digest; -1 */
  struct imd_error unprepared;     /* why the listener or the pins could not be taken */
};

static void pass_sentence(struct watch *watch, uint32_t cause)
{
  if (watch->cause != 0)
    return;
  watch->cause = cause;
  watch->patience = imd_now_ns() + UNKILLABLE_MS * 1000000ull;
  cgroup_kill(watch->cgroup);
  cell_kill(watch->cell);
}

/* The earliest moment at which the rest of the budget can be spent, all processors busy. */
static void look_at_cpu(struct watch *watch, uint64_t now)
{
  const uint64_t used = cgroup_cpu_ns(watch->cgroup) + explain_watch_cpu(&watch->cell->explain);
  if (used >= watch->run->cpu_ns) {
    pass_sentence(watch, IMD_CAUSE_CPU_TIME);
    watch->cpu_look = 0;
    return;
  }
  const uint64_t rest = (watch->run->cpu_ns - used) / watch->processors;
  watch->cpu_look = now + (rest > CPU_STEP_NS ? rest : CPU_STEP_NS);
}

/* Before its program only a neighbour does that to it, where no domain of Landlock's keeps signals apart; GO may be past. */
static bool is_stopped(const struct payload *payload)
{
  siginfo_t info = {.si_pid = 0};
  return waitid(P_PIDFD, (id_t)payload->pidfd, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

/*
 * Nobody wakes us for GO. What is counted from it is looked at when it could be used up had GO come at once, and then
 * anew from when it did.
 */
static void look_at_wall(struct watch *watch, uint64_t now)
{
  const bool started = payload_stage(watch->payload) == BIRTH_STARTED;
  const uint64_t start = started ? watch->payload->birth->started : now;
  if (!started && is_stopped(watch->payload))
    pass_sentence(watch, IMD_CAUSE_TIMEOUT);
  watch->wall_look = start + watch->run->wall_ns + (watch->run->live ? watch->run->live->paused_ns : 0);
  if (now >= watch->wall_look)
    pass_sentence(watch, IMD_CAUSE_TIMEOUT);
}

static bool is_paused(const struct watch *watch)
{
  return watch->run->live && watch->run->live->paused;
}

static void look_at_clock(struct watch *watch)
{
  const uint64_t now = imd_now_ns();
  if (watch->cause != 0 || is_paused(watch))
    return;
  if (watch->birth_deadline != 0 && now >= watch->birth_deadline) {
    watch->birth_deadline = 0;
    watch->late = payload_stage(watch->payload) == BIRTH_PREPARING;
    if (watch->late)
      pass_sentence(watch, IMD_CAUSE_KILLED);
  }
  if (watch->cell->explain.tick != 0 && now >= watch->cell->explain.tick)
    explain_watch_look(&watch->cell->explain, watch->cell->config->host_proc, now);
  if (watch->wall_look != 0 && now >= watch->wall_look)
    look_at_wall(watch, now);
  if (watch->cause == 0 && watch->cpu_look != 0 && now >= watch->cpu_look)
    look_at_cpu(watch, now);
}

static void hear_launcher(struct watch *watch)
{
  _Alignas(8) char buffer[sizeof(struct imd_header) + sizeof(struct imd_kill)];
  cleanup_fds struct imd_fds fds = {.count = 0};
  const ssize_t got = imd_recv_packet(watch->run->launcher, buffer, sizeof buffer, &fds, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN)
    return;
  const struct imd_header *header = (const void *)buffer;
  const struct imd_kill *kill = (const void *)(header + 1);
  if (got == (ssize_t)sizeof buffer && header->type == IMD_KILL) {
    pass_sentence(watch, kill->cause);
    return;
  }
  uint64_t pause;
  struct live *live = watch->run->live;
  if (got > 0 && live &&
      live_hear(live, watch->cell, watch->cgroup, watch->run, watch->payload, buffer, (size_t)got, &pause)) {
    watch->birth_deadline += watch->birth_deadline != 0 ? pause : 0;
    watch->wall_look += watch->wall_look != 0 ? pause : 0;
    return;
  }
  watch->orphaned = true;
  pass_sentence(watch, IMD_CAUSE_KILLED);
}

/* The payload's process stands under its filter, and waits for GO: the listener for PID 1, and its end for us. */
static int take_listener(struct watch *watch)
{
  struct explain_watch *explain = &watch->cell->explain;
  struct birth *birth = watch->payload->birth;
  if (explain->length == 0)
    return 0;
  if (explain_watch_take(explain, watch->payload->pidfd, birth->listener, &watch->unprepared) < 0)
    return -1;
  atomic_store(&birth->taken, 1);
  send(explain->channel, "t", 1, MSG_NOSIGNAL);
  return 0;
}

static int classify_pins(struct watch *watch)
{
  const char word = PAYLOAD_PINS;
  if (pins_classify(watch->payload->pins, watch->payload->pidfd, watch->pinned, &watch->unprepared) < 0)
    return -1;
  send(watch->cell->explain.channel, &word, 1, MSG_NOSIGNAL);
  return 0;
}

static int tell_pins(struct watch *watch)
{
  const struct pins *pins = watch->payload->pins;
  if (!pins)
    return 0;
  const int told = pins_tell(pins, watch->cell->config->outcomes, watch->run->id, watch->pinned);
  for (size_t i = 0; i < IMD_MAX_PINNED; i++)
    imd_close(&watch->pinned[i]);
  return told < 0 ? imd_fail(&watch->unprepared, IMD_STAGE_PIN, errno, "nobody hears what is pinned") : 0;
}

static void hear_payload(struct watch *watch)
{
  struct explain_watch *explain = &watch->cell->explain;
  char word;
  if (recv(explain->channel, &word, 1, MSG_DONTWAIT) != 1)
    return;
  const bool pins = word == PAYLOAD_PINS && watch->payload->pins;
  if (pins ? classify_pins(watch) < 0 : take_listener(watch) < 0 || tell_pins(watch) < 0) {
    pass_sentence(watch, IMD_CAUSE_KILLED);
    return;
  }
  if (pins)
    return;
  imd_close(&explain->channel);
  imd_close(&explain->payload_channel);
}

/*
 * PID 1 says one thing: here is a write outside the allowance, and it was not answered. Its end is everybody's in the cell
 * (pid_namespaces(7)); who hangs in the kernel meanwhile is waited for without asking it again.
 */
static void hear_init(struct watch *watch)
{
  char word;
  const ssize_t got = recv(watch->cell->leash, &word, 1, MSG_DONTWAIT);
  if (got == 1)
    pass_sentence(watch, IMD_CAUSE_VIOLATION);
  watch->init_gone |= got == 0;
}

/* The first call that there is something to say of: an exec's explainer is made then, and most have none. */
static void hear_listener(struct watch *watch, short events)
{
  struct explain_watch *explain = &watch->cell->explain;
  struct imd_error err = IMD_ERROR_INIT;
  if (watch->cell->shared && (events & POLLIN) && explain->init < 0 && !explain->stalled &&
      cell_start_explainer(watch->cell, &err) < 0)
    imd_log("nobody explains: %s", err.text);
  explain_watch_heard(explain, events);
}

static uint64_t earlier(uint64_t one, uint64_t other)
{
  return one == 0 || (other != 0 && other < one) ? other : one;
}

/* When to look whether GO came, for which signals wait; 0: none does. */
static uint64_t go_look(const struct watch *watch)
{
  return watch->run->live && live_waits_for_go(watch->run->live) ? imd_now_ns() + GO_STEP_NS : 0;
}

/* NULL: for good. */
static const struct timespec *time_left(const struct watch *watch, struct timespec *left)
{
  const uint64_t next = watch->cause != 0 ? watch->patience
                        : is_paused(watch)
                            ? 0
                            : earlier(earlier(earlier(watch->birth_deadline, watch->cell->explain.tick),
                                              earlier(watch->wall_look, watch->cpu_look)),
                                      go_look(watch));
  if (next == 0)
    return NULL;
  const uint64_t now = imd_now_ns(), rest = next > now ? next - now : 0;
  *left = (struct timespec){.tv_sec = (time_t)(rest / 1000000000u), .tv_nsec = (long)(rest % 1000000000u)};
  return left;
}

static void watch_until_death(struct watch *watch)
{
  struct explain_watch *explain = &watch->cell->explain;
  struct live *live = watch->run->live;
  while (!watch->end) {
    struct pollfd events[] = {
        {.fd = watch->payload->pidfd, .events = POLLIN},
        {.fd = watch->orphaned ? -1 : watch->run->launcher, .events = POLLIN},
        {.fd = watch->run->kill_on_pids && watch->cause == 0 ? watch->cgroup->pids_events : -1, .events = POLLPRI},
        {.fd = explain->length > 0 || watch->payload->pins ? explain->channel : -1, .events = POLLIN},
        {.fd = explain->length > 0 && watch->cause == 0 && !watch->init_gone ? watch->cell->leash : -1,
         .events = POLLIN},
        {.fd = watch->cause == 0 ? explain_watch_fd(explain) : -1, .events = POLLIN},
        {.fd = watch->cause == 0 ? watch->cell->table : -1, .events = POLLPRI},
        {.fd = live ? live->inputs[0] : -1, .events = POLLIN},
        {.fd = live ? live->inputs[1] : -1, .events = POLLIN},
        {.fd = live && watch->cause == 0 ? live->messenger : -1, .events = POLLIN},
    };
    struct timespec left;
    if (ppoll(events, sizeof events / sizeof events[0], time_left(watch, &left), NULL) < 0 && errno != EINTR)
      pass_sentence(watch, IMD_CAUSE_KILLED);
    if (events[6].revents && covers_look(&watch->cell->covers) != COVERED) {
      watch->uncovered = true;
      pass_sentence(watch, IMD_CAUSE_VIOLATION);
    }
    if (events[0].revents || (watch->patience != 0 && imd_now_ns() >= watch->patience)) {
      watch->end = imd_now_ns();
      return;
    }
    if (events[2].revents && cgroup_pids_events(watch->cgroup) > 0)
      pass_sentence(watch, IMD_CAUSE_PIDS);
    if (events[1].revents)
      hear_launcher(watch);
    if (events[3].revents)
      hear_payload(watch);
    if (events[4].revents)
      hear_init(watch);
    if (events[5].revents)
      hear_listener(watch, events[5].revents);
    for (int i = 0; i < 2; i++)
      if (events[7 + i].revents)
        live_take(live, i);
    if (live && watch->cause == 0)
      live_pass_signals(live, watch->cgroup, watch->run, watch->payload);
    look_at_clock(watch);
  }
}

/* Does anything but PID 1 live in the cell? Where no cgroup says so. */
static bool has_processes(const struct cell *cell)
{
  const int fd = openat(cell->view.proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *listing = fd < 0 ? NULL : fdopendir(fd);
  if (!listing) {
    if (fd >= 0)
      close(fd);
    return true;
  }
  bool found = false;
  for (const struct dirent *entry; !found && (entry = readdir(listing));)
    found = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && strcmp(entry->d_name, "1") != 0;
  closedir(listing);
  return found;
}

/* With the whole cell dead there is no tracer; one in another exec has as long as what cannot be killed. */
static void wait_for_tracer(const struct watch *watch, siginfo_t *info, struct rusage *usage)
{
  const int flags = WEXITED | (watch->cell->shared ? WNOHANG : 0);
  for (int left = UNKILLABLE_MS; left > 0 && info->si_pid == 0; left -= TRACER_MS) {
    while (syscall(SYS_waitid, P_PIDFD, watch->payload->pidfd, info, flags, usage) < 0 && errno == EINTR)
      continue;
    if (info->si_pid == 0)
      nanosleep(&(struct timespec){.tv_nsec = TRACER_MS * 1000000}, NULL);
  }
}

/* The status of the main process; where it cannot be killed, as if it were. */
static void reap(const struct watch *watch, struct imd_outcome *outcome)
{
  if (!wait_for_death(watch->payload->pidfd, 0)) {
    outcome->wait_code = CLD_KILLED;
    outcome->wait_status = SIGKILL;
    return;
  }
  siginfo_t info;
  struct rusage usage;
  memset(&info, 0, sizeof info);
  memset(&usage, 0, sizeof usage);
  /* One that another of the cell traces is the tracer's first: with the cell dead it is ours. */
  while (syscall(SYS_waitid, P_PIDFD, watch->payload->pidfd, &info, WEXITED | WNOHANG, &usage) < 0 && errno == EINTR)
    continue;
  if (info.si_pid == 0) {
    outcome->stragglers = 1;
    cgroup_kill(watch->cgroup);
    cell_kill(watch->cell);
    wait_for_tracer(watch, &info, &usage);
  }
  /* A tracer in another exec, which lives on, and keeps it: nobody says how it ended. */
  if (info.si_pid == 0) {
    info.si_code = CLD_KILLED;
    info.si_status = SIGKILL;
  }
  outcome->wait_code = info.si_code;
  outcome->wait_status = info.si_status;
  outcome->max_rss = (uint64_t)usage.ru_maxrss * 1024u;
  /* Of it and those that it waited for; the cgroup's figures, where there is one, take their place. */
  outcome->cpu_user_ns = (uint64_t)usage.ru_utime.tv_sec * 1000000000u + (uint64_t)usage.ru_utime.tv_usec * 1000u;
  outcome->cpu_system_ns = (uint64_t)usage.ru_stime.tv_sec * 1000000000u + (uint64_t)usage.ru_stime.tv_usec * 1000u;
  imd_close(&watch->payload->pidfd);
}

/* What ended the main process. The limit on processes was met before that, where it was met. */
static uint32_t find_cause(const struct watch *watch, const struct imd_outcome *outcome)
{
  if (watch->cause != 0)
    return watch->cause;
  if (watch->run->kill_on_pids && cgroup_pids_events(watch->cgroup) > 0)
    return IMD_CAUSE_PIDS;
  if (outcome->wait_code == CLD_EXITED)
    return IMD_CAUSE_EXITED;
  return outcome->wait_status == SIGKILL && outcome->oom_kills > 0 ? IMD_CAUSE_OOM : IMD_CAUSE_SIGNALED;
}

bool kill_cell(struct cell *cell, const struct cgroup *cgroup, struct payload *payload, int patience_ms)
{
  cgroup_kill(cgroup);
  cell_kill(cell);
  /* PID 1 ends when nobody else is left, and our own child is left until we have waited for it. */
  if (payload->pidfd >= 0) {
    if (!wait_for_death(payload->pidfd, patience_ms))
      return false;
    while (waitid(P_PIDFD, (id_t)payload->pidfd, NULL, WEXITED) < 0 && errno == EINTR)
      continue;
    imd_close(&payload->pidfd);
  }
  return cell_wait(cell, patience_ms) && (!cell->shared || cgroup_wait(cgroup, patience_ms));
}

/* There was no exec: why. */
static int never_started(const struct watch *watch, struct imd_error *err)
{
  if (watch->late)
    return imd_fail(err, IMD_STAGE_DEADLINE, ETIMEDOUT, "the working directory%s did not answer",
                    watch->payload->pins ? ", or what is to be executed," : "");
  if (watch->unprepared.stage != 0) {
    *err = watch->unprepared;
    return -1;
  }
  if (watch->cause != 0 && payload_stage(watch->payload) != BIRTH_FAILED)
    return imd_fail(err, IMD_STAGE_KILLED, 0, "killed before it ran");
  payload_failure(watch->payload, err);
  return -1;
}

int supervise(struct cell *cell, const struct cgroup *cgroup, struct run *run, struct payload *payload,
              struct imd_outcome *outcome, bool *orphaned, struct imd_error *err)
{
  const uint64_t now = imd_now_ns();
  struct watch watch = {
      .cell = cell, .cgroup = cgroup, .run = run, .payload = payload,
      .birth_deadline = now + (uint64_t)cell->config->open_timeout_ms * 1000000u,
      .wall_look = run->wall_ns != 0 ? now + run->wall_ns : 0};
  for (size_t i = 0; i < IMD_MAX_PINNED; i++)
    watch.pinned[i] = -1;
  cpu_set_t processors;
  watch.processors = sched_getaffinity(0, sizeof processors, &processors) == 0 ? (uint32_t)CPU_COUNT(&processors) : 1;
  if (run->cpu_ns != 0 && cgroup->cpu_stat >= 0)
    look_at_cpu(&watch, now);
  watch_until_death(&watch);
  if (run->live)
    live_stop(run->live, payload, watch.end);
  for (size_t i = 0; i < IMD_MAX_PINNED; i++)
    imd_close(&watch.pinned[i]);
  const uint64_t explaining = explain_watch_cpu(&cell->explain);

  memset(outcome, 0, sizeof *outcome);
  reap(&watch, outcome);
  run->over = true;
  const bool started = payload_stage(payload) == BIRTH_STARTED;
  if (started && !outcome->stragglers)
    outcome->stragglers = cgroup->dir >= 0 ? cgroup_populated(cgroup) : has_processes(cell);
  if ((outcome->stragglers || watch.cause != 0) && !kill_cell(cell, cgroup, payload, UNKILLABLE_MS))
    outcome->stragglers = 1;
  *orphaned = watch.orphaned;
  if (!started)
    return never_started(&watch, err);
  cgroup_measure(cgroup, outcome);
  outcome->cpu_system_ns += explaining;
  outcome->cause = find_cause(&watch, outcome);
  outcome->stragglers = (outcome->stragglers ? IMD_STRAGGLERS : 0u) | (watch.uncovered ? IMD_UNCOVERED : 0u);
  outcome->wall_ns = watch.end - payload->birth->started - (run->live ? run->live->paused_ns : 0);
  return 0;
}
