#define _GNU_SOURCE
#include "layer.h"
#include "kernel.h"
#include "plan.h"
#include "util.h"
#include "vfs.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LEAST_SIZE = 1 << 20, LEAST_INODES = 1024 };

/* All layers together hold at most what the plan gives its /tmp. */
static void share(const struct run *run, uint64_t *size, uint64_t *inodes)
{
  uint64_t layers = 0;
  *size = *inodes = 0;
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op == IMD_OP_BIND)
      layers += !!(step.numbers[0] & IMD_BIND_LAYER);
    if (step.op == IMD_OP_TMPFS && strcmp(imd_plan_string_at(&step, 0, NULL), "/tmp") == 0) {
      *size = step.numbers[0];
      *inodes = step.numbers[1];
    }
  }
  *size = *size / (layers ? layers : 1);
  *inodes = *inodes / (layers ? layers : 1);
  if (*size < LEAST_SIZE)
    *size = LEAST_SIZE;
  if (*inodes < LEAST_INODES)
    *inodes = LEAST_INODES;
}

/* An overlay's root has the owner and mode of its upper directory: those of what lies below, as the cell sees them. */
static int dress_upper(int upper, int lower)
{
  struct stat st;
  if (fstat(lower, &st) < 0)
    return -1;
  /* Whom the cell does not know, nobody is there either: a directory that only others' bits open. */
  const uid_t uid = st.st_uid == (uid_t)-1 ? 65534 : st.st_uid;
  const gid_t gid = st.st_gid == (gid_t)-1 ? 65534 : st.st_gid;
  return fchown(upper, uid, gid) < 0 || fchmod(upper, st.st_mode & 0777) < 0 ? -1 : 0;
}

/* Topmost first. */
#define LOWER "lower"
#define SAVED_AND_LOWER "saved:lower"

static int make_overlay(int stage, const char *lower, uint64_t attributes, const char *redirect)
{
  cleanup_fd int context = fsopen("overlay", FSOPEN_CLOEXEC);
  cleanup_fd int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (context < 0 || before < 0 || fchdir(stage) < 0)
    return -1;
  /* By name and from here: descriptors are taken from 6.13 on only. */
  int mount = -1;
  if (fsconfig(context, FSCONFIG_SET_STRING, "lowerdir", lower, 0) == 0 &&
      fsconfig(context, FSCONFIG_SET_STRING, "upperdir", "upper", 0) == 0 &&
      fsconfig(context, FSCONFIG_SET_STRING, "workdir", "work", 0) == 0 &&
      fsconfig(context, FSCONFIG_SET_STRING, "redirect_dir", redirect, 0) == 0 &&
      /* A file that is touched is copied with what it holds. */
      fsconfig(context, FSCONFIG_SET_STRING, "metacopy", "off", 0) == 0)
    mount = vfs_finish(context, attributes);
  const int error = errno;
  if (fchdir(before) < 0)
    imd_close(&mount);
  errno = error;
  return mount;
}

static int make_stage(uint64_t size, uint64_t inodes)
{
  cleanup_fd int stage = vfs_tmpfs(size, inodes, 0700, 0, 0, VFS_PLAIN);
  return stage < 0 || mkdirat(stage, "lower", 0700) < 0 || mkdirat(stage, "upper", 0700) < 0 ||
                 mkdirat(stage, "work", 0700) < 0
             ? -1
             : imd_take_fd(&stage);
}

static int lay(int stage, int lower, int saved, int target, const char *path, uint64_t attributes, const char *redirect,
               int *made, struct imd_error *err)
{
  cleanup_fd int upper = openat(stage, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (upper < 0 || dress_upper(upper, lower) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s", path);
  /* All must be mounted to be taken; the overlay then covers them, at the same place. */
  if (vfs_attach(stage, target) < 0 || vfs_attach_at(lower, stage, "lower") < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s", path);
  if (saved >= 0 && (mkdirat(stage, "saved", 0700) < 0 || vfs_attach_at(saved, stage, "saved") < 0))
    return imd_fail(err, IMD_STAGE_LAYER, errno, "what was saved of %s", path);
  *made = make_overlay(stage, saved < 0 ? LOWER : SAVED_AND_LOWER, attributes, redirect);
  if (*made < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s (overlayfs over its file system)", path);
  return vfs_stack(*made, stage) < 0 ? imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s", path) : 0;
}

int layer_attach(const struct run *run, int lower, int target, const char *path, uint64_t attributes, int *made,
                 struct imd_error *err)
{
  uint64_t size, inodes;
  share(run, &size, &inodes);
  cleanup_fd int stage = make_stage(size, inodes);
  if (stage < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s", path);
  /* A directory is renamed as it would be without us: what is learned from the run is what it would do. */
  return lay(stage, lower, -1, target, path, attributes, "on", made, err);
}

int layer_prepare(struct places *places, const struct layer *layer, struct imd_error *err)
{
  cleanup_fd int stage = make_stage(layer->size, layer->inodes);
  cleanup_fd int upper = stage < 0 ? -1 : openat(stage, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  cleanup_fd int work = stage < 0 ? -1 : openat(stage, "work", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  cleanup_fd int accepted = layer->source ? memfd_create("accepted", MFD_CLOEXEC) : -1;
  const struct place place = {
      .kind = PLACE_LAYER, .target = (char *)(uintptr_t)layer->target, .source = (char *)(uintptr_t)layer->source,
      .root = upper, .lower = layer->lower, .saved = layer->saved, .work = work, .stage = stage, .accepted = accepted,
      .device = layer->device, .inode = layer->inode, .attributes = layer->attributes};
  if (upper < 0 || work < 0 || (layer->source && accepted < 0) || places_add(places, &place) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s", layer->target);
  return 0;
}

int layer_lay(const struct place *place, int target, int *made, struct imd_error *err)
{
  /* Nothing in a layer is a path to follow: a directory that lay below is copied when it is moved (EXDEV, as everywhere
     with containers), and a redirection, whoever wrote it there, leads nowhere. */
  return lay(place->stage, place->lower, place->saved, target, place->target, place->attributes, "nofollow", made, err);
}

int layer_lay_again(const struct place *place, int *made, struct imd_error *err)
{
  if (dress_upper(place->root, place->lower) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s", place->target);
  *made = make_overlay(place->stage, place->saved < 0 ? LOWER : SAVED_AND_LOWER, place->attributes, "nofollow");
  return *made < 0 || vfs_stack(*made, place->stage) < 0
             ? imd_fail(err, IMD_STAGE_LAYER, errno, "a layer over %s", place->target)
             : 0;
}
