/*
 * What was written is thrown away. A layer must not be changed under overlayfs (Documentation/filesystems/overlayfs.rst):
 * so it is taken down, which the kernel refuses while anything is open there, and laid anew over what is left.
 */
#define _GNU_SOURCE
#include "clerk_changes.h"
#include "kernel.h"
#include "landlock.h"
#include "layer.h"
#include "util.h"
#include "vfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

enum { MAX_DEPTH = 4 * IMD_CHANGES_MAX_DEPTH };

/*
 * One directory after the other, from the deepest: a payload's tree may be deeper than we have descriptors. What is found
 * in a directory is moved to `top` when it is a directory itself, so that there are never more than two open.
 */
static int empty(int top, uint32_t *gone)
{
  for (uint64_t round = 0;; round++) {
    cleanup_fd int fd = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
      return -1;
    imd_take_fd(&fd);
    bool left = false;
    unsigned number = 0;
    int result = 0;
    for (const struct dirent *one; result == 0 && (one = readdir(directory)) != NULL;) {
      if (strcmp(one->d_name, ".") == 0 || strcmp(one->d_name, "..") == 0)
        continue;
      if (unlinkat(top, one->d_name, 0) == 0 || unlinkat(top, one->d_name, AT_REMOVEDIR) == 0) {
        ++*gone;
        continue;
      }
      if (errno != ENOTEMPTY && errno != EEXIST) {
        result = -1;
        break;
      }
      left = true;
      cleanup_fd int inner_fd = openat(top, one->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      DIR *inner = inner_fd < 0 ? NULL : fdopendir(inner_fd);
      if (!inner) {
        result = -1;
        break;
      }
      const int at = imd_take_fd(&inner_fd);
      for (const struct dirent *two; result == 0 && (two = readdir(inner)) != NULL;) {
        char name[64];
        if (strcmp(two->d_name, ".") == 0 || strcmp(two->d_name, "..") == 0)
          continue;
        if (unlinkat(at, two->d_name, 0) == 0 || unlinkat(at, two->d_name, AT_REMOVEDIR) == 0) {
          ++*gone;
          continue;
        }
        do {                       /* a payload may have taken the name: there are more numbers than inodes */
          snprintf(name, sizeof name, ".immured-%llx-%x", (unsigned long long)round, number++);
          result = renameat2(at, two->d_name, top, name, RENAME_NOREPLACE);
        } while (result < 0 && errno == EEXIST);
      }
      closedir(inner);
    }
    const int error = errno;
    closedir(directory);
    errno = error;
    if (result < 0 || !left)
      return result;
  }
}

static int remove_at(int directory, const char *name, uint32_t *gone)
{
  if (unlinkat(directory, name, 0) == 0 || unlinkat(directory, name, AT_REMOVEDIR) == 0) {
    ++*gone;
    return 0;
  }
  cleanup_fd int inner = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (inner < 0 || empty(inner, gone) < 0 || unlinkat(directory, name, AT_REMOVEDIR) < 0)
    return -1;
  ++*gone;
  return 0;
}

static int open_parent(const struct captured *captured, const char *path, const char **name)
{
  const char *slash = strrchr(path, '/');
  char parent[PATH_MAX];
  *name = slash ? slash + 1 : path;
  snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
  return sys_openat2(captured->upper, parent, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
                     RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

/* Where the layer hides a whole directory, what is missing in it has no entry of its own that could be taken away. */
static bool is_hidden(int directory)
{
  char opaque = '\0';
  return fgetxattr(directory, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y';
}

static int check_paths(const struct captured *captured, char *const *paths, size_t count, struct refusal *refusal)
{
  for (size_t i = 0; i < count; i++) {
    const char *name;
    struct stat st;
    cleanup_fd int parent = paths[i][0] ? open_parent(captured, paths[i], &name) : -1;
    if (parent >= 0 && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
      continue;
    if (parent >= 0 && is_hidden(parent))
      return changes_refuse(refusal, IMD_CHANGES_INCOMPLETE, 0, "%s lies in a directory that was made anew", paths[i]);
    return changes_refuse(refusal, IMD_CHANGES_NO_PLACE, 0, "no change of %s", paths[i]);
  }
  return 0;
}

/* Off, if it is on: a discard that failed half way left it off. */
static int take_down(int root, const struct place *place, struct refusal *refusal)
{
  const char *slash = strrchr(place->target, '/');
  char above[PATH_MAX];
  bool directory;
  snprintf(above, sizeof above, "%.*s", slash == place->target ? 1 : (int)(slash - place->target), place->target);
  cleanup_fd int parent = vfs_find(root, above, &directory);
  struct statfs about;
  cleanup_fd int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0 || here < 0 || fchdir(parent) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, errno, "%s", above);
  int result = statfs(slash + 1, &about);
  /* By its name in a directory that is open: a descriptor of its own would keep it from going. */
  if (result == 0 && about.f_type == OVERLAYFS_SUPER_MAGIC)
    result = umount2(slash + 1, UMOUNT_NOFOLLOW);
  const int error = errno;
  if (fchdir(here) < 0)
    _exit(EXIT_FAILURE);
  if (result == 0)
    return 0;
  return changes_refuse(refusal, error == EBUSY ? IMD_CHANGES_BUSY : IMD_CHANGES_FAILED, error, "%s", place->target);
}

int changes_discard(struct captured *captured, char *const *paths, size_t count, uint32_t *gone, struct refusal *refusal)
{
  const struct place *place = captured->place;
  struct imd_error err = IMD_ERROR_INIT;
  cleanup_fd int layer = -1;
  if (check_paths(captured, paths, count, refusal) < 0)
    return -1;
  /* The keeper ends a sandbox that loses a mount, unless it was told (keeper_clerks.c). */
  pid_t nobody = 0;
  if (!atomic_compare_exchange_strong(captured->clerk->cell->places.relaying, &nobody, getpid()))
    return changes_refuse(refusal, IMD_CHANGES_BUSY, 0, "%s", place->target);
  if (take_down(captured->clerk->cell->view.root, place, refusal) < 0)
    return -1;
  int result = 0, error = 0;
  if (count == 0)
    result = empty(captured->upper, gone);
  for (size_t i = 0; i < count && result == 0; i++) {
    const char *name;
    cleanup_fd int parent = open_parent(captured, paths[i], &name);
    result = parent < 0 ? -1 : remove_at(parent, name, gone);
  }
  if (result < 0)
    error = errno;
  if (layer_lay_again(place, &layer, &err) < 0 ||
      landlock_allow(captured->clerk->cell->landlock, layer, true, place->target, &err) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, err.error, "%s", err.text);
  return result < 0 ? changes_refuse(refusal, IMD_CHANGES_FAILED, error, "what was written to %s", place->target) : 0;
}
