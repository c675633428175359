#define _GNU_SOURCE
#include "accept.h"
#include "protocol.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 4096 };           /* the kernel lowers it to net.core.somaxconn */

/* A path of any length fits no sockaddr_un: the directory is named by its descriptor. */
static int bind_in(int socket, int directory, const char *name)
{
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const int length =
      snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory, name);
  if (length < 0 || (size_t)length >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  const mode_t old = umask(0111);
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

int imd_listener_open(struct imd_listener *listener, const char *path, uint32_t limit, struct imd_error *err)
{
  *listener = (struct imd_listener){.socket = -1, .directory = -1, .next = 1, .limit = limit};
  const char *slash = strrchr(path, '/');
  const char *name = slash + 1;
  if (name[0] == '\0' || strlen(name) >= sizeof listener->name)
    return imd_fail(err, 0, EINVAL, "%s", path);
  strcpy(listener->name, name);

  cleanup_free char *parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
  if (!parent)
    return imd_fail(err, 0, errno, "%s", path);
  cleanup_fd int directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0)
    return imd_fail(err, 0, errno, "%s", parent);
  cleanup_fd int socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket_ < 0)
    return imd_fail(err, 0, errno, "socket");

  struct stat status;
  if (remove_stale(directory, name) < 0 || bind_in(socket_, directory, name) < 0 ||
      fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || listen(socket_, BACKLOG) < 0)
    return imd_fail(err, 0, errno, "%s", path);

  listener->device = status.st_dev;
  listener->inode = status.st_ino;
  listener->directory = imd_take_fd(&directory);
  listener->socket = imd_take_fd(&socket_);
  return 0;
}

void imd_listener_close(struct imd_listener *listener)
{
  struct stat status;
  if (listener->socket < 0)
    return;
  if (fstatat(listener->directory, listener->name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      status.st_dev == listener->device && status.st_ino == listener->inode)
    unlinkat(listener->directory, listener->name, 0);
  imd_close(&listener->socket);
  imd_close(&listener->directory);
}

/* Everything of a peer's authority, or nothing: a group left out could also take a refusal away. */
static struct imd_peer *identify(int connection)
{
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
    return NULL;

  gid_t groups[IMD_MAX_GROUPS];
  size = sizeof groups;
  if (getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0) {
    imd_log("a connection of uid %u is turned away: its groups (at most %d): %s", credentials.uid, IMD_MAX_GROUPS,
            strerror(errno));
    return NULL;
  }
  struct imd_peer *peer = imd_allocate(sizeof *peer + size);
  peer->uid = credentials.uid;
  peer->gid = credentials.gid;
  peer->pid = credentials.pid;
  peer->ngroups = (uint32_t)(size / sizeof groups[0]);
  memcpy(peer->groups, groups, size);
  return peer;
}

int imd_listener_accept(struct imd_listener *listener, const struct imd_peer **peer)
{
  cleanup_fd int connection = accept4(listener->socket, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0)
    return -1;
  struct imd_peer *known = identify(connection);
  if (!known) {
    errno = EPERM;
    return -1;
  }
  known->node.key = listener->next++;
  imd_table_insert(&listener->peers, &known->node);
  *peer = known;
  return imd_take_fd(&connection);
}

const struct imd_peer *imd_listener_peer(const struct imd_listener *listener, uint64_t connection)
{
  return (const struct imd_peer *)imd_table_find(&listener->peers, connection);
}

void imd_listener_forget(struct imd_listener *listener, uint64_t connection)
{
  struct imd_node *node = imd_table_find(&listener->peers, connection);
  if (!node)
    return;
  imd_table_remove(&listener->peers, node);
  free(node);
}
