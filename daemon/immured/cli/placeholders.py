"""Names that are to stay missing in a workspace, held by empty directories of the caller's for as long as a run lasts.

A manifest's own way of holding a name is an empty file, which git takes for a broken `.git` and lists as a new file. An
empty directory it passes over: it goes on to the repository above, and lists nothing. Several runs at once share one;
the last to end removes it. What a killed one leaves is an empty directory, which the next run there shares and removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator

__all__ = ["MODE", "held"]

MODE = 0o1700
"""By which they are known: nobody gives a directory that only he enters a sticky bit. `git init` works in one."""


_TRIES = 200
_PAUSE_S = 0.01
"""Together longer than who removes one holds it alone, and no longer than anybody may have us wait."""


@contextlib.contextmanager
def held(paths: Iterable[str]) -> Iterator[None]:
    """Makes what is missing of these, as who we are. What cannot be made is left to the manifest.

    Each `path` is absolute, and free of symbolic links: whoever may write on the way could have us make, and remove,
    directories elsewhere.
    """
    with contextlib.ExitStack() as stack:
        for path in paths:
            parent, name = os.path.split(path)
            above = _open_real(parent)
            if above is None:
                continue
            stack.callback(os.close, above)
            found = _hold(above, name)
            if found is not None:
                stack.callback(_release, above, name, found)
        yield


def _open_real(path: str) -> int | None:
    """A descriptor of a directory, reached by no link; None."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open("/", flags)
    for name in path.split("/"):
        if not name:
            continue
        above = at
        try:
            at = os.open(name, flags, dir_fd=above)
        except OSError:
            return None
        finally:
            os.close(above)
    return at


def _hold(above: int, name: str) -> int | None:
    """A descriptor of the directory, locked as shared; None for what is not ours to hold."""
    for _ in range(_TRIES):
        try:
            os.mkdir(name, MODE, dir_fd=above)
        except FileExistsError:
            pass
        except OSError:
            return None
        try:
            found = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except FileNotFoundError:  # removed meanwhile by whoever held it
            continue
        except OSError:
            return None
        if not _is_placeholder(found):  # somebody's own, and none of ours to remove, or to wait for
            os.close(found)
            return None
        try:
            fcntl.flock(found, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # whoever held it before is removing it
            os.close(found)
            time.sleep(_PAUSE_S)
            continue
        if os.fstat(found).st_nlink:
            return found
        os.close(found)  # and has removed it meanwhile
    return None


def _is_placeholder(found: int) -> bool:
    state = os.fstat(found)
    return stat.S_IMODE(state.st_mode) == MODE and state.st_uid == os.geteuid()


def _release(above: int, name: str, found: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(name, dir_fd=above, follow_symlinks=False), os.fstat(found)):
            os.rmdir(name, dir_fd=above)
    os.close(found)
