#define _GNU_SOURCE
#include "protect.h"
#include "guard.h"
#include "kernel.h"
#include "message.h"
#include "util.h"
#include "vfs.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

/* How a placeholder is known, also to the run that finds one which a killed daemon left: empty, this mode, this time. */
enum { HELD_MODE = S_ISVTX | 0444, MOST_HELD = 64 };
enum { ATTEMPTS = 500, PAUSE_NS = 2000000 };

#define target_fail(err, ...) imd_fail((err), IMD_STAGE_TARGET, errno, __VA_ARGS__)

int held_open(struct held *held, struct imd_error *err)
{
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "a socket");
  *held = (struct held){.in = pair[0], .out = pair[1]};
  return 0;
}

int protect_pin(const struct view *view, const char *path, struct imd_error *err)
{
  char above[PATH_MAX];
  bool inside = false;
  for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
    bool directory;
    cleanup_fd int place = vfs_find(view->root, above, &directory);
    struct statx about;
    struct statvfs mounted;
    if (place < 0 || !directory)
      return 0;                    /* nor is what lies below it there */
    if (statx(place, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &about) < 0 || fstatvfs(place, &mounted) < 0)
      return imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", above);
    if (about.stx_attributes & STATX_ATTR_MOUNT_ROOT) {
      inside = true;
    } else if (inside && !(mounted.f_flag & ST_RDONLY)) {
      cleanup_fd int mount = vfs_clone(place, 0);
      if (mount < 0 || vfs_attach(mount, place) < 0)
        return imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", above);
    }
  }
  return 0;
}

static bool is_placeholder(const struct stat *st)
{
  return S_ISREG(st->st_mode) && st->st_size == 0 && (st->st_mode & 07777) == HELD_MODE && st->st_mtim.tv_sec == 0 &&
         st->st_mtim.tv_nsec == 0;
}

/* A lock of the description's own: a payload, which cannot open the file to write, can share it and no more. */
static int lock(int fd, short type)
{
  struct flock whole = {.l_type = type, .l_whence = SEEK_SET};
  return fcntl(fd, F_OFD_SETLK, &whole);
}

static int reopen(const struct cell *cell, int place, int flags)
{
  char name[32];
  snprintf(name, sizeof name, "self/fd/%d", place);
  return openat(cell->config->host_proc, name, flags | O_CLOEXEC);
}

static bool is_own(const struct run *run, int directory)
{
  struct stat st;
  return fstat(directory, &st) == 0 && st.st_uid == run->uid;
}

/*
 * Into `directory`, which is a caller's, complete at once: whoever sees it sees what it is, and that somebody holds it.
 * 0: it is there now, by us or by another. 1: nothing can be made there, by a payload neither.
 */
static int put_placeholder(const struct cell *cell, const struct run *run, int directory, const char *name)
{
  const struct timespec never[2] = {{.tv_sec = 0}, {.tv_sec = 0}};
  char path[32];
  setfsgid(run->gid);
  setfsuid(run->uid);
  cleanup_fd int file = openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  int result = file < 0 || fchmod(file, HELD_MODE) < 0 || futimens(file, never) < 0 || lock(file, F_RDLCK) < 0 ? -1 : 0;
  if (result == 0) {
    snprintf(path, sizeof path, "self/fd/%d", file);
    result = linkat(cell->config->host_proc, path, directory, name, AT_SYMLINK_FOLLOW);
  }
  const int error = errno;
  setfsuid(0);
  setfsgid(0);
  if (result < 0 && error == EEXIST)
    return 0;
  /* An own directory without the right to write is given it by whoever owns it. */
  if (result < 0 && (error == EROFS || ((error == EACCES || error == EPERM) && !is_own(run, directory))))
    return 1;
  errno = error;
  return result;
}

/*
 * What waits in a socket counts for the real id of who sent it, and beyond its own bound on open files no process of that id
 * passes a descriptor any more but with capabilities (ETOOMANYREFS). Of root's id are others on the host: so it is nobody's.
 */
static int put_in(const struct run *run, const struct held *held, int file)
{
  if (setresuid(run->uid ^ 1, (uid_t)-1, (uid_t)-1) < 0)
    return -1;
  const int result = imd_send_packet(held->in, 0, 0, NULL, 0, &file, 1, MSG_DONTWAIT);
  const int error = errno;
  if (setresuid(0, (uid_t)-1, (uid_t)-1) < 0)
    _exit(EXIT_FAILURE);
  errno = error;
  return result;
}

/* 0: held. 1: it went meanwhile, or somebody is about to remove it: look again. */
static int hold(const struct cell *cell, const struct run *run, int place, struct held *held)
{
  struct stat st;
  cleanup_fd int file = reopen(cell, place, O_RDWR);
  if (file < 0)
    return -1;
  if (lock(file, F_RDLCK) < 0)
    return errno == EAGAIN || errno == EACCES ? 1 : -1;
  if (fstat(file, &st) < 0)
    return -1;
  if (st.st_nlink == 0)
    return 1;
  if (held->count == MOST_HELD) {
    errno = ENOSPC;
    return -1;
  }
  if (put_in(run, held, file) < 0)
    return -1;
  held->count++;
  imd_take_fd(&file);              /* not to be closed */
  return 0;
}

/* What a path leads to so far, the longest beginning of it that is there. */
struct found {
  int place;                       /* what stands there; -1: nothing does, and `above` does not hold `name` */
  int above;
  char name[NAME_MAX + 1];
  struct stat st;                  /* of `place` */
  bool whole;                      /* it is the path itself, not a beginning */
};

static void found_close(struct found *found)
{
  imd_close(&found->place);
  imd_close(&found->above);
}

static int walk(const struct view *view, const char *path, struct found *found)
{
  *found = (struct found){.place = vfs_open_beneath(view->root, "."), .above = -1};
  if (found->place < 0 || fstat(found->place, &found->st) < 0)
    return -1;
  for (const char *at = path + 1; S_ISDIR(found->st.st_mode);) {
    const size_t size = strcspn(at, "/");
    if (size > NAME_MAX) {
      errno = ENAMETOOLONG;
      return -1;
    }
    memcpy(found->name, at, size);
    found->name[size] = '\0';
    imd_close(&found->above);
    found->above = imd_take_fd(&found->place);
    found->place = vfs_open_beneath(found->above, found->name);
    found->whole = at[size] == '\0';
    if (found->place < 0)
      return errno == ENOENT ? 0 : -1;
    if (fstat(found->place, &found->st) < 0)
      return -1;
    if (found->whole)
      return 0;
    at += size + 1;
  }
  return 0;
}

static int cover(const char *path, int place, struct imd_error *err)
{
  cleanup_fd int mount = vfs_clone(place, MOUNT_ATTR_RDONLY);
  return mount < 0 || vfs_attach(mount, place) < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", path) : 0;
}

static bool is_mount(int place)
{
  struct statx about;
  return statx(place, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &about) == 0 &&
         (about.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

/* What is there becomes read-only. 0: so it is. 1: look again. */
static int keep(const struct cell *cell, const struct run *run, const char *path, const struct found *found,
                struct held *held, struct imd_error *err)
{
  struct statvfs mounted;
  if (fstatvfs(found->place, &mounted) < 0)
    return target_fail(err, "%s", path);
  if (mounted.f_flag & ST_RDONLY)
    return 0;
  /* Nothing can come to be below a file. One that the manifest lets be written stays writable. */
  if (!found->whole && is_mount(found->place))
    return 0;
  /* Also of what looks like a placeholder: an earlier run, which could write here, can have made it and linked to it. */
  if (S_ISREG(found->st.st_mode) && found->st.st_nlink > 1) {
    errno = EMLINK;
    return target_fail(err, "%s has other names, by which it could be written", path);
  }
  if (is_placeholder(&found->st) && !view_owns(&cell->view, found->place)) {
    const int result = hold(cell, run, found->place, held);
    if (result != 0)
      return result < 0 ? target_fail(err, "%s, which is held for runs", path) : 1;
  }
  return cover(path, found->place, err);
}

/* What is not there is put there. 0: it cannot come to be. 1: look again. */
static int make(const struct cell *cell, const struct run *run, const char *path, const struct found *found,
                struct imd_error *err)
{
  if (view_owns(&cell->view, found->above)) {
    struct statvfs mounted;
    if (fstatvfs(found->above, &mounted) == 0 && (mounted.f_flag & ST_RDONLY))
      return 0;
    return vfs_make_place(found->above, found->name, false) < 0 && errno != EEXIST ? target_fail(err, "%s", path) : 1;
  }
  const int result = put_placeholder(cell, run, found->above, found->name);
  if (result < 0)
    return target_fail(err, "%s cannot be held: %s", path, found->name);
  return result == 0;
}

int protect_place(const struct cell *cell, const struct run *run, const char *path, uint64_t absent, struct held *held,
                  struct imd_error *err)
{
  if (protect_pin(&cell->view, path, err) < 0)
    return -1;
  for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
    __attribute__((cleanup(found_close))) struct found found;
    if (walk(&cell->view, path, &found) < 0)
      return target_fail(err, "%s", path);
    if ((found.place < 0 || !found.whole) && absent != IMD_ABSENT_HELD) {
      errno = found.place < 0 ? ENOENT : ENOTDIR;
      return absent == IMD_ABSENT_PASSED ? 0 : target_fail(err, "%s", path);
    }
    const int result =
        found.place >= 0 ? keep(cell, run, path, &found, held, err) : make(cell, run, path, &found, err);
    /* Also where it needs no cover: it stands in a mount that nobody may write to, or is one. */
    if (result == 0)
      covers_note(found.place >= 0 ? found.place : found.above);
    if (result <= 0)
      return result;
    if (attempt > 0)
      nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
  }
  errno = EBUSY;
  return target_fail(err, "%s is being changed all the time", path);
}

/* --- at the end -------------------------------------------------------------------------------------------------- */

/* Where the file stands: its directory, which somebody may have moved, and its name there. */
static int find_directory(const struct cell *cell, int file, char *path, size_t size, const char **name)
{
  char link[32];
  snprintf(link, sizeof link, "self/fd/%d", file);
  const ssize_t length = readlinkat(cell->config->host_proc, link, path, size - 1);
  if (length <= 0)
    return -1;
  path[length] = '\0';
  char *slash = strrchr(path, '/');
  if (!slash)
    return -1;
  *slash = '\0';
  *name = slash + 1;
  return sys_openat2(cell->view.root, *path ? path : "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0,
                     RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
}

static bool is_file(int directory, const char *name, const struct stat *file)
{
  struct stat now;
  return fstatat(directory, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == file->st_dev &&
         now.st_ino == file->st_ino && is_placeholder(&now);
}

/*
 * Whoever renames another file over it may do so between a look and the removal: so what stands there is first moved
 * aside, whatever it is, and goes back where it is not ours.
 */
static int remove_file(int directory, const char *name, const struct stat *file)
{
  char aside[64];
  snprintf(aside, sizeof aside, ".immured-%d-%llu", (int)getpid(), (unsigned long long)file->st_ino);
  if (renameat2(directory, name, directory, aside, RENAME_NOREPLACE) < 0)
    return errno == ENOENT ? 0 : -1;
  if (is_file(directory, aside, file))
    return unlinkat(directory, aside, 0);
  return renameat2(directory, aside, directory, name, RENAME_NOREPLACE);
}

static void remove_one(const struct run *run, int directory, int file, const char *name)
{
  struct stat held;
  /*
   * First ours goes, then we ask for all of it: of several that leave at once, whoever lets go last finds nobody else.
   * By name, since copies of the descriptor may live on for a moment in children.
   */
  if (lock(file, F_UNLCK) < 0 || lock(file, F_WRLCK) < 0)
    return;
  if (fstat(file, &held) == 0 && held.st_nlink > 0 && is_file(directory, name, &held)) {
    setfsgid(run->gid);
    setfsuid(run->uid);
    if (remove_file(directory, name, &held) < 0)
      imd_log("a placeholder stays behind: %s", strerror(errno));
    setfsuid(0);
    setfsgid(0);
  }
  lock(file, F_UNLCK);
}

struct release {
  const struct cell *cell;
  const struct run *run;
  const struct held *held;
};

/* The next of them; -1: that was the last. */
static int take_out(const struct held *held)
{
  struct imd_header header;
  struct imd_fds fds;
  return imd_recv_packet(held->out, &header, sizeof header, &fds, MSG_DONTWAIT) > 0 && fds.count == 1 ? fds.fd[0] : -1;
}

/* In the host's mount namespace: in the cell's they are mount points, which cannot be removed. */
static int release(void *argument, struct findings *findings, struct imd_error *err)
{
  (void)findings;
  const struct release *work = argument;
  char paths[MOST_HELD][PATH_MAX];
  const char *names[MOST_HELD];
  int files[MOST_HELD], directories[MOST_HELD];
  uint32_t count = 0;
  for (; count < MOST_HELD && (files[count] = take_out(work->held)) >= 0; count++)
    directories[count] = find_directory(work->cell, files[count], paths[count], sizeof paths[count], &names[count]);
  if (setns(work->cell->config->host_mounts, CLONE_NEWNS) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the host's mount namespace");
  for (uint32_t i = 0; i < count; i++)
    if (directories[i] >= 0)
      remove_one(work->run, directories[i], files[i], names[i]);
  return 0;
}

void protect_release(const struct cell *cell, const struct run *run, const struct held *held)
{
  struct pollfd any = {.fd = held->out, .events = POLLIN};
  if (poll(&any, 1, 0) <= 0)
    return;
  /* Nothing that the launcher has to say to a run that is over keeps this from being done. */
  struct run over = *run;
  over.over = true;
  struct release work = {cell, run, held};
  struct imd_error err = IMD_ERROR_INIT;
  if (guarded_call(cell, &over, release, &work, NULL, &err) < 0)
    imd_log("placeholders stay behind: %s", err.text);
}
