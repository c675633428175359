"""The broker's own walls around its files and calls: a Landlock domain, and a filter made by our own compiler."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

import immured
from immured import _core
from immured._abi import lib
from immured.host.landlock import DEVICE, READ, WRITE, Landlock
from immured.isolation import syscalls
from immured.isolation.seccomp import AUDIT_ARCH, host_architecture
from immured.isolation.syscalls import Architecture
from immured.service.state import Paths
from immured.shipped import shipped

__all__ = ["broker_filter", "make_domain", "readable"]

_REFUSE: Final = lib.SECCOMP_RET_ERRNO | errno.EPERM
_ABSENT: Final = lib.SECCOMP_RET_ERRNO | errno.ENOSYS
_LIBRARIES: Final = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl")


@cache
def broker_filter(architecture: Architecture | None = None, *, outward: bool = False) -> bytes:
    """profiles/broker/seccomp.toml as `struct sock_filter[]`, for this machine or another architecture.

    `outward`: with what profiles/broker/outward.toml adds, for a process of its own that speaks to another machine.
    """
    arch = architecture or host_architecture()
    rules: dict[str, list[tuple[int, tuple[syscalls.Condition, ...]]]] = {}
    for name in ("seccomp.toml", "outward.toml") if outward else ("seccomp.toml",):
        profile = tomllib.loads(shipped("profiles", "broker", name).read_text("utf-8"))
        rules |= {call: [(syscalls.ALLOW, ())] for call in profile["allow"]}
        rules |= {call: [(_ABSENT, ())] for call in profile["absent"]}
        for guard in profile["guards"]:
            parsed = [
                (syscalls.parse_action(rule["then"]), tuple(map(syscalls.parse_condition, rule["when"])))
                for rule in guard["rules"]
            ]
            rules |= dict.fromkeys(guard["calls"], parsed)
    return _core.seccomp_compile(
        AUDIT_ARCH[arch],
        [
            (number, action, conditions)
            for call, number in syscalls.numbers(arch).items()
            for action, conditions in rules.get(call, [(_REFUSE, ())])
        ],
        fallback=_REFUSE,
        unknown=_ABSENT,
        foreign=lib.SECCOMP_RET_KILL_PROCESS,
    )


def make_domain(paths: Paths, abi: int | None = None) -> Landlock:
    """A domain, not yet entered: the broker's directories may be written; Python and its libraries, and what the kernel
    says of this process, may be read. Raises OSError.

    `abi`: at most this version of Landlock's.
    """
    domain = Landlock(abi)
    try:
        for directory in (
            *(paths.keys, paths.ledger, paths.manifests, paths.policies, paths.proposals),
            *(paths.volumes, paths.snapshots, paths.accepting),
        ):
            _allow(domain, os.fspath(directory), WRITE)
        _allow(domain, os.fspath(paths.images), READ)
        for path in readable():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow(domain, path, READ)
        _allow(domain, os.devnull, DEVICE)
        _allow(domain, "/dev/urandom", READ)
        # A rule is on the inode of /proc/PID, which the kernel makes anew where it was forgotten: kept open, it is not.
        proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        domain.allow(proc, READ)
    except BaseException:
        domain.__exit__(None, None, None)
        raise
    return domain


def readable() -> Iterator[str]:
    """Where Python and its libraries are, which whoever goes on importing has to read."""
    # Not sys.path, which may name the directory that somebody happened to start us in.
    places: Iterable[str] = (sys.prefix, sys.base_prefix, *immured.__path__, *_LIBRARIES)
    yield from dict.fromkeys(place for place in places if place != "/")


def _allow(domain: Landlock, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        domain.allow(fd, rights, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
    finally:
        os.close(fd)
