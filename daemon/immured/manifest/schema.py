"""A manifest as values. Frozen, complete (every silence filled in from its class), and checked: see `read.py`.

Paths, commands and variables are bytes, as the kernel has them. A limit of None is none at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "LIMITS",
    "Bind",
    "Command",
    "Filesystem",
    "Limits",
    "Manifest",
    "Network",
    "ProtectGroup",
    "Protected",
    "Syscalls",
    "Tmpfs",
]


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path and where it stands inside. `optional`: a source that does not exist is passed over."""

    source: bytes
    target: bytes
    optional: bool = False
    noexec: bool = False


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """An empty private directory in memory. `size` in bytes; None: its share of the limit `disk`."""

    target: bytes
    size: int | None = None
    mode: int = 0o1777


@dataclass(frozen=True, slots=True)
class Protected:
    """A place inside that stays as it is. `absent`: one of `protect.ABSENT`, for where it is not there."""

    path: bytes
    absent: str = "held"


@dataclass(frozen=True, slots=True)
class ProtectGroup:
    """The places of a shipped group, beneath every target of `write`."""

    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """What may be ordered. `allow`: the permitted argv[0], empty for any. `env`: set for every run.

    `pass_env`: the names (or `PREFIX_*`, or `*`) of the variables that a run may set itself.
    """

    allow: tuple[bytes, ...]
    cwd: bytes
    env: tuple[tuple[bytes, bytes], ...]
    pass_env: tuple[str, ...]

    def may_set(self, name: bytes) -> bool:
        """Whether a run may set this variable."""
        for pattern in self.pass_env:
            wanted = pattern.encode()
            if name == wanted or (wanted.endswith(b"*") and name.startswith(wanted[:-1])):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Filesystem:
    """What is there. `root`: None for the host's programs, else a directory that is the root. `noexec`: the places of
    mounts in which nothing can be executed.
    """

    root: bytes | None
    read: tuple[Bind, ...]
    write: tuple[Bind, ...]
    tmpfs: tuple[Tmpfs, ...]
    protect: tuple[Protected | ProtectGroup, ...]
    hide: tuple[bytes, ...]
    on_violation: str
    noexec: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """`mode`: `none`, or `loopback` (the sandbox's own, shared with nobody)."""

    mode: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Quotas of one run. `cpus` in thousandths of a CPU; times in nanoseconds; sizes in bytes; `io` in bytes a second.

    `files` is the number of open files of one process. `cores`: the processors that it may use, bit N for processor N;
    `pin`: how many of them it gets, none of which another run with `pin` has meanwhile. `strict`: refuse the run rather
    than enforce by a weaker means.
    """

    memory: int
    pids: int
    files: int
    cpus: int | None
    cpu_time: int | None
    wall: int | None
    disk: int | None
    output: int | None
    io: int | None
    cores: int | None
    pin: int | None
    strict: bool


LIMITS: Final = ("memory", "pids", "files", "cpus", "cpu_time", "wall", "disk", "output", "io", "cores", "pin")
"""The names of the limits, in the order in which they are listed to people."""


@dataclass(frozen=True, slots=True)
class Syscalls:
    """The profile (profiles/*.toml) and what this manifest adds to it or takes away; `deny` wins."""

    profile: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest. `digest`: `sha256:<hex>` of the file's bytes, or of an inline one's canonical msgpack.

    `personas` and `tenants`: who may use it; empty for anybody whom policy lets.
    """

    name: str
    class_: str
    digest: str
    command: Command
    filesystem: Filesystem
    network: Network
    limits: Limits
    syscalls: Syscalls
    personas: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
