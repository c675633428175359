/* A name goes, and with RECURSIVE all that is below it; no link is followed, no mount crossed. */
#define _GNU_SOURCE
#include "clerk_files.h"
#include "kernel.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

enum { LEVELS = 128, LISTING = 8 << 10 };
#define SLICE_NS 400000000u        /* per question: then the broker asks again */

struct linux_dirent64 {
  uint64_t ino;
  int64_t off;
  unsigned short reclen;
  unsigned char type;
  char name[];
};

struct level { int fd; char name[256]; };   /* `name`: of it, in the level above */

struct removal {
  struct level levels[LEVELS];
  int depth;
  uint64_t deadline, lifted;
};

static void removal_close(struct removal *removal)
{
  while (removal->depth > 0)
    close(removal->levels[--removal->depth].fd);
}

static int descend(struct removal *removal, int dir, const char *name, struct imd_error *err)
{
  static const uint64_t flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  int fd = sys_openat2(dir, name, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
  if (fd < 0 && errno == EACCES && files_chmod_at(dir, name, 0700) == 0)
    fd = sys_openat2(dir, name, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
  if (fd < 0 && errno == EXDEV)
    return imd_fail(err, IMD_FILES_MOUNTED, 0, "%s: another place is mounted there", name);
  if (fd < 0)
    return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : files_fail(err, IMD_FILES_FAILED, "%s", name);
  struct level *level = &removal->levels[removal->depth++];
  level->fd = fd;
  snprintf(level->name, sizeof level->name, "%s", name);
  return 0;
}

/*
 * Deeper than we hold open: what is there is lifted to the top, and gone through from there. No tree is too deep so, nor
 * any path too long.
 */
static int lift(struct removal *removal, int dir, const char *name, struct imd_error *err)
{
  char lifted[64];
  for (int attempt = 0; attempt < 1000; attempt++) {
    snprintf(lifted, sizeof lifted, ".immured-lifted-%llu", (unsigned long long)removal->lifted++);
    if (renameat2(dir, name, removal->levels[0].fd, lifted, RENAME_NOREPLACE) == 0 || errno == ENOENT)
      return 0;
    if (errno != EEXIST)
      break;
  }
  return files_fail(err, IMD_FILES_FAILED, "%s", name);
}

static int take_out(struct removal *removal, int dir, const char *name, struct imd_error *err)
{
  if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
    return 0;
  const int error = errno;
  struct stat st;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
    return errno == ENOENT ? 0 : files_fail(err, IMD_FILES_FAILED, "%s", name);
  if (!S_ISDIR(st.st_mode))
    return imd_fail(err, error == EBUSY ? IMD_FILES_MOUNTED : IMD_FILES_FAILED, error, "%s", name);
  if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
    return 0;
  if (errno == EBUSY)
    return imd_fail(err, IMD_FILES_MOUNTED, 0, "%s: another place is mounted there", name);
  if (errno != ENOTEMPTY && errno != EEXIST && errno != EACCES)
    return files_fail(err, IMD_FILES_FAILED, "%s", name);
  return removal->depth < LEVELS ? descend(removal, dir, name, err) : lift(removal, dir, name, err);
}

/* Goes through the deepest level once. 1: it is empty; 0: look again; -1. */
static int sweep(struct removal *removal, char *entries, struct imd_error *err)
{
  const int depth = removal->depth, dir = removal->levels[depth - 1].fd;
  bool empty = true;
  if (lseek(dir, 0, SEEK_SET) < 0)
    return files_fail(err, IMD_FILES_FAILED, "a directory");
  for (;;) {
    const long got = syscall(SYS_getdents64, dir, entries, LISTING);
    if (got < 0)
      return errno == ENOENT ? 1 : files_fail(err, IMD_FILES_FAILED, "a directory");
    if (got == 0)
      return empty;
    for (long at = 0; at < got;) {
      const struct linux_dirent64 *entry = (const void *)(entries + at);
      at += entry->reclen;
      if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
        continue;
      empty = false;
      if (take_out(removal, dir, entry->name, err) < 0)
        return -1;
      if (removal->depth > depth || imd_now_ns() > removal->deadline)
        return 0;
    }
  }
}

static int remove_below(struct removal *removal, struct imd_error *err)
{
  cleanup_free char *entries = malloc(LISTING);
  if (!entries)
    return files_fail(err, IMD_FILES_FAILED, "memory");
  while (removal->depth > 0 && imd_now_ns() <= removal->deadline) {
    const int empty = sweep(removal, entries, err);
    if (empty < 0)
      return -1;
    if (!empty)
      continue;
    /* Its name goes where the level above is swept next. */
    const struct level *level = &removal->levels[--removal->depth];
    const char *name = level->name;
    close(level->fd);
    if (removal->depth > 0 && unlinkat(removal->levels[removal->depth - 1].fd, name, AT_REMOVEDIR) < 0 &&
        errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
      return imd_fail(err, errno == EBUSY ? IMD_FILES_MOUNTED : IMD_FILES_FAILED, errno, "%s", name);
  }
  return 0;
}

int files_remove(struct files *files, const struct files_question *question, struct files_reply *reply,
                 struct imd_error *err)
{
  cleanup_place struct files_place place = FILES_PLACE_NONE;
  struct stat st;
  if (files_find_place(files, question->path, false, &place, err) < 0)
    return -1;
  if (fstatat(place.dir, place.name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", question->path);
  if (place.directory && !S_ISDIR(st.st_mode))
    return imd_fail(err, IMD_FILES_KIND, 0, "%s is no directory", question->path);
  int result = unlinkat(place.dir, place.name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
  const bool full = result < 0 && (errno == ENOTEMPTY || errno == EEXIST);
  if (result == 0)
    return 0;
  if (!full || !(question->ask->flags & IMD_FILES_RECURSIVE))
    return imd_fail(err, errno == EBUSY ? IMD_FILES_MOUNTED : full ? IMD_FILES_EXISTS : IMD_FILES_FAILED, errno, "%s",
                    question->path);
  struct removal *removal = calloc(1, sizeof *removal);
  if (!removal)
    return files_fail(err, IMD_FILES_FAILED, "memory");
  removal->deadline = imd_now_ns() + SLICE_NS;
  result = descend(removal, place.dir, place.name, err);
  if (result == 0)
    result = remove_below(removal, err);
  removal_close(removal);
  free(removal);
  if (result < 0)
    return -1;
  if (unlinkat(place.dir, place.name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
    if (errno != ENOTEMPTY && errno != EEXIST)
      return imd_fail(err, errno == EBUSY ? IMD_FILES_MOUNTED : IMD_FILES_FAILED, errno, "%s", question->path);
    reply->answer.flags |= IMD_FILES_MORE;
  }
  return 0;
}
