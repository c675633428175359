/*
 * The write shield's voice: what the payload's filter hands over (a refusal, a call that may write, an address) is
 * named here. It decides nothing: every notification is answered as the base program says, CONTINUE or its errno.
 *
 * The sandbox's own PID 1 explains. The warden answers in its place what it has not answered within EXPLAIN_PATIENCE_MS,
 * so that neither a stopped PID 1 nor a file system that does not answer holds anybody up (docs/adr/0013). One that could
 * go on, and that the host gives no processor, has EXPLAIN_BUSY_MS.
 */
#ifndef IMMURED_EXPLAIN_H
#define IMMURED_EXPLAIN_H

#include "protocol.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)        /* 5.19 */
#endif
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP                       /* 6.6 */
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

enum { EXPLAIN_PATIENCE_MS = 50, EXPLAIN_BUSY_MS = 2000, EXPLAIN_MAX_PROGRAM = 4096 };

struct explain_record {
  uint32_t kind;                   /* enum imd_violation_kind */
  uint32_t number;                 /* of the system call */
  int32_t pid;                     /* the process, as the cell counts */
  uint32_t target_length, exe_length;
  uint64_t argument[3];
  char target[IMD_MAX_TARGET], exe[IMD_MAX_EXE];
};

/*
 * Memory of warden and PID 1, made before PID 1 is. What PID 1 writes the warden copies with every length checked;
 * PID 1 reads hostile memory, and is believed no further than that.
 */
struct explain_shared {
  /* The kernel puts a notification here. id 0: PID 1 has none in hand. Room for what later kernels may add. */
  union { struct seccomp_notif notif; char room[256]; } hand;
  uint64_t cpu_before;             /* ns of processor time that PID 1 had used before the run */
  _Atomic uint32_t settled;        /* it has nothing left to do but to explain */
  _Atomic uint64_t answered;
  _Atomic uint32_t records;        /* how many of `record` are whole */
  _Atomic uint64_t count[IMD_VIOLATION_KINDS];
  /* The warden's, before PID 1 has the listener. */
  uint32_t halt, network;          /* halt: a write outside the allowance is not answered; network: lo is up */
  uint32_t learn;                  /* what is allowed is noted too, and a log comes with the listener */
  uint32_t program_length;         /* instructions of the base program */
  struct sock_filter program[EXPLAIN_MAX_PROGRAM];
  struct explain_record record[IMD_MAX_VIOLATIONS];
};

/* What a base program's answer means to a notification. */
void explain_verdict(uint32_t action, struct seccomp_notif_resp *answer);

/* --- in PID 1 ---------------------------------------------------------------------------------------------------- */

/*
 * PID 1's setup, in three parts. While it is host root: its working directory becomes a /proc of the cell's (at `path` from
 * `dir`) that stands by itself. While it is root of the cell: its file system ids become the payload's, so that it can resolve what the
 * payload can, and no more. With CAP_SYS_PTRACE left alone: `leash` becomes its only descriptor, 0, it dies with the
 * warden, and a filter lets it do what explaining takes.
 */
int explain_stand_in_proc(int dir, const char *path);
void explain_become_payload(void);
int explain_settle(struct explain_shared *shared, int leash);

/* Waits on descriptor 0 for a listener, explains what comes from it, and ends when the leash does. */
_Noreturn void explain_serve(struct explain_shared *shared);

#endif
