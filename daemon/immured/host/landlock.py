"""Landlock: which right came with which version of its ABI, and a process's own domain made of them.

    domain = Landlock()                       # of what this kernel has
    domain.allow(fd, READ)                    # beneath an open directory, or one file
    domain.enter()                            # this thread and all it starts, for good

Numbers are linux/landlock.h's. The header of the oldest distribution that is supported knows three versions, so they
stand here. Files of no visible mount (pipes, sockets, memory files) are outside of its rules, and what was opened
before keeps the rights that it was opened with.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from immured.host import syscalls

__all__ = ["DEVICE", "LADDER", "READ", "WRITE", "Landlock", "Rung"]

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_DIR: Final = 1 << 4
_REMOVE_FILE: Final = 1 << 5
_MAKE_CHAR: Final = 1 << 6
_MAKE_DIR: Final = 1 << 7
_MAKE_REG: Final = 1 << 8
_MAKE_SOCK: Final = 1 << 9
_MAKE_FIFO: Final = 1 << 10
_MAKE_BLOCK: Final = 1 << 11
_MAKE_SYM: Final = 1 << 12
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_RESOLVE_UNIX: Final = 1 << 16

READ: Final = _READ_FILE | _READ_DIR
WRITE: Final = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _REMOVE_DIR | _MAKE_REG | _MAKE_DIR
"""Files and directories; no link from elsewhere, no socket, FIFO, symlink or device."""
DEVICE: Final = _READ_FILE | _WRITE_FILE
_OF_A_FILE: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV | _RESOLVE_UNIX


@dataclass(frozen=True, slots=True)
class Rung:
    """One version of the ABI: since which Linux, what it refuses beyond the one before, in words and in bits, and which
    wall stands where it is missing."""

    abi: int
    linux: str
    about: str
    instead: str
    files: int = 0
    network: int = 0
    scoped: int = 0


LADDER: Final = (
    Rung(1, "5.13", "read, write, execute, list, make and remove files", "mounts, and permissions", _REFER - 1),
    Rung(2, "5.19", "rename and link across directories", "without it, none is allowed at all", _REFER),
    Rung(3, "6.2", "truncate", "read-only mounts", _TRUNCATE),
    Rung(4, "6.7", "bind and connect TCP", "the network namespace; for the broker, the filter", network=0b11),
    Rung(5, "6.10", "ioctl of devices", "there are but six, and the filter", _IOCTL_DEV),
    Rung(
        6,
        "6.12",
        "signals and abstract sockets out of the domain",
        "namespaces; for the broker, the filter",
        scoped=0b11,
    ),
    Rung(7, "6.15", "refusals in the audit log", "who refused is not said by the kernel"),
    Rung(8, "7.0", "all threads at once", "it is entered before there are others"),
    Rung(9, "7.1", "connections to sockets by path", "permissions; for the broker, the filter", _RESOLVE_UNIX),
    Rung(10, "7.2", "bind, connect and send UDP", "the network namespace; for the broker, the filter", network=0b1100),
)

_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_CREATE_RULESET: Final = 444
_PATH_BENEATH: Final = 1
_NET_PORT: Final = 2
_CONNECT_TCP: Final = 1 << 1
_BIND_UDP: Final = 1 << 2
_CONNECT_UDP: Final = 1 << 3


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


_SIZES: Final = {1: 8, 4: 16, 6: 24}
"""Of struct landlock_ruleset_attr, by the ABI that made it so."""


class Landlock:
    """A domain in the making: everything that this kernel's ABI can refuse is refused, but for what is allowed.

    `abi` is the version in use, 0 where the kernel has no Landlock: then nothing here does anything.
    """

    def __init__(self, abi: int | None = None) -> None:
        """Raises OSError. `abi`: at most this version, for tests of older ones."""
        have = syscalls.landlock_abi()
        self.abi = have if abi is None else min(have, abi)
        self._files = self._network = 0
        self._ruleset = -1
        if self.abi:
            rungs = [rung for rung in LADDER if rung.abi <= self.abi]
            self._files = sum(rung.files for rung in rungs)
            self._network = sum(rung.network for rung in rungs)
            attributes = _RulesetAttr(self._files, self._network, sum(rung.scoped for rung in rungs))
            size = max(size for since, size in _SIZES.items() if since <= self.abi)
            self._ruleset = syscalls.call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)

    def allow(self, fd: int, rights: int, *, directory: bool = True) -> None:
        """Allow `rights` beneath the directory, or of the one file, that is open (O_PATH will do). Raises OSError."""
        if self.abi:
            wanted = rights & self._files & (-1 if directory else _OF_A_FILE)
            rule = _PathBeneath(wanted, fd)
            syscalls.call(_ADD_RULE, ctypes.c_int(self._ruleset), _PATH_BENEATH, ctypes.byref(rule), 0)

    def allow_connect(self, port: int, *, udp: bool = False) -> None:
        """Allow to connect to a TCP port of whatever host; `udp`: to ask a UDP one too. Raises OSError.

        Where the ABI knows nothing of the network, nothing of it is refused, and nothing has to be allowed.
        """
        self._allow_port(port, _CONNECT_TCP | (_CONNECT_UDP if udp else 0))
        if udp:
            self._allow_port(0, _BIND_UDP)  # the port that the kernel chooses for whoever asks

    def _allow_port(self, port: int, rights: int) -> None:
        if wanted := rights & self._network:
            rule = _NetPort(wanted, port)
            syscalls.call(_ADD_RULE, ctypes.c_int(self._ruleset), _NET_PORT, ctypes.byref(rule), 0)

    def enter(self) -> None:
        """Into the domain, with this thread alone: call it before there are others. Needs no_new_privs. Raises
        OSError."""
        if self.abi:
            syscalls.call(_RESTRICT_SELF, ctypes.c_int(self._ruleset), 0)

    def __enter__(self) -> Landlock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ruleset >= 0:
            os.close(self._ruleset)
