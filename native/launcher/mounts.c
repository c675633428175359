#define _GNU_SOURCE
#include "mounts.h"
#include "guard.h"
#include "kernel.h"
#include "landlock.h"
#include "layer.h"
#include "plan.h"
#include "protect.h"
#include "util.h"
#include "vfs.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

struct work {
  struct cell *cell;
  const struct run *run;
  struct sources *sources;
  struct findings *findings;       /* what is held, see protect.h */
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
    if (layer_attach(work->run, source->mount, target, path, attributes, &layer, err) < 0)
      return -1;
    return landlock_allow(work->cell->landlock, layer, true, path, err);
  }
  if (attach(source->mount, target, path, err) < 0)
    return -1;
  const bool write = step->numbers[0] & IMD_BIND_WRITE;
  return write ? landlock_allow(work->cell->landlock, source->mount, source->directory, path, err) : 0;
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
  return protect_place(work->cell, work->run, path, step->numbers[0], work->findings, err);
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
  /* Behind another mount, it is out of reach as it is. */
  if (target < 0 || fstat(target, &st) < 0 || st.st_dev != device)
    return 0;
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

static int seal_root(const struct view *view, struct imd_error *err)
{
  struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
  if (mount_setattr(view->root, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 ||
      (view->own_etc >= 0 && mount_setattr(view->own_etc, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0))
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the root read-only");
  return 0;
}

static int apply_step(struct work *work, const struct imd_plan_step *step, struct imd_error *err)
{
  switch (step->op) {
  case IMD_OP_ROOTFS: return apply_rootfs(work, step, err);
  case IMD_OP_BIND: return apply_bind(work, step, err);
  case IMD_OP_TMPFS: return apply_tmpfs(work, step, err);
  case IMD_OP_HIDE: return apply_hide(work, step, err);
  case IMD_OP_PROTECT: return apply_protect(work, step, err);
  case IMD_OP_FILE: return apply_file(work, step, err);
  case IMD_OP_SEAL_ROOT: return seal_root(&work->cell->view, err);
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
  struct work *work = argument;
  work->findings = findings;
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
  case IMD_OP_BIND: return imd_plan_string_at(step, 1, NULL);
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
    if (step.op != IMD_OP_BIND)
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
    if (step.op == IMD_OP_ROOTFS || (step.op == IMD_OP_BIND && (step.numbers[0] & IMD_BIND_LAYER)))
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

int mounts_apply(struct cell *cell, const struct run *run, struct sources *sources, struct imd_fds *held,
                 struct imd_error *err)
{
  struct work work = {.cell = cell, .run = run, .sources = sources};
  struct findings findings = {.which = 0};
  const bool walks = walks_sources(run);
  const int result = walks ? guarded_call(cell, run, apply_all, &work, &findings, err) : apply_all(&work, &findings, err);
  *held = findings.fds;
  if (result < 0 || (walks && find_root(&cell->view, err) < 0))
    return -1;
  bool found = false;
  if (sources->count > 0 && cover_kernel_mounts(cell, &found, err) < 0)
    return -1;
  if (found && guarded_call(cell, run, cover_all, cell, NULL, err) < 0)
    return -1;
  if (walks)
    cell->table = openat(cell->config->host_proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
  return walks && cell->table < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "the cell's mounts") : 0;
}
