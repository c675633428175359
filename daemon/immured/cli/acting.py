"""Who the daemon sees. Root that acts for a user becomes that user before it connects: then host paths are opened with
that user's rights and files belong to them, and nothing rests on a claim."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING

from immured.cli.say import note
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["User", "become", "wanted"]


@dataclass(frozen=True)
class User:
    """A user to become. `groups` includes the primary one."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def wanted(as_user: str | None, environment: Mapping[str, str] = os.environ, uid: int | None = None) -> User | None:
    """Who to become: the user named by --as, else (as root under sudo) who called sudo; None to stay who we are.

    Raises ConfigurationError `unknown_user`, or `not_root` where a change would need it.
    """
    uid = os.geteuid() if uid is None else uid
    if as_user is not None:
        user = _look_up(as_user)
        if user.uid == uid:
            return None
        if uid != 0:
            raise ConfigurationError("not_root", f"only root can act as {user.name}", "sudo immure ...")
        return user
    caller = environment.get("SUDO_UID", "")
    if uid == 0 and caller.isdigit() and int(caller) != 0:
        return _look_up(caller)
    return None


def become(user: User, *, explicit: bool) -> None:
    """Take the user's groups and ids for good. The kernel makes such a process undumpable, so that the user's other
    processes cannot read from its memory a key that only root could."""
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    if not explicit:
        note(f"acting as {user.name} (uid {user.uid}), who called sudo; --as root stays root")


def _look_up(name: str) -> User:
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise ConfigurationError(
            "unknown_user", f"there is no user {name} on this host", "name one from `getent passwd`"
        ) from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))
