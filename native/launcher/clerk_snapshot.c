#define _GNU_SOURCE
#include "clerk_snapshot.h"
#include "clerk.h"
#include "clerk_rights.h"
#include "kernel.h"
#include "places.h"
#include "storage.h"
#include "tree.h"
#include "util.h"
#include "vfs.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define fail(err, error, ...) imd_fail((err), IMD_STAGE_LAYER, (error), __VA_ARGS__)

struct answer { char data[IMD_MAX_PACKET]; size_t size; };

static void put(struct answer *answer, const void *data, size_t size)
{
  if (answer->size + size <= sizeof answer->data) {
    memcpy(answer->data + answer->size, data, size);
    answer->size += size;
  }
}

/* Reading what anybody has, and what overlayfs notes: the rest of root ends here. */
#define READS (CLERK_CAP(CAP_DAC_READ_SEARCH) | CLERK_CAP(CAP_SYS_ADMIN))
#define BECOMES (READS | CLERK_CAP(CAP_SYS_CHROOT) | CLERK_CAP(CAP_SETUID) | CLERK_CAP(CAP_SETGID))

static const uint32_t calls[] = {
    SYS_recvfrom, SYS_sendto, SYS_openat, SYS_openat2, SYS_newfstatat, SYS_fstat, SYS_statx, SYS_readlinkat, SYS_getdents64,
    SYS_lseek, SYS_sendfile, SYS_ftruncate, SYS_mkdirat, SYS_mknodat, SYS_linkat, SYS_symlinkat, SYS_unlinkat, SYS_fchmod,
    SYS_utimensat, SYS_fgetxattr, SYS_fsetxattr, SYS_flistxattr, SYS_geteuid, SYS_getegid, SYS_setfsuid,
    SYS_setfsgid, SYS_syncfs,
};

/* Whose the copy is: whatever is written, and wherever, he could have written. */
static int become_writer(const struct clerk *clerk, const struct stat *owner, int to)
{
  const uid_t uid = owner->st_uid;
  const gid_t gid = owner->st_gid;
  if (geteuid() != 0)
    return geteuid() == uid && getegid() == gid ? 0 : (errno = EPERM, -1);
  if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || prctl(PR_SET_KEEPCAPS, 1) < 0 ||
      setresuid(uid, uid, uid) < 0 || clerk_capabilities(READS, READS) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
    return -1;
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
    return -1;
  int keep[3 * IMD_MAX_PLACES + 3] = {clerk->socket, clerk->cell->view.root, to};
  size_t count = 3;
  for (uint32_t i = 0; i < clerk->cell->places.count; i++) {
    const struct place *place = &clerk->cell->places.at[i];
    const int fds[] = {place->root, place->lower, place->saved};
    memcpy(keep + count, fds, sizeof fds);
    count += 3;
  }
  imd_close_others(keep, count);
  return clerk_filter(calls, sizeof calls / sizeof calls[0]);
}

static int make_directory(int parent, const char *name)
{
  return mkdirat(parent, name, 0700) < 0 ? -1 : openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* What began with a snapshot is saved whole, as one tree or layer: what lies below it may be removed one day. */
static bool is_layer(const struct place *place)
{
  return place->kind == PLACE_LAYER && (place->source || strcmp(place->target, "/") == 0);
}

static int open_place(const struct clerk *clerk, const struct place *place)
{
  if (place->kind == PLACE_TMPFS || is_layer(place))
    return openat(place->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool directory;
  cleanup_fd int merged = vfs_find(clerk->cell->view.root, place->target, &directory);
  return merged < 0 ? -1 : openat(merged, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int save_place(const struct clerk *clerk, uint32_t number, int to, struct tree_copy *copy, struct answer *answer,
                      struct imd_error *err)
{
  const struct place *place = &clerk->cell->places.at[number];
  char name[16];
  snprintf(name, sizeof name, "%u", number);
  cleanup_fd int from = open_place(clerk, place);
  cleanup_fd int saved = from < 0 ? -1 : make_directory(to, name);
  if (saved < 0)
    return fail(err, errno, "%s", place->target);
  const uint64_t bytes = copy->bytes, files = copy->files;
  copy->layer = is_layer(place);
  if (tree_merge(from, copy->layer ? place->saved : -1, place->lower, saved, copy) < 0)
    return fail(err, errno, "%.100s, at %.100s", place->target, copy->where);
  /* What changed on the host since then is a conflict for whoever begins with this, too. */
  if (copy->layer && fsetxattr(saved, IMD_SNAPSHOT_MADE, &place->made_ns, sizeof place->made_ns, 0) < 0)
    return fail(err, errno, "%s", place->target);
  const struct imd_snapshot_place row = {copy->bytes - bytes, copy->files - files, copy->layer,
                                         (uint32_t)strlen(place->target)};
  put(answer, &row, sizeof row);
  put(answer, place->target, row.length);
  return 0;
}

static int save(const struct clerk *clerk, const struct imd_snapshot_ask *ask, const char *name, struct answer *answer,
                struct imd_error *err)
{
  /* A broker that was taken over names what is its own anyway. */
  cleanup_fd int to = storage_find(clerk->cell->config, "snapshots", name, err);
  struct stat st;
  if (to < 0)
    return -1;
  if (fstat(to, &st) < 0 || st.st_uid == 0 || st.st_gid == 0)
    return fail(err, EPERM, "%s is root's", name);
  if (become_writer(clerk, &st, to) < 0)
    return fail(err, errno, "to be uid %u", st.st_uid);
  struct tree_copy copy = {.uid = st.st_uid, .gid = st.st_gid, .max_bytes = ask->max_bytes,
                           .max_files = ask->max_files, .links = -1};
  cleanup_fd int links = make_directory(to, "links");
  if (links < 0)
    return fail(err, errno, "%s", name);
  copy.links = links;
  struct imd_snapshot_answer head = {.error = 0, .places = clerk->cell->places.count};
  put(answer, &head, sizeof head);
  for (uint32_t i = 0; i < clerk->cell->places.count; i++)
    if (save_place(clerk, i, to, &copy, answer, err) < 0)
      return -1;
  if (unlinkat(to, "links", AT_REMOVEDIR) < 0 || syncfs(to) < 0)
    return fail(err, errno, "%s", name);
  head.skipped = copy.skipped;
  memcpy(answer->data, &head, sizeof head);
  return 0;
}

_Noreturn void clerk_snapshot(const struct clerk *clerk)
{
  static _Alignas(8) char packet[IMD_MAX_PACKET + 1];
  static struct answer answer;
  struct imd_error err = IMD_ERROR_INIT;
  prctl(PR_SET_NAME, "immured-snapshot");
  umask(0);
  if (setns(clerk->cell->config->host_mounts, CLONE_NEWNS) < 0 || clerk_capabilities(BECOMES, BECOMES) < 0)
    _exit(EXIT_FAILURE);
  for (;;) {
    const ssize_t got = recv(clerk->socket, packet, sizeof packet - 1, 0);
    const struct imd_snapshot_ask *ask = (const void *)packet;
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= (ssize_t)sizeof *ask)
      _exit(EXIT_SUCCESS);
    packet[got] = '\0';
    answer.size = 0;
    if (save(clerk, ask, packet + sizeof *ask, &answer, &err) < 0) {
      const struct imd_snapshot_answer head = {.error = err.error ? err.error : EIO};
      answer.size = 0;
      put(&answer, &head, sizeof head);
      put(&answer, err.text, strnlen(err.text, sizeof err.text));
    }
    if (send(clerk->socket, answer.data, answer.size, MSG_NOSIGNAL) < 0)
      _exit(EXIT_FAILURE);
  }
}
