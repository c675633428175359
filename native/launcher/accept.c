#define _GNU_SOURCE
#include "accept.h"
#include "protocol.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int imd_listener_open(struct imd_listener *listener, const char *path, uint32_t limit, struct imd_error *err)
{
  if (listener->next == 0)
    listener->next = 1;
  listener->limit = limit;
  listener->socket = imd_address_listen(&listener->address, path, SOCK_STREAM, 0666, 0, err);
  return listener->socket < 0 ? -1 : 0;
}

void imd_listener_take(struct imd_listener *listener, int socket, uint32_t limit)
{
  /* As systemd hands it over it blocks (NonBlocking=no), and we accept until there is nobody left. */
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
  *listener = (struct imd_listener){.socket = socket, .address = {.directory = -1}, .next = 1, .limit = limit};
}

void imd_listener_close(struct imd_listener *listener)
{
  if (listener->socket < 0)
    return;
  imd_address_leave(&listener->address);
  imd_drop(&listener->socket, 1);
}

void imd_listener_forget_all(struct imd_listener *listener)
{
  for (uint32_t bucket = 0; bucket < IMD_TABLE_BUCKETS; bucket++)
    while (listener->peers.buckets[bucket])
      imd_listener_forget(listener, listener->peers.buckets[bucket]->key);
  memset(listener->away, 0, sizeof listener->away);
}

static bool is_away(const struct imd_listener *listener, uint32_t uid)
{
  for (int i = 0; i < IMD_MAX_AWAY; i++)
    if (listener->away[i].until != 0 && listener->away[i].uid == uid)
      return imd_now_ns() < listener->away[i].until;
  return false;
}

void imd_listener_turn_away(struct imd_listener *listener, uint32_t uid, uint32_t ms)
{
  struct imd_away *place = &listener->away[0];
  for (int i = 0; i < IMD_MAX_AWAY; i++) {
    struct imd_away *away = &listener->away[i];
    if (away->until != 0 && away->uid == uid) {
      place = away;
      break;
    }
    if (away->until < place->until)
      place = away;
  }
  *place = (struct imd_away){.until = imd_now_ns() + (uint64_t)ms * 1000000, .uid = uid};
}

/* Everything of a peer's authority, or nothing: a group left out could also take a refusal away. */
static struct imd_peer *identify(const struct imd_listener *listener, int connection)
{
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
    return NULL;
  if (is_away(listener, credentials.uid))
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
  cleanup_dropped int connection = accept4(listener->socket, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0)
    return -1;
  /* A byte out of band, which nobody here asks for, is dropped with its descriptors by whoever reads past it. In line it is
     read like any other. */
  setsockopt(connection, SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int));
  struct imd_peer *known = identify(listener, connection);
  if (!known) {
    errno = EPERM;
    return -1;
  }
  known->node.key = listener->next++;
  imd_table_insert(&listener->peers, &known->node);
  *peer = known;
  return imd_take_fd(&connection);
}

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77                                   /* Linux 6.5 */
#endif

/* Whether the process that connected is still the one that has its number. */
static bool is_still(int pidfd)
{
  return syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0;
}

/*
 * The process that connected: its number may be somebody else's by now. Before Linux 6.5 the number is all there is, and
 * whoever has it then is not `known`. -1: the process is gone.
 */
static int open_process(int connection, const struct imd_peer *peer, bool *known)
{
  int pidfd = -1;
  socklen_t size = sizeof pidfd;
  *known = getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0;
  if (!*known && errno == ENOPROTOOPT)
    pidfd = (int)syscall(SYS_pidfd_open, peer->pid, 0);
  return pidfd;
}

size_t imd_peer_program(int connection, const struct imd_peer *peer, char *path, size_t size)
{
  char process[32];
  struct stat status;
  if (peer->pid <= 0)
    return 0;                                              /* in a pid namespace that we do not see */
  bool known;
  cleanup_fd int pidfd = open_process(connection, peer, &known);
  snprintf(process, sizeof process, "/proc/%d", peer->pid);
  cleanup_fd int directory = pidfd < 0 ? -1 : open(process, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0)
    return 0;
  const ssize_t length = readlinkat(directory, "exe", path, size);
  if (length <= 0 || (size_t)length >= size)
    return 0;                                              /* cut short, it would be another program's */
  /* A number that was given anew is at least that user's: /proc/PID is its effective uid's, whatever it may dump. */
  if (!known && (fstat(directory, &status) < 0 || status.st_uid != peer->uid))
    return 0;
  return is_still(pidfd) ? (size_t)length : 0;
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
