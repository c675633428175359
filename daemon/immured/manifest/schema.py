"""A manifest as values. Frozen, complete (every silence filled in from its class), and checked: see `read.py`.

Paths, commands and variables are bytes, as the kernel has them. A limit of None is none at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "CLASSES",
    "LIMITS",
    "Bind",
    "Command",
    "Consent",
    "Filesystem",
    "Limits",
    "Manifest",
    "Network",
    "Parameter",
    "Program",
    "ProtectGroup",
    "Protected",
    "Syscalls",
    "Tmpfs",
    "VolumeMount",
]

CLASSES: Final = ("default", "strict", "build", "interactive", "networked", "judge")
"""The built-in classes, each a file of its name in profiles/manifests/."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path and where it stands inside. `optional`: a source that does not exist is passed over.

    `beneath`: a parameter filled the source in, and below this directory no symbolic link may lead it elsewhere.
    """

    source: bytes
    target: bytes
    optional: bool = False
    noexec: bool = False
    beneath: bytes | None = None


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """An empty private directory in memory. `size` in bytes; None: its share of the limit `disk`."""

    target: bytes
    size: int | None = None
    mode: int = 0o1777


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A volume of the tenant's, by name, and where it stands inside."""

    name: str
    target: bytes


@dataclass(frozen=True, slots=True)
class Protected:
    """A place inside that stays as it is. `absent`: one of `protect.ABSENT`, for where it is not there."""

    path: bytes
    absent: str = "held"


@dataclass(frozen=True, slots=True)
class ProtectGroup:
    """The places of a shipped group, beneath every target of `write` and of `capture`."""

    name: str


@dataclass(frozen=True, slots=True)
class Program:
    """A program that may be ordered: argv[0] is `name`, as written. `arguments`: patterns of the words after it (see
    `words.py`), one of which they fit; empty for any. `sha256`: of the file, in hex; None for any.
    """

    name: bytes
    arguments: tuple[tuple[bytes, ...], ...] = ()
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What may be ordered. `allow`: the permitted programs, empty for any. `env`: set for every run.

    `pass_env`: the names (or `PREFIX_*`, or `*`) of the variables that a run may set itself. `pin`: what is executed is
    opened once, its digest enters the ledger, and that very file runs.
    """

    allow: tuple[Program, ...]
    cwd: bytes
    env: tuple[tuple[bytes, bytes], ...]
    pass_env: tuple[str, ...]
    pin: bool = False

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
    image: str | None = None
    """The SHA-256, in hex, of an image that is the root; `root` is None then."""
    root_layer: bool = False
    """The image can be written to, in a layer of the sandbox's own."""
    volumes: tuple[VolumeMount, ...] = ()
    capture: tuple[Bind, ...] = ()
    """As `write`, but what is written goes to a layer of the sandbox's own, to be looked at and accepted."""


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
    swap: int = 0


LIMITS: Final = ("memory", "swap", "pids", "files", "cpus", "cpu_time", "wall", "disk", "output", "io", "cores", "pin")
"""The names of the limits, in the order in which they are listed to people."""


@dataclass(frozen=True, slots=True)
class Syscalls:
    """The profile (profiles/*.toml) and what this manifest adds to it or takes away; `deny` wins."""

    profile: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Consent:
    """Whether a person must have agreed to a text, by its id, and for how long that holds."""

    required: bool = False
    text: str = "workspace"
    valid_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a run may fill in. `type` is `path` (beneath one of `within`), `text` (of the characters in `pattern`, a
    bracket expression's inside; at most `longest`), `integer` (`least` to `most`) or `choice` (one of `values`).

    `default`: None where every run must give a value.
    """

    name: str
    type: str
    within: tuple[bytes, ...] = ()
    values: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    longest: int | None = None
    pattern: str = ""
    default: str | int | None = None


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
    consent: Consent = Consent()
    parameters: tuple[Parameter, ...] = ()
    given: tuple[tuple[str, str | int], ...] = ()
    """The value of every parameter, by name; empty as long as nobody gave any, and samples stand in their places."""
    template: Mapping[str, object] | None = field(default=None, compare=False, repr=False)
    """What was read, as it was written, where parameters are still to be filled in."""
