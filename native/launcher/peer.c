#define _GNU_SOURCE
#include "peer.h"
#include "guard.h"
#include "kernel.h"
#include "message.h"
#include "plan.h"
#include "storage.h"
#include "util.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

enum {
  MAP_SIZE = 4000,                 /* the kernel takes less than a page at once */
  MAX_IDMAPS = 8,
  GROUP_BASE = 2000,               /* inner ids of the caller's further groups */
};

enum verdict { OPENED = 1, ABSENT, REFUSED };

/* What the child says about one step; a mount comes with OPENED. */
struct answer {
  uint32_t step, verdict, directory;
  uid_t uid;
  gid_t gid;
  struct imd_error err;
};

struct request {                   /* one step with something to open */
  uint32_t step;
  uint64_t flags;
  const char *path;
  struct imd_plan_step stored;     /* of the daemon's own storage; .op 0: a path */
  const char *beneath;             /* no symbolic link may lead out of this directory; NULL: out of none */
  bool captured;                   /* its owners must be told apart: written files are compared with it, or are its own */
};

struct idmap { uid_t uid; gid_t gid; bool groups; int fd; };
struct idmaps { struct idmap at[MAX_IDMAPS]; uint32_t count; };

bool is_kernel_file_system(uint64_t magic)
{
  static const uint32_t magics[] = {
      PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEVPTS_SUPER_MAGIC, DEBUGFS_MAGIC,
      TRACEFS_MAGIC, SECURITYFS_MAGIC, SELINUX_MAGIC, SMACK_MAGIC, BPF_FS_MAGIC, PSTOREFS_MAGIC, EFIVARFS_MAGIC,
      BINFMTFS_MAGIC, NSFS_MAGIC, MQUEUE_MAGIC, FUSECTL_SUPER_MAGIC, CONFIGFS_MAGIC, RDTGROUP_SUPER_MAGIC,
      PID_FS_MAGIC, SOCKFS_MAGIC, PIPEFS_MAGIC, ANON_INODE_FS_MAGIC, 0x67596969 /* rpc_pipefs */, 0x6e667364 /* nfsd */,
  };
  for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++)
    if ((uint32_t)magic == magics[i])
      return true;
  return false;
}

static bool next_request(struct imd_plan_cursor *cursor, struct request *request)
{
  struct imd_plan_step step;
  while (imd_plan_next(cursor, &step)) {
    const bool stored = storage_is_source(step.op);
    if (step.op != IMD_OP_ROOTFS && step.op != IMD_OP_BIND && step.op != IMD_OP_CAPTURE && !stored)
      continue;
    *request = (struct request){.step = step.index, .path = imd_plan_string_at(&step, 0, NULL)};
    if (step.op == IMD_OP_BIND)
      request->flags = step.numbers[0];
    if (step.op != IMD_OP_ROOTFS && !stored && (step.numbers[0] & IMD_BIND_BENEATH))
      request->beneath = imd_plan_string_at(&step, 2, NULL);
    /* As read; what may be executed there its layer says. */
    request->captured = step.op == IMD_OP_CAPTURE;
    if (stored) {
      request->captured = true;
      request->stored = step;
      request->flags = IMD_BIND_GRANTED | (step.op == IMD_OP_VOLUME ? IMD_BIND_WRITE : 0) |
                       (step.op == IMD_OP_IMAGE ? 0 : step.numbers[0] & IMD_BIND_NOEXEC);
    }
    return true;
  }
  return false;
}

/* --- in the child ------------------------------------------------------------------------------------------------ */

static int set_capabilities(uint64_t permitted, uint64_t effective)
{
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {
      {.permitted = (uint32_t)permitted, .effective = (uint32_t)effective},
      {.permitted = (uint32_t)(permitted >> 32), .effective = (uint32_t)(effective >> 32)},
  };
  return (int)syscall(SYS_capset, &header, data);
}

#define ADMIN (1ull << CAP_SYS_ADMIN)

static int become_peer(const struct peer *peer)
{
  if (setgroups(peer->ngroups, peer->groups) < 0 || setresgid(peer->gid, peer->gid, peer->gid) < 0 ||
      prctl(PR_SET_KEEPCAPS, 1) < 0 || setresuid(peer->uid, peer->uid, peer->uid) < 0 ||
      set_capabilities(ADMIN, 0) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
    return -1;
  /* A network file system may ask for keys: not for the daemon's. */
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
    return -1;
  return 0;
}

static bool lies_beneath(const char *path, const char *directory, size_t size)
{
  return strncmp(path, directory, size) == 0 && (path[size] == '/' || path[size] == '\0');
}

/* The longest grant that holds `path`; `*rest` is what is left of the path. */
static const char *find_grant(char *const *grants, const char *path, const char *best, const char **rest)
{
  for (; grants && *grants; grants++) {
    size_t size = strlen(*grants);
    while (size > 1 && (*grants)[size - 1] == '/')
      size--;
    if (size > 0 && lies_beneath(path, *grants, size) && (!best || size > strlen(best))) {
      best = *grants;
      *rest = path + size + strspn(path + size, "/");
    }
  }
  return best;
}

/* What `rest`, as far as `end` (NULL: all of it), names in `top`, by no way out of there. */
static int open_within(int top, const char *rest, const char *end, const char *path, struct imd_error *err)
{
  cleanup_free char *name = end ? strndup(rest, (size_t)(end - rest)) : strdup(rest);
  const int fd =
      name ? sys_openat2(top, name, O_PATH | O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS) : -1;
  return fd < 0 ? imd_fail(err, IMD_STAGE_OPEN, errno, "%s", path) : fd;
}

static int open_granted(const struct warden_config *config, const struct request *request, struct imd_error *err)
{
  const char *rest = "";
  const char *grant = find_grant(config->grant_write, request->path, NULL, &rest);
  if (!(request->flags & IMD_BIND_WRITE))
    grant = find_grant(config->grant_read, request->path, grant, &rest);
  if (!grant)
    return imd_fail(err, IMD_STAGE_OPEN, EACCES, "%s: no grant of the operator holds it", request->path);
  cleanup_fd int top = open(grant, O_PATH | O_CLOEXEC);
  if (top < 0)
    return imd_fail(err, IMD_STAGE_OPEN, errno, "%s", grant);
  /* From the grant to the directory, where that is the narrower, and from there on. */
  if (request->beneath && strlen(request->beneath) > (size_t)(rest - request->path)) {
    const int held = open_within(top, rest, request->path + strlen(request->beneath), request->path, err);
    if (held < 0)
      return -1;
    imd_close(&top);
    top = held;
    rest = request->path + strlen(request->beneath);
    rest += strspn(rest, "/");
  }
  return *rest == '\0' ? imd_take_fd(&top) : open_within(top, rest, NULL, request->path, err);
}

static int open_as_peer(const struct request *request, struct imd_error *err)
{
  if (request->beneath) {
    cleanup_fd int top = sys_openat2(AT_FDCWD, request->beneath, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
    if (top < 0)
      return imd_fail(err, IMD_STAGE_OPEN, errno, "%s", request->beneath);
    const char *rest = request->path + strlen(request->beneath);
    rest += strspn(rest, "/");
    return *rest == '\0' ? imd_take_fd(&top) : open_within(top, rest, NULL, request->path, err);
  }
  /* Magic links lead to what a process has open: here it would be our own. */
  const int fd = sys_openat2(AT_FDCWD, request->path, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
  return fd < 0 ? imd_fail(err, IMD_STAGE_OPEN, errno, "%s", request->path) : fd;
}

static int check_kind(int fd, const struct request *request, struct answer *answer)
{
  struct stat st;
  struct statfs file_system;
  if (fstat(fd, &st) < 0 || fstatfs(fd, &file_system) < 0)
    return imd_fail(&answer->err, IMD_STAGE_OPEN, errno, "%s", request->path);
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
    return imd_fail(&answer->err, IMD_STAGE_PATH_KIND, 0, "%s is neither a directory nor a regular file",
                    request->path);
  if (is_kernel_file_system((uint64_t)file_system.f_type))
    return imd_fail(&answer->err, IMD_STAGE_PATH_KIND, 0, "%s lies in a file system of the kernel's own",
                    request->path);
  answer->directory = S_ISDIR(st.st_mode);
  answer->uid = st.st_uid;
  answer->gid = st.st_gid;
  return 0;
}

/* Finding a path needs no right to read it. */
static int check_readable(int fd, int host_proc, const struct request *request, struct answer *answer)
{
  cleanup_fd int opened = -1;
  if (answer->directory) {
    opened = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  } else {
    char path[32];
    snprintf(path, sizeof path, "self/fd/%d", fd);
    opened = openat(host_proc, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  }
  return opened < 0 ? imd_fail(&answer->err, IMD_STAGE_OPEN, errno, "%s", request->path) : 0;
}

static int check_writable(int fd, uid_t owner, const struct request *request, struct answer *answer)
{
  if (answer->uid == 0)
    return imd_fail(&answer->err, IMD_STAGE_ROOT_OWNED, 0, "%s belongs to root", request->path);
  if (answer->uid != owner)
    return imd_fail(&answer->err, IMD_STAGE_OPEN, EACCES, "%s belongs to uid %u, and only what is uid %u's may be written",
                    request->path, answer->uid, owner);
  if (syscall(SYS_faccessat2, fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) < 0)
    return imd_fail(&answer->err, IMD_STAGE_OPEN, errno, "%s", request->path);
  return 0;
}

static int copy_mount(int fd, bool granted, const struct request *request, struct imd_error *err)
{
  if (!granted && set_capabilities(ADMIN, ADMIN) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", request->path);
  const int mount = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  const int error = errno;
  if (!granted && set_capabilities(ADMIN, 0) < 0)
    _exit(EXIT_FAILURE);
  return mount < 0 ? imd_fail(err, IMD_STAGE_MOUNT, error, "%s", request->path) : mount;
}

static int open_stored(const struct warden_config *config, const struct request *request, struct answer *answer)
{
  struct stored stored;
  if (storage_open(config, &request->stored, &stored, &answer->err) < 0)
    return -1;
  answer->directory = true;
  answer->uid = stored.uid;
  answer->gid = stored.gid;
  return stored.mount;
}

static int open_source(const struct warden_config *config, const struct run *run, const struct request *request,
                       struct answer *answer)
{
  if (request->stored.op != 0)
    return open_stored(config, request, answer);
  const bool granted = request->flags & IMD_BIND_GRANTED, write = request->flags & IMD_BIND_WRITE;
  cleanup_fd int fd = granted ? open_granted(config, request, &answer->err) : open_as_peer(request, &answer->err);
  if (fd < 0) {
    if (answer->err.error == ENOENT && (request->flags & IMD_BIND_OPTIONAL))
      answer->verdict = ABSENT;
    return -1;
  }
  if (check_kind(fd, request, answer) < 0)
    return -1;
  if (!granted && check_readable(fd, config->host_proc, request, answer) < 0)
    return -1;
  if (write && check_writable(fd, granted ? answer->uid : run->peer.uid, request, answer) < 0)
    return -1;
  return copy_mount(fd, granted, request, &answer->err);
}

static void answer_requests(const struct warden_config *config, const struct run *run, int socket, bool granted)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct request request; next_request(&cursor, &request);) {
    if (granted != !!(request.flags & IMD_BIND_GRANTED))
      continue;
    struct answer answer = {.step = request.step, .verdict = REFUSED, .err = IMD_ERROR_INIT};
    cleanup_fd int mount = open_source(config, run, &request, &answer);
    if (mount >= 0)
      answer.verdict = OPENED;
    answer.err.step = request.step;
    const struct iovec body = {&answer, sizeof answer};
    if (imd_send_packet(socket, 0, 0, &body, 1, &mount, mount >= 0, 0) < 0 || answer.verdict == REFUSED)
      _exit(EXIT_FAILURE);
  }
}

_Noreturn static void be_peer(const struct cell *cell, const struct run *run, int socket)
{
  const struct warden_config *config = cell->config;
  /* Nothing of the cell or the launcher may be reachable from here, nor kept alive by a path that never answers. */
  int keep[] = {config->host_mounts, config->host_proc, socket};
  imd_close_others(keep, sizeof keep / sizeof keep[0]);
  prctl(PR_SET_NAME, "immured-peer");
  if (setns(config->host_mounts, CLONE_NEWNS) < 0)
    _exit(EXIT_FAILURE);
  answer_requests(config, run, socket, true);
  if (become_peer(&run->peer) < 0)
    _exit(EXIT_FAILURE);
  answer_requests(config, run, socket, false);
  _exit(EXIT_SUCCESS);
}

/* --- in the warden ----------------------------------------------------------------------------------------------- */

static void add_group(char *map, size_t *used, gid_t outer, uint32_t inner)
{
  const int more = snprintf(map + *used, MAP_SIZE - *used, "%u %u 1\n", outer, inner);
  if (more > 0 && *used + (size_t)more < MAP_SIZE)
    *used += (size_t)more;
  else
    map[*used] = '\0';
}

static bool is_among(gid_t group, const gid_t *groups, uint32_t count)
{
  for (uint32_t i = 0; i < count; i++)
    if (groups[i] == group)
      return true;
  return false;
}

/* The caller's further groups, as on disk and as in the cell. */
static uint32_t map_groups(const struct cell *cell, const struct run *run, gid_t *outer, gid_t *within)
{
  uint32_t count = 0;
  for (uint32_t i = 0, inner = GROUP_BASE; i < run->peer.ngroups; i++) {
    const gid_t group = run->peer.groups[i];
    if (group == run->peer.gid || is_among(group, run->peer.groups, i))
      continue;
    if (inner == run->inner_gid)
      inner++;
    outer[count] = group;
    within[count++] = cell->config->slot_base + inner++;
  }
  return count;
}

uint32_t peer_groups(const struct cell *cell, const struct run *run, gid_t *within)
{
  gid_t outer[IMD_MAX_GROUPS];
  return map_groups(cell, run, outer, within);
}

static void describe_groups(char *map, const struct cell *cell, const struct run *run, gid_t first, bool all)
{
  gid_t outer[IMD_MAX_GROUPS], within[IMD_MAX_GROUPS];
  const uint32_t count = all ? map_groups(cell, run, outer, within) : 0;
  size_t used = 0;
  add_group(map, &used, first, run->gid);
  for (uint32_t i = 0; i < count; i++)
    add_group(map, &used, outer[i], within[i]);
}

static int write_maps(const struct cell *cell, pid_t pid, const char *uid_map, const char *gid_map)
{
  char path[32];
  snprintf(path, sizeof path, "%d/uid_map", (int)pid);
  if (imd_write_at(cell->config->host_proc, path, uid_map) < 0)
    return -1;
  snprintf(path, sizeof path, "%d/gid_map", (int)pid);
  if (imd_write_at(cell->config->host_proc, path, gid_map) < 0)
    return -1;
  snprintf(path, sizeof path, "%d/ns/user", (int)pid);
  return openat(cell->config->host_proc, path, O_RDONLY | O_CLOEXEC);
}

/* A user namespace that only says which id on disk is which inside: a process is needed to make one. */
static int make_idmap(const struct cell *cell, const struct run *run, const char *uid_map, const char *gid_map)
{
  cleanup_fd int pidfd = -1;
  struct clone_args args = {
      .flags = CLONE_NEWUSER | CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
  const pid_t pid = sys_clone3(&args);
  if (pid == 0) {
    cell_let_go(cell, run);
    for (;;)
      pause();
  }
  if (pid < 0)
    return -1;
  cleanup_fd int namespace = write_maps(cell, pid, uid_map, gid_map);
  const int error = errno;
  pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
    continue;
  errno = error;
  return imd_take_fd(&namespace);
}

static int find_idmap(struct idmaps *maps, const struct cell *cell, const struct run *run, uid_t uid, gid_t gid,
                      bool groups)
{
  for (uint32_t i = 0; i < maps->count; i++)
    if (maps->at[i].uid == uid && maps->at[i].gid == gid && maps->at[i].groups == groups)
      return maps->at[i].fd;
  if (maps->count == MAX_IDMAPS)
    imd_close(&maps->at[--maps->count].fd);
  char uid_map[64], gid_map[MAP_SIZE];
  snprintf(uid_map, sizeof uid_map, "%u %u 1", uid, run->uid);
  describe_groups(gid_map, cell, run, gid, groups);
  const int fd = make_idmap(cell, run, uid_map, gid_map);
  if (fd >= 0)
    maps->at[maps->count++] = (struct idmap){uid, gid, groups, fd};
  return fd;
}

static void idmaps_close(struct idmaps *maps)
{
  while (maps->count > 0)
    imd_close(&maps->at[--maps->count].fd);
}

static int set_attributes(int mount, uint64_t attributes, int idmap, bool recursive)
{
  struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
  if (idmap >= 0) {
    attr.attr_set |= MOUNT_ATTR_IDMAP;
    attr.userns_fd = (uint64_t)idmap;
  }
  return mount_setattr(mount, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof attr);
}

/* What a file system says that has no idmapped mounts, or a mount that is one already. */
static bool means_no_idmap(int error)
{
  return error == EINVAL || error == EPERM || error == EOPNOTSUPP;
}

/* Before anything else may see it: private (or what is mounted in it would appear on the host), and bounded. */
static int dress(int mount, const struct request *request, int idmap, struct imd_error *err)
{
  const bool write = request->flags & IMD_BIND_WRITE;
  const uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (write ? 0 : MOUNT_ATTR_RDONLY) |
                              (request->flags & IMD_BIND_NOEXEC ? MOUNT_ATTR_NOEXEC : 0);
  if (idmap >= 0) {
    if (set_attributes(mount, attributes, idmap, true) == 0)
      return 0;
    if (!means_no_idmap(errno))
      return imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", request->path);
    if (write || request->captured)
      return imd_fail(err, IMD_STAGE_IDMAP, errno, "%s, or a mount in it", request->path);
    /* One mount in it that cannot: the top one may. Without, owners inside are nobody, and less can be read. */
    if (set_attributes(mount, 0, idmap, false) < 0 && !means_no_idmap(errno))
      return imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", request->path);
  }
  return set_attributes(mount, attributes, -1, true) < 0
             ? imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", request->path)
             : 0;
}

static int dress_source(const struct cell *cell, const struct run *run, struct idmaps *maps, int mount,
                        const struct answer *answer, const struct request *request, struct imd_error *err)
{
  const bool granted = request->flags & IMD_BIND_GRANTED;
  const uid_t uid = granted ? answer->uid : run->peer.uid;
  const gid_t gid = granted ? answer->gid : run->peer.gid;
  /* An image's owners are the cell's, one by one. */
  if (request->stored.op == IMD_OP_IMAGE)
    return dress(mount, request, cell->user_ns, err);
  /* What root owns and the operator grants is read as anybody may read it. */
  if (granted && uid == 0)
    return dress(mount, request, -1, err);
  const int idmap = find_idmap(maps, cell, run, uid, gid, !granted);
  if (idmap < 0)
    return imd_fail(err, IMD_STAGE_IDMAP, errno, "%s", request->path);
  return dress(mount, request, idmap, err);
}

void sources_close(struct sources *sources)
{
  for (uint32_t i = 0; i < sources->count; i++)
    imd_close(&sources->at[i].mount);
  free(sources->at);
  *sources = (struct sources){NULL, 0};
}

static int start_peer(const struct cell *cell, const struct run *run, int *socket, int *pidfd, struct imd_error *err)
{
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return imd_fail(err, IMD_STAGE_OPEN, errno, "a socket");
  cleanup_fd int ours = pair[0];
  cleanup_fd int theirs = pair[1];
  /* Not in the cell: one that never returns would keep the cell's pid namespace from ending. */
  if (cell_enter_pids(cell, false) < 0)
    return imd_fail(err, IMD_STAGE_OPEN, errno, "the host's pid namespace");
  struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)pidfd, .exit_signal = SIGCHLD};
  const pid_t pid = sys_clone3(&args);
  if (pid == 0)
    be_peer(cell, run, theirs);
  const int error = errno;
  if (cell_enter_pids(cell, true) < 0)
    _exit(EXIT_FAILURE);
  if (pid < 0)
    return imd_fail(err, IMD_STAGE_OPEN, error, "a process to be the caller");
  *socket = imd_take_fd(&ours);
  return 0;
}

/* The step that the child is at: granted ones come first. */
static bool find_unanswered(const struct run *run, const struct sources *sources, struct request *found)
{
  for (int granted = 1; granted >= 0; granted--) {
    struct imd_plan_cursor cursor = {.plan = run->plan};
    while (next_request(&cursor, found)) {
      bool answered = granted != !!(found->flags & IMD_BIND_GRANTED);
      for (uint32_t i = 0; i < sources->count && !answered; i++)
        answered = sources->at[i].step == found->step;
      if (!answered)
        return true;
    }
  }
  return false;
}

static int wait_for_answer(const struct run *run, int socket, uint64_t deadline, const struct request *request,
                           struct imd_error *err)
{
  switch (run_wait(run, socket, deadline)) {
  case WAITED_READY: return 0;
  case WAITED_KILLED: return imd_fail(err, IMD_STAGE_KILLED, 0, "killed while %s was being opened", request->path);
  case WAITED_TOO_LONG: return imd_fail(err, IMD_STAGE_DEADLINE, ETIMEDOUT, "%s did not answer", request->path);
  default: return imd_fail(err, IMD_STAGE_OPEN, errno, "%s", request->path);
  }
}

static int take_answer(const struct cell *cell, const struct run *run, int socket, struct idmaps *maps,
                       struct sources *sources, const struct request *request, struct imd_error *err)
{
  _Alignas(8) char buffer[sizeof(struct imd_header) + sizeof(struct answer)];
  cleanup_fds struct imd_fds fds = {.count = 0};
  const ssize_t got = imd_recv_packet(socket, buffer, sizeof buffer, &fds, 0);
  if (got != (ssize_t)sizeof buffer)
    return imd_fail(err, IMD_STAGE_OPEN, got < 0 ? errno : 0, "%s: the process that opened it died", request->path);
  struct answer answer;
  memcpy(&answer, buffer + sizeof(struct imd_header), sizeof answer);
  /* The child ran with the caller's uid: what it says is taken for this step and for nothing else. */
  if (answer.step != request->step || (answer.verdict == OPENED) != (fds.count == 1))
    return imd_fail(err, IMD_STAGE_OPEN, 0, "%s: no answer to that", request->path);
  if (answer.verdict == REFUSED) {
    answer.err.text[sizeof answer.err.text - 1] = '\0';
    *err = answer.err;
    return -1;
  }
  if (answer.verdict == OPENED && dress_source(cell, run, maps, fds.fd[0], &answer, request, err) < 0)
    return -1;
  sources->at[sources->count++] = (struct source){
      request->step, answer.verdict == OPENED ? imd_take_fd(&fds.fd[0]) : -1, answer.directory};
  return 0;
}

static int collect_answers(const struct cell *cell, const struct run *run, int socket, struct sources *sources,
                           struct imd_error *err)
{
  __attribute__((cleanup(idmaps_close))) struct idmaps maps = {.count = 0};
  const uint64_t deadline = imd_now_ns() + (uint64_t)cell->config->open_timeout_ms * 1000000u;
  for (struct request request; find_unanswered(run, sources, &request);) {
    err->step = request.step;
    if (wait_for_answer(run, socket, deadline, &request, err) < 0 ||
        take_answer(cell, run, socket, &maps, sources, &request, err) < 0)
      return -1;
  }
  err->step = UINT32_MAX;
  return 0;
}

int peer_open_sources(const struct cell *cell, const struct run *run, struct sources *sources, struct imd_error *err)
{
  uint32_t count = 0;
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct request request; next_request(&cursor, &request); count++) {
    if ((request.flags & (IMD_BIND_WRITE | IMD_BIND_LAYER)) && !(request.flags & IMD_BIND_GRANTED) &&
        run->peer.uid == 0) {
      err->step = request.step;
      return imd_fail(err, IMD_STAGE_ROOT_OWNED, 0, "%s: the caller is root", request.path);
    }
  }
  *sources = (struct sources){NULL, 0};
  if (count == 0)
    return 0;
  sources->at = calloc(count, sizeof *sources->at);
  if (!sources->at)
    return imd_fail(err, IMD_STAGE_OPEN, ENOMEM, "the plan's paths");

  cleanup_fd int socket = -1;
  cleanup_fd int pidfd = -1;
  if (start_peer(cell, run, &socket, &pidfd, err) < 0)
    return -1;
  const int result = collect_answers(cell, run, socket, sources, err);
  /* One that is stuck in the kernel cannot be waited for; whoever inherits it reaps it. */
  pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
  waitid(P_PIDFD, (id_t)pidfd, NULL, WEXITED | WNOHANG);
  return result;
}
