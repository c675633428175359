/* One packet, with its descriptors, over a SOCK_SEQPACKET socket; and what launcher, parker and wardens say. */
#ifndef IMMURED_MESSAGE_H
#define IMMURED_MESSAGE_H

#include "protocol.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
  IMD_MAX_FDS = IMD_MAX_COLLECT,
  /* A warden's prepare carries the peer's groups before a plan that filled the broker's packet. */
  IMD_W_MAX_PACKET = IMD_MAX_PACKET + 4096,
};

enum imd_w_message {
  IMD_W_PREPARE = 128,             /* launcher -> warden, id = run: struct imd_w_prepare, groups, the plan; descriptors */
  IMD_W_CREATE,                    /* launcher -> warden, id = sandbox: as PREPARE; descriptors: the plan's memfd if any, the
                                      record. From CREATED on the warden is the sandbox's keeper (keeper.h) */
  IMD_W_ASK,                       /* launcher -> keeper, id = sandbox: struct imd_w_ask, uint32_t groups[]; the clerk's socket */
  IMD_W_ALONE,                     /* launcher -> keeper, id = sandbox: the broker is gone, and what it does not keep ends
                                      without a word */
  IMD_W_AGAIN,                     /* launcher -> keeper, id = sandbox: there is a broker that is to hear KEPT */
  IMD_W_PARKED = 160,              /* warden -> launcher: this cell is ready for a run */
  IMD_W_OVER,                      /* warden or keeper -> launcher, id = run, exec or sandbox: the broker has been told of its
                                      end */
  IMD_W_CREATED,                   /* keeper -> launcher, id = sandbox: the broker has been told that it lives */

  IMD_P_PARK = 192,                /* launcher -> parker, id = cell: struct imd_p_park */
  IMD_P_CELL = 224,                /* parker -> launcher, id = cell: a warden was forked; its socket */
  IMD_P_GONE,                      /* parker -> launcher, id = cell: struct imd_p_gone; nothing of it lives any more */
};

/*
 * Then uint32_t groups[ngroups], NULs to a multiple of eight, then the plan (unless IMD_PLAN_IN_MEMFD: the first
 * descriptor, sealed). The payload's 0, 1 and 2 and the pipe of GO are always the last four descriptors. The launcher has
 * checked the plan with imd_plan_check. KILL, FAILED and EXITED are the broker's own, id = run. A keeper takes the broker's
 * EXEC, SIGNAL, RESIZE, CLOSE_STDIN, FREEZE, EXTEND, MEASURE and KILL as they are.
 */
struct imd_w_prepare { uint32_t uid, gid, ngroups, plan_length, flags, reserved; };

/* Whose connection it is that a clerk serves; uid UINT32_MAX: nobody's. */
struct imd_w_ask { uint32_t uid, gid, ngroups, clerk; };

enum { IMD_W_PREPARE_FDS = 4, IMD_W_CREATE_FDS = 1 };

/* How many descriptors a PREPARE of these flags comes with. */
static inline uint32_t imd_w_prepare_fds(uint32_t flags)
{
  return IMD_W_PREPARE_FDS + !!(flags & IMD_PLAN_IN_MEMFD) + !!(flags & IMD_WITH_LOG);
}

/* And of an EXEC's, of enum imd_prepare_flag and enum imd_exec_flag. */
static inline uint32_t imd_w_exec_fds(uint32_t flags)
{
  return imd_w_prepare_fds(flags) + (flags & IMD_EXEC_KEPT ? (uint32_t)IMD_KEPT_FDS : 0);
}

struct imd_p_park { uint32_t slot_base; uint32_t reserved; };

/*
 * `status` is waitpid's; `error` is errno where no warden could be forked at all. `unsure`: it ended badly, and what
 * it left did not end in time: its ids are never used again.
 */
struct imd_p_gone { int32_t status; int32_t error; uint32_t unsure; uint32_t reserved; };

/* Descriptors that came with a packet; imd_fds_close in its cleanup closes those nobody took (set them to -1). */
struct imd_fds { int fd[IMD_MAX_FDS]; uint32_t count; };

void imd_fds_close(struct imd_fds *fds);
#define cleanup_fds __attribute__((cleanup(imd_fds_close)))

/* The same of what a caller may have passed along: imd_drop. */
void imd_fds_drop(struct imd_fds *fds);
#define cleanup_fds_dropped __attribute__((cleanup(imd_fds_drop)))

/* Where the plan (or the end of the packet) lies in an IMD_W_PREPARE, from the packet's start. */
static inline size_t imd_w_plan_offset(uint32_t ngroups)
{
  const size_t end = sizeof(struct imd_header) + sizeof(struct imd_w_prepare) + (size_t)ngroups * sizeof(uint32_t);
  return (end + 7) & ~(size_t)7;
}

/* A packet's pieces after its header; sets header.length. `flags` as for sendmsg. 0, or -1 with errno. */
int imd_send_packet(int socket, uint32_t type, uint64_t id, const struct iovec *body, size_t pieces, const int *fds,
                    uint32_t nfds, int flags);

/* A whole packet, as it came, with these descriptors. */
int imd_forward_packet(int socket, const void *packet, size_t size, const int *fds, uint32_t nfds, int flags);

/* The same with a body in one piece and no descriptors. */
int imd_send_message(int socket, uint32_t type, uint64_t id, const void *body, size_t size, int flags);

/*
 * One packet into `buffer` (8-aligned; at least IMD_MAX_PACKET, or IMD_W_MAX_PACKET in a warden). Returns its length,
 * 0 at the end of the connection, -1 with errno: EBADMSG for one that is shorter than its header, longer than the
 * buffer, or whose length lies. Where there are more descriptors than IMD_MAX_FDS, or the kernel could not hand over every
 * one, none is: `fds->count` is 0.
 * A peer that went without reading what we had sent is no error: what it had said comes first, then the end.
 */
ssize_t imd_recv_packet(int socket, void *buffer, size_t size, struct imd_fds *fds, int flags);

#endif
