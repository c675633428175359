"""`chattr +a` on sealed segments of the ledger: from then on nobody changes or removes one but root, who asks for it.

Done as root at each start, as the broker may not, and undone there for what the operator does not keep any more. The
names and dates of files are looked at, and nothing that is in them: the broker wrote it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from immured.ledger.disk import is_append_only, set_append_only
from immured.ledger.segments import segment_names
from immured.service.broker_user import User

__all__ = ["fix", "let_go"]

_ABLE_NOT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS})


def fix(ledger: Path, user: User, retain_ms: int | None, now_ms: int) -> str:
    """Have every sealed segment that is the broker's be added to alone, but those that were written to last before
    `retain_ms` ago: these may be removed. Why it could not be done; empty where it was, or there is nothing to do."""
    try:
        for name, fd in _segments(ledger):
            facts = os.fstat(fd)
            if facts.st_uid != user.uid or facts.st_nlink != 1:
                continue
            expired = retain_ms is not None and facts.st_mtime_ns // 1_000_000 + retain_ms < now_ms
            try:
                set_append_only(fd, wanted=not expired)
            except OSError as error:
                return _why(ledger / name, error)
    except OSError as error:
        return f"{ledger}: {error.strerror}"
    return ""


def let_go(ledger: Path, user: User) -> None:
    """Have those that belong to others than `user` be like other files again, so that they can be given to him. Never
    raises: whoever needs it finds out."""
    try:
        for _, fd in _segments(ledger):
            if os.fstat(fd).st_uid != user.uid and is_append_only(fd):
                set_append_only(fd, wanted=False)
    except OSError:
        return


def _segments(ledger: Path) -> Iterator[tuple[str, int]]:
    with _opened(os.fspath(ledger), os.O_DIRECTORY, None) as directory:
        for name in segment_names(directory):
            with _opened(name, os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, directory) as fd:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    yield name, fd


@contextmanager
def _opened(path: str, flags: int, directory: int | None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _why(path: Path, error: OSError) -> str:
    if error.errno in _ABLE_NOT:
        return f"{path}: this file system has no chattr +a"
    if error.errno == errno.EPERM:
        return f"{path}: chattr +a takes CAP_LINUX_IMMUTABLE, which the daemon was started without"
    return f"{path}: {error.strerror}"
