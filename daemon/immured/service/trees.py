"""Directories full of strangers' files, removed whole: no depth, mode, link or name in them keeps one from going."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["remove_from", "remove_tree"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int, name: str | bytes) -> None:
    """Remove what is called `name` in the open directory `parent`, and all beneath it. What is not there is removed.

    Follows no link. At most two descriptors are open, however deep it goes: the way back is `..`, and it is checked to
    lead where we came from. Nobody else may be at work in there. Raises OSError.
    """
    name = os.fsencode(name)
    try:
        here = _enter(parent, name)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    above: list[tuple[bytes, os.stat_result]] = []
    try:
        while True:
            inner = _empty(here)
            if inner is not None:
                facts = os.fstat(here)
                below = _enter(here, inner)
                os.close(here)
                here = below
                above.append((inner, facts))
            elif above:
                inner, facts = above.pop()
                back = os.open("..", _DIRECTORY, dir_fd=here)
                os.close(here)
                here = back
                if not os.path.samestat(os.fstat(here), facts):
                    raise OSError("the directory was moved while it was removed")
                os.rmdir(inner, dir_fd=here)
            else:
                break
    finally:
        os.close(here)
    os.rmdir(name, dir_fd=parent)


def remove_from(directory: Path, name: str) -> None:
    """`remove_tree` of `name` in the directory of that path. Raises OSError."""
    fd = os.open(directory, _DIRECTORY)
    try:
        remove_tree(fd, name)
    finally:
        os.close(fd)


def _enter(parent: int, name: bytes) -> int:
    """The directory, which is its owner's to change from now on. Raises NotADirectoryError, also for a link."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        raise NotADirectoryError(error.errno, error.strerror, name) from error
    # Of root's, such as a directory that the daemon made there: its parent is ours, and it is empty or fails.
    with contextlib.suppress(PermissionError):
        os.fchmod(fd, 0o700)
    return fd


def _empty(directory: int) -> bytes | None:
    """Removes the files in it; the first directory that holds something, or None once it is empty."""
    while True:
        names = 0
        with os.scandir(directory) as entries:
            for entry in entries:
                names += 1
                name = os.fsencode(entry.name)
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(name, dir_fd=directory)
                    continue
                try:
                    os.rmdir(name, dir_fd=directory)
                except OSError:
                    return name
        if names == 0:
            return None
