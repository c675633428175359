/*
 * What the broker (Python) and the launcher (this folder) say to each other, and what a plan is.
 *
 * Two SOCK_SEQPACKET pairs: one for all but the ends of runs, which every warden says itself through the other, whose
 * far end all of them share (on the way through the launcher, a wake-up of it would be part of every run). Every message
 * is one packet: `struct imd_header`, then the body named beside its type, in the machine's own byte order (both ends
 * are one machine and one build). Descriptors ride by SCM_RIGHTS.
 * The Python side takes every number below from this header through cffi (`immured._abi`): nothing is typed twice.
 *
 * The launcher is root and never parses what a client sent. It takes plans, and re-checks what no plan may break
 * (plan.c): an unknown operation, a missing wall, a step out of order, an id outside a cell's own range refuse the plan.
 */
#ifndef IMMURED_PROTOCOL_H
#define IMMURED_PROTOCOL_H

#include <stdint.h>

enum {
  IMD_PROTOCOL_VERSION = 2,
  IMD_MAX_PACKET = 65536,          /* one SEQPACKET message, header included */
  IMD_MAX_PLAN = 4 << 20,          /* larger than a packet: a sealed memfd */
  IMD_MAX_STEPS = 512,
  IMD_MAX_STRING = 1 << 20,
  IMD_MAX_GROUPS = 512,
  IMD_MAX_COLLECT = 64,            /* below SCM_MAX_FD (253) */
  IMD_SLOT_SIZE = 65536,           /* host ids per cell */
  IMD_PAYLOAD_ID = 1000,           /* the payload's uid and gid inside */
  IMD_MAX_VIOLATIONS = 64,         /* that are told one by one; the rest is counted */
  IMD_MAX_TARGET = 512,            /* bytes of a violation's path */
  IMD_MAX_EXE = 256,
  IMD_MAX_LEARNED = 256 << 10,     /* bytes of what a learning run asked for, and rows of it */
  IMD_MAX_LEARNED_ROWS = 4096,
};

struct imd_header {
  uint32_t type;                   /* enum imd_message */
  uint32_t length;                 /* of the whole packet */
  uint64_t id;                     /* a run's or a connection's number; 0 where neither */
};

enum imd_message {
  /* broker -> launcher */
  IMD_PREPARE = 1,                 /* run: struct imd_prepare, then the plan inline, or its memfd as first descriptor */
  IMD_KILL,                        /* run: struct imd_kill */
  IMD_CONN_CLOSED,                 /* connection: forget who it was */
  IMD_STOP,                        /* accept nobody any more; live runs go on */

  /* launcher -> broker */
  IMD_READY = 64,                  /* struct imd_ready, then the cgroup path, no NUL */
  IMD_CONN,                        /* connection: struct imd_conn, then groups; its descriptor */

  /* warden -> broker; of a warden that died before, launcher -> broker. The second about one run is to be dropped. */
  IMD_FAILED,                      /* run: struct imd_failed, then text; the run is over, everything is torn down */
  IMD_EXITED,                      /* run: struct imd_outcome, struct imd_violations if there are any; collected files as
                                      descriptors, in the plan's order */
};

/*
 * Four descriptors always follow the plan's (if any): the payload's 0, 1 and 2, and the reading end of a pipe. One byte
 * in it is GO: the intent is durable, exec, at once or as soon as it is prepared. Its end without one calls the run off
 * (FAILED, KILLED). The payload's own process waits there, so that nobody between has to be woken.
 */
struct imd_prepare {
  uint64_t connection;             /* whose authority opens host paths */
  uint32_t plan_length;
  uint32_t flags;                  /* enum imd_prepare_flag */
};
enum imd_prepare_flag {
  IMD_PLAN_IN_MEMFD = 1,
  /* Descriptor 0, 1 or 2 is a pipe that the broker made: the payload becomes its owner, and can open /dev/stdout anew.
     Never so for what a client passed: it would open the other end of the client's pipe. */
  IMD_OURS_0 = 2, IMD_OURS_1 = 4, IMD_OURS_2 = 8,
  IMD_WITH_LOG = 16,               /* one more descriptor, the last: the file that a plan with EXPLAIN's LEARN writes to */
};

enum imd_cause {                   /* as in the contract; what the launcher can measure */
  IMD_CAUSE_EXITED = 1,
  IMD_CAUSE_SIGNALED,
  IMD_CAUSE_TIMEOUT,
  IMD_CAUSE_CPU_TIME,
  IMD_CAUSE_OOM,
  IMD_CAUSE_PIDS,
  IMD_CAUSE_OUTPUT_LIMIT,
  IMD_CAUSE_KILLED,
  IMD_CAUSE_VIOLATION,             /* a write outside the allowance, where the plan's EXPLAIN says halt */
};

struct imd_kill { uint32_t cause; uint32_t reserved; };

enum imd_feature {                 /* imd_ready.controllers: what our cgroup subtree can enforce */
  IMD_CTL_CPU = 1, IMD_CTL_MEMORY = 2, IMD_CTL_PIDS = 4, IMD_CTL_IO = 8, IMD_CTL_KILL = 16,   /* cgroup.kill, 5.14 */
  IMD_CTL_CPUSET = 32,             /* not in use before a plan asks for it: it makes each fork into a cgroup dearer */
};

struct imd_ready {
  uint32_t version;
  uint32_t controllers;
  uint32_t landlock_abi;           /* 0: none */
  uint32_t slot_base;              /* first host id of the block of ranges */
  uint32_t slot_count;
  uint32_t swap;                   /* 1: memory.swap.max exists */
};

struct imd_conn { uint32_t uid, gid; int32_t pid; uint32_t ngroups; /* uint32_t groups[ngroups] */ };

/* What could not be done. `step` is the plan's index, or UINT32_MAX for the cell's own setup. */
struct imd_failed { uint32_t stage; uint32_t step; int32_t error; uint32_t reserved; /* char text[] */ };

enum imd_stage {
  IMD_STAGE_PLAN = 1,              /* the plan breaks a rule: text says which */
  IMD_STAGE_CELL,                  /* no cell could be made */
  IMD_STAGE_CGROUP,
  IMD_STAGE_OPEN,                  /* a caller's path, opened as the caller */
  IMD_STAGE_ROOT_OWNED,            /* writable and owned by uid 0 (or the peer is) */
  IMD_STAGE_PATH_KIND,             /* not a directory or regular file */
  IMD_STAGE_IDMAP,                 /* the file system has no idmapped mounts */
  IMD_STAGE_DEADLINE,              /* the open did not answer in time */
  IMD_STAGE_TARGET,                /* the place inside could not be made or reached */
  IMD_STAGE_MOUNT,
  IMD_STAGE_FILE,
  IMD_STAGE_NETWORK,
  IMD_STAGE_PROCESS,               /* clone, credentials, limits, filter */
  IMD_STAGE_CWD,
  IMD_STAGE_EXEC,
  IMD_STAGE_KILLED,                /* killed, or called off, before GO */
  IMD_STAGE_LOST,                  /* its warden died under it: whether it ran, who gave GO knows */
  IMD_STAGE_PROCESSORS,            /* one that is not ours, or all held by other runs (EBUSY) */
};

enum imd_measured {                /* imd_outcome.measured: which figures are real */
  IMD_MEASURED_CPU = 1, IMD_MEASURED_MEMORY = 2, IMD_MEASURED_PIDS = 4, IMD_MEASURED_IO = 8,
};

struct imd_outcome {
  uint32_t cause;                  /* enum imd_cause: what ended the main process, first event wins */
  uint32_t measured;
  int32_t wait_code;               /* siginfo_t's si_code: CLD_EXITED, CLD_KILLED, CLD_DUMPED */
  int32_t wait_status;             /* its si_status (both are macros in signal.h): exit status or signal of the main process */
  uint64_t wall_ns;                /* exec to the death of the main process */
  uint64_t cpu_user_ns, cpu_system_ns;  /* the whole tree's, cpu.stat */
  uint64_t memory_peak;            /* bytes, memory.peak */
  uint64_t max_rss;                /* bytes, largest single process waited for: rusage */
  uint64_t oom_kills, oom_events, memory_max_events;
  uint64_t pids_peak, pids_max_events;
  uint64_t io_read, io_written;    /* bytes */
  uint64_t stragglers;             /* enum imd_straggling */
  uint64_t collected;              /* bit i: collect i has a descriptor; clear: it is missing or not a regular file */
};

enum imd_straggling {
  IMD_STRAGGLERS = 1,              /* something of the tree still lived when the main process ended, and was killed */
  IMD_UNCOVERED = 2,               /* the host replaced what the plan covers, and the cover went; the run was ended */
};

enum imd_violation_kind {
  IMD_VIOLATION_WRITE = 1,         /* a write that the mounts refuse: target is the path */
  IMD_VIOLATION_SYSCALL,           /* a call that the filter refuses with EPERM; target is its path, where it has one */
  IMD_VIOLATION_CONNECT,           /* an address that the network mode does not reach: target is its struct sockaddr */
  IMD_VIOLATION_KINDS = IMD_VIOLATION_CONNECT,
};

/* Then `records` times struct imd_violation, each with its target and its exe behind it; nothing is aligned. */
struct imd_violations {
  uint32_t records;
  uint32_t unexplained;            /* calls that were answered without a look at what they name: PID 1 was slow */
  uint64_t count[3];               /* by kind, from 1: those without a record too */
};
/* The number and arguments are the kernel's; target and exe were read from the process, which may have lied. */
struct imd_violation {
  uint32_t kind;                   /* enum imd_violation_kind */
  uint32_t number;                 /* of the system call */
  int32_t pid;                     /* inside */
  uint16_t target_length, exe_length;
  uint64_t argument[3];
};
enum {
  IMD_VIOLATIONS_SPACE = 32 + IMD_MAX_VIOLATIONS * (40 + IMD_MAX_TARGET + IMD_MAX_EXE),
};

/*
 * A plan: struct imd_plan, then `steps` steps. A step: struct imd_step, then its numbers, then its strings, each a
 * uint32_t length, the bytes, and NULs up to the next multiple of eight, counted from the length field (at least one,
 * so that C may point into the plan). Everything is 8-aligned.
 */
#define IMD_PLAN_MAGIC 0x50444d49u /* "IMDP" */

struct imd_plan { uint32_t magic, version, steps, length; };
struct imd_step { uint32_t op; uint16_t numbers, strings; };

/*
 * Operations in the order in which a plan must hold them (equal neighbours may repeat where marked *; ! is required).
 * numbers | strings
 */
enum imd_op {
  IMD_OP_DEADLINES = 1,            /* !  wall_ns, cpu_ns (0: none), kill_on_pids | */
  IMD_OP_CGROUP = 2,               /* !  memory_max, pids_max, cpu_quota_us, cpu_period_us, io_bps (0: none) | tenant, sandbox */
  IMD_OP_COLLECT = 3,              /* *  max_bytes | path */
  IMD_OP_ROOTFS = 10,              /*    | source: a directory instead of the host's programs; opened as the peer */
  /* BIND, TMPFS, HIDE, PROTECT and FILE are one class: any order among themselves, in the plan's order */
  IMD_OP_BIND = 20,                /* *  flags (enum imd_bind_flag) | source, target */
  IMD_OP_TMPFS = 21,               /* *  size_bytes, inodes, mode, noexec | target */
  IMD_OP_HIDE = 22,                /* *  | target: an empty read-only directory or file over it; absent is fine */
  IMD_OP_PROTECT = 23,             /* *  absent (enum imd_absent) | target: read-only over itself */
  IMD_OP_FILE = 24,                /* *  mode | target, bytes: written as the payload */
  IMD_OP_SEAL_ROOT = 30,           /* !  | the root's own file system becomes read-only */
  IMD_OP_LOOPBACK = 31,            /*    | lo goes up */
  IMD_OP_RLIMIT = 40,              /* *  resource, soft, hard (UINT64_MAX: unlimited) | */
  IMD_OP_AFFINITY = 41,            /*    count (0: all of them), flags (enum imd_affinity_flag) | processors: `0-1,4`; empty: all that we may use */
  IMD_OP_UMASK = 42,               /*    mask | */
  IMD_OP_IDENTITY = 43,            /* !  uid, gid inside, both 1..65533; joins the cell's user namespace, no groups | */
  IMD_OP_DROP_CAPABILITIES = 44,   /* !  | all sets, the bounding set too */
  IMD_OP_NO_NEW_PRIVS = 45,        /* !  | */
  IMD_OP_LANDLOCK = 46,            /*    rung, flags (enum imd_landlock_flag) | required where the kernel has it (plan.h) */
  IMD_OP_SECCOMP = 47,             /* !  | the program: struct sock_filter[] */
  IMD_OP_EXPLAIN = 48,             /*    flags (enum imd_explain_flag) | the explained program, set in the first one's place: it
                                       notifies where that refuses with EPERM, and before what may be a violation */
  IMD_OP_EXEC = 50,                /* !  argc | cwd, argv..., env...; argv[0] without a slash is looked up in env's PATH */
};

enum imd_explain_flag {
  IMD_EXPLAIN_HALT = 1,            /* a write outside the allowance ends the run */
  IMD_EXPLAIN_LEARN = 2,           /* what is allowed is noted too, in the log that came with the plan */
};

/* The log: rows of struct imd_learned with `length` bytes behind each, once each, in the order in which they came. */
enum imd_learned_kind {
  IMD_LEARNED_CALL = 1,            /* this call was made: nothing behind it */
  IMD_LEARNED_LOOK,                /* this path was looked at: stat, access, readlink, chdir */
  IMD_LEARNED_READ,                /* opened to be read */
  IMD_LEARNED_EXEC,                /* executed */
  IMD_LEARNED_WRITE,               /* opened to be written or made; changed */
  IMD_LEARNED_NAME,                /* a name that was made, removed, or moved from or to */
  IMD_LEARNED_ADDRESS,             /* a struct sockaddr that was connected, sent or bound to */
  IMD_LEARNED_CUT,                 /* the last: there was more than the log holds */
};
struct imd_learned { uint32_t kind, number, length; };  /* number: of the system call */

enum imd_affinity_flag {
  IMD_AFFINITY_EXCLUSIVE = 1,      /* none that another run has so; if too few are left, the run fails */
  IMD_AFFINITY_CPUSET = 2,         /* by cpuset.cpus too: then the payload may choose among them, and never beyond */
};

enum imd_bind_flag {
  IMD_BIND_WRITE = 1,
  IMD_BIND_NOEXEC = 2,
  IMD_BIND_OPTIONAL = 4,           /* a source that does not exist is passed over */
  IMD_BIND_GRANTED = 8,            /* opened as root: only beneath a directory of the operator's configuration */
  IMD_BIND_LAYER = 16,             /* a directory: what is written there ends with the cell (layer.h); a file: as if read */
};

enum imd_absent {                  /* of PROTECT, where there is no target */
  IMD_ABSENT_REFUSED = 0,
  IMD_ABSENT_PASSED = 1,           /* nothing is protected: the payload may make it */
  IMD_ABSENT_HELD = 2,             /* the name is held by an empty file until the run is over (protect.h) */
};

enum imd_landlock {                /* rungs: the ABIs that we know (landlock.h); to us a newer kernel's is the newest */
  IMD_LANDLOCK_OLDEST = 2,
  IMD_LANDLOCK_NEWEST = 10,
};

enum imd_landlock_flag {
  IMD_LANDLOCK_NO_NETWORK = 1,     /* nothing may be bound or connected to: so in every plan without LOOPBACK */
};

#endif
