#define _GNU_SOURCE
#include "mounts.h"
#include "guard.h"
#include "kernel.h"
#include "landlock.h"
#include "layer.h"
#include "plan.h"
#include "protect.h"
#include "restore.h"
#include "util.h"
#include "vfs.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

struct work {
  struct cell *cell;
  const struct run *run;
  struct sources *sources;
  struct held *held;
  bool touched;                    /* a step before this one did something else than a tmpfs */
};

static struct source *find_source(const struct sources *sources, uint32_t step)
{
  for (uint32_t i = 0; i < sources->count; i++)
    if (sources->at[i].step == step)
      return &sources->at[i];
  return NULL;
}

static int attach(int mount, int target, const char *path, struct imd_error *err)
{
  return vfs_attach(mount, target) < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", path) : 0;
}

static int apply_rootfs(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const struct source *source = find_source(work->sources, step->index);
  const char *path = imd_plan_string_at(step, 0, NULL);
  if (!source || source->mount < 0)
    return imd_fail(err, IMD_STAGE_OPEN, ENOENT, "%s", path);
  if (!source->directory)
    return imd_fail(err, IMD_STAGE_PATH_KIND, ENOTDIR, "%s", path);
  return view_change_root(&work->cell->view, source->mount, err);
}

static int apply_image(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  struct view *view = &work->cell->view;
  const struct source *source = find_source(work->sources, step->index);
  const char *digest = imd_plan_string_at(step, 0, NULL);
  if (!source || source->mount < 0)
    return imd_fail(err, IMD_STAGE_OPEN, ENOENT, "%s", digest);
  if (!(step->numbers[0] & IMD_IMAGE_LAYER))
    return view_change_root(view, source->mount, err);
  const struct place *place = places_find(&work->cell->places, "/");
  cleanup_fd int target = place ? openat(view->root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
  if (target < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "%s", digest);
  cleanup_fd int layer = -1;
  if (layer_lay(place, target, &layer, err) < 0 || view_enter_root(view, layer, err) < 0)
    return -1;
  /* What a mount stands on may be made there, as in any file system of ours. */
  if (view_own(view, layer) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "%s", digest);
  return landlock_allow(work->cell->landlock, layer, true, "/", err);
}

/* mountinfo writes blanks, backslashes and newlines as three octal digits. */
static void unescape(char *text)
{
  char *to = text;
  for (const char *from = text; *from != '\0'; to++) {
    if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] != '\0' && from[3] != '\0') {
      *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
      from += 4;
    } else {
      *to = *from++;
    }
  }
  *to = '\0';
}

/* Whether the plan puts something beneath `path`, for which a place must be made there. */
static bool holds_grants(const struct run *run, const char *path)
{
  const size_t size = strlen(path);
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    const uint32_t which = step.op == IMD_OP_BIND ? 1 : 0;
    if (step.op != IMD_OP_BIND && step.op != IMD_OP_TMPFS && step.op != IMD_OP_FILE)
      continue;
    const char *target = imd_plan_string_at(&step, which, NULL);
    if (strncmp(target, path, size) == 0 && target[size] == '/')
      return true;
  }
  return false;
}

static int cover(const struct work *work, int place, const char *path)
{
  struct view *view = &work->cell->view;
  struct stat st;
  if (fstat(place, &st) < 0)
    return -1;
  if (!S_ISDIR(st.st_mode) || !holds_grants(work->run, path))
    return view_cover(view, place, S_ISDIR(st.st_mode));
  cleanup_fd int empty = vfs_tmpfs(1 << 20, 1024, 0755, 0, 0, VFS_PLAIN);
  return empty < 0 || view_own(view, empty) < 0 || vfs_attach(empty, place) < 0 ? -1 : 0;
}

/* In a layer over `source`: where the host has a mount, and overlayfs shows what lies beneath it, nothing is. */
static int cover_mounts(const struct work *work, int source, int layer, const char *path, struct imd_error *err)
{
  const struct cell *cell = work->cell;
  struct statx about;
  const int fd = openat(cell->config->host_proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
  FILE *mounts = fd < 0 ? NULL : fdopen(fd, "r");
  if (!mounts || statx(source, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &about) < 0) {
    imd_fail(err, IMD_STAGE_LAYER, errno, "the mounts in %s", path);
    if (mounts)
      fclose(mounts);
    else if (fd >= 0)
      close(fd);
    return -1;
  }
  cleanup_free char *line = NULL, *top = NULL;
  size_t size = 0;
  int result = 0;
  /* In the order in which they were made, and so the source before what is mounted in it. */
  while (result == 0 && getline(&line, &size, mounts) > 0) {
    unsigned long long id, parent;
    char *where = NULL;
    if (sscanf(line, "%llu %llu %*s %*s %ms", &id, &parent, &where) == 3) {
      unescape(where);
      if (id == about.stx_mnt_id && !top) {
        top = where;
        continue;
      }
      const size_t length = top ? strlen(top) : 0;
      if (parent == about.stx_mnt_id && (!top || strncmp(where, top, length) != 0 || where[length] != '/'))
        result = imd_fail(err, IMD_STAGE_LAYER, EXDEV, "%s holds a mount of its own", path);
      else if (parent == about.stx_mnt_id) {
        cleanup_free char *inside = NULL;
        cleanup_fd int place = vfs_open_beneath(layer, where + length + 1);
        if (asprintf(&inside, "%s%s", strcmp(path, "/") == 0 ? "" : path, where + length) < 0)
          result = imd_fail(err, IMD_STAGE_LAYER, ENOMEM, "a mount in %s", path);
        else if (place < 0 ? errno != ENOENT && errno != ENOTDIR : cover(work, place, inside) < 0)
          result = imd_fail(err, IMD_STAGE_LAYER, errno, "a mount in %s", path);
      }
    }
    free(where);
  }
  fclose(mounts);
  return result;
}

static int apply_bind(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const struct source *source = find_source(work->sources, step->index);
  if (!source || source->mount < 0)
    return 0;
  const char *path = imd_plan_string_at(step, 1, NULL);
  if (!(step->numbers[0] & IMD_BIND_WRITE) && protect_pin(&work->cell->view, path, err) < 0)
    return -1;
  cleanup_fd int target = view_target(&work->cell->view, path, source->directory, true, err);
  if (target < 0)
    return -1;
  if ((step->numbers[0] & IMD_BIND_LAYER) && source->directory) {
    cleanup_fd int layer = -1;
    const uint64_t attributes = VFS_PLAIN | (step->numbers[0] & IMD_BIND_NOEXEC ? MOUNT_ATTR_NOEXEC : 0);
    if (layer_attach(work->run, source->mount, target, path, attributes, &layer, err) < 0 ||
        cover_mounts(work, source->mount, layer, path, err) < 0)
      return -1;
    return landlock_allow(work->cell->landlock, layer, true, path, err);
  }
  if (attach(source->mount, target, path, err) < 0)
    return -1;
  const bool write = step->numbers[0] & IMD_BIND_WRITE;
  return write ? landlock_allow(work->cell->landlock, source->mount, source->directory, path, err) : 0;
}

/* Its child made it bounded (storage.h), and mapped its owner to the payload. */
static int apply_volume(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const struct source *source = find_source(work->sources, step->index);
  const char *path = imd_plan_string_at(step, 1, NULL);
  if (!source || source->mount < 0)
    return imd_fail(err, IMD_STAGE_OPEN, ENOENT, "%s", path);
  cleanup_fd int target = view_target(&work->cell->view, path, true, true, err);
  if (target < 0 || attach(source->mount, target, path, err) < 0)
    return -1;
  return landlock_allow(work->cell->landlock, source->mount, true, path, err);
}

static int apply_tmpfs(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const char *path = imd_plan_string_at(step, 0, NULL);
  cleanup_fd int target = view_target(&work->cell->view, path, true, true, err);
  if (target < 0)
    return -1;
  /* Every plan begins with /tmp and /dev/shm, which the cell has: of another size, and another's. */
  if (!work->touched && !step->numbers[3] && view_is_spare(&work->cell->view, target))
    return vfs_refit_tmpfs(target, step->numbers[0], step->numbers[1], (uint32_t)step->numbers[2], work->run->uid,
                           work->run->gid) < 0
               ? imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", path)
               : 0;
  const uint64_t attributes = VFS_PLAIN | (step->numbers[3] ? MOUNT_ATTR_NOEXEC : 0);
  cleanup_fd int mount = vfs_tmpfs(step->numbers[0], step->numbers[1], (uint32_t)step->numbers[2], work->run->uid,
                                   work->run->gid, attributes);
  if (mount < 0 || view_own(&work->cell->view, mount) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", path);
  if (attach(mount, target, path, err) < 0)
    return -1;
  return landlock_allow(work->cell->landlock, mount, true, path, err);
}

/* A tmpfs that was saved, below a layer: as many sandboxes as one likes begin with the same. */
static int apply_restore(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const char *path = imd_plan_string_at(step, 1, NULL);
  if (restore_is_into_layer(work->run, path))
    return 0;
  const struct place *place = places_find(&work->cell->places, path);
  cleanup_fd int target = view_target(&work->cell->view, path, true, true, err);
  if (target < 0)
    return -1;
  cleanup_fd int layer = -1;
  if (!place)
    return imd_fail(err, IMD_STAGE_LAYER, 0, "%s", path);
  if (layer_lay(place, target, &layer, err) < 0)
    return -1;
  if (view_own(&work->cell->view, layer) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "%s", path);
  return landlock_allow(work->cell->landlock, layer, true, path, err);
}

/* mountinfo of what is mounted in the tree at `place`, which overlayfs would not show: what lies beneath it instead. */
static int holds_mounts(const struct cell *cell, int place, bool *holds)
{
  struct statx about;
  char line[64];
  const int fd = openat(cell->config->host_proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
  FILE *mounts = fd < 0 ? NULL : fdopen(fd, "r");
  if (!mounts || statx(place, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &about) < 0) {
    const int error = errno;
    if (mounts)
      fclose(mounts);
    else if (fd >= 0)
      close(fd);
    errno = error;
    return -1;
  }
  *holds = false;
  for (bool start = true; fgets(line, sizeof line, mounts); start = strchr(line, '\n') != NULL) {
    unsigned long long parent;
    if (start && sscanf(line, "%*u %llu", &parent) == 1)
      *holds |= parent == about.stx_mnt_id;
  }
  fclose(mounts);
  return 0;
}

static int apply_capture(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const struct source *source = find_source(work->sources, step->index);
  const char *path = imd_plan_string_at(step, 1, NULL);
  const struct place *place = places_find(&work->cell->places, path);
  if (!source || source->mount < 0 || !place)
    return imd_fail(err, IMD_STAGE_OPEN, ENOENT, "%s", path);
  cleanup_fd int target = view_target(&work->cell->view, path, true, true, err);
  if (target < 0 || protect_pin(&work->cell->view, path, err) < 0)
    return -1;
  /* Pinned now, by a later step it is not again: that would be a copy, with the layer in it, over what is laid anew. */
  imd_close(&target);
  target = view_target(&work->cell->view, path, true, false, err);
  if (target < 0)
    return -1;
  cleanup_fd int layer = -1;
  if (layer_lay(place, target, &layer, err) < 0)
    return -1;
  bool holds;
  if (holds_mounts(work->cell, source->mount, &holds) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "%s", path);
  if (holds)
    return imd_fail(err, IMD_STAGE_LAYER, EXDEV, "%s holds a mount of its own", imd_plan_string_at(step, 0, NULL));
  return landlock_allow(work->cell->landlock, layer, true, path, err);
}

static int apply_hide(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const char *path = imd_plan_string_at(step, 0, NULL);
  bool directory;
  cleanup_fd int target = vfs_find(work->cell->view.root, path, &directory);
  if (target < 0)
    return errno == ENOENT || errno == ENOTDIR ? 0 : imd_fail(err, IMD_STAGE_TARGET, errno, "%s", path);
  return view_cover(&work->cell->view, target, directory) < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", path) : 0;
}

static int apply_protect(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  const char *path = imd_plan_string_at(step, 0, NULL);
  return protect_place(work->cell, work->run, path, step->numbers[0], work->held, err);
}

/* The file system checks our access as if we were the payload: its ids, and none of root's overrides. */
static void act_as(uid_t uid, gid_t gid)
{
  setfsgid(gid);
  setfsuid(uid);
}

static int create_file(int directory, const char *name, uint32_t mode)
{
  const int file = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file >= 0 && fchmod(file, mode) < 0) {
    close(file);
    return -1;
  }
  return file;
}

static int apply_file(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  struct view *view = &work->cell->view;
  const struct run *run = work->run;
  uint32_t size;
  const char *path = imd_plan_string_at(step, 0, NULL), *bytes = imd_plan_string_at(step, 1, &size);
  const char *name = strrchr(path, '/') + 1;
  char *parent = strndup(path, (size_t)(name - path));
  if (!parent)
    return imd_fail(err, IMD_STAGE_FILE, ENOMEM, "%s", path);
  cleanup_fd int directory = view_target(view, parent, true, true, err);
  free(parent);
  if (directory < 0 || view_unfold(view, &directory, err) < 0)
    return -1;

  act_as(run->uid, run->gid);
  cleanup_fd int file = create_file(directory, name, (uint32_t)step->numbers[0]);
  act_as(0, 0);
  /* Our own directories are root's; what the plan puts there is still the payload's. */
  if (file < 0 && errno == EACCES && view_owns(view, directory)) {
    file = create_file(directory, name, (uint32_t)step->numbers[0]);
    if (file >= 0 && fchown(file, run->uid, run->gid) < 0)
      return imd_fail(err, IMD_STAGE_FILE, errno, "%s", path);
  }
  if (file < 0 || imd_write_full(file, bytes, size) < 0)
    return imd_fail(err, IMD_STAGE_FILE, errno, "%s", path);
  return 0;
}

/* --- what a caller's tree brought along -------------------------------------------------------------------------- */

static bool is_kernel_type(const char *type)
{
  static const char *const types[] = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs",
                                      "securityfs", "selinuxfs", "smackfs", "bpf", "pstore", "efivarfs", "binfmt_misc",
                                      "nsfs", "mqueue", "fusectl", "configfs", "resctrl", "rpc_pipefs", "nfsd",
                                      "devtmpfs", "autofs"};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    if (strcmp(type, types[i]) == 0)
      return true;
  return false;
}

static bool is_ours(const struct view *view, unsigned major, unsigned minor)
{
  for (size_t i = 0; i < sizeof view->kernel / sizeof view->kernel[0]; i++)
    if (view->kernel[i] == makedev(major, minor))
      return true;
  return false;
}

static int cover_one(const struct view *view, const char *path, dev_t device, struct imd_error *err)
{
  bool directory;
  cleanup_fd int target = vfs_find(view->root, path, &directory);
  struct stat st;
  /* Behind another mount, it is out of reach as it is: while that one stands. */
  if (target < 0 || fstat(target, &st) < 0)
    return 0;
  if (st.st_dev != device) {
    covers_note(target);
    return 0;
  }
  return view_cover(view, target, directory) < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", path) : 0;
}

/*
 * A recursive copy brings what is mounted in the tree: also the host's /proc and its like, which show the host's
 * processes, and are the kernel's own. They are covered. `found`: only look, and say whether there is any.
 */
static int cover_kernel_mounts(const struct cell *cell, bool *found, struct imd_error *err)
{
  const int fd = openat(cell->config->host_proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
  FILE *mounts = fd < 0 ? NULL : fdopen(fd, "r");
  if (!mounts) {
    if (fd >= 0)
      close(fd);
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the cell's mounts");
  }
  cleanup_free char *line = NULL;
  size_t size = 0;
  int result = 0;
  while (result == 0 && getline(&line, &size, mounts) > 0) {
    unsigned major, minor;
    int at = 0, end = 0;
    if (sscanf(line, "%*d %*d %u:%u %*s %n%*s%n", &major, &minor, &at, &end) != 2 || at == 0 || end == 0)
      continue;
    const char *type = strstr(line + end, " - ");
    if (!type)
      continue;
    char name[32];
    if (sscanf(type + 3, "%31s", name) != 1 || !is_kernel_type(name) || is_ours(&cell->view, major, minor))
      continue;
    if (found) {
      *found = true;
      break;
    }
    line[end] = '\0';
    unescape(line + at);
    result = cover_one(&cell->view, line + at, makedev(major, minor), err);
  }
  fclose(mounts);
  return result;
}

/* --- in order ---------------------------------------------------------------------------------------------------- */

static int seal_root(struct cell *cell, struct imd_error *err)
{
  const struct view *view = &cell->view;
  struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
  if (places_find(&cell->places, "/"))
    return 0;                      /* a layer, which is there to be written to */
  if (mount_setattr(view->root, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 ||
      (view->own_etc >= 0 && mount_setattr(view->own_etc, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0))
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the root read-only");
  return 0;
}

static int apply_step(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  switch (step->op) {
  case IMD_OP_ROOTFS: return apply_rootfs(work, step, err);
  case IMD_OP_IMAGE: return apply_image(work, step, err);
  case IMD_OP_BIND: return apply_bind(work, step, err);
  case IMD_OP_VOLUME: return apply_volume(work, step, err);
  case IMD_OP_TMPFS: return apply_tmpfs(work, step, err);
  case IMD_OP_CAPTURE: return apply_capture(work, step, err);
  case IMD_OP_RESTORE: return apply_restore(work, step, err);
  case IMD_OP_HIDE: return apply_hide(work, step, err);
  case IMD_OP_PROTECT: return apply_protect(work, step, err);
  case IMD_OP_FILE: return apply_file(work, step, err);
  case IMD_OP_SEAL_ROOT: return seal_root(work->cell, err);
  default: return 0;
  }
}

/* After such a step what the cell was parked with is as it was: its /tmp and /dev/shm are still empty, and in place. */
static bool leaves_spares_alone(uint32_t op)
{
  switch (op) {
  case IMD_OP_DEADLINES:
  case IMD_OP_CGROUP:
  case IMD_OP_COLLECT:
  case IMD_OP_TMPFS:
    return true;
  default:
    return false;
  }
}

static int apply_all(void *argument, struct findings *findings, struct imd_error *err)
{
  (void)findings;
  struct work *work = argument;
  struct imd_plan_cursor cursor = {.plan = work->run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    err->step = step.index;
    if (apply_step(work, &step, err) < 0)
      return -1;
    work->touched |= !leaves_spares_alone(step.op);
  }
  err->step = UINT32_MAX;
  return 0;
}

static int cover_all(void *argument, struct findings *findings, struct imd_error *err)
{
  (void)findings;
  return cover_kernel_mounts(argument, NULL, err);
}

static const char *target_of(const struct imd_plan_step *step)
{
  switch (step->op) {
  case IMD_OP_BIND:
  case IMD_OP_VOLUME: return imd_plan_string_at(step, 1, NULL);
  case IMD_OP_TMPFS:
  case IMD_OP_HIDE:
  case IMD_OP_PROTECT:
  case IMD_OP_FILE: return imd_plan_string_at(step, 0, NULL);
  default: return NULL;
  }
}

static bool lies_in_source(const struct run *run, const struct imd_plan_step *later, const char *path)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step) && step.index < later->index;) {
    if (step.op != IMD_OP_BIND && step.op != IMD_OP_CAPTURE)
      continue;
    const char *target = target_of(&step);
    const size_t size = strlen(target);
    if (strncmp(path, target, size) == 0 && (path[size] == '/' || path[size] == '\0'))
      return true;
  }
  return false;
}

/* Whether some step looks up a name in a tree that a caller named: its file system may be one that never answers. */
static bool walks_sources(const struct run *run)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op == IMD_OP_ROOTFS || step.op == IMD_OP_CAPTURE ||
        (step.op == IMD_OP_BIND && (step.numbers[0] & IMD_BIND_LAYER)))
      return true;
    const char *target = target_of(&step);
    if (target && lies_in_source(run, &step, target))
      return true;
  }
  return false;
}

/* A child that changed the root did so for us too; only our descriptor of it is of before. */
static int find_root(struct view *view, struct imd_error *err)
{
  imd_close(&view->root);
  view->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  return view->root < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "the cell's root") : 0;
}

/* --- places ------------------------------------------------------------------------------------------------------ */

/* Who is captured is looked at, by what it is on the host: a change set goes there again. */
static int name_capture(const struct imd_plan_step *step, const struct source *source, struct layer *layer,
                        struct imd_error *err)
{
  struct statx about;
  const char *path = imd_plan_string_at(step, 0, NULL);
  if (!source->directory)
    return imd_fail(err, IMD_STAGE_PATH_KIND, ENOTDIR, "%s", path);
  if (statx(source->mount, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &about) < 0)
    return imd_fail(err, IMD_STAGE_OPEN, errno, "%s", path);
  layer->source = path;
  layer->device = makedev(about.stx_dev_major, about.stx_dev_minor);
  layer->inode = about.stx_ino;
  return 0;
}

static int prepare_layer(struct cell *cell, const struct run *run, const struct sources *sources,
                         const struct imd_plan_step *step, struct imd_error *err)
{
  const struct source *source = find_source(sources, step->index);
  const bool image = step->op == IMD_OP_IMAGE;
  if (!source || source->mount < 0)
    return 0;
  const struct source *saved = image ? restore_find(run, sources, "/") : NULL;
  struct layer layer = {
      .target = image ? "/" : imd_plan_string_at(step, 1, NULL), .lower = source->mount,
      .saved = saved ? saved->mount : -1, .size = step->numbers[1], .inodes = step->numbers[2],
      .attributes = VFS_PLAIN | (!image && (step->numbers[0] & IMD_BIND_NOEXEC) ? MOUNT_ATTR_NOEXEC : 0)};
  if (step->op == IMD_OP_CAPTURE && name_capture(step, source, &layer, err) < 0)
    return -1;
  if (layer_prepare(&cell->places, &layer, err) < 0)
    return -1;
  if (!cell->places.relaying) {
    _Atomic pid_t *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
      return imd_fail(err, IMD_STAGE_LAYER, errno, "%s", layer.target);
    cell->places.relaying = shared;
  }
  if (step->op != IMD_OP_CAPTURE)
    return 0;
  return restore_into_layer(cell, run, sources, &cell->places.at[cell->places.count - 1], layer.size, layer.inodes, err);
}

/* The layers are made before anybody walks: what a child opens, we would not have. */
static int prepare_layers(struct cell *cell, const struct run *run, const struct sources *sources, struct imd_error *err)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    const bool makes = step.op == IMD_OP_CAPTURE || (step.op == IMD_OP_IMAGE && (step.numbers[0] & IMD_IMAGE_LAYER)) ||
                       (step.op == IMD_OP_RESTORE && !restore_is_into_layer(run, imd_plan_string_at(&step, 1, NULL)));
    err->step = step.index;
    if (makes && prepare_layer(cell, run, sources, &step, err) < 0)
      return -1;
  }
  err->step = UINT32_MAX;
  return 0;
}

int mounts_count(const struct cell *cell, uint32_t *count)
{
  char buffer[4096];
  cleanup_fd int table = openat(cell->config->host_proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
  *count = 0;
  for (ssize_t got = 1; got > 0;) {
    got = table < 0 ? -1 : read(table, buffer, sizeof buffer);
    if (got < 0)
      return -1;
    for (ssize_t i = 0; i < got; i++)
      *count += buffer[i] == '\n';
  }
  return 0;
}

struct finder { struct cell *cell; const struct run *run; };

/* The roots of the plan's own file systems, in its order. */
static int find_tmpfs(void *argument, struct findings *findings, struct imd_error *err)
{
  const struct finder *finder = argument;
  struct imd_plan_cursor cursor = {.plan = finder->run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op != IMD_OP_TMPFS)
      continue;
    bool directory;
    const char *path = imd_plan_string_at(&step, 0, NULL);
    cleanup_fd int place = vfs_find(finder->cell->view.root, path, &directory);
    const int root = place < 0 ? -1 : openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
      return imd_fail(err, IMD_STAGE_TARGET, errno, "%s", path);
    if (findings->fds.count == IMD_MAX_FDS) {
      close(root);
      return imd_fail(err, IMD_STAGE_TARGET, E2BIG, "%s", path);
    }
    findings->fds.fd[findings->fds.count++] = root;
  }
  return 0;
}

static int keep_tmpfs(struct cell *cell, const struct run *run, bool walks, struct imd_error *err)
{
  struct finder finder = {cell, run};
  struct findings findings = {.which = 0};
  int result = walks ? guarded_call(cell, run, find_tmpfs, &finder, &findings, err) : find_tmpfs(&finder, &findings, err);
  struct imd_plan_cursor cursor = {.plan = run->plan};
  uint32_t found = 0;
  for (struct imd_plan_step step; result == 0 && imd_plan_next(&cursor, &step);) {
    if (step.op != IMD_OP_TMPFS || found == findings.fds.count)
      continue;
    const struct place place = {
        .kind = PLACE_TMPFS, .target = (char *)(uintptr_t)imd_plan_string_at(&step, 0, NULL),
        .root = findings.fds.fd[found++], .lower = -1, .saved = -1, .work = -1, .stage = -1, .accepted = -1};
    if (places_add(&cell->places, &place) < 0)
      result = imd_fail(err, IMD_STAGE_MOUNT, errno, "%s", place.target);
  }
  imd_fds_close(&findings.fds);
  return result;
}

static bool is_sandbox(const struct run *run)
{
  return ((const struct imd_plan *)run->plan)->kind == IMD_PLAN_SANDBOX;
}

static int apply_plan(struct cell *cell, const struct run *run, struct sources *sources, bool walks, struct held *held,
                      struct imd_error *err)
{
  struct work work = {.cell = cell, .run = run, .sources = sources, .held = held};
  const int result = walks ? guarded_call(cell, run, apply_all, &work, NULL, err) : apply_all(&work, NULL, err);
  if (result < 0 || (walks && find_root(&cell->view, err) < 0))
    return -1;
  bool found = false;
  if (sources->count > 0 && cover_kernel_mounts(cell, &found, err) < 0)
    return -1;
  return found ? guarded_call(cell, run, cover_all, cell, NULL, err) : 0;
}

/* From here on the table tells when a mount goes; what went before is found by looking. */
static int watch_mounts(struct cell *cell, struct imd_error *err)
{
  cell->table = openat(cell->config->host_proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
  if (cell->table < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the cell's mounts");
  return covers_look(&cell->covers) == UNCOVERED
             ? imd_fail(err, IMD_STAGE_MOUNT, ESTALE, "what the plan covers was replaced meanwhile")
             : 0;
}

int mounts_apply(struct cell *cell, const struct run *run, struct sources *sources, struct held *held,
                 struct imd_error *err)
{
  if (prepare_layers(cell, run, sources, err) < 0)
    return -1;
  struct imd_plan_step step;
  if (plan_step(run->plan, IMD_OP_PROTECT, &step) && held_open(held, err) < 0)
    return -1;
  const bool walks = walks_sources(run);
  if (walks)
    covers_begin();
  const int result = apply_plan(cell, run, sources, walks, held, err);
  covers_end(&cell->covers);
  if (result < 0)
    return -1;
  if (is_sandbox(run) && keep_tmpfs(cell, run, walks, err) < 0)
    return -1;
  if (cell->places.relaying && mounts_count(cell, &cell->places.mounts) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the cell's mounts");
  return walks ? watch_mounts(cell, err) : 0;
}
