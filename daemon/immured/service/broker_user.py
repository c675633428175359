"""Who the broker becomes: the configured user, the account `immured`, or an id of its own that no account has."""

from __future__ import annotations

import fcntl
import os
import pwd
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.errors import ConfigurationError
from immured.host.ids import BROKER_IDS, SLOT_BASE, preferred_broker_id

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ACCOUNT", "ID_LOCKS", "User", "find_user", "free_user", "lock_id"]

ACCOUNT: Final = "immured"
ID_LOCKS: Final = Path("/run/immured")
"""Where every daemon of this host locks the ids that it takes."""
_LOCKS: Final = "brokers.lock"
_FLOCK: Final = "hhqqi4x"  # struct flock, where a long has 64 bits
_NOBODY: Final = 65_534
_MOST: Final = (1 << 32) - 2  # 2^32 - 1 means nobody in particular to every system call


@dataclass(frozen=True, slots=True)
class User:
    """Ids of the host. `name` is empty where there is no such account."""

    uid: int
    gid: int
    name: str = ""

    def __str__(self) -> str:
        return self.name or f"uid {self.uid}"


def find_user(configured: str | None, state: Path, slots: range) -> User:
    """The user of the broker of a state directory. `configured` is an account or a number; None leaves it to us;
    `slots` are the ids of its sandboxes.

    Raises ConfigurationError `no_broker_user`: there is no such account, or it is root, nobody or a sandbox's.
    """
    user = _find_user(configured, state)
    for number in (user.uid, user.gid):
        if number in slots or SLOT_BASE <= number < BROKER_IDS[0]:
            raise _refused(f"{number} is among the ids of sandboxes")
    return user


def _find_user(configured: str | None, state: Path) -> User:
    if configured is None:
        account = _account(ACCOUNT)
        if account is not None:
            return account
        uid = preferred_broker_id(os.fsencode(state))
        return User(uid, uid)
    user = _numbered(int(configured)) if configured.isdecimal() else _account(configured)
    if user is None:
        raise _refused(f"there is no account {configured!r}")
    return user


def lock_id(directory: Path, user: User) -> tuple[User, int | None]:
    """Take an id of `BROKER_IDS` for this daemon alone: `user`'s, or the next that no daemon and no account has.

    Returns the user, and the descriptor that holds the lock; None for a user that is not of that range.
    Raises ConfigurationError `no_broker_user`, OSError.
    """
    if user.uid not in BROKER_IDS:
        return user, None
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(directory / _LOCKS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for place in _places(user):
        uid = BROKER_IDS[place]
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            continue
        if _numbered(uid).name:
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, place)
            continue
        return User(uid, uid), fd
    os.close(fd)
    raise _all_taken(user)


def free_user(directory: Path, user: User) -> User:
    """Who `lock_id` would make of `user` now. Nothing is taken; of a directory that is not ours to read, `user`."""
    if user.uid not in BROKER_IDS:
        return user
    try:
        fd = os.open(directory / _LOCKS, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return user
    try:
        for place in _places(user):
            uid = BROKER_IDS[place]
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
            kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
            if kind == fcntl.F_UNLCK and not _numbered(uid).name:
                return User(uid, uid)
    finally:
        os.close(fd)
    raise _all_taken(user)


def _places(user: User) -> Iterator[int]:
    """The place of its id within BROKER_IDS, and the next ones."""
    first = BROKER_IDS.index(user.uid)
    return ((first + step) % len(BROKER_IDS) for step in range(16))


def _all_taken(user: User) -> ConfigurationError:
    return _refused(f"the ids from {user.uid} on are all taken")


def _account(name: str) -> User | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return _checked(User(found.pw_uid, found.pw_gid, name))


def _numbered(uid: int) -> User:
    """A user by number; its group has the same number where no account says otherwise."""
    if uid > _MOST:
        raise _refused(f"{uid} is no user id")
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return _checked(User(uid, uid))
    return _checked(User(uid, found.pw_gid, found.pw_name))


def _checked(user: User) -> User:
    if user.uid == 0 or user.gid == 0:
        raise _refused(f"{user} is root, or of root's group")
    if _NOBODY in (user.uid, user.gid):
        raise _refused(f"{user} is whom the kernel shows for every id that it cannot")
    return user


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(
        "no_broker_user", f"the broker has no user to be: {why}", "name a system user of its own as [broker] user"
    )
