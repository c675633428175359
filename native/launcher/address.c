#define _GNU_SOURCE
#include "address.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 4096 };           /* the kernel lowers it to net.core.somaxconn */

/* A path of any length fits no sockaddr_un: the directory is named by its descriptor. */
static int bind_in(int socket, int directory, const char *name, mode_t mode)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const int length =
      snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory, name);
  if (length < 0 || (size_t)length >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  const mode_t old = umask(0777 & ~mode);
  const int result = bind(socket, (struct sockaddr *)&address, sizeof address);
  umask(old);
  return result;
}

static int remove_stale(int directory, const char *name)
{
  struct stat status;
  if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
    return errno == ENOENT ? 0 : -1;
  if (!S_ISSOCK(status.st_mode)) {
    errno = EEXIST;
    return -1;
  }
  return unlinkat(directory, name, 0);
}

int imd_address_listen(struct imd_address *address, const char *path, int type, mode_t mode, uid_t owner,
                       struct imd_error *err)
{
  *address = (struct imd_address){.directory = -1};
  const char *slash = strrchr(path, '/');
  const char *name = slash + 1;
  if (name[0] == '\0' || strlen(name) >= sizeof address->name)
    return imd_fail(err, 0, EINVAL, "%s", path);
  strcpy(address->name, name);

  cleanup_free char *parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
  if (!parent)
    return imd_fail(err, 0, errno, "%s", path);
  cleanup_fd int directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0)
    return imd_fail(err, 0, errno, "%s", parent);
  cleanup_fd int socket_ = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket_ < 0)
    return imd_fail(err, 0, errno, "socket");

  struct stat status;
  if (remove_stale(directory, name) < 0 || bind_in(socket_, directory, name, mode) < 0 ||
      (owner != 0 && fchownat(directory, name, owner, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0) ||
      fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || listen(socket_, BACKLOG) < 0)
    return imd_fail(err, 0, errno, "%s", path);

  address->device = status.st_dev;
  address->inode = status.st_ino;
  address->directory = imd_take_fd(&directory);
  return imd_take_fd(&socket_);
}

void imd_address_leave(struct imd_address *address)
{
  struct stat status;
  if (address->directory < 0)
    return;
  if (fstatat(address->directory, address->name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      status.st_dev == address->device && status.st_ino == address->inode)
    unlinkat(address->directory, address->name, 0);
  imd_close(&address->directory);
}
