#define _GNU_SOURCE
#include "cell.h"
#include "kernel.h"
#include "landlock.h"
#include "loopback.h"
#include "util.h"

#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/*
 * System V IPC of a cell: without a memory controller nothing else bounds it. Pages of shared memory; message queues;
 * semaphores in a set, in all, in a call, and sets.
 *
 * The files stand for the writer's own namespace, and are written by the cell's own /proc, where it stands by itself: in
 * the host's, all that were ever looked up for living namespaces share one bucket of names, and each look walks through
 * them (proc_sys_compare was a tenth of the machine with 900 cells).
 */
static const struct { const char *knob, *value; } ipc_bounds[] = {
    {"sys/kernel/shmall", "16384"}, {"sys/kernel/msgmni", "64"}, {"sys/kernel/sem", "250 16000 100 64"},
};

enum { REAP_MS = 10 };

#define cell_fail(err, ...) imd_fail((err), IMD_STAGE_CELL, errno, __VA_ARGS__)

/* All go but `kept`, a set of bits, out of effective and permitted. */
static int keep_capabilities(uint64_t kept)
{
  /* Neither exec nor a change of uid may ever give capabilities again; locked. */
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
      prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                   SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                   SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED) < 0)
    return -1;
  for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++)
    continue;
  if (errno != EINVAL)
    return -1;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct left[2];
  memset(left, 0, sizeof left);
  for (size_t i = 0; i < 2; i++)
    left[i].effective = left[i].permitted = (uint32_t)(kept >> 32 * i);
  return (int)syscall(SYS_capset, &header, left);
}

int drop_capabilities(void)
{
  return keep_capabilities(0);
}

int cell_enter_pids(const struct cell *cell, bool inside)
{
  return setns(inside ? cell->pid_ns : cell->host_pid_ns, CLONE_NEWPID);
}

void cell_let_go(const struct cell *cell, const struct run *run)
{
  close(cell->leash);
  close(run->launcher);
  if (run->go >= 0)
    close(run->go);
  for (int i = 0; i < 3; i++)
    if (run->stdio[i] >= 0)
      close(run->stdio[i]);
}

void cell_kill(const struct cell *cell)
{
  if (cell->init >= 0)
    pidfd_send_signal(cell->init, SIGKILL, NULL, 0);
}

bool wait_for_death(int pidfd, int patience_ms)
{
  struct pollfd death = {.fd = pidfd, .events = POLLIN};
  int ready;
  do
    ready = poll(&death, 1, patience_ms);
  while (ready < 0 && errno == EINTR);
  return ready > 0;
}

/* Whoever of our children is dead already. */
static void reap_children(void)
{
  siginfo_t dead;
  do
    dead.si_pid = 0;
  while (waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | __WALL) == 0 && dead.si_pid != 0);
}

bool cell_wait(struct cell *cell, int patience_ms)
{
  if (cell->init < 0)
    return true;
  const uint64_t start = imd_now_ns();
  /* By clone(CLONE_PARENT) the payload has brothers, which are our children: until reaped, PID 1 outlives them. */
  for (reap_children(); !wait_for_death(cell->init, REAP_MS); reap_children())
    if (patience_ms >= 0 && imd_now_ns() - start >= (uint64_t)patience_ms * 1000000u)
      return false;
  while (waitid(P_PIDFD, (id_t)cell->init, NULL, WEXITED) < 0 && errno == EINTR)
    continue;
  imd_close(&cell->init);
  return true;
}

/* --- PID 1 ------------------------------------------------------------------------------------------------------- */

/* Standing in the cell's /proc, as it is without its covers. */
static int bound_ipc(struct imd_error *err)
{
  for (size_t i = 0; i < sizeof ipc_bounds / sizeof ipc_bounds[0]; i++)
    if (imd_write_at(AT_FDCWD, ipc_bounds[i].knob, ipc_bounds[i].value) < 0 && errno != ENOENT)
      return cell_fail(err, "%s", ipc_bounds[i].knob);
  return 0;
}

static int become_inner_root(struct imd_error *err)
{
  if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
    return cell_fail(err, "PID 1's identity");
  /* It has no use for user namespaces of its own; the largest attack surface of all. */
  if (imd_write_at(AT_FDCWD, "sys/user/max_user_namespaces", "0") < 0 && errno != ENOENT)
    return cell_fail(err, "max_user_namespaces");
  explain_become_payload();
  /* In the cell's user namespace alone: it reads what the payload's calls point at. */
  if (keep_capabilities(1ull << CAP_SYS_PTRACE) < 0)
    return cell_fail(err, "PID 1's capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
    return cell_fail(err, "PID 1");
  return 0;
}

/* PID 1 is a copy of the launcher, whose command line names paths of the host: anybody may read it in /proc/1. */
int cell_forget_arguments(int host_proc, struct imd_error *err)
{
  char text[2048];
  if (imd_read_at(host_proc, "self/stat", text, sizeof text) < 0)
    return cell_fail(err, "the command line");
  /* Fields 48 to 51 (proc(5)): where arguments and environment begin and end; the name, in brackets, is the second. */
  const char *at = strrchr(text, ')');
  for (int field = 2; at && field < 48; field++)
    at = strchr(at + 1, ' ');
  uintptr_t bounds[4] = {0};
  if (!at || sscanf(at, "%" SCNuPTR " %" SCNuPTR " %" SCNuPTR " %" SCNuPTR, &bounds[0], &bounds[1], &bounds[2],
                    &bounds[3]) != 4)
    return imd_fail(err, IMD_STAGE_CELL, 0, "the command line");
  for (size_t i = 0; i < 4; i += 2)
    if (bounds[i] != 0 && bounds[i + 1] > bounds[i])
      explicit_bzero((void *)bounds[i], bounds[i + 1] - bounds[i]);
  return 0;
}

/*
 * What the kernel counts by user (inotify instances, message queues, pending signals, locked memory) it counts for the
 * owner of the user namespace too: were that root, one payload could use up root's share on the whole host.
 */
static int make_user_namespace(uid_t owner)
{
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct ours[2];
  if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setresuid(owner, owner, owner) < 0 || syscall(SYS_capget, &header, ours) < 0)
    return -1;
  /* Where unprivileged user namespaces are switched off, this one must not be one. */
  for (size_t i = 0; i < 2; i++)
    ours[i].effective = ours[i].permitted;
  return syscall(SYS_capset, &header, ours) < 0 ? -1 : unshare(CLONE_NEWUSER);
}

static int prepare_init(const struct cell *cell, int warden, struct imd_error *err)
{
  if (view_mount_proc(&cell->view, err) < 0 || cell_forget_arguments(cell->config->host_proc, err) < 0)
    return -1;
  if (explain_stand_in_proc(AT_FDCWD, "/proc") < 0)
    return cell_fail(err, "PID 1's /proc");
  if (bound_ipc(err) < 0)
    return -1;
  if (make_user_namespace(cell->config->slot_base) < 0)
    return cell_fail(err, "the user namespace");
  char word;
  if (send(warden, "u", 1, MSG_NOSIGNAL) < 0 || recv(warden, &word, 1, 0) != 1)
    _exit(EXIT_FAILURE);
  return become_inner_root(err);
}

_Noreturn static void be_init(const struct cell *cell, int warden)
{
  struct imd_error err = IMD_ERROR_INIT;
  if (prepare_init(cell, warden, &err) < 0) {
    send(warden, &err, sizeof err, MSG_NOSIGNAL);
    _exit(EXIT_FAILURE);
  }
  prctl(PR_SET_NAME, "init");
  /* With SIGCHLD ignored the kernel reaps, ours and whoever is orphaned in here. */
  signal(SIGCHLD, SIG_IGN);
  if (explain_settle(cell->explain.shared, warden) < 0)
    _exit(EXIT_FAILURE);
  (void)!write(0, "r", 1);
  explain_serve(cell->explain.shared);
}

_Noreturn static void be_explainer(const struct cell *cell, int warden)
{
  struct imd_error err = IMD_ERROR_INIT;
  if (explain_stand_in_proc(cell->view.proc, "") < 0 || setns(cell->user_ns, CLONE_NEWUSER) < 0 ||
      become_inner_root(&err) < 0)
    _exit(EXIT_FAILURE);
  prctl(PR_SET_NAME, "explainer");
  if (explain_settle(cell->explain.shared, warden) < 0)
    _exit(EXIT_FAILURE);
  explain_serve(cell->explain.shared);
}

/* --- the warden's side ------------------------------------------------------------------------------------------- */

/* PID 1's next word; what it says instead is why it failed. */
static int expect(int init, char word, struct imd_error *err)
{
  struct imd_error said;
  ssize_t got;
  do
    got = recv(init, &said, sizeof said, 0);
  while (got < 0 && errno == EINTR);
  if (got == 1 && *(const char *)&said == word)
    return 0;
  if (got == (ssize_t)sizeof said)
    *err = said;
  else
    imd_fail(err, IMD_STAGE_CELL, 0, "PID 1 died");
  return -1;
}

static int map_ids(const struct cell *cell, pid_t init, struct imd_error *err)
{
  char path[64], map[64];
  snprintf(map, sizeof map, "0 %u %u", cell->config->slot_base, (unsigned)IMD_SLOT_SIZE);
  static const struct { const char *file; bool is_map; } writes[] = {
      {"setgroups", false}, {"uid_map", true}, {"gid_map", true}};
  for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
    snprintf(path, sizeof path, "%d/%s", (int)init, writes[i].file);
    if (imd_write_at(cell->config->host_proc, path, writes[i].is_map ? map : "deny") < 0)
      return cell_fail(err, "%s", writes[i].file);
  }
  return 0;
}

static int open_namespace(const struct cell *cell, pid_t pid, const char *name)
{
  char path[64];
  snprintf(path, sizeof path, "%d/ns/%s", (int)pid, name);
  return openat(cell->config->host_proc, path, O_RDONLY | O_CLOEXEC);
}

static int make_init(struct cell *cell, struct imd_error *err)
{
  int sockets[2];
  if (explain_watch_make(&cell->explain, err) < 0)
    return -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
    return cell_fail(err, "PID 1's leash");
  const int ours = cell->leash = cell->explain.init = sockets[0];
  cleanup_fd int theirs = sockets[1];

  struct clone_args args = {
      .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&cell->init, .exit_signal = SIGCHLD};
  const pid_t pid = sys_clone3(&args);
  if (pid < 0)
    return cell_fail(err, "PID 1");
  if (pid == 0) {
    close(ours);
    be_init(cell, theirs);
  }
  cell->explain.init_pid = pid;
  imd_close(&theirs);
  if (expect(ours, 'u', err) < 0)
    return -1;
  if (map_ids(cell, pid, err) < 0)
    return -1;
  cell->user_ns = open_namespace(cell, pid, "user");
  cell->pid_ns = open_namespace(cell, pid, "pid");
  if (cell->user_ns < 0 || cell->pid_ns < 0)
    return cell_fail(err, "the cell's namespaces");
  if (send(ours, "g", 1, MSG_NOSIGNAL) < 0)
    return cell_fail(err, "PID 1");
  return expect(ours, 'r', err);
}

int cell_start_explainer(struct cell *cell, struct imd_error *err)
{
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
    return cell_fail(err, "an explainer's leash");
  cleanup_fd int ours = sockets[0];
  cleanup_fd int theirs = sockets[1];
  struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&cell->init, .exit_signal = SIGCHLD};
  const pid_t pid = sys_clone3(&args);
  if (pid == 0)
    be_explainer(cell, theirs);
  if (pid < 0)
    return cell_fail(err, "an explainer");
  cell->explain.init_pid = pid;
  cell->leash = cell->explain.init = imd_take_fd(&ours);
  return 0;
}

static int make_namespaces(struct imd_error *err)
{
  const int flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID;
  /* EINVAL: a kernel without time namespaces. */
  if (unshare(flags | CLONE_NEWTIME) < 0 && (errno != EINVAL || unshare(flags) < 0))
    return cell_fail(err, "the cell's namespaces");
  static const char host_name[] = "sandbox", domain_name[] = "(none)";
  if (sethostname(host_name, sizeof host_name - 1) < 0 || setdomainname(domain_name, sizeof domain_name - 1) < 0)
    return cell_fail(err, "the cell's host name");
  /* Up already, since most runs want it and it takes a while; a plan without takes it down again. */
  return loopback_set(true, err);
}

int cell_make(struct cell *cell, const struct warden_config *config, struct imd_error *err)
{
  *cell = (struct cell){
      .config = config, .host_pid_ns = -1, .pid_ns = -1, .user_ns = -1, .init = -1, .leash = -1, .table = -1, .landlock = -1};
  /* A terminal's signals are not for us, nor the launcher's groups for anything that we start. */
  if (setsid() < 0 && errno != EPERM)
    return cell_fail(err, "a session");
  if (setgroups(0, NULL) < 0)
    return cell_fail(err, "no groups");
  cell->host_pid_ns = openat(config->host_proc, "self/ns/pid", O_RDONLY | O_CLOEXEC);
  if (cell->host_pid_ns < 0)
    return cell_fail(err, "the host's pid namespace");
  if (make_namespaces(err) < 0 || view_make(&cell->view, config->templated, err) < 0 || make_init(cell, err) < 0)
    return -1;
  return view_find_proc(&cell->view, err) < 0 ? -1 : landlock_make(&cell->view, &cell->landlock, err);
}
