#define _GNU_SOURCE
#include "vfs.h"
#include "covers.h"
#include "kernel.h"
#include "util.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int vfs_set_number(int context, const char *key, uint64_t number)
{
  char text[32];
  snprintf(text, sizeof text, "%" PRIu64, number);
  return fsconfig(context, FSCONFIG_SET_STRING, key, text, 0);
}

int vfs_set_mode(int context, const char *key, uint32_t mode)
{
  char text[32];
  snprintf(text, sizeof text, "%" PRIo32, mode);
  return fsconfig(context, FSCONFIG_SET_STRING, key, text, 0);
}

int vfs_finish(int context, uint64_t attributes)
{
  if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
    return -1;
  return fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
}

int vfs_tmpfs(uint64_t size, uint64_t inodes, uint32_t mode, uid_t uid, gid_t gid, uint64_t attributes)
{
  cleanup_fd int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
  if (context < 0 || vfs_set_number(context, "size", size) < 0 ||
      vfs_set_number(context, "nr_inodes", inodes) < 0 || vfs_set_mode(context, "mode", mode) < 0 ||
      (uid != 0 && vfs_set_number(context, "uid", uid) < 0) ||
      (gid != 0 && vfs_set_number(context, "gid", gid) < 0))
    return -1;
  return vfs_finish(context, attributes);
}

int vfs_refit_tmpfs(int root, uint64_t size, uint64_t inodes, uint32_t mode, uid_t uid, gid_t gid)
{
  cleanup_fd int context = fspick(root, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
  if (context < 0 || vfs_set_number(context, "size", size) < 0 || vfs_set_number(context, "nr_inodes", inodes) < 0 ||
      fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
    return -1;
  cleanup_fd int directory = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return directory < 0 || fchown(directory, uid, gid) < 0 ? -1 : fchmod(directory, mode);
}

int vfs_stack(int mount, int below)
{
  return move_mount(mount, "", below, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

int vfs_attach(int mount, int target)
{
  if (vfs_stack(mount, target) < 0)
    return -1;
  covers_note(mount);
  return 0;
}

int vfs_attach_at(int mount, int dir, const char *name)
{
  cleanup_fd int place = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return place < 0 ? -1 : vfs_attach(mount, place);
}

int vfs_clone(int fd, uint64_t attributes)
{
  cleanup_fd int mount =
      open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (mount < 0)
    return -1;
  struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
  if (mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0)
    return -1;
  return imd_take_fd(&mount);
}

int vfs_open_beneath(int dir, const char *path)
{
  return sys_openat2(dir, path, O_PATH | O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
}

int vfs_find(int root, const char *path, bool *directory)
{
  cleanup_fd int fd =
      sys_openat2(root, path, O_PATH | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0)
    return -1;
  *directory = S_ISDIR(st.st_mode);
  return imd_take_fd(&fd);
}

int vfs_make_place(int dir, const char *name, bool directory)
{
  if (directory)
    return mkdirat(dir, name, 0755);
  cleanup_fd int file = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
  return file < 0 ? -1 : 0;
}

int vfs_write_file(int dir, const char *path, const char *text)
{
  cleanup_fd int file = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
  return file < 0 ? -1 : imd_write_full(file, text, strlen(text));
}

/* Our root becomes `root`, which is a mount point; the old one goes. */
int vfs_change_root(int root)
{
  if (fchdir(root) < 0 || sys_pivot_root(".", ".") < 0)
    return -1;
  /* Here the old root lies on top of the new one. */
  if (umount2(".", MNT_DETACH) < 0)
    return -1;
  return chdir("/");
}
