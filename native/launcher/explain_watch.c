#define _GNU_SOURCE
#include "explain_watch.h"
#include "../core/seccomp.h"
#include "util.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

/* Twice in the time within which somebody answers: what is seen twice has waited for one of these. */
#define TICK_NS (EXPLAIN_PATIENCE_MS / 2 * 1000000ull)
/* Of a run that is learned from, what PID 1 does not see is missing: it gets longer than a busy host makes it wait. */
#define LEARN_TICK_NS 1000000000ull
enum { ALARM_US = 5000, AT_ONCE = 64 };

#define process_fail(err, ...) imd_fail((err), IMD_STAGE_PROCESS, errno, __VA_ARGS__)

int explain_watch_make(struct explain_watch *watch, struct imd_error *err)
{
  int pair[2];
  *watch = (struct explain_watch){.init = -1, .channel = -1, .payload_channel = -1, .log = -1, .listener = -1};
  void *memory = mmap(NULL, sizeof *watch->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return imd_fail(err, IMD_STAGE_CELL, errno, "memory for PID 1");
  watch->shared = memory;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return imd_fail(err, IMD_STAGE_CELL, errno, "a socket for the payload");
  watch->channel = pair[0];
  watch->payload_channel = pair[1];
  return 0;
}

int explain_watch_read(struct explain_watch *watch, const void *plan, int log, struct imd_error *err)
{
  struct explain_shared *shared = watch->shared;
  struct imd_plan_cursor cursor = {.plan = plan};
  const struct sock_filter *base = NULL;
  uint32_t size = 0;
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op == IMD_OP_LOOPBACK)
      shared->network = 1;
    if (step.op == IMD_OP_SECCOMP)
      base = (const void *)imd_plan_string_at(&step, 0, &size);
    if (step.op != IMD_OP_EXPLAIN)
      continue;
    shared->halt = step.numbers[0] & IMD_EXPLAIN_HALT ? 1 : 0;
    shared->learn = step.numbers[0] & IMD_EXPLAIN_LEARN ? 1 : 0;
    watch->program = base;
    watch->length = size / sizeof *base;
    shared->program_length = (uint32_t)watch->length;
    memcpy(shared->program, base, size);
  }
  if (shared->learn != (log >= 0))
    return imd_fail(err, IMD_STAGE_PLAN, 0, "a log and a plan that learns go together");
  if (log < 0)
    return 0;
  watch->log = fcntl(log, F_DUPFD_CLOEXEC, 0);
  return watch->log < 0 ? process_fail(err, "the log") : 0;
}

/* `log`: -1, or the second. */
static int hand_over(int socket, int listener, int log)
{
  const int fds[2] = {listener, log};
  const size_t size = sizeof fds[0] * (log < 0 ? 1 : 2);
  char word = 'l';
  union { struct cmsghdr align; char space[CMSG_SPACE(2 * sizeof(int))]; } control = {.space = {0}};
  struct iovec body = {&word, 1};
  struct msghdr message = {
      .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(size)};
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
  cmsg->cmsg_level = SOL_SOCKET;
  cmsg->cmsg_type = SCM_RIGHTS;
  cmsg->cmsg_len = CMSG_LEN(size);
  memcpy(CMSG_DATA(cmsg), fds, size);
  return sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

int explain_watch_take(struct explain_watch *watch, int payload, int number, struct imd_error *err)
{
  watch->listener = pidfd_getfd(payload, number, 0);
  return watch->listener < 0 ? process_fail(err, "the listener of the filter") : 0;
}

/* --- in PID 1's place -------------------------------------------------------------------------------------------- */

static void answer(struct explain_watch *watch, const struct seccomp_notif *notif)
{
  struct seccomp_notif_resp said = {.id = notif->id};
  explain_verdict(imd_seccomp_run(watch->program, watch->length, &notif->data, NULL), &said);
  if (ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_SEND, &said) < 0)
    return;
  watch->unexplained++;
  watch->refused += said.error != 0;
}

static bool somebody_waits(const struct explain_watch *watch)
{
  struct pollfd listener = {.fd = watch->listener, .events = POLLIN};
  return poll(&listener, 1, 0) > 0 && (listener.revents & POLLIN);
}

static void wake_up(int number)
{
  (void)number;
}

/*
 * What we go by, without a lock. The kernel writes a notification and its id at RECV, before PID 1 does anything with it;
 * PID 1 answers, sets the id to 0, and then counts `answered`, which is atomic: who sees the count sees the 0. So an id
 * and a count that did not move mean that it does nothing, or holds the call that we see. The copy of what it holds is
 * taken before the look at whether it moved, so that what changed in between is not answered for it. And should both of
 * us answer, the kernel refuses the second (ENOENT), and both answers are the base program's: a look that was out of date
 * costs a call its name, never its verdict.
 */
static bool has_moved(const struct explain_watch *watch)
{
  return watch->shared->hand.notif.id != watch->seen_id || watch->shared->answered != watch->seen_answered;
}

/*
 * Takes what is there. PID 1 may come to itself between our look and our RECV, which has no way not to wait: an alarm
 * ends that.
 */
static void serve(struct explain_watch *watch)
{
  union { struct seccomp_notif notif; char room[256]; } hand;
  const struct sigaction waken = {.sa_handler = wake_up};
  const struct itimerval often = {{0, ALARM_US}, {0, ALARM_US}}, never = {{0, 0}, {0, 0}};
  sigaction(SIGALRM, &waken, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
  for (unsigned i = 0; i < AT_ONCE && !has_moved(watch) && somebody_waits(watch); i++) {
    memset(&hand, 0, sizeof hand);
    if (ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_RECV, &hand.notif) == 0)
      answer(watch, &hand.notif);
  }
  setitimer(ITIMER_REAL, &never, NULL);
}

int explain_watch_fd(const struct explain_watch *watch)
{
  return watch->tick == 0 || watch->stalled ? watch->listener : -1;
}

static void note(struct explain_watch *watch, uint64_t now, bool waits)
{
  watch->seen_waiting = waits;
  watch->seen_id = watch->shared->hand.notif.id;
  watch->seen_answered = watch->shared->answered;
  watch->tick = now + (watch->shared->learn ? LEARN_TICK_NS : TICK_NS);
}

void explain_watch_heard(struct explain_watch *watch, short events)
{
  if (!(events & POLLIN)) {
    imd_close(&watch->listener);   /* nobody under the filter lives */
    watch->tick = 0;
  } else if (!watch->handed) {
    /* The first call that there is something to say of: until then PID 1 sleeps, and costs a run nothing. */
    watch->handed = true;
    watch->stalled = hand_over(watch->init, watch->listener, watch->log) < 0;
    imd_close(&watch->log);
    note(watch, imd_now_ns(), true);
  } else if (watch->stalled && !has_moved(watch)) {
    serve(watch);
  } else {
    watch->stalled = false;
    note(watch, imd_now_ns(), somebody_waits(watch));
  }
}

/* What the kernel says of PID 1 (proc(5), the third field of stat); 0 where it says nothing. */
static char state_of(const struct explain_watch *watch, int host_proc)
{
  char path[32], text[1024];
  snprintf(path, sizeof path, "%d/stat", (int)watch->init_pid);
  const char *name_end = imd_read_at(host_proc, path, text, sizeof text) < 0 ? NULL : strrchr(text, ')');
  return name_end && name_end[1] == ' ' ? name_end[2] : '\0';
}

/*
 * It could go on, and the host is too busy to let it: what it is asked it will answer, and name. One that sleeps waits for
 * something of the payload's making (D and S, of a file system), or was stopped (T). What an explainer that was just made
 * waits for before it has settled is the kernel's own.
 */
static bool lacks_processor(const struct explain_watch *watch, int host_proc)
{
  const char state = watch->init_pid > 0 ? state_of(watch, host_proc) : '\0';
  return state == 'R' || (!atomic_load(&watch->shared->settled) && (state == 'D' || state == 'S'));
}

/* PID 1 has said so since supervise last listened: that call is answered by nobody. */
static bool has_halted(const struct explain_watch *watch)
{
  char word;
  return recv(watch->init, &word, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

void explain_watch_look(struct explain_watch *watch, int host_proc, uint64_t now)
{
  struct seccomp_notif held;
  memcpy(&held, &watch->shared->hand.notif, sizeof held);
  const bool moved = has_moved(watch);
  const bool waits = somebody_waits(watch), waited = watch->seen_waiting;
  note(watch, now, waits);
  if (moved) {
    watch->stalled = false;
    watch->busy_until = 0;
  } else if (held.id == 0 && !waits) {
    /* Idle, as far as can be seen: the next call is PID 1's again. */
    watch->stalled = false;
    watch->busy_until = 0;
    watch->tick = 0;
  } else if (watch->stalled) {
    serve(watch);
  } else if (held.id != 0 || waited) {
    if (watch->busy_until == 0)
      watch->busy_until = now + EXPLAIN_BUSY_MS * 1000000ull;
    if ((now < watch->busy_until && lacks_processor(watch, host_proc)) || has_halted(watch))
      return;
    watch->busy_until = 0;
    if (held.id != 0)
      answer(watch, &held);
    watch->stalled = true;
    serve(watch);
  }
}

/* --- what is told ------------------------------------------------------------------------------------------------ */

uint64_t explain_watch_cpu(const struct explain_watch *watch)
{
  if (watch->length == 0 || watch->shared->answered == 0)
    return 0;
  struct timespec used;
  clockid_t clock;
  if (clock_getcpuclockid(watch->init_pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
    return 0;
  const uint64_t now = (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
  return now > watch->shared->cpu_before ? now - watch->shared->cpu_before : 0;
}

static size_t put(char *at, const struct explain_record *record)
{
  struct explain_record copy;
  memcpy(&copy, record, sizeof copy);
  if (copy.kind < 1 || copy.kind > IMD_VIOLATION_KINDS || copy.target_length > sizeof copy.target ||
      copy.exe_length > sizeof copy.exe)
    return 0;
  struct imd_violation head = {.kind = copy.kind,
                               .number = copy.number,
                               .pid = copy.pid,
                               .target_length = (uint16_t)copy.target_length,
                               .exe_length = (uint16_t)copy.exe_length};
  memcpy(head.argument, copy.argument, sizeof head.argument);
  memcpy(at, &head, sizeof head);
  memcpy(at + sizeof head, copy.target, copy.target_length);
  memcpy(at + sizeof head + copy.target_length, copy.exe, copy.exe_length);
  return sizeof head + copy.target_length + copy.exe_length;
}

size_t explain_watch_report(const struct explain_watch *watch, void *space)
{
  struct imd_violations head = {.unexplained = watch->unexplained};
  const struct explain_shared *shared = watch->shared;
  if (watch->length == 0)
    return 0;
  uint64_t all = 0;
  for (uint32_t i = 0; i < IMD_VIOLATION_KINDS; i++)
    all |= head.count[i] = shared->count[i];
  head.count[IMD_VIOLATION_SYSCALL - 1] += watch->refused;
  if ((all | watch->unexplained) == 0)
    return 0;
  size_t used = sizeof head;
  uint32_t records = shared->records;
  if (records > IMD_MAX_VIOLATIONS)
    records = IMD_MAX_VIOLATIONS;
  for (uint32_t i = 0; i < records; i++) {
    const size_t size = put((char *)space + used, &shared->record[i]);
    head.records += size > 0;
    used += size;
  }
  memcpy(space, &head, sizeof head);
  return used;
}
