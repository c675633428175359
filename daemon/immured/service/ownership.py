"""Handing a state directory over to the broker's user: once from root's, and at every start what a restore left root's.

Whoever took the broker over has had its hands on what lies there. So nothing of it is read here, no symlink is
followed, and a file with a second name (a hard link to somebody else's, perhaps) is not given away.
DIR itself, config.toml, the lock files and admin.pem stay root's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from immured.errors import ConfigurationError
from immured.host.ids import BROKER_IDS
from immured.service.broker_user import User
from immured.service.state import Paths

__all__ = ["hand_over"]

_KEYS: Final = frozenset(
    {
        *("daemon.pem", "daemon.pub", "daemon.next.pem", "daemon.former.pem"),
        *("keyring.json", "ledger.pem", "ledger.vkey"),
    }
)
_DEPTH: Final = 4  # DIR/ledger/quarantine/FILE is three


def hand_over(paths: Paths, user: User) -> None:
    """Give `user` what the broker writes and the keys that it signs with. Modes stay as they are.

    Raises ConfigurationError `bad_state`, naming what is not as it should be; OSError.
    """
    facts = paths.root.stat()
    if facts.st_uid != 0 or facts.st_mode & 0o022:
        raise _bad(os.fspath(paths.root), "is not root's alone to write", "chown root and chmod go-w it")
    # Names in DIR are root's own, symlinks too: somebody may keep the ledger on another disk.
    for directory, names in (
        (paths.keys, _KEYS),
        (paths.manifests, None),
        (paths.ledger, None),
        (paths.accepting, None),
        (paths.policies, None),
        (paths.proposals, None),
    ):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _give_directory(fd, os.fspath(directory), names, user, _DEPTH)
        finally:
            os.close(fd)
    # What lies deeper is the broker's own from the first day on, and as much of it as tenants wrote.
    for directory in (paths.volumes, paths.snapshots):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _give(fd, os.fspath(directory), user)
        finally:
            os.close(fd)


def _give_directory(fd: int, path: str, names: Iterable[str] | None, user: User, depth: int) -> None:
    if depth == 0:
        raise _bad(path, "lies deeper than anything of ours", "move it elsewhere")
    _give(fd, path, user)
    for name in _names(fd) if names is None else names:
        place = f"{path}/{name}"
        try:
            # A FIFO does not block so; a device is never there unless root put it there.
            child = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise _bad(place, "is a symlink or a socket", "remove it") from error
            raise
        try:
            if stat.S_ISDIR(os.fstat(child).st_mode):
                _give_directory(child, place, None, user, depth - 1)
            else:
                _give(child, place, user)
        finally:
            os.close(child)


def _names(fd: int) -> Iterator[str]:
    with os.scandir(fd) as entries:
        yield from [entry.name for entry in entries]


def _give(fd: int, path: str, user: User) -> None:
    facts = os.fstat(fd)
    if not stat.S_ISDIR(facts.st_mode) and (not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1):
        raise _bad(path, "is no regular file with one name", "copy it, and put the copy in its place")
    if facts.st_uid not in (0, user.uid) and facts.st_uid not in BROKER_IDS:
        raise _bad(
            path,
            f"belongs to uid {facts.st_uid}, who is not the broker's user",
            "if that was the broker's user until now, in the state directory: "
            "chown -R root keys manifests ledger accepting policy proposals; "
            f"chown -R --from={facts.st_uid} {user.uid}:{user.gid} volumes snapshots; "
            "else find out who did that first",
        )
    if facts.st_mode & 0o022:
        raise _bad(path, "may be written by others", "chmod go-w it, once you know who did that")
    if (facts.st_uid, facts.st_gid) != (user.uid, user.gid):
        os.fchown(fd, user.uid, user.gid)


def _bad(path: str, why: str, remedy: str) -> ConfigurationError:
    return ConfigurationError("bad_state", f"{path} {why}", remedy)
