#define _GNU_SOURCE
#include "landlock.h"
#include "kernel.h"
#include "util.h"

#include <fcntl.h>

#define WRITE (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE)
#define CHANGE                                                                                                        \
  (WRITE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |             \
   LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |                        \
   LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER)

/* What each rung adds. Rights that no rule gives (devices to be made, others' sockets) are refused everywhere. */
static const struct rung {
  uint32_t abi;
  uint64_t files, net, scoped;
  uint32_t flags;
} ladder[] = {
    {.abi = 2, .files = (CHANGE & ~LANDLOCK_ACCESS_FS_TRUNCATE) | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                        LANDLOCK_ACCESS_FS_MAKE_BLOCK},
    {.abi = 3, .files = LANDLOCK_ACCESS_FS_TRUNCATE},
    {.abi = 4, .net = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP},
    {.abi = 5, .files = LANDLOCK_ACCESS_FS_IOCTL_DEV},
    {.abi = 6, .scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL},
    {.abi = 7, .flags = LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON | LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF},
    {.abi = 9, .files = LANDLOCK_ACCESS_FS_RESOLVE_UNIX},
    {.abi = 10, .net = LANDLOCK_ACCESS_NET_BIND_UDP | LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP},
};

static struct rung up_to(uint32_t abi)
{
  struct rung sum = {.abi = abi};
  for (size_t i = 0; i < sizeof ladder / sizeof ladder[0] && ladder[i].abi <= abi; i++) {
    sum.files |= ladder[i].files;
    sum.net |= ladder[i].net;
    sum.scoped |= ladder[i].scoped;
    sum.flags |= ladder[i].flags;
  }
  return sum;
}

uint32_t landlock_rung(void)
{
  static bool known;
  static uint32_t rung;
  if (!known) {
    const long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    rung = abi < IMD_LANDLOCK_OLDEST ? 0 : abi > IMD_LANDLOCK_NEWEST ? IMD_LANDLOCK_NEWEST : (uint32_t)abi;
    known = true;
  }
  return rung;
}

/* `rights`, as far as this kernel knows them. */
static int allow(int ruleset, int place, uint64_t rights)
{
  return sys_landlock_allow(ruleset, place, rights & up_to(landlock_rung()).files);
}

/* What is not there needs no rule. */
static int allow_at(int ruleset, int directory, const char *name, uint64_t rights)
{
  cleanup_fd int place = openat(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return place >= 0 ? allow(ruleset, place, rights) : errno == ENOENT ? 0 : -1;
}

/* Of /proc, mounts and the kernel's own checks say what can be written; programs do write there. */
static int allow_cell(int ruleset, const struct view *view)
{
  if (allow(ruleset, view->dev, WRITE | LANDLOCK_ACCESS_FS_IOCTL_DEV) < 0 || allow(ruleset, view->proc, WRITE) < 0 ||
      allow(ruleset, view->tmp, CHANGE) < 0 || allow_at(ruleset, view->dev, "shm", CHANGE) < 0)
    return -1;
  /* Also what mq_open is judged by: it opens through a mount that stands nowhere, of the same root directory. */
  const uint64_t queues = WRITE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;
  return allow_at(ruleset, view->dev, "mqueue", queues);
}

int landlock_make(const struct view *view, int *ruleset, struct imd_error *err)
{
  const uint32_t abi = landlock_rung();
  *ruleset = -1;
  if (abi == 0)
    return 0;
  const struct rung rung = up_to(abi);
  cleanup_fd int fd = sys_landlock_create(&(struct landlock_ruleset){.files = rung.files, .scoped = rung.scoped});
  if (fd < 0 || allow_cell(fd, view) < 0)
    return imd_fail(err, IMD_STAGE_CELL, errno, "the Landlock rules of ABI %u", abi);
  *ruleset = imd_take_fd(&fd);
  return 0;
}

int landlock_allow(int ruleset, int place, bool directory, const char *path, struct imd_error *err)
{
  if (ruleset < 0 || allow(ruleset, place, directory ? CHANGE : WRITE) == 0)
    return 0;
  return imd_fail(err, IMD_STAGE_MOUNT, errno, "the Landlock rule of %s", path);
}

int landlock_restrict(int ruleset, const struct view *view, const struct imd_plan_step *step, struct imd_error *err)
{
  const struct rung rung = up_to((uint32_t)step->numbers[0]);
  if (sys_landlock_restrict(ruleset, rung.flags) < 0)
    return imd_fail(err, IMD_STAGE_PROCESS, errno, "Landlock");
  if (!(step->numbers[1] & IMD_LANDLOCK_NO_NETWORK) || rung.net == 0)
    return 0;
  /*
   * Ports have no hierarchy: allowed is every one, by a ruleset that says nothing of them, or none, by one more. Which
   * refuses every move between directories, as any does that does not say where they may be (6.18, where it was seen).
   */
  cleanup_fd int fd = sys_landlock_create(&(struct landlock_ruleset){LANDLOCK_ACCESS_FS_REFER, rung.net, 0});
  return fd < 0 || sys_landlock_allow(fd, view->root, LANDLOCK_ACCESS_FS_REFER) < 0 ||
                 sys_landlock_restrict(fd, rung.flags) < 0
             ? imd_fail(err, IMD_STAGE_PROCESS, errno, "Landlock's network")
             : 0;
}
