#define _GNU_SOURCE
#include "loop.h"
#include "protocol.h"
#include "util.h"
#include "vfs.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

enum { MAX_LOOPS = 4096, PAUSE_NS = 10000000, TRIES = 64 };

#define fail(err, error, ...) imd_fail((err), IMD_STAGE_LAYER, (error), __VA_ARGS__)

static void pause_a_little(void)
{
  nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
}

/* --- the file ---------------------------------------------------------------------------------------------------- */

/* No shell, no environment, nothing open but the file. */
_Noreturn static void be_mkfs(int file, const struct stat *owner, uint64_t inodes)
{
  static const char *const programs[] = {"/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"};
  char path[32], count[32], extended[128];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  snprintf(count, sizeof count, "%" PRIu64, inodes);
  snprintf(extended, sizeof extended, "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=%u:%u",
           owner->st_uid, owner->st_gid);
  char *const argv[] = {(char *)(uintptr_t)"mkfs.ext4", (char *)(uintptr_t)"-q", (char *)(uintptr_t)"-F",
                        (char *)(uintptr_t)"-m", (char *)(uintptr_t)"0", (char *)(uintptr_t)"-N", count,
                        (char *)(uintptr_t)"-E", extended, path, NULL};
  char *const env[] = {(char *)(uintptr_t)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", (char *)(uintptr_t)"LC_ALL=C", NULL};
  fcntl(file, F_SETFD, 0);
  for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
    execve(programs[i], argv, env);
  _exit(127);
}

static int format(int file, const struct stat *owner, uint64_t inodes, const char *name, struct imd_error *err)
{
  const pid_t pid = fork();
  if (pid == 0)
    be_mkfs(file, owner, inodes);
  int status = -1;
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
    continue;
  if (pid < 0 || status != 0)
    return fail(err, pid < 0 ? errno : 0, "volume %s: %s", name,
                pid >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127
                    ? "its file system has no project quotas, and there is no mkfs.ext4 to make one in a file"
                    : "mkfs.ext4 failed");
  return 0;
}

/* Complete when it is first seen: who is ended in between leaves nothing. */
static int make_image(int volume, const struct stat *owner, uint64_t size, uint64_t inodes, const char *name,
                      struct imd_error *err)
{
  cleanup_fd int file = openat(volume, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, (off_t)size) < 0)
    return fail(err, errno, "volume %s", name);
  if (format(file, owner, inodes, name, err) < 0)
    return -1;
  if (fcntl(file, F_SETFD, FD_CLOEXEC) < 0 || fsync(file) < 0 ||
      linkat(file, "", volume, "image", AT_EMPTY_PATH) < 0 || fsync(volume) < 0)
    return fail(err, errno, "volume %s", name);
  return imd_take_fd(&file);
}

static int open_image(int volume, const struct stat *owner, uint64_t size, uint64_t inodes, const char *name,
                      struct imd_error *err)
{
  cleanup_fd int file = openat(volume, "image", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (file < 0 && errno == ENOENT)
    return make_image(volume, owner, size, inodes, name, err);
  struct stat st;
  if (file < 0 || fstat(file, &st) < 0)
    return fail(err, errno, "volume %s", name);
  if (!S_ISREG(st.st_mode) || st.st_uid != 0 || st.st_nlink != 1 || (st.st_mode & 07777) != 0600)
    return fail(err, EPERM, "the image of volume %s is not one that we made", name);
  return imd_take_fd(&file);
}

/* --- the device -------------------------------------------------------------------------------------------------- */

/* Two devices over one file would be two file systems that do not know of each other. */
static bool is_attached(const struct stat *image)
{
  for (int i = 0, missing = 0; i < MAX_LOOPS && missing < 8; i++) {
    char path[32];
    snprintf(path, sizeof path, "/dev/loop%d", i);
    cleanup_fd int loop = open(path, O_RDONLY | O_CLOEXEC);
    if (loop < 0) {
      missing++;
      continue;
    }
    missing = 0;
    struct loop_info64 info;
    if (ioctl(loop, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == image->st_ino &&
        info.lo_device == makedev(major(image->st_dev), minor(image->st_dev)))
      return true;
  }
  return false;
}

/* An ended cell's mounts go a moment after it; what never goes, our deadline sees to. */
static int wait_until_alone(int image, const char *name, struct imd_error *err)
{
  struct stat st;
  if (flock(image, LOCK_EX) < 0 || fstat(image, &st) < 0)
    return fail(err, errno, "volume %s", name);
  while (is_attached(&st))
    pause_a_little();
  return 0;
}

static int attach(int image, char *path, size_t size, const char *name, struct imd_error *err)
{
  cleanup_fd int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0)
    return fail(err, errno, "volume %s: its file system has no project quotas, and there are no loop devices", name);
  for (int i = 0; i < TRIES; i++) {
    const int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0)
      return fail(err, errno, "volume %s: a loop device", name);
    snprintf(path, size, "/dev/loop%d", number);
    cleanup_fd int loop = open(path, O_RDWR | O_CLOEXEC);
    struct loop_config config = {.fd = (uint32_t)image,
                                 .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO};
    if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0)
      return imd_take_fd(&loop);
    if (loop >= 0 && errno != EBUSY)
      return fail(err, errno, "volume %s: %s", name, path);
    pause_a_little();              /* somebody else took it, or udev has not made its node yet */
  }
  return fail(err, EBUSY, "volume %s: a loop device", name);
}

int loop_open(int volume, const struct stat *owner, uint64_t size, uint64_t inodes, const char *name,
              struct imd_error *err)
{
  cleanup_fd int image = open_image(volume, owner, size, inodes, name, err);
  if (image < 0 || wait_until_alone(image, name, err) < 0)
    return -1;
  char path[32];
  cleanup_fd int loop = attach(image, path, sizeof path, name, err);
  if (loop < 0)
    return -1;
  cleanup_fd int context = fsopen("ext4", FSOPEN_CLOEXEC);
  if (context < 0 || fsconfig(context, FSCONFIG_SET_STRING, "source", path, 0) < 0 ||
      /* What is freed inside is freed outside. */
      fsconfig(context, FSCONFIG_SET_FLAG, "discard", NULL, 0) < 0 ||
      fsconfig(context, FSCONFIG_SET_STRING, "errors", "remount-ro", 0) < 0)
    return fail(err, errno, "volume %s", name);
  cleanup_fd int mount = vfs_finish(context, VFS_PLAIN);
  if (mount < 0)
    return fail(err, errno, "the file system of volume %s", name);
  unlinkat(mount, "lost+found", AT_REMOVEDIR);
  return imd_take_fd(&mount);
}
