#define _GNU_SOURCE
#include "restore.h"
#include "clerk_snapshot.h"
#include "guard.h"
#include "plan.h"
#include "tree.h"
#include "util.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

bool restore_is_into_layer(const struct run *run, const char *target)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op == IMD_OP_IMAGE && (step.numbers[0] & IMD_IMAGE_LAYER) && strcmp(target, "/") == 0)
      return true;
    if (step.op == IMD_OP_CAPTURE && strcmp(imd_plan_string_at(&step, 1, NULL), target) == 0)
      return true;
  }
  return false;
}

const struct source *restore_find(const struct run *run, const struct sources *sources, const char *target)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op != IMD_OP_RESTORE || strcmp(imd_plan_string_at(&step, 1, NULL), target) != 0)
      continue;
    for (uint32_t i = 0; i < sources->count; i++)
      if (sources->at[i].step == step.index && sources->at[i].mount >= 0)
        return &sources->at[i];
  }
  return NULL;
}

struct copying {
  const struct run *run;
  const struct place *layer;
  int from;
  uint64_t size, inodes;
};

static int copy_saved(void *argument, struct findings *findings, struct imd_error *err)
{
  const struct copying *this = argument;
  const struct place *layer = this->layer;
  (void)findings;
  if (mkdirat(layer->stage, "links", 0777) < 0 || fchmodat(layer->stage, "links", 0777, 0) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "what was saved of %s", layer->target);
  cleanup_fd int links = openat(layer->stage, "links", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  /* Its owner is whose saved tree it is, as the idmap shows it: the payload. */
  struct tree_copy copy = {.uid = this->run->uid, .gid = this->run->gid, .layer = true, .max_bytes = this->size,
                           .max_files = this->inodes, .links = links};
  if (links < 0 || fchown(layer->root, this->run->uid, this->run->gid) < 0 ||
      tree_copy(this->from, layer->root, &copy) < 0 || unlinkat(layer->stage, "links", AT_REMOVEDIR) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "what was saved of %s, at %s", layer->target, copy.where);
  return 0;
}

int restore_into_layer(const struct cell *cell, const struct run *run, const struct sources *sources,
                       struct place *layer, uint64_t size, uint64_t inodes, struct imd_error *err)
{
  const struct source *saved = restore_find(run, sources, layer->target);
  if (!saved)
    return 0;
  cleanup_fd int from = openat(saved->mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (from < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "what was saved of %s", layer->target);
  struct copying copying = {.run = run, .layer = layer, .from = from, .size = size, .inodes = inodes};
  if (guarded_call(cell, run, copy_saved, &copying, NULL, err) < 0) {
    if (err->stage == IMD_STAGE_KILLED)
      return imd_fail(err, IMD_STAGE_KILLED, 0, "killed while what was saved of %s was copied", layer->target);
    if (err->stage == IMD_STAGE_DEADLINE)
      return imd_fail(err, IMD_STAGE_DEADLINE, ETIMEDOUT, "what was saved of %s was not copied within %d ms",
                      layer->target, cell->config->open_timeout_ms);
    return -1;
  }
  uint64_t made_ns;
  if (fgetxattr(from, IMD_SNAPSHOT_MADE, &made_ns, sizeof made_ns) == (ssize_t)sizeof made_ns)
    layer->made_ns = made_ns;
  return 0;
}
