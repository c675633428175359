#define _GNU_SOURCE
#include "payload.h"
#include "counts.h"
#include "kernel.h"
#include "landlock.h"
#include "peer.h"
#include "plan.h"
#include "util.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define OOM_SCORE_ADJ "500"        /* before anything of the host's */
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"
/*
 * The only descriptors beside 0, 1 and 2 until exec, and the listener: high, so that the payload's bound on open files, which is on
 * the number of each new one, leaves room for that; and below 64, where the kernel would have to make a larger table.
 */
enum { GO = 48, CHANNEL = 49, PINS = 50 };

#define process_fail(err, ...) imd_fail((err), IMD_STAGE_PROCESS, errno, __VA_ARGS__)

/* What exec needs, laid out before the clone. */
struct program {
  const char *cwd;
  char **argv, **envp;
  const char *path;
  bool pinned;                     /* the plan has a PIN: then its files, and what the last of them is given */
  struct pins *pins;
  char **pinned_argv;
  uint32_t pin_step;
  struct sock_fprog filter;        /* the explained one, where the plan has one */
  bool explained;
  const uint64_t *files;           /* operands of RLIMIT, for RLIMIT_NOFILE; NULL */
  uint32_t exec_step, filter_step, files_step;
  bool exists;                     /* argv[0] is a path and something is there */
};

static int lay_out(struct program *program, const struct run *run, struct imd_error *err)
{
  *program = (struct program){.path = DEFAULT_PATH};
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op == IMD_OP_SECCOMP || step.op == IMD_OP_EXPLAIN) {
      uint32_t size;
      program->filter.filter = (struct sock_filter *)(uintptr_t)imd_plan_string_at(&step, 0, &size);
      program->filter.len = (unsigned short)(size / sizeof(struct sock_filter));
      program->filter_step = step.index;
      program->explained = step.op == IMD_OP_EXPLAIN;
    }
    if (step.op == IMD_OP_RLIMIT && step.numbers[0] == RLIMIT_NOFILE) {
      program->files = step.numbers;
      program->files_step = step.index;
    }
    if (step.op == IMD_OP_PIN) {
      program->pinned = true;
      program->pin_step = step.index;
    }
    if (step.op != IMD_OP_EXEC)
      continue;
    /* The strings are cwd, argv, environment: with a NULL behind each of the latter two. */
    const uint32_t argc = (uint32_t)step.numbers[0], all = step.string_count;
    const char *at = step.strings;
    char **words = calloc(all + 1u, sizeof *words);
    if (!words)
      return imd_fail(err, IMD_STAGE_PROCESS, ENOMEM, "the command");
    program->cwd = imd_plan_string(&at, NULL);
    program->argv = words;
    program->envp = words + argc + 1;
    for (uint32_t i = 0; i < argc; i++)
      program->argv[i] = (char *)(uintptr_t)imd_plan_string(&at, NULL);
    for (uint32_t i = 0; i < all - 1 - argc; i++) {
      program->envp[i] = (char *)(uintptr_t)imd_plan_string(&at, NULL);
      if (strncmp(program->envp[i], "PATH=", 5) == 0)
        program->path = program->envp[i] + 5;
    }
    program->exec_step = step.index;
  }
  return 0;
}

/* --- in the child ------------------------------------------------------------------------------------------------ */

static int set_rlimit(const uint64_t *numbers)
{
  const __rlimit_resource_t resource = (__rlimit_resource_t)numbers[0];
  struct rlimit limit = {.rlim_cur = numbers[1], .rlim_max = numbers[2]};
  if (setrlimit(resource, &limit) == 0)
    return 0;
  /* A core of 0 is no tighter than one of 1: at 0 the host's handler of core dumps is started. */
  if (errno != EPERM || resource == RLIMIT_CORE)
    return -1;
  /* Above our own hard limit, and we may not raise it: that one holds then, and is the tighter. */
  struct rlimit ours;
  if (getrlimit(resource, &ours) < 0)
    return -1;
  if (limit.rlim_max > ours.rlim_max)
    limit.rlim_max = ours.rlim_max;
  if (limit.rlim_cur > limit.rlim_max)
    limit.rlim_cur = limit.rlim_max;
  return setrlimit(resource, &limit);
}

/* The kernel takes a mask that names a processor too many for those that there are: here it must be all of them. */
static int set_affinity(const struct run *run)
{
  cpu_set_t found;
  if (sched_setaffinity(0, sizeof run->processors, &run->processors) < 0 ||
      sched_getaffinity(0, sizeof found, &found) < 0)
    return -1;
  if (CPU_EQUAL(&found, &run->processors))
    return 0;
  errno = ENODEV;                  /* one went away since it was chosen */
  return -1;
}

static int take_identity(const struct cell *cell, const struct run *run)
{
  /* Groups first: in the user namespace nobody may set them. */
  gid_t groups[IMD_MAX_GROUPS];
  if (setgroups(peer_groups(cell, run, groups), groups) < 0 || setns(cell->user_ns, CLONE_NEWUSER) < 0 ||
      setresgid(run->inner_gid, run->inner_gid, run->inner_gid) < 0 ||
      setresuid(run->inner_uid, run->inner_uid, run->inner_uid) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
    return -1;
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
    return -1;
  return 0;
}

static int take_step(const struct cell *cell, const struct run *run, const struct imd_plan_step *step,
                     struct imd_error *err)
{
  switch (step->op) {
  case IMD_OP_RLIMIT:
    /* On open files: ours come first. */
    if (step->numbers[0] == RLIMIT_NOFILE)
      return 0;
    return set_rlimit(step->numbers) < 0 ? process_fail(err, "rlimit %d", (int)step->numbers[0]) : 0;
  case IMD_OP_AFFINITY:
    return set_affinity(run) < 0 ? process_fail(err, "processors") : 0;
  case IMD_OP_UMASK:
    umask((mode_t)step->numbers[0]);
    return 0;
  case IMD_OP_IDENTITY:
    return take_identity(cell, run) < 0 ? process_fail(err, "identity") : 0;
  case IMD_OP_DROP_CAPABILITIES:
    return drop_capabilities() < 0 ? process_fail(err, "capabilities") : 0;
  case IMD_OP_NO_NEW_PRIVS:
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? process_fail(err, "no_new_privs") : 0;
  case IMD_OP_LANDLOCK:
    return landlock_restrict(cell->landlock, &cell->view, step, err);
  default:
    return 0;
  }
}

static int become_leader(const struct cell *cell, const struct run *run, struct imd_error *err)
{
  /* Its cgroup is the root of what it sees of cgroups, and a session keeps terminals of the host's away. */
  if (unshare(CLONE_NEWCGROUP) < 0)
    return process_fail(err, "the cgroup namespace");
  if (setsid() < 0)
    return process_fail(err, "a session");
  if (imd_write_at(cell->config->host_proc, "self/oom_score_adj", OOM_SCORE_ADJ) < 0)
    return process_fail(err, "oom_score_adj");
  umask(022);
  for (int i = 0; i < 3; i++)
    if (dup2(run->stdio[i], i) < 0)
      return process_fail(err, "descriptor %d", i);
  if (run->terminal && ioctl(0, TIOCSCTTY, 0) < 0)
    return imd_fail(err, IMD_STAGE_TERMINAL, errno, "the controlling terminal");
  return 0;
}

/* The last of the walls. With a listener where it is explained, which the warden takes. */
static int set_filter(const struct program *program, struct birth *birth)
{
  const unsigned flags =
      program->explained ? SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0;
  birth->listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program->filter);
  return birth->listener;
}

/* `read` is a call that no filter can deny. */
static bool wait_for_word(int fd)
{
  char word;
  ssize_t got;
  do
    got = read(fd, &word, 1);
  while (got < 0 && errno == EINTR);
  return got == 1;
}

static bool say(enum payload_word word)
{
  const char byte = (char)word;
  return write(CHANNEL, &byte, 1) == 1;
}

/* Before the filter, so that it need not allow what this takes; and with every other wall. */
static int pin(struct program *program, struct imd_error *err)
{
  if (pins_open(program->pins, PINS, program->argv[0], program->path, err) < 0) {
    if (err->stage == IMD_STAGE_PIN)
      err->step = program->pin_step;
    return -1;
  }
  err->step = program->pin_step;
  if (!say(PAYLOAD_PINS) || !wait_for_word(CHANNEL))
    _exit(EXIT_FAILURE);
  program->pinned_argv = pins_argv(program->pins, program->argv);
  return program->pinned_argv ? pins_digest(program->pins, err) : process_fail(err, "the command");
}

static int prepare(const struct cell *cell, const struct run *run, struct program *program, struct birth *birth)
{
  struct imd_error *err = &birth->err;
  if (become_leader(cell, run, err) < 0)
    return -1;
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    err->step = step.index;
    if (take_step(cell, run, &step, err) < 0)
      return -1;
  }
  err->step = program->exec_step;
  const int channel = cell->explain.payload_channel == GO ? fcntl(GO, F_DUPFD_CLOEXEC, CHANNEL + 1)
                                                          : cell->explain.payload_channel;
  if (run->go != GO && dup3(run->go, GO, O_CLOEXEC) < 0)
    return process_fail(err, "descriptors");
  if (channel != CHANNEL && dup3(channel, CHANNEL, O_CLOEXEC) < 0)
    return process_fail(err, "descriptors");
  if (sys_close_range(3, GO - 1) < 0 || sys_close_range(PINS, ~0u) < 0)
    return process_fail(err, "descriptors");
  if (chdir(program->cwd) < 0)
    return imd_fail(err, IMD_STAGE_CWD, errno, "%s", program->cwd);
  if (program->pins && pin(program, err) < 0)
    return -1;
  const char *name = program->argv[0];
  program->exists = strchr(name, '/') && faccessat(AT_FDCWD, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

  err->step = program->files_step;
  if (program->files && set_rlimit(program->files) < 0)
    return process_fail(err, "rlimit %d", (int)program->files[0]);
  err->step = program->filter_step;
  return set_filter(program, birth) < 0 ? process_fail(err, "the system call filter") : 0;
}

/* As execvp, but for shells: a file that is no program and names no interpreter is an error. Returns an errno. */
static int search_and_execute(const struct program *program)
{
  const char *name = program->argv[0];
  if (strchr(name, '/')) {
    execve(name, program->argv, program->envp);
    return errno;
  }
  int found = ENOENT;
  for (const char *at = program->path;; at++) {
    const size_t size = strcspn(at, ":");
    char path[PATH_MAX + NAME_MAX];
    if (snprintf(path, sizeof path, "%.*s%s%s", (int)size, at, size > 0 ? "/" : "", name) < (int)sizeof path) {
      execve(path, program->argv, program->envp);
      if (errno == EACCES)
        found = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP && errno != ESTALE)
        return errno;
    }
    at += size;
    if (*at == '\0')
      return found;
  }
}

_Noreturn static void give_up(struct birth *birth)
{
  atomic_store(&birth->stage, BIRTH_FAILED);
  _exit(EXIT_FAILURE);
}

/* True once the intent is durable. */
static bool wait_for_go(void)
{
  return wait_for_word(GO);
}

_Noreturn static void be_payload(const struct cell *cell, const struct run *run, struct program *program,
                                 struct birth *birth)
{
  close(cell->leash);
  if (prepare(cell, run, program, birth) < 0)
    give_up(birth);
  atomic_store(&birth->stage, BIRTH_WAITING);
  if ((program->explained || program->pins) && !say(PAYLOAD_READY))
    _exit(EXIT_FAILURE);
  /* Exec closes the listener: first the warden has to have it, as it does long before GO. */
  if (!wait_for_go() || (program->explained && !atomic_load(&birth->taken) && !wait_for_word(CHANNEL))) {
    atomic_store(&birth->stage, BIRTH_CALLED_OFF);
    _exit(EXIT_FAILURE);
  }
  birth->started = imd_now_ns();
  atomic_store(&birth->stage, BIRTH_STARTED);
  counts_started();
  birth->err.step = program->exec_step;
  if (program->pins) {
    pins_execute(program->pins, program->pinned_argv, program->envp, &birth->err);
    counts_undone();
    give_up(birth);
  }
  const int error = search_and_execute(program);
  imd_fail(&birth->err, IMD_STAGE_EXEC, error, error == ENOENT && program->exists ? "%s: its interpreter" : "%s",
           program->argv[0]);
  counts_undone();
  give_up(birth);
}

/* --- in the warden ----------------------------------------------------------------------------------------------- */

/* Pipes, regular files, stream sockets and the null device: nothing through which there is a way to anything else. */
static int check_stdio(int fd, int number, const struct run *run, struct imd_error *err)
{
  struct stat st;
  int type = 0;
  socklen_t size = sizeof type;
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fstat(fd, &st) < 0)
    return process_fail(err, "descriptor %d", number);
  const bool null = S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
  const bool stream = S_ISSOCK(st.st_mode) && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
                      type == SOCK_STREAM;
  if ((flags & O_PATH) || !(S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) || null || stream))
    return imd_fail(err, IMD_STAGE_PROCESS, 0, "descriptor %d is no pipe, regular file or stream socket", number);
  if (!S_ISFIFO(st.st_mode) || !(run->ours & (IMD_OURS_0 << number)))
    return 0;
  /* The broker's own pipe (never a FIFO with a name): /dev/stdout and its like are opened anew by some programs. */
  struct statfs file_system;
  if (fstatfs(fd, &file_system) == 0 && file_system.f_type == PIPEFS_MAGIC && fchown(fd, run->uid, run->gid) < 0)
    return process_fail(err, "descriptor %d", number);
  return 0;
}

struct birth *payload_birth(void)
{
  struct birth *birth = mmap(NULL, sizeof *birth, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (birth == MAP_FAILED)
    return NULL;
  birth->err = (struct imd_error)IMD_ERROR_INIT;
  return birth;
}

int payload_start(struct payload *payload, const struct cell *cell, const struct cgroup *cgroup,
                  const struct run *run, struct imd_error *err)
{
  for (int i = 0; i < 3 && !run->terminal; i++)
    if (check_stdio(run->stdio[i], i, run, err) < 0)
      return -1;
  struct stat st;
  if (fstat(run->go, &st) < 0 || !S_ISFIFO(st.st_mode))
    return imd_fail(err, IMD_STAGE_PROCESS, 0, "what GO should come through is no pipe");
  struct program program;
  if (lay_out(&program, run, err) < 0)
    return -1;
  cleanup_free char **words = program.argv;
  if (program.pinned && !(program.pins = payload->pins = pins_make()))
    return process_fail(err, "memory");

  if (!payload->birth && !(payload->birth = payload_birth()))
    return process_fail(err, "memory");
  struct birth *birth = payload->birth;
  struct clone_args args = {
      .flags = CLONE_PIDFD | (cgroup->dir >= 0 ? CLONE_INTO_CGROUP : 0),
      .pidfd = (uintptr_t)&payload->pidfd,
      .cgroup = cgroup->dir >= 0 ? (uint64_t)cgroup->dir : 0,
      .exit_signal = SIGCHLD,
  };
  payload->pid = sys_clone3(&args);
  if (payload->pid == 0)
    be_payload(cell, run, &program, birth);
  return payload->pid < 0 ? process_fail(err, "the payload's process") : 0;
}

void payload_failure(const struct payload *payload, struct imd_error *err)
{
  switch (payload_stage(payload)) {
  case BIRTH_FAILED:
    *err = payload->birth->err;
    break;
  case BIRTH_CALLED_OFF:
    imd_fail(err, IMD_STAGE_KILLED, 0, "called off before it ran");
    break;
  default:
    imd_fail(err, IMD_STAGE_PROCESS, 0, "the payload's process died while it was being prepared");
    break;
  }
}
