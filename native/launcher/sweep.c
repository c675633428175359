#define _GNU_SOURCE
#include "sweep.h"
#include "protocol.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#define SWEEP_NS (5 * 1000000000ull)
enum { DEEPEST = 16 };             /* we make three levels; a payload that was lent a cgroup could make more */

static const struct {
  const char *name;
  uint32_t feature;
} controllers[] = {
    {"cpu", IMD_CTL_CPU},
    {"memory", IMD_CTL_MEMORY},
    {"pids", IMD_CTL_PIDS},
    {"io", IMD_CTL_IO},
};

/* Removes a cgroup and all below it that nobody is in; 0 when nothing is left. */
static int remove_below(int parent, const char *name, int depth)
{
  if (depth < DEEPEST) {
    const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
      return errno == ENOENT ? 0 : -1;
    DIR *directory = fdopendir(fd);
    if (!directory) {
      close(fd);
      return -1;
    }
    for (const struct dirent *entry; (entry = readdir(directory));)
      if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
        remove_below(fd, entry->d_name, depth + 1);
    closedir(directory);
  }
  return unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -1 : 0;
}

/* cgroup.kill is recursive, but the dead leave their cgroups a little later. */
static int kill_and_remove(int parent, const char *name)
{
  char knob[NAME_MAX + sizeof "/cgroup.kill"];
  snprintf(knob, sizeof knob, "%s/cgroup.kill", name);
  const uint64_t deadline = imd_now_ns() + SWEEP_NS;
  for (;;) {
    if (imd_write_at(parent, knob, "1") < 0 && errno == ENOENT)
      return 0;
    if (remove_below(parent, name, 0) == 0)
      return 0;
    if (imd_now_ns() >= deadline)
      return -1;
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
  }
}

static bool lists(const char *words, const char *word)
{
  const size_t size = strlen(word);
  for (const char *at = words; (at = strstr(at, word)); at += size)
    if ((at == words || at[-1] == ' ') && strchr(" \n", at[size]))
      return true;
  return false;
}

static void enable_controllers(struct imd_subtree *subtree)
{
  char offered[256];
  if (imd_read_at(subtree->directory, "cgroup.controllers", offered, sizeof offered) < 0)
    return;
  for (size_t i = 0; i < sizeof controllers / sizeof controllers[0]; i++) {
    char text[16];
    if (!lists(offered, controllers[i].name))
      continue;
    snprintf(text, sizeof text, "+%s", controllers[i].name);
    if (imd_write_at(subtree->directory, "cgroup.subtree_control", text) < 0 ||
        imd_write_at(subtree->directory, "tenants/cgroup.subtree_control", text) < 0)
      imd_log("cgroup controller %s: %s", controllers[i].name, strerror(errno));
    else
      subtree->controllers |= controllers[i].feature;
  }
  if (lists(offered, "cpuset"))
    subtree->controllers |= IMD_CTL_CPUSET;  /* handed down only when asked for: cgroup.h */
  if (faccessat(subtree->directory, "tenants/cgroup.kill", F_OK, 0) == 0)
    subtree->controllers |= IMD_CTL_KILL;
  subtree->swap = faccessat(subtree->directory, "tenants/memory.swap.max", F_OK, 0) == 0;
}

static int open_subtree(struct imd_subtree *subtree, const char *path)
{
  const char *slash = strrchr(path, '/');
  cleanup_free char *above = strndup(path, (size_t)(slash - path) + 1);
  if (!above)
    return -1;
  cleanup_fd int parent = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct statfs kind;
  if (parent < 0 || fstatfs(parent, &kind) < 0)
    return -1;
  if (kind.f_type != CGROUP2_SUPER_MAGIC) {
    errno = EMEDIUMTYPE;
    return -1;
  }
  if (mkdirat(parent, slash + 1, 0755) < 0 && errno != EEXIST)
    return -1;
  cleanup_fd int directory = openat(parent, slash + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0)
    return -1;
  if (kill_and_remove(directory, "tenants") < 0 || mkdirat(directory, "tenants", 0755) < 0)
    return -1;
  subtree->directory = imd_take_fd(&directory);
  subtree->path = path;
  return 0;
}

void imd_subtree_open(struct imd_subtree *subtree, const char *path)
{
  *subtree = (struct imd_subtree){.directory = -1, .path = ""};
  if (!path)
    return;
  if (open_subtree(subtree, path) < 0)
    imd_log("no cgroup at %s: %s", path, errno == EMEDIUMTYPE ? "not cgroup v2" : strerror(errno));
  else
    enable_controllers(subtree);
}

void imd_subtree_take(struct imd_subtree *subtree, const char *path, int directory, uint32_t features, bool swap)
{
  *subtree = (struct imd_subtree){
      .directory = directory, .path = directory >= 0 && path ? path : "", .controllers = features, .swap = swap};
}

void imd_subtree_end_run(const struct imd_subtree *subtree, const char *tenant, const char *sandbox)
{
  char path[PATH_MAX];
  if (subtree->directory < 0)
    return;
  snprintf(path, sizeof path, "tenants/%s/%s/cgroup.kill", tenant, sandbox);
  if (imd_write_at(subtree->directory, path, "1") < 0 && errno == ENOENT)
    return;
  snprintf(path, sizeof path, "tenants/%s/%s", tenant, sandbox);
  if (remove_below(subtree->directory, path, 0) < 0)
    imd_log("cgroup %s: %s", path, strerror(errno));
}

void imd_subtree_close(struct imd_subtree *subtree)
{
  if (subtree->directory < 0)
    return;
  if (kill_and_remove(subtree->directory, "tenants") < 0)
    imd_log("cgroup %s/tenants: %s", subtree->path, strerror(errno));
  imd_close(&subtree->directory);
  if (rmdir(subtree->path) < 0)
    imd_log("cgroup %s: %s", subtree->path, strerror(errno));
}
