#define _GNU_SOURCE
#include "storage.h"
#include "kernel.h"
#include "loop.h"
#include "quota.h"
#include "util.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { DIGEST = 64 };

#define fail(err, error, ...) imd_fail((err), IMD_STAGE_LAYER, (error), __VA_ARGS__)

bool storage_is_source(uint32_t op)
{
  return op == IMD_OP_VOLUME || op == IMD_OP_IMAGE || op == IMD_OP_RESTORE;
}

static int open_collection(const struct warden_config *config, const char *collection, struct imd_error *err)
{
  if (!config->storage)
    return fail(err, 0, "the launcher was given no --storage");
  cleanup_fd int top = open(config->storage, O_PATH | O_DIRECTORY | O_CLOEXEC);
  /* A symbolic link of root's is followed: somebody may keep them on another disk. */
  cleanup_fd int found = top < 0 ? -1 : openat(top, collection, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return found < 0 ? fail(err, errno, "%s of the state directory", collection) : imd_take_fd(&found);
}

static int open_beneath(int directory, const char *name, uint64_t flags)
{
  return sys_openat2(directory, name, flags | O_CLOEXEC, 0,
                     RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
}

int storage_find(const struct warden_config *config, const char *collection, const char *name, struct imd_error *err)
{
  cleanup_fd int directory = open_collection(config, collection, err);
  if (directory < 0)
    return -1;
  cleanup_fd int found = open_beneath(directory, name, O_RDONLY | O_DIRECTORY);
  return found < 0 ? fail(err, errno, "%s of the %s", name, collection) : imd_take_fd(&found);
}

static int copy_mount(int directory, const char *name, struct imd_error *err)
{
  const int mount = open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  return mount < 0 ? fail(err, errno, "%s", name) : mount;
}

/* --- volumes ----------------------------------------------------------------------------------------------------- */

/* Made as its owner: root would follow nothing there, and give away nothing. */
static int make_data(int volume, const struct stat *owner)
{
  setfsgid(owner->st_gid);
  setfsuid(owner->st_uid);
  const int made = mkdirat(volume, "data", 0700);
  const int error = errno;
  setfsuid(0);
  setfsgid(0);
  errno = error;
  return made < 0 && errno != EEXIST ? -1 : 0;
}

static int open_data(int volume, const struct stat *owner, const char *name, struct imd_error *err)
{
  cleanup_fd int data = open_beneath(volume, "data", O_RDONLY | O_DIRECTORY);
  struct stat st;
  if (data < 0 || fstat(data, &st) < 0)
    return fail(err, errno, "the data of volume %s", name);
  if (st.st_uid != owner->st_uid || st.st_dev != owner->st_dev)
    return fail(err, EPERM, "the data of volume %s are not its owner's", name);
  return imd_take_fd(&data);
}

static int open_bounded(int volume, const struct stat *owner, const struct imd_plan_step *step, const char *name,
                        struct imd_error *err)
{
  if (make_data(volume, owner) < 0)
    return fail(err, errno, "the data of volume %s", name);
  cleanup_fd int data = open_data(volume, owner, name, err);
  if (data < 0 || quota_bound(data, step->numbers[1], step->numbers[2], name, err) < 0)
    return -1;
  return copy_mount(data, name, err);
}

static int open_volume(const struct warden_config *config, const struct imd_plan_step *step, struct stored *stored,
                       struct imd_error *err)
{
  const char *name = imd_plan_string_at(step, 0, NULL);
  cleanup_fd int volumes = open_collection(config, "volumes", err);
  /* One at a time: what is made here, and which project it is, is settled when it is let go. */
  if (volumes < 0 || flock(volumes, LOCK_EX) < 0)
    return volumes < 0 ? -1 : fail(err, errno, "the volumes");
  cleanup_fd int volume = open_beneath(volumes, name, O_RDONLY | O_DIRECTORY);
  struct stat st;
  if (volume < 0 || fstat(volume, &st) < 0)
    return fail(err, errno, "volume %s", name);
  if (st.st_uid == 0)
    return fail(err, EPERM, "volume %s belongs to root", name);
  const bool in_file = faccessat(volume, "image", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  if (!in_file && quota_is_enforced(volume))
    stored->mount = open_bounded(volume, &st, step, name, err);
  else if (!in_file && faccessat(volume, "data", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
    return fail(err, EOPNOTSUPP, "volume %s was bounded by a project quota, which its file system does not enforce now",
                name);
  else
    stored->mount = loop_open(volume, &st, step->numbers[1], step->numbers[2], name, err);
  if (stored->mount < 0)
    return -1;
  /* A file system in a file keeps whom it was made for, also when the state directory is another's by now. */
  struct stat root;
  if (fstat(stored->mount, &root) < 0 || root.st_uid == 0)
    return fail(err, EPERM, "the data of volume %s belong to root", name);
  stored->uid = root.st_uid;
  stored->gid = root.st_gid;
  return 0;
}

/* --- images and saved trees -------------------------------------------------------------------------------------- */

static int open_image(const struct warden_config *config, const struct imd_plan_step *step, struct stored *stored,
                      struct imd_error *err)
{
  const char *digest = imd_plan_string_at(step, 0, NULL);
  cleanup_fd int images = open_collection(config, "images", err);
  if (images < 0)
    return -1;
  char path[DIGEST + sizeof "/tree/rootfs"];
  snprintf(path, sizeof path, "%.64s/tree/rootfs", digest);
  cleanup_fd int image = open_beneath(images, digest, O_RDONLY | O_DIRECTORY);
  cleanup_fd int root = open_beneath(images, path, O_RDONLY | O_DIRECTORY);
  struct stat all, one;
  if (image < 0 || root < 0 || fstat(images, &all) < 0 || fstat(image, &one) < 0)
    return fail(err, errno, "image sha256:%s", digest);
  /* Whoever may write there says what root's programs in a sandbox are. */
  if (all.st_uid != 0 || one.st_uid != 0 || (all.st_mode & 022) || (one.st_mode & 022))
    return fail(err, EPERM, "image sha256:%s is not root's alone to write", digest);
  stored->uid = stored->gid = 0;
  stored->mount = copy_mount(root, digest, err);
  return stored->mount < 0 ? -1 : 0;
}

static int open_saved(const struct warden_config *config, const struct imd_plan_step *step, struct stored *stored,
                      struct imd_error *err)
{
  const char *name = imd_plan_string_at(step, 0, NULL);
  cleanup_fd int saved = storage_find(config, "snapshots", name, err);
  struct stat st;
  if (saved < 0)
    return -1;
  if (fstat(saved, &st) < 0 || st.st_uid == 0)
    return fail(err, EPERM, "%s of the snapshots is not the daemon's", name);
  stored->uid = st.st_uid;
  stored->gid = st.st_gid;
  stored->mount = copy_mount(saved, name, err);
  return stored->mount < 0 ? -1 : 0;
}

int storage_open(const struct warden_config *config, const struct imd_plan_step *step, struct stored *stored,
                 struct imd_error *err)
{
  *stored = (struct stored){.mount = -1};
  switch (step->op) {
  case IMD_OP_VOLUME: return open_volume(config, step, stored, err);
  case IMD_OP_IMAGE: return open_image(config, step, stored, err);
  default: return open_saved(config, step, stored, err);
  }
}
