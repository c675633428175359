#define _GNU_SOURCE
#include "quota.h"
#include "protocol.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Projects of ours: far above what people number by hand, and below 2^31. */
enum { PROJECT_BASE = 0x49000000, PROJECTS = 1 << 24, TRIES = 4096, BLOCK = 1024 /* of the limits */ };

#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443                                      /* 5.14 */
#endif

/* By descriptor: the file system need not be on a device that we could name. */
static int quotactl_at(int fd, int command, uint32_t id, void *address)
{
  return (int)syscall(SYS_quotactl_fd, fd, QCMD(command, PRJQUOTA), id, address);
}

bool quota_is_enforced(int directory)
{
  struct fs_quota_stat state = {.qs_version = FS_QSTAT_VERSION};
  /* ext4 counts projects by its feature alone, and enforces limits only where it was mounted with prjquota. */
  return quotactl_at(directory, Q_XGETQSTAT, 0, &state) == 0 && (state.qs_flags & FS_QUOTA_PDQ_ENFD);
}

static bool is_empty(int directory)
{
  const int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = copy < 0 ? NULL : fdopendir(copy);
  if (!entries) {
    if (copy >= 0)
      close(copy);
    return false;
  }
  int count = 0;
  while (count < 3 && readdir(entries))
    count++;
  closedir(entries);
  return count == 2;
}

static bool is_free(int directory, uint32_t project)
{
  struct if_dqblk block;
  if (quotactl_at(directory, Q_GETQUOTA, project, &block) < 0)
    return errno == ENOENT || errno == ESRCH;
  return block.dqb_curspace == 0 && block.dqb_curinodes == 0;
}

static uint32_t choose(int directory, uint32_t start)
{
  for (uint32_t i = 0; i < TRIES; i++) {
    const uint32_t project = PROJECT_BASE + (start + i) % PROJECTS;
    if (is_free(directory, project))
      return project;
  }
  return 0;
}

static int join_project(int directory, uint32_t *project, const char *name, struct imd_error *err)
{
  struct fsxattr attributes;
  struct stat st;
  if (ioctl(directory, FS_IOC_FSGETXATTR, &attributes) < 0 || fstat(directory, &st) < 0)
    return imd_fail(err, IMD_STAGE_LAYER, errno, "the project of %s", name);
  *project = attributes.fsx_projid;
  const bool ours = *project >= PROJECT_BASE && *project < PROJECT_BASE + PROJECTS;
  if (ours && (attributes.fsx_xflags & FS_XFLAG_PROJINHERIT))
    return 0;
  if (!is_empty(directory))
    return imd_fail(err, IMD_STAGE_LAYER, EPERM, "%s holds files that its quota would not count", name);
  *project = choose(directory, (uint32_t)st.st_ino);
  if (*project == 0)
    return imd_fail(err, IMD_STAGE_LAYER, EUSERS, "no project is free for %s", name);
  attributes.fsx_projid = *project;
  attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
  return ioctl(directory, FS_IOC_FSSETXATTR, &attributes) < 0
             ? imd_fail(err, IMD_STAGE_LAYER, errno, "the project of %s", name)
             : 0;
}

int quota_bound(int directory, uint64_t bytes, uint64_t inodes, const char *name, struct imd_error *err)
{
  uint32_t project = 0;
  if (join_project(directory, &project, name, err) < 0)
    return -1;
  struct if_dqblk block = {
      .dqb_bhardlimit = (bytes + BLOCK - 1) / BLOCK, .dqb_ihardlimit = inodes, .dqb_valid = QIF_LIMITS};
  return quotactl_at(directory, Q_SETQUOTA, project, &block) < 0
             ? imd_fail(err, IMD_STAGE_LAYER, errno, "the quota of %s", name)
             : 0;
}
