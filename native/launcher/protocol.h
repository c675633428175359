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
  IMD_PROTOCOL_VERSION = 4,
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
  IMD_MAX_PINNED = 6,              /* five scripts, each the other's interpreter, and a program: the kernel's own bound */
  IMD_MAX_SHEBANG = 256,           /* bytes of a script that the kernel looks at, of which its interpreter's argument is a part */
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
  IMD_CREATE,                      /* sandbox: struct imd_prepare, its plan as above; then one descriptor, the record */
  IMD_EXEC,                        /* exec: struct imd_exec, its plan as above; descriptors */
  IMD_SIGNAL,                      /* exec: struct imd_signal */
  IMD_FREEZE,                      /* sandbox: struct imd_freeze */
  IMD_EXTEND,                      /* sandbox: struct imd_extend */
  IMD_MEASURE,                     /* sandbox: answered by MEASURES */
  IMD_ASK,                         /* sandbox: struct imd_ask; one descriptor: a SEQPACKET socket that a clerk will serve */
  IMD_RESIZE,                      /* exec with a terminal: struct imd_resize */
  IMD_PAUSE,                       /* accept nobody until another broker is there: who connects waits for it */
  IMD_CLOSE_STDIN,                 /* exec that is kept: its keeper lets go of the writing end of its stdin */
  IMD_TURN_AWAY,                   /* struct imd_turn_away: who connects as that user is let go at once, without a word */
  IMD_COUNT,                       /* answered by COUNTS */

  /* launcher -> broker */
  IMD_READY = 64,                  /* struct imd_ready, uint64_t sandboxes[], then the cgroup path, no NUL; as descriptor
                                      the end of "outcomes" that the broker reads */
  IMD_CONN,                        /* connection: struct imd_conn, then groups, then its program's path, no NUL, empty where
                                      it is not known; its descriptor */

  /* warden -> broker; of a warden that died before, launcher -> broker. The second about one run is to be dropped. */
  IMD_FAILED,                      /* run: struct imd_failed, then text; the run is over, everything is torn down */
  IMD_EXITED,                      /* run: struct imd_outcome, struct imd_violations if there are any; collected files as
                                      descriptors, in the plan's order */
  IMD_CREATED,                     /* sandbox: it lives, and takes execs. Its end is told by EXITED or FAILED */
  IMD_TERMINAL,                    /* exec: its plan has a TERMINAL; one descriptor, the master. Before GO can matter */
  IMD_FROZEN,                      /* sandbox: struct imd_freeze: that is how it is now */
  IMD_MEASURES,                    /* sandbox: struct imd_measures */
  IMD_KEPT,                        /* sandbox or exec, to a broker that is new: struct imd_kept; descriptors */
  IMD_PINNED,                      /* run or exec whose plan has a PIN: struct imd_pinned; descriptors. Before GO can matter */

  /* launcher -> broker */
  IMD_COUNTS,                      /* struct imd_counts */
};

/*
 * A sandbox is a cell without a run of its own: execs come and go in it. Its plan has what is mounted and the identity,
 * an exec's plan the rest. `connection` 0: nobody's, and no path of a caller's is opened. Its deadline, wall_ns, is its
 * time to live, which the warden holds too: a broker that is gone extends nobody's life.
 *
 * The record is the broker's own memory of it, a memfd that it writes and whoever follows it reads: the warden holds it, as
 * it is, for as long as the sandbox lives. When a broker connects, every sandbox that READY named is told of by KEPT with its
 * record, and every exec of it that is kept by KEPT with struct imd_exec's descriptors but 0, 1, 2 and GO. A run, and an exec
 * that is not kept, does not outlive its broker.
 *
 * An exec's descriptors, after the plan's (if any): 0, 1, 2 and GO's, as with PREPARE (with a TERMINAL they are not used
 * but for GO's). Then, with IMD_EXEC_KEPT: the log (a memfd of struct imd_log), an eventfd that is written after every
 * record of the log, the reading ends of the pipes that are its 1 and 2 (which the warden reads from now on), and the
 * writing end of its stdin, or any descriptor where it has none. With a TERMINAL the warden logs its master instead, and
 * hands it over by TERMINAL, and anew after KEPT.
 */
struct imd_exec {
  uint64_t sandbox;
  uint32_t plan_length;
  uint32_t flags;                  /* enum imd_prepare_flag, enum imd_exec_flag */
};
enum imd_exec_flag {
  IMD_EXEC_KEPT = 32,              /* it outlives the broker; its output goes to its log */
};
enum { IMD_KEPT_FDS = 5 };         /* log, eventfd, reading ends of 1 and 2, writing end of 0 */

struct imd_signal { uint32_t number; uint32_t everybody; };   /* everybody: all of the exec's processes; else its first, or
                                                                 a terminal's foreground group */
struct imd_freeze { uint32_t on; uint32_t error; };           /* error: of FROZEN, an errno, and it is as it was */
struct imd_extend { uint64_t wall_ns; };                      /* from now on */
struct imd_resize { uint16_t rows, columns; uint32_t reserved; };

enum imd_clerk {                   /* who serves what is asked; each has its own words (clerk_*.h) */
  IMD_CLERK_FILES = 1,             /* the sandbox's files, as its payload */
  IMD_CLERK_CHANGES,               /* what was written to captured directories; applied as the caller of `connection` */
  IMD_CLERK_SNAPSHOT,              /* the sandbox's own writable places, saved */
};
struct imd_ask { uint64_t connection; uint32_t clerk; uint32_t reserved; };

enum imd_kept_kind { IMD_KEPT_SANDBOX = 1, IMD_KEPT_EXEC };
struct imd_kept {
  uint64_t sandbox;
  uint32_t kind;                   /* enum imd_kept_kind */
  uint32_t execs;                  /* of a sandbox: how many KEPT of its execs follow, in any order */
  uint32_t frozen;
  uint32_t started;                /* of an exec: GO came */
  uint64_t started_ns;             /* CLOCK_REALTIME, when */
  uint64_t wall_left_ns;           /* of a sandbox: to live */
};

/*
 * A log: one page of struct imd_log, then `capacity` bytes of ring, a power of two, made by the broker. Records, each
 * struct imd_log_record and its data, filled up to a multiple of 16; offsets only grow, and are taken modulo the
 * capacity; a record may wrap. The warden alone writes: it moves `start` past whole records before it overwrites them, then
 * writes, then moves `end`. Who reads looks at `start` again after he copied: what lies before it may be torn.
 */
#define IMD_LOG_MAGIC 0x4c444d49u  /* "IMDL" */
struct imd_log {
  uint32_t magic, capacity;
  uint64_t start, end;             /* bytes ever written before the first whole record, and in all */
  uint64_t total[2];               /* bytes of 1 and of 2 (all of a terminal's count as 1's), overwritten ones too */
};
struct imd_log_record { uint64_t time_ms; uint32_t stream; uint32_t length; };  /* CLOCK_REALTIME; 1 or 2; length <= 65536 */
enum { IMD_LOG_PAGE = 4096, IMD_LOG_MIN = 65536 * 4, IMD_LOG_MAX = 16 << 20 };

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

/*
 * What a run or an exec is about to execute, opened by the payload's own process: what argv[0] is, or was found as in PATH; where
 * that is a script its interpreter, as `#!` names it (perhaps relative to cwd), and so on. `files` times struct
 * imd_pinned_file, each with its path, and the one argument that `#!` gives it, behind it; nothing is aligned.
 */
struct imd_pinned { uint32_t files; uint32_t reserved; };
struct imd_pinned_file {
  uint64_t size;
  uint32_t flags;                  /* enum imd_pinned_flag */
  uint16_t path_length, argument_length;
  uint8_t sha256[32];              /* of what the payload's process read; of a FIXED one zeros */
};
enum imd_pinned_flag {
  IMD_PINNED_FIXED = 1,            /* root's, and nobody else's to write: its descriptor comes along, in this order, to be digested */
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

enum imd_ability { IMD_CAN_TURN_AWAY = 1, IMD_CAN_COUNT = 2 };   /* what later launchers of this version know besides */

struct imd_ready {
  uint32_t version;
  uint32_t controllers;
  uint32_t landlock_abi;           /* 0: none */
  uint32_t slot_base;              /* first host id of the block of ranges */
  uint32_t slot_count;
  uint32_t swap;                   /* 1: memory.swap.max exists */
  uint32_t sandboxes;              /* how many live, from before this broker */
  uint32_t abilities;              /* enum imd_ability */
};

struct imd_conn { uint32_t uid, gid; int32_t pid; uint32_t ngroups; /* uint32_t groups[ngroups]; char exe[] */ };

struct imd_turn_away { uint32_t uid, ms; };   /* for so long from now on */

/* Payloads, of runs and of execs, since this launcher began, or the first of those that became it one after the other. Each counts
   itself, between GO and exec: whoever makes a launcher start one is counted, whatever he tells anybody. */
struct imd_counts {
  uint8_t id[16];                  /* random: of this count */
  uint64_t since_ns;               /* CLOCK_REALTIME */
  uint64_t started;                /* GO came */
  uint64_t undone;                 /* of them: exec failed, so that nothing ran */
};

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
  IMD_STAGE_SANDBOX,               /* no such sandbox, or it is over */
  IMD_STAGE_TERMINAL,
  IMD_STAGE_LAYER,                 /* a captured directory, an image, a snapshot */
  IMD_STAGE_PIN,                   /* what is to be executed cannot be read, or is not any more what was pinned */
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

struct imd_measures {
  struct imd_outcome so_far;       /* cause, wait_* and collected are 0 */
  uint64_t memory_now, pids_now;   /* bytes, processes; 0 where `so_far.measured` has no such figure */
  uint64_t execs;                  /* that live */
  uint64_t disk_used, disk_files;  /* of its own writable places together */
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

struct imd_plan { uint32_t magic; uint16_t version, kind; uint32_t steps, length; };
enum imd_plan_kind {
  IMD_PLAN_RUN = 0,                /* everything: PREPARE's */
  IMD_PLAN_SANDBOX,                /* DEADLINES, CGROUP, ROOTFS to LOOPBACK, IDENTITY; no more */
  IMD_PLAN_EXEC,                   /* DEADLINES, CGROUP (its strings: the sandbox's name, the exec's), COLLECT, TERMINAL, RLIMIT
                                      to EXEC; IDENTITY is the sandbox's */
};
struct imd_step { uint32_t op; uint16_t numbers, strings; };

/*
 * Operations in the order in which a plan must hold them (equal neighbours may repeat where marked *; ! is required).
 * numbers | strings
 */
enum imd_op {
  IMD_OP_DEADLINES = 1,            /* !  wall_ns, cpu_ns (0: none), kill_on_pids | */
  IMD_OP_CGROUP = 2,               /* !  memory_max, pids_max, cpu_quota_us, cpu_period_us, io_bps (0: none), swap_max (with
                                      memory_max: bytes beside those) | tenant, sandbox */
  IMD_OP_COLLECT = 3,              /* *  max_bytes | path */
  IMD_OP_TERMINAL = 4,             /*    rows, columns | of an exec: 0, 1 and 2 are a terminal of the sandbox's own */
  IMD_OP_ROOTFS = 10,              /*    | source: a directory instead of the host's programs; opened as the peer */
  IMD_OP_IMAGE = 11,               /*    flags (enum imd_image_flag), size_bytes, inodes of its layer (0 without) | its
                                      SHA-256 in hex: instead of ROOTFS; of the operator's, its ids 0..65535 as the cell's */
  /* BIND, TMPFS, HIDE, PROTECT, FILE, CAPTURE, RESTORE and VOLUME are one class: any order among themselves, in the plan's order */
  IMD_OP_BIND = 20,                /* *  flags (enum imd_bind_flag) | source, target, with BENEATH a directory that holds the source */
  IMD_OP_TMPFS = 21,               /* *  size_bytes, inodes, mode, noexec | target */
  IMD_OP_HIDE = 22,                /* *  | target: an empty read-only directory or file over it; absent is fine */
  IMD_OP_PROTECT = 23,             /* *  absent (enum imd_absent) | target: read-only over itself */
  IMD_OP_FILE = 24,                /* *  mode | target, bytes: written as the payload */
  IMD_OP_CAPTURE = 25,             /* *  flags (enum imd_bind_flag), size_bytes, inodes | source, target, as with BIND: a directory of the
                                      caller's, as read; what is written goes to a layer of the sandbox's own */
  IMD_OP_RESTORE = 26,             /* *  flags (enum imd_bind_flag, GRANTED), size_bytes, inodes | saved, target: a TMPFS or CAPTURE
                                      that was saved ("TENANT/NAME/N", or a layered root at `/`), written to in a layer above it;
                                      below an IMAGE's layer it lies above the image; a CAPTURE's layer begins with a copy */
  IMD_OP_VOLUME = 27,              /* *  flags (enum imd_bind_flag: NOEXEC), size_bytes, inodes | "TENANT/NAME", target: a directory
                                      that stays, bounded, in one sandbox at a time (the broker's to see to) */
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
  IMD_OP_PIN = 49,                 /*    | before SECCOMP: what is executed is opened before GO, told by PINNED, and is that very file */
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
  IMD_BIND_BENEATH = 32,           /* no symbolic link may lead out of the directory that the step names */
};

enum imd_image_flag { IMD_IMAGE_LAYER = 1 };   /* the root can be written to, in a layer of the sandbox's own */

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
