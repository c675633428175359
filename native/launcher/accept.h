/* The listening socket, and who is behind each connection: what the kernel said at accept, kept under a number. */
#ifndef IMMURED_ACCEPT_H
#define IMMURED_ACCEPT_H

#include "error.h"
#include "table.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct imd_peer {
  struct imd_node node;            /* key: the connection's number */
  uint32_t uid, gid;
  int32_t pid;
  uint32_t ngroups;
  uint32_t groups[];
};

struct imd_listener {
  int socket;                      /* -1: accepts nobody any more */
  int directory;
  char name[NAME_MAX + 1];         /* of the socket, in its directory */
  dev_t device;
  ino_t inode;
  uint64_t next;                   /* number of the next connection; from 1 */
  uint32_t limit;                  /* most connections at a time */
  struct imd_table peers;
};

/* Listens on `path` (mode 0666, whatever the umask; as long as a path may be); a socket left there is replaced. */
int imd_listener_open(struct imd_listener *listener, const char *path, uint32_t limit, struct imd_error *err);

/* Accepts nobody any more, and removes the socket's file if it is still ours. */
void imd_listener_close(struct imd_listener *listener);

/*
 * One connection: its descriptor (the caller's) and who it is (the listener's, until it is forgotten). -1 with errno:
 * EAGAIN: nobody waits; EPERM: that one was turned away; others as accept4, of which EMFILE, ENFILE, ENOMEM and
 * ENOBUFS last a while.
 */
int imd_listener_accept(struct imd_listener *listener, const struct imd_peer **peer);

static inline bool imd_listener_full(const struct imd_listener *listener)
{
  return listener->peers.count >= listener->limit;
}

const struct imd_peer *imd_listener_peer(const struct imd_listener *listener, uint64_t connection);
void imd_listener_forget(struct imd_listener *listener, uint64_t connection);

#endif
