#define _GNU_SOURCE
#include "clerk_files.h"
#include "kernel.h"
#include "util.h"

#include <fcntl.h>
#include <string.h>
#include <sys/vfs.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452          /* 6.6 */
#endif
#ifndef BTRFS_SUPER_MAGIC
#define BTRFS_SUPER_MAGIC 0x9123683E
#endif
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

enum { ATTEMPTS = 100 };
#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)

void files_place_close(struct files_place *place)
{
  imd_close(&place->dir);
}

/* `..` is refused, not followed as far as it goes: nobody who means a file in the sandbox needs it. */
static bool leads_up(const char *path)
{
  for (const char *at = path; *at != '\0';) {
    at += strspn(at, "/");
    const size_t size = strcspn(at, "/");
    if (size == 2 && at[0] == '.' && at[1] == '.')
      return true;
    at += size;
  }
  return false;
}

int files_open(const struct files *files, const char *path, uint64_t flags, struct imd_error *err)
{
  if (path[0] != '/')
    return imd_fail(err, IMD_FILES_NAME, 0, "%s is no absolute path", path);
  if (leads_up(path))
    return imd_fail(err, IMD_FILES_OUTSIDE, 0, "%s leads through `..`", path);
  const char *within = path + strspn(path, "/");
  if (*within == '\0')
    within = ".";
  /* EAGAIN: a rename somewhere, of which the kernel cannot tell whether a `..` in a link led out because of it. */
  for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
    const int fd = sys_openat2(files->root, within, flags | O_CLOEXEC, 0, BENEATH);
    if (fd >= 0)
      return fd;
    if (errno != EAGAIN && errno != EINTR)
      break;
  }
  switch (errno) {
  case EXDEV: return imd_fail(err, IMD_FILES_OUTSIDE, 0, "%s: a link on the way is absolute, or leads above the root", path);
  case ELOOP: return imd_fail(err, IMD_FILES_LINK, 0, "%s: a link that is not followed", path);
  case EAGAIN: return imd_fail(err, IMD_FILES_RACED, 0, "%s: directories are moved all the time", path);
  default: return files_fail(err, IMD_FILES_FAILED, "%s", path);
  }
}

int files_look(const struct files *files, int fd, const char *path, struct stat *st, struct imd_error *err)
{
  if (fstat(fd, st) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", path);
  for (size_t i = 0; i < 3; i++)
    if (files->kernel[i] != 0 && files->kernel[i] == st->st_dev)
      return imd_fail(err, IMD_FILES_KERNEL, 0, "%s is on a file system of the kernel's own", path);
  return 0;
}

int files_make_parents(const struct files *files, const char *path, struct imd_error *err)
{
  char prefix[IMD_FILES_MAX_PATH + 1];
  const size_t length = strlen(path);
  if (leads_up(path))
    return imd_fail(err, IMD_FILES_OUTSIDE, 0, "%s leads through `..`", path);
  for (size_t at = 0; at < length;) {
    at += strspn(path + at, "/");
    const size_t name = at;
    at += strcspn(path + at, "/");
    if (at == name)
      break;
    memcpy(prefix, path, at);
    prefix[at] = '\0';
    cleanup_fd int there = files_open(files, prefix, O_PATH | O_DIRECTORY, err);
    if (there >= 0)
      continue;
    if (err->stage != IMD_FILES_FAILED || err->error != ENOENT)
      return -1;
    *err = (struct imd_error)IMD_ERROR_INIT;
    cleanup_place struct files_place place = FILES_PLACE_NONE;
    if (files_find_place(files, prefix, false, &place, err) < 0)
      return -1;
    /* Who runs in the sandbox may have been faster. */
    if (mkdirat(place.dir, place.name, 0755) < 0 && errno != EEXIST)
      return files_fail(err, IMD_FILES_FAILED, "%s", prefix);
  }
  return 0;
}

int files_find_place(const struct files *files, const char *path, bool parents, struct files_place *place,
                     struct imd_error *err)
{
  char above[IMD_FILES_MAX_PATH + 2];
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/')
    end--;
  place->directory = path[end] == '/';
  size_t start = end;
  while (start > 0 && path[start - 1] != '/')
    start--;
  const size_t size = end - start;
  if (path[0] != '/')
    return imd_fail(err, IMD_FILES_NAME, 0, "%s is no absolute path", path);
  if (size == 0 || (size == 1 && path[start] == '.'))
    return imd_fail(err, IMD_FILES_NAME, 0, "%s names a directory by itself, not by its name", path);
  if (size == 2 && path[start] == '.' && path[start + 1] == '.')
    return imd_fail(err, IMD_FILES_OUTSIDE, 0, "%s leads through `..`", path);
  if (size >= sizeof place->name)
    return imd_fail(err, IMD_FILES_FAILED, ENAMETOOLONG, "%s", path);
  memcpy(place->name, path + start, size);
  place->name[size] = '\0';
  memcpy(above, path, start);
  above[start] = '\0';
  if (parents && files_make_parents(files, above, err) < 0)
    return -1;
  place->dir = files_open(files, above, O_PATH | O_DIRECTORY, err);
  struct stat st;
  return place->dir < 0 ? -1 : files_look(files, place->dir, above, &st, err);
}

uint32_t files_where(int fd)
{
  struct statfs found;
  if (fstatfs(fd, &found) < 0)
    return 0;
  switch ((uint32_t)found.f_type) {
  case TMPFS_MAGIC: return IMD_FILES_LOCAL | IMD_FILES_MEMORY;
  case EXT4_SUPER_MAGIC:
  case XFS_SUPER_MAGIC:
  case BTRFS_SUPER_MAGIC: return IMD_FILES_LOCAL;
  /* Not an overlay: what lies below it may be anything. */
  default: return 0;
  }
}

int files_chmod_at(int dir, const char *name, uint32_t mode)
{
  if (syscall(SYS_fchmodat2, dir, name, (mode_t)mode, AT_SYMLINK_NOFOLLOW) == 0)
    return 0;
  /* A filter or a kernel before 6.6: through a descriptor, which needs that it can be read or written. */
  if (errno != ENOSYS && errno != EPERM)
    return -1;
  const int saved = errno;
  struct stat st;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return -1;
  if (saved == EPERM || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))) {
    errno = saved == EPERM ? EPERM : EOPNOTSUPP;
    return -1;
  }
  const int flags = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  cleanup_fd int fd = openat(dir, name, O_RDONLY | flags);
  if (fd < 0 && errno == EACCES)
    fd = openat(dir, name, O_WRONLY | flags);
  return fd < 0 ? -1 : fchmod(fd, (mode_t)mode);
}
