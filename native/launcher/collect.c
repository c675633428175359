#define _GNU_SOURCE
#include "collect.h"
#include "kernel.h"
#include "peer.h"
#include "plan.h"
#include "util.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { ATTEMPTS = 100 };

struct work {
  const struct cell *cell;
  const struct run *run;
};

static int copy_of(int fd, uint64_t most)
{
  cleanup_fd int copy = memfd_create("immured-file", MFD_CLOEXEC);
  cleanup_free char *buffer = malloc(65536);
  if (copy < 0 || !buffer)
    return -1;
  for (uint64_t left = most + 1;;) {
    const ssize_t got = read(fd, buffer, left < 65536 ? left : 65536);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0 || imd_write_full(copy, buffer, (size_t)got) < 0)
      return -1;
    if (got == 0)
      break;
    left -= (uint64_t)got;
    if (left == 0)
      return -1;                   /* it grew, or never said how large it is */
  }
  return lseek(copy, 0, SEEK_SET) < 0 ? -1 : imd_take_fd(&copy);
}

static int open_file(const struct view *view, const char *path, uint64_t most)
{
  cleanup_fd int fd = -1;
  /* EAGAIN: a rename somewhere, of which the kernel cannot tell whether a `..` in a link led out because of it. */
  for (int attempt = 0; fd < 0 && attempt < ATTEMPTS && (attempt == 0 || errno == EAGAIN); attempt++)
    fd = sys_openat2(view->root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0,
                     RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (st.st_size > 0 && (uint64_t)st.st_size > most))
    return -1;
  return view_owns(view, fd) ? imd_take_fd(&fd) : copy_of(fd, most);
}

static int collect(void *argument, struct findings *findings, struct imd_error *err)
{
  const struct work *work = argument;
  const struct run *run = work->run;
  /* With the payload's ids and no capability: what it could not read, it cannot have fetched. */
  gid_t groups[IMD_MAX_GROUPS];
  if (setgroups(peer_groups(work->cell, run, groups), groups) < 0 || setresgid(run->gid, run->gid, run->gid) < 0 ||
      setresuid(run->uid, run->uid, run->uid) < 0)
    return imd_fail(err, IMD_STAGE_FILE, errno, "the payload's identity");
  struct imd_plan_cursor cursor = {.plan = run->plan};
  uint64_t bit = 1;
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op != IMD_OP_COLLECT)
      continue;
    const int fd = open_file(&work->cell->view, imd_plan_string_at(&step, 0, NULL), step.numbers[0]);
    if (fd >= 0) {
      findings->fds.fd[findings->fds.count++] = fd;
      findings->which |= bit;
    }
    bit <<= 1;
  }
  return 0;
}

static bool has_files(const struct run *run)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);)
    if (step.op == IMD_OP_COLLECT)
      return true;
  return false;
}

int collect_files(const struct cell *cell, const struct run *run, struct findings *findings, struct imd_error *err)
{
  struct work work = {cell, run};
  findings->which = 0;
  findings->fds.count = 0;
  return has_files(run) ? guarded_call(cell, run, collect, &work, findings, err) : 0;
}
