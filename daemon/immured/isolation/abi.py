"""The numbers of `native/launcher/protocol.h`, typed. Every value comes from the header through `immured._abi`."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from immured._abi import ffi, lib

__all__ = [
    "EXEC_KEPT",
    "EXPLAIN_HALT",
    "EXPLAIN_LEARN",
    "KEPT_FDS",
    "LANDLOCK_NEWEST",
    "LANDLOCK_OLDEST",
    "LOG_MAGIC",
    "LOG_MAX",
    "LOG_MIN",
    "LOG_PAGE",
    "MAX_COLLECT",
    "MAX_LEARNED",
    "MAX_PACKET",
    "MAX_PINNED",
    "MAX_PLAN",
    "MAX_STEPS",
    "MAX_STRING",
    "MAX_VIOLATIONS",
    "OURS_0",
    "PAYLOAD_ID",
    "PINNED_FIXED",
    "PLAN_IN_MEMFD",
    "PLAN_MAGIC",
    "PROTOCOL_VERSION",
    "SLOT_SIZE",
    "STRAGGLERS",
    "UNCOVERED",
    "WITH_LOG",
    "Ability",
    "Absent",
    "AffinityFlag",
    "BindFlag",
    "Cause",
    "Clerk",
    "Controller",
    "ImageFlag",
    "KeptKind",
    "LandlockFlag",
    "Learned",
    "Measured",
    "Message",
    "Op",
    "PlanKind",
    "Stage",
    "ViolationKind",
    "size_of",
]

PROTOCOL_VERSION: Final[int] = lib.IMD_PROTOCOL_VERSION
MAX_PACKET: Final[int] = lib.IMD_MAX_PACKET
MAX_PINNED: Final[int] = lib.IMD_MAX_PINNED
PINNED_FIXED: Final[int] = lib.IMD_PINNED_FIXED
MAX_PLAN: Final[int] = lib.IMD_MAX_PLAN
MAX_STEPS: Final[int] = lib.IMD_MAX_STEPS
MAX_STRING: Final[int] = lib.IMD_MAX_STRING
MAX_COLLECT: Final[int] = lib.IMD_MAX_COLLECT
MAX_VIOLATIONS: Final[int] = lib.IMD_MAX_VIOLATIONS
MAX_LEARNED: Final[int] = lib.IMD_MAX_LEARNED
EXEC_KEPT: Final[int] = lib.IMD_EXEC_KEPT
KEPT_FDS: Final[int] = lib.IMD_KEPT_FDS
LOG_MAGIC: Final[int] = lib.IMD_LOG_MAGIC
LOG_PAGE: Final[int] = lib.IMD_LOG_PAGE
LOG_MIN: Final[int] = lib.IMD_LOG_MIN
LOG_MAX: Final[int] = lib.IMD_LOG_MAX
EXPLAIN_HALT: Final[int] = lib.IMD_EXPLAIN_HALT
EXPLAIN_LEARN: Final[int] = lib.IMD_EXPLAIN_LEARN
SLOT_SIZE: Final[int] = lib.IMD_SLOT_SIZE
PAYLOAD_ID: Final[int] = lib.IMD_PAYLOAD_ID
PLAN_MAGIC: Final[int] = lib.IMD_PLAN_MAGIC
PLAN_IN_MEMFD: Final[int] = lib.IMD_PLAN_IN_MEMFD
OURS_0: Final[int] = lib.IMD_OURS_0
WITH_LOG: Final[int] = lib.IMD_WITH_LOG
STRAGGLERS: Final[int] = lib.IMD_STRAGGLERS
UNCOVERED: Final[int] = lib.IMD_UNCOVERED
LANDLOCK_OLDEST: Final[int] = lib.IMD_LANDLOCK_OLDEST
LANDLOCK_NEWEST: Final[int] = lib.IMD_LANDLOCK_NEWEST


class Message(IntEnum):
    """`enum imd_message`: what a packet is."""

    PREPARE = lib.IMD_PREPARE
    KILL = lib.IMD_KILL
    CONN_CLOSED = lib.IMD_CONN_CLOSED
    STOP = lib.IMD_STOP
    CREATE = lib.IMD_CREATE
    EXEC = lib.IMD_EXEC
    SIGNAL = lib.IMD_SIGNAL
    FREEZE = lib.IMD_FREEZE
    EXTEND = lib.IMD_EXTEND
    MEASURE = lib.IMD_MEASURE
    ASK = lib.IMD_ASK
    RESIZE = lib.IMD_RESIZE
    PAUSE = lib.IMD_PAUSE
    CLOSE_STDIN = lib.IMD_CLOSE_STDIN
    TURN_AWAY = lib.IMD_TURN_AWAY
    COUNT = lib.IMD_COUNT
    READY = lib.IMD_READY
    CONN = lib.IMD_CONN
    FAILED = lib.IMD_FAILED
    EXITED = lib.IMD_EXITED
    CREATED = lib.IMD_CREATED
    TERMINAL = lib.IMD_TERMINAL
    FROZEN = lib.IMD_FROZEN
    MEASURES = lib.IMD_MEASURES
    KEPT = lib.IMD_KEPT
    PINNED = lib.IMD_PINNED
    COUNTS = lib.IMD_COUNTS


class Ability(IntFlag):
    """`enum imd_ability`: what a launcher knows besides what its version says."""

    TURN_AWAY = lib.IMD_CAN_TURN_AWAY
    COUNT = lib.IMD_CAN_COUNT


class PlanKind(IntEnum):
    """`enum imd_plan_kind`: what a plan is of."""

    RUN = lib.IMD_PLAN_RUN
    SANDBOX = lib.IMD_PLAN_SANDBOX
    EXEC = lib.IMD_PLAN_EXEC


class Clerk(IntEnum):
    """`enum imd_clerk`: who serves what is asked of a live sandbox."""

    FILES = lib.IMD_CLERK_FILES
    CHANGES = lib.IMD_CLERK_CHANGES
    SNAPSHOT = lib.IMD_CLERK_SNAPSHOT


class KeptKind(IntEnum):
    """`enum imd_kept_kind`: what a broker that is new is told of."""

    SANDBOX = lib.IMD_KEPT_SANDBOX
    EXEC = lib.IMD_KEPT_EXEC


class Op(IntEnum):
    """`enum imd_op`: what a step does. `plan.SHAPES` says in which order, with which operands."""

    DEADLINES = lib.IMD_OP_DEADLINES
    CGROUP = lib.IMD_OP_CGROUP
    COLLECT = lib.IMD_OP_COLLECT
    TERMINAL = lib.IMD_OP_TERMINAL
    ROOTFS = lib.IMD_OP_ROOTFS
    IMAGE = lib.IMD_OP_IMAGE
    BIND = lib.IMD_OP_BIND
    TMPFS = lib.IMD_OP_TMPFS
    HIDE = lib.IMD_OP_HIDE
    PROTECT = lib.IMD_OP_PROTECT
    FILE = lib.IMD_OP_FILE
    CAPTURE = lib.IMD_OP_CAPTURE
    RESTORE = lib.IMD_OP_RESTORE
    VOLUME = lib.IMD_OP_VOLUME
    SEAL_ROOT = lib.IMD_OP_SEAL_ROOT
    LOOPBACK = lib.IMD_OP_LOOPBACK
    RLIMIT = lib.IMD_OP_RLIMIT
    AFFINITY = lib.IMD_OP_AFFINITY
    UMASK = lib.IMD_OP_UMASK
    IDENTITY = lib.IMD_OP_IDENTITY
    DROP_CAPABILITIES = lib.IMD_OP_DROP_CAPABILITIES
    NO_NEW_PRIVS = lib.IMD_OP_NO_NEW_PRIVS
    LANDLOCK = lib.IMD_OP_LANDLOCK
    SECCOMP = lib.IMD_OP_SECCOMP
    EXPLAIN = lib.IMD_OP_EXPLAIN
    PIN = lib.IMD_OP_PIN
    EXEC = lib.IMD_OP_EXEC


class BindFlag(IntFlag):
    """`enum imd_bind_flag`."""

    WRITE = lib.IMD_BIND_WRITE
    NOEXEC = lib.IMD_BIND_NOEXEC
    OPTIONAL = lib.IMD_BIND_OPTIONAL
    GRANTED = lib.IMD_BIND_GRANTED
    LAYER = lib.IMD_BIND_LAYER
    BENEATH = lib.IMD_BIND_BENEATH


class ImageFlag(IntFlag):
    """`enum imd_image_flag`."""

    LAYER = lib.IMD_IMAGE_LAYER


class AffinityFlag(IntFlag):
    """`enum imd_affinity_flag`."""

    EXCLUSIVE = lib.IMD_AFFINITY_EXCLUSIVE
    CPUSET = lib.IMD_AFFINITY_CPUSET


class Absent(IntEnum):
    """`enum imd_absent`: what becomes of a protected place that is not there."""

    REFUSED = lib.IMD_ABSENT_REFUSED
    PASSED = lib.IMD_ABSENT_PASSED
    HELD = lib.IMD_ABSENT_HELD


class LandlockFlag(IntFlag):
    """`enum imd_landlock_flag`."""

    NO_NETWORK = lib.IMD_LANDLOCK_NO_NETWORK


class Cause(IntEnum):
    """`enum imd_cause`: what ended the main process, as the launcher measured it."""

    EXITED = lib.IMD_CAUSE_EXITED
    SIGNALED = lib.IMD_CAUSE_SIGNALED
    TIMEOUT = lib.IMD_CAUSE_TIMEOUT
    CPU_TIME = lib.IMD_CAUSE_CPU_TIME
    OOM = lib.IMD_CAUSE_OOM
    PIDS = lib.IMD_CAUSE_PIDS
    OUTPUT_LIMIT = lib.IMD_CAUSE_OUTPUT_LIMIT
    KILLED = lib.IMD_CAUSE_KILLED
    VIOLATION = lib.IMD_CAUSE_VIOLATION


class ViolationKind(IntEnum):
    """`enum imd_violation_kind`: what a refused act was."""

    WRITE = lib.IMD_VIOLATION_WRITE
    SYSCALL = lib.IMD_VIOLATION_SYSCALL
    CONNECT = lib.IMD_VIOLATION_CONNECT


class Learned(IntEnum):
    """`enum imd_learned_kind`: what a learning run did with a path, a call or an address."""

    CALL = lib.IMD_LEARNED_CALL
    LOOK = lib.IMD_LEARNED_LOOK
    READ = lib.IMD_LEARNED_READ
    EXEC = lib.IMD_LEARNED_EXEC
    WRITE = lib.IMD_LEARNED_WRITE
    NAME = lib.IMD_LEARNED_NAME
    ADDRESS = lib.IMD_LEARNED_ADDRESS
    CUT = lib.IMD_LEARNED_CUT


class Controller(IntFlag):
    """`enum imd_feature`: what the daemon's own cgroup subtree can enforce."""

    CPU = lib.IMD_CTL_CPU
    MEMORY = lib.IMD_CTL_MEMORY
    PIDS = lib.IMD_CTL_PIDS
    IO = lib.IMD_CTL_IO
    CPUSET = lib.IMD_CTL_CPUSET
    KILL = lib.IMD_CTL_KILL


class Stage(IntEnum):
    """`enum imd_stage`: at what a run failed before its first instruction."""

    PLAN = lib.IMD_STAGE_PLAN
    CELL = lib.IMD_STAGE_CELL
    CGROUP = lib.IMD_STAGE_CGROUP
    OPEN = lib.IMD_STAGE_OPEN
    ROOT_OWNED = lib.IMD_STAGE_ROOT_OWNED
    PATH_KIND = lib.IMD_STAGE_PATH_KIND
    IDMAP = lib.IMD_STAGE_IDMAP
    DEADLINE = lib.IMD_STAGE_DEADLINE
    TARGET = lib.IMD_STAGE_TARGET
    MOUNT = lib.IMD_STAGE_MOUNT
    FILE = lib.IMD_STAGE_FILE
    NETWORK = lib.IMD_STAGE_NETWORK
    PROCESS = lib.IMD_STAGE_PROCESS
    CWD = lib.IMD_STAGE_CWD
    EXEC = lib.IMD_STAGE_EXEC
    KILLED = lib.IMD_STAGE_KILLED
    LOST = lib.IMD_STAGE_LOST
    PROCESSORS = lib.IMD_STAGE_PROCESSORS
    SANDBOX = lib.IMD_STAGE_SANDBOX
    TERMINAL = lib.IMD_STAGE_TERMINAL
    LAYER = lib.IMD_STAGE_LAYER
    PIN = lib.IMD_STAGE_PIN


class Measured(IntFlag):
    """`enum imd_measured`: which figures of an outcome are real."""

    CPU = lib.IMD_MEASURED_CPU
    MEMORY = lib.IMD_MEASURED_MEMORY
    PIDS = lib.IMD_MEASURED_PIDS
    IO = lib.IMD_MEASURED_IO


def size_of(name: str) -> int:
    """`sizeof(struct name)` as the compiler saw it; whoever packs by hand checks against it."""
    return int(ffi.sizeof(f"struct {name}"))
