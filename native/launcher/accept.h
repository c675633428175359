/* The listening socket, and who is behind each connection: what the kernel said at accept, kept under a number. */
#ifndef IMMURED_ACCEPT_H
#define IMMURED_ACCEPT_H

#include "address.h"
#include "error.h"
#include "table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct imd_peer {
  struct imd_node node;            /* key: the connection's number */
  uint32_t uid, gid;
  int32_t pid;
  uint32_t ngroups;
  uint32_t groups[];
};

enum { IMD_MAX_AWAY = 64 };

struct imd_away { uint64_t until; uint32_t uid; };

struct imd_listener {
  int socket;                      /* -1: accepts nobody any more */
  struct imd_address address;
  uint64_t next;                   /* number of the next connection; from 1 */
  uint32_t limit;                  /* most connections at a time */
  struct imd_table peers;
  struct imd_away away[IMD_MAX_AWAY];   /* users who are turned away until then, CLOCK_MONOTONIC in ns */
};

/* Listens on `path` (mode 0666, whatever the umask; as long as a path may be); a socket left there is replaced. The
   numbers of connections go on where they were. */
int imd_listener_open(struct imd_listener *listener, const char *path, uint32_t limit, struct imd_error *err);

/* One that somebody else listens at for us (socket activation); its file is not ours. */
void imd_listener_take(struct imd_listener *listener, int socket, uint32_t limit);

/* Accepts nobody any more, and removes the socket's file if it is still ours. */
void imd_listener_close(struct imd_listener *listener);

/*
 * One connection: its descriptor (the caller's) and who it is (the listener's, until it is forgotten). -1 with errno:
 * EAGAIN: nobody waits; EPERM: that one was turned away; others as accept4, of which EMFILE, ENFILE, ENOMEM and
 * ENOBUFS last a while.
 */
int imd_listener_accept(struct imd_listener *listener, const struct imd_peer **peer);

/* Turns that user's connections away for so long: it has more than its share, and makes new ones as fast as it can. One
   too many, and who had the shortest to go is let in again. */
void imd_listener_turn_away(struct imd_listener *listener, uint32_t uid, uint32_t ms);

/*
 * The program of the process that connected, as the kernel shows its path to us; no NUL. Returns its length, 0 where it
 * is not known: the process is gone, or executed a program that nobody may look at. For the record, and for no decision:
 * a user runs what he likes, by what name he likes, and may have executed another program since he connected.
 */
size_t imd_peer_program(int connection, const struct imd_peer *peer, char *path, size_t size);

static inline bool imd_listener_full(const struct imd_listener *listener)
{
  return listener->peers.count >= listener->limit;
}

const struct imd_peer *imd_listener_peer(const struct imd_listener *listener, uint64_t connection);
void imd_listener_forget(struct imd_listener *listener, uint64_t connection);
void imd_listener_forget_all(struct imd_listener *listener);

#endif
