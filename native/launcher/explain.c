#define _GNU_SOURCE
#include "explain.h"
#include "../core/seccomp.h"
#include "explain_calls.h"
#include "explain_learn.h"
#include "explain_path.h"
#include "kernel.h"
#include "util.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

enum { LEASH = 0, LISTENER = 1, LOG = 2, PAGE = 4096, FIRST_READ = 256 };

struct explainer {
  struct explain_shared *shared;
  char text[2][PATH_MAX + 1];      /* paths that a call names */
};

/* What a call would break; `length` 0: nothing that can be told. */
struct finding {
  bool forbidden;
  uint32_t kind;
  size_t length;
  char target[IMD_MAX_TARGET];
};

void explain_verdict(uint32_t action, struct seccomp_notif_resp *answer)
{
  const uint32_t what = action & SECCOMP_RET_ACTION_FULL;
  answer->val = 0;
  answer->error = 0;
  answer->flags = 0;
  if (what == SECCOMP_RET_ALLOW || what == SECCOMP_RET_LOG)
    answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  else
    answer->error = what == SECCOMP_RET_ERRNO && (action & SECCOMP_RET_DATA) ? -(int32_t)(action & SECCOMP_RET_DATA) : -EPERM;
}

/* --- what the call says ------------------------------------------------------------------------------------------ */

static ssize_t read_memory(int pid, uint64_t address, void *buffer, size_t size)
{
  const struct iovec ours = {buffer, size}, theirs = {(void *)(uintptr_t)address, size};
  return process_vm_readv(pid, &ours, 1, &theirs, 1, 0);
}

/* A string of another process into PATH_MAX + 1 bytes: NUL-terminated, or false. Never past a page that it ends in. */
static bool read_text(int pid, uint64_t address, char *text)
{
  size_t done = 0;
  while (done < PATH_MAX) {
    size_t wanted = PAGE - (address + done) % PAGE;
    if (done == 0 && wanted > FIRST_READ)
      wanted = FIRST_READ;
    if (wanted > PATH_MAX - done)
      wanted = PATH_MAX - done;
    const ssize_t got = read_memory(pid, address + done, text + done, wanted);
    if (got <= 0)
      return false;
    if (memchr(text + done, '\0', (size_t)got))
      return true;
    done += (size_t)got;
  }
  return false;
}

static bool is_loopback(const struct in6_addr *address)
{
  if (IN6_IS_ADDR_V4MAPPED(address))
    return address->s6_addr[12] == 127 || memcmp(address->s6_addr + 12, "\0\0\0\0", 4) == 0;
  return IN6_IS_ADDR_LOOPBACK(address) || IN6_IS_ADDR_UNSPECIFIED(address);
}

/* Beyond the sandbox's network: any internet address where there is none, any but its own where there is loopback. */
static bool is_beyond(const struct explain_shared *shared, const struct sockaddr_storage *address, size_t length)
{
  if (length < sizeof address->ss_family)
    return false;
  switch (address->ss_family) {
  case AF_INET: {
    const struct sockaddr_in *four = (const void *)address;
    const uint32_t host = ntohl(four->sin_addr.s_addr);
    return length >= sizeof *four && (!shared->network || (host >> 24 != IN_LOOPBACKNET && host != INADDR_ANY));
  }
  case AF_INET6: {
    const struct sockaddr_in6 *six = (const void *)address;
    return length >= offsetof(struct sockaddr_in6, sin6_scope_id) &&
           (!shared->network || !is_loopback(&six->sin6_addr));
  }
  default:
    return false;
  }
}

static void judge_address(const struct explain_shared *shared, const struct seccomp_notif *notif,
                          const struct call_shape *shape, struct finding *finding)
{
  struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
  const uint32_t said = (uint32_t)notif->data.args[shape->path + 1];
  const size_t length = said < sizeof address ? said : sizeof address;
  if (length < sizeof address.ss_family ||
      read_memory((int)notif->pid, notif->data.args[shape->path], &address, length) != (ssize_t)length)
    return;
  finding->forbidden = is_beyond(shared, &address, length);
  finding->kind = IMD_VIOLATION_CONNECT;
  finding->length = length;
  memcpy(finding->target, &address, length);
}

static bool read_path(struct explainer *explainer, const struct seccomp_notif *notif, int8_t dir, int8_t path, unsigned which,
                      struct explain_path *found)
{
  *found = (struct explain_path){.pid = (int)notif->pid, .dir = dir >= 0 ? (int)notif->data.args[dir] : AT_FDCWD};
  if (path < 0)
    return found->dir >= 0;
  if (notif->data.args[path] == 0)                  /* utimensat(fd, NULL) */
    return dir >= 0;
  found->text = explainer->text[which];
  if (!read_text(found->pid, notif->data.args[path], explainer->text[which]))
    return false;
  if (found->text[0] == '\0')                       /* AT_EMPTY_PATH, or ENOENT */
    found->text = NULL;
  return found->text || dir >= 0;
}

static void name_path(const struct explain_path *path, struct finding *finding)
{
  finding->kind = IMD_VIOLATION_WRITE;
  finding->length = explain_path_text(path, finding->target, sizeof finding->target);
}

static const enum explain_want wants[] = {
    [EFFECT_OPEN] = WANT_OPEN, [EFFECT_MAKE] = WANT_MAKE, [EFFECT_REMOVE] = WANT_REMOVE, [EFFECT_RENAME] = WANT_REMOVE,
    [EFFECT_CHANGE] = WANT_CHANGE};

static void judge_write(struct explainer *explainer, const struct seccomp_notif *notif, const struct call_shape *shape,
                        struct finding *finding)
{
  struct explain_path path, second;
  if (!read_path(explainer, notif, shape->dir, shape->path, 0, &path))
    return;
  int flags = shape->flags >= 0 ? (int)notif->data.args[shape->flags] : shape->open_flags;
  const bool exclusive = shape->effect == EFFECT_OPEN && (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
  const bool follow = (shape->effect == EFFECT_OPEN || shape->effect == EFFECT_CHANGE) && shape->nofollow >= 0 &&
                      !(flags & shape->nofollow) && !exclusive;
  if (explain_forbidden(&path, wants[shape->effect], flags, follow)) {
    finding->forbidden = true;
    name_path(&path, finding);
  } else if (shape->effect == EFFECT_RENAME &&
             read_path(explainer, notif, shape->dir2, shape->path2, 1, &second) &&
             explain_forbidden(&second, WANT_REPLACE, 0, false) && explain_exists(&path)) {
    finding->forbidden = true;
    name_path(&second, finding);
  }
}

/* A refused call's path, where it has one: nothing depends on it. */
static void name_refused(struct explainer *explainer, const struct seccomp_notif *notif, const struct call_shape *shape,
                         struct finding *finding)
{
  struct explain_path path;
  if (shape && shape->effect != EFFECT_CONNECT && read_path(explainer, notif, shape->dir, shape->path, 0, &path))
    name_path(&path, finding);
  finding->kind = IMD_VIOLATION_SYSCALL;
}

/* --- what is learned of it --------------------------------------------------------------------------------------- */

/* Where every run may read, and no manifest grants anything. */
static bool is_everybodys(const char *path, size_t length)
{
  static const char *const places[] = {"/usr/", "/proc/", "/dev/", "/bin/", "/sbin/", "/lib"};
  if (memmem(path, length, "/..", 3))
    return false;
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
    if (length >= strlen(places[i]) && memcmp(path, places[i], strlen(places[i])) == 0)
      return true;
  return false;
}

static uint32_t learned_kind(const struct call_shape *shape, int flags)
{
  switch (shape->effect) {
  case EFFECT_OPEN:
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)))
      return IMD_LEARNED_WRITE;
    return flags & O_PATH ? IMD_LEARNED_LOOK : IMD_LEARNED_READ;
  case EFFECT_MAKE:
  case EFFECT_REMOVE:
  case EFFECT_RENAME: return IMD_LEARNED_NAME;
  case EFFECT_CHANGE: return IMD_LEARNED_WRITE;
  case EFFECT_EXEC: return IMD_LEARNED_EXEC;
  default: return IMD_LEARNED_LOOK;
  }
}

/* A name is changed by making one that is not there, or taking one that is: else the call only looked. */
static bool only_looks(const struct call_shape *shape, const struct explain_path *path)
{
  return shape->effect == EFFECT_MAKE ? explain_exists(path)
                                      : shape->effect == EFFECT_REMOVE && !explain_exists(path);
}

static void learn_path(struct explainer *explainer, const struct seccomp_notif *notif, const struct call_shape *shape,
                       int8_t dir, int8_t path, uint32_t kind)
{
  char target[IMD_MAX_TARGET];
  struct explain_path found;
  if (!read_path(explainer, notif, dir, path, 0, &found))
    return;
  if (only_looks(shape, &found))
    kind = IMD_LEARNED_LOOK;
  const size_t length = explain_path_text(&found, target, sizeof target);
  if (length > 0 && target[0] == '/' && !is_everybodys(target, length))
    explain_learn_note(LOG, kind, (uint32_t)notif->data.nr, target, length);
}

/* Before the call is answered: when the payload is over, everything that it asked for is in the log. */
static void learn(struct explainer *explainer, const struct seccomp_notif *notif, const struct call_shape *shape)
{
  explain_learn_note(LOG, IMD_LEARNED_CALL, (uint32_t)notif->data.nr, NULL, 0);
  if (!shape)
    return;
  if (shape->effect == EFFECT_CONNECT || shape->effect == EFFECT_BIND) {
    struct finding finding = {.forbidden = false};
    judge_address(explainer->shared, notif, shape, &finding);
    const uint16_t family = finding.length >= sizeof family ? *(const uint16_t *)(const void *)finding.target : AF_UNSPEC;
    if (family == AF_INET || family == AF_INET6)
      explain_learn_note(LOG, IMD_LEARNED_ADDRESS, (uint32_t)notif->data.nr, finding.target, finding.length);
    return;
  }
  const int flags = shape->flags >= 0 ? (int)notif->data.args[shape->flags] : shape->open_flags;
  const uint32_t kind = learned_kind(shape, flags);
  learn_path(explainer, notif, shape, shape->dir, shape->path, kind);
  if (shape->effect == EFFECT_RENAME)
    learn_path(explainer, notif, shape, shape->dir2, shape->path2, kind);
}

/* --- what is kept of it ------------------------------------------------------------------------------------------ */

static bool is_known(const struct explain_shared *shared, uint32_t records, uint32_t number, const struct finding *finding)
{
  for (uint32_t i = 0; i < records; i++) {
    const struct explain_record *one = &shared->record[i];
    if (one->kind == finding->kind && one->number == number && one->target_length == finding->length &&
        memcmp(one->target, finding->target, finding->length) == 0)
      return true;
  }
  return false;
}

/* The first of each kind, call and target; the rest is counted. */
static void keep(struct explain_shared *shared, const struct seccomp_notif *notif, const struct finding *finding)
{
  char name[32];
  const uint32_t records = shared->records;
  shared->count[finding->kind - 1]++;
  if (records >= IMD_MAX_VIOLATIONS || is_known(shared, records, (uint32_t)notif->data.nr, finding))
    return;
  struct explain_record *record = &shared->record[records];
  record->kind = finding->kind;
  record->number = (uint32_t)notif->data.nr;
  record->pid = explain_process((int)notif->pid);
  record->target_length = (uint32_t)finding->length;
  memcpy(record->argument, notif->data.args, sizeof record->argument);
  memcpy(record->target, finding->target, finding->length);
  snprintf(name, sizeof name, "%u/exe", notif->pid);
  const ssize_t got = readlinkat(AT_FDCWD, name, record->exe, sizeof record->exe);
  record->exe_length = got > 0 ? (uint32_t)got : 0;
  shared->records = records + 1;
}

/* --- the loop ---------------------------------------------------------------------------------------------------- */

/* Blocks. 0: wait for the leash; nothing more will come. */
static int serve_one(struct explainer *explainer)
{
  struct explain_shared *shared = explainer->shared;
  struct seccomp_notif *notif = &shared->hand.notif;
  memset(notif, 0, sizeof *notif);                  /* the kernel insists */
  if (ioctl(LISTENER, SECCOMP_IOCTL_NOTIF_RECV, notif) < 0) {
    struct pollfd listener = {.fd = LISTENER};
    notif->id = 0;
    /* ENOENT: the caller died, or (6.11) everybody did. */
    return (errno == ENOENT || errno == EINTR) && poll(&listener, 1, 0) >= 0 && !(listener.revents & POLLHUP);
  }

  struct seccomp_notif_resp answer = {.id = notif->id};
  struct finding finding = {.forbidden = false};
  const struct call_shape *shape = explain_shape(notif->data.nr);
  explain_verdict(imd_seccomp_run(shared->program, shared->program_length, &notif->data, NULL), &answer);
  if (!(answer.flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE)) {
    finding.forbidden = true;
    name_refused(explainer, notif, shape, &finding);
  } else if (shape && shape->effect == EFFECT_CONNECT) {
    judge_address(shared, notif, shape, &finding);
  } else if (shape && shape->effect < EFFECT_CONNECT) {
    judge_write(explainer, notif, shape, &finding);
  }
  if (shared->learn && (answer.flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE))
    learn(explainer, notif, shape);

  /* What was read is of this call only if the call still waits: a number of a process is given again. */
  if (finding.forbidden && ioctl(LISTENER, SECCOMP_IOCTL_NOTIF_ID_VALID, &answer.id) == 0) {
    keep(shared, notif, &finding);
    if (shared->halt && finding.kind == IMD_VIOLATION_WRITE) {
      (void)!write(LEASH, "v", 1);
      return 0;
    }
  }
  ioctl(LISTENER, SECCOMP_IOCTL_NOTIF_SEND, &answer);
  notif->id = 0;
  shared->answered++;
  return 1;
}

/* Descriptor 1 becomes the listener, 2 the log of a run that is learned from. */
static bool take_listener(void)
{
  char word;
  union { struct cmsghdr align; char space[CMSG_SPACE(2 * sizeof(int))]; } control;
  struct iovec body = {&word, 1};
  struct msghdr message = {
      .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t got;
  do
    got = recvmsg(LEASH, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  const struct cmsghdr *cmsg = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  int fd = -1;
  if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
    memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
  return fd == LISTENER;
}

_Noreturn void explain_serve(struct explain_shared *shared)
{
  struct explainer explainer = {.shared = shared};
  if (take_listener()) {
    /* Who waits is woken on our own processor, as we are about to sleep. Where the kernel lacks it: slower, no more. */
    ioctl(LISTENER, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    while (serve_one(&explainer))
      continue;
  }
  char word;
  while (read(LEASH, &word, 1) < 0 && errno == EINTR)
    continue;
  _exit(EXIT_SUCCESS);
}

/* --- PID 1's own walls ------------------------------------------------------------------------------------------- */

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define MAY(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), ALLOW
#define MAY_ASK(request) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(request), 0, 1), ALLOW

/* What the loop above calls, and no more. EPERM, not death: if it dies, the sandbox does. */
static int set_filter(void)
{
  static const struct sock_filter program[] = {
      LOAD(arch),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      LOAD(nr),
      MAY(process_vm_readv),
      MAY(statfs),
      MAY(fstatfs),
      MAY(openat),
      MAY(close),
      MAY(newfstatat),
      MAY(fstat),
      MAY(readlinkat),
      MAY(read),
      MAY(write),
      MAY(recvmsg),
      MAY(pidfd_open),
      MAY(pidfd_getfd),
#ifdef SYS_poll
      MAY(poll),
#endif
      MAY(ppoll),
      MAY(exit),
      MAY(exit_group),
      MAY(restart_syscall),
#ifdef __SANITIZE_ADDRESS__         /* of the sanitizers' own, in builds for tests */
      MAY(sigaltstack),
      MAY(mmap),
      MAY(munmap),
      MAY(madvise),
      MAY(gettid),
      MAY(getpid),
      MAY(rt_sigprocmask),
      MAY(rt_sigaction),
#endif
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      LOAD(args[1]),
      MAY_ASK(SECCOMP_IOCTL_NOTIF_RECV),
      MAY_ASK(SECCOMP_IOCTL_NOTIF_SEND),
      MAY_ASK(SECCOMP_IOCTL_NOTIF_ID_VALID),
      MAY_ASK(SECCOMP_IOCTL_NOTIF_SET_FLAGS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
  };
  const struct sock_fprog filter = {.len = sizeof program / sizeof program[0], .filter = (void *)(uintptr_t)program};
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

int explain_stand_in_proc(int dir, const char *path)
{
  cleanup_fd int proc = open_tree(dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
  return proc < 0 ? -1 : fchdir(proc);
}

void explain_become_payload(void)
{
  setfsgid(IMD_PAYLOAD_ID);
  setfsuid(IMD_PAYLOAD_ID);
}

int explain_settle(struct explain_shared *shared, int leash)
{
  struct timespec used;
  /* The warden's end, by whatever way, is ours: a listener's wait cannot watch the leash as well. */
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || dup2(leash, LEASH) < 0 || sys_close_range(LEASH + 1, ~0u) < 0)
    return -1;
  explain_path_settle();
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  shared->cpu_before = (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
  if (set_filter() < 0)
    return -1;
  atomic_store(&shared->settled, 1);
  return 0;
}
