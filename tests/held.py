"""A process held at a moment that a test names: as it opens a file, or as it enters a call of the kernel's.

Nobody has to be quick then, and nothing depends on who was: fanotify asks before a file is opened, and ptrace stops who
was asked about at each of its calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.patience import PATIENCE_S

__all__ = ["RENAMES", "Asked", "Traced", "asked_before_opening", "traced"]

RENAMES: Final = frozenset({264, 316})
"""renameat, as which a C library makes a renameat2 without flags, and renameat2."""

_FAN_CLASS_CONTENT, _FAN_CLOEXEC, _FAN_NONBLOCK = 4, 1, 2
_FAN_MARK_ADD, _FAN_OPEN_PERM, _FAN_ONDIR, _FAN_ALLOW, _AT_FDCWD = 1, 0x10000, 0x40000000, 1, -100
_EVENT: Final = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_RESPONSE: Final = struct.Struct("=iI")

_PTRACE_SYSCALL, _PTRACE_DETACH, _PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_PEEKUSER = 24, 17, 0x4206, 0x4207, 3
_PTRACE_O_TRACESYSGOOD, _WALL = 1, 0x40000000
_ORIG_RAX: Final = 15 * 8

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Asked:
    """Whoever opens one of the files waits until the test has let him, or asks about them no more."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._group = _LIBC.fanotify_init(_FAN_CLASS_CONTENT | _FAN_CLOEXEC | _FAN_NONBLOCK, os.O_RDONLY)
        if self._group < 0:
            raise OSError(ctypes.get_errno(), "fanotify_init")
        self._opened: set[int] = set()
        try:
            for path in paths:
                mask = ctypes.c_uint64(_FAN_OPEN_PERM | _FAN_ONDIR)
                if _LIBC.fanotify_mark(self._group, _FAN_MARK_ADD, mask, _AT_FDCWD, os.fsencode(path)) < 0:
                    raise OSError(ctypes.get_errno(), "fanotify_mark", str(path))
        except BaseException:
            self.close()
            raise

    def who(self, over: Callable[[], bool] = lambda: False) -> tuple[int, int] | None:
        """Who opens one, as this process counts processes, and what `let` is to be told; None once it is `over`."""
        waiting = select.poll()
        waiting.register(self._group, select.POLLIN)
        for _ in range(int(PATIENCE_S * 20)):
            if waiting.poll(50):
                _, _, _, _, _, opened, pid = _EVENT.unpack(os.read(self._group, _EVENT.size))
                self._opened.add(opened)
                return pid, opened
            if over():
                return None
        raise AssertionError("nobody opened it in time")

    def let(self, opened: int) -> None:
        """He goes on."""
        os.write(self._group, _RESPONSE.pack(opened, _FAN_ALLOW))
        self._opened.remove(opened)
        os.close(opened)

    def close(self) -> None:
        """Whoever waits goes on, and nobody is asked about any more."""
        if self._group >= 0:
            os.close(self._group)
            self._group = -1
        while self._opened:
            os.close(self._opened.pop())


@contextlib.contextmanager
def asked_before_opening(*paths: Path) -> Iterator[Asked]:
    """While it lasts. The test itself opens none of them."""
    asked = Asked(paths)
    try:
        yield asked
    finally:
        asked.close()


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    found: int = _LIBC.ptrace(request, pid, address, data)
    if found == -1 and (error := ctypes.get_errno()):
        raise OSError(error, os.strerror(error))
    return found


class Traced:
    """A process whose calls are looked at by this very thread: the kernel lets no other."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.over = False
        self.calls = 0
        """How many it has entered."""
        self._inside = self._stopped = False
        _ptrace(_PTRACE_SEIZE, pid, 0, _PTRACE_O_TRACESYSGOOD)
        _ptrace(_PTRACE_INTERRUPT, pid)

    def goes_on_until(self, wanted: Callable[[int], object]) -> bool:
        """To where it enters a call of which that is so: it is given the call's number. False: it ended before."""
        while self._stops():
            if self._inside:
                self.calls += 1
                if wanted(_ptrace(_PTRACE_PEEKUSER, self.pid, _ORIG_RAX)):
                    return True
        return False

    def kill(self) -> None:
        """It does not make the call that it is about to."""
        if not self.over:
            os.kill(self.pid, signal.SIGKILL)
            while self._waits():
                pass

    def let_go(self) -> None:
        """It goes on as if nobody had looked. Somebody else may have ended it: only who traces it learns so."""
        if not self.over:
            try:
                _ptrace(_PTRACE_DETACH, self.pid)
            except ProcessLookupError:
                while self._waits():
                    pass
            self.over = True

    def _stops(self) -> bool:
        """It goes on to where it enters a call or leaves one."""
        if not self._stopped and not self._waits():  # by PTRACE_INTERRUPT
            return False
        self._stopped = True
        with contextlib.suppress(ProcessLookupError):  # somebody else ended it
            _ptrace(_PTRACE_SYSCALL, self.pid)
            while (stop := self._waits()) and stop != signal.SIGTRAP | 0x80:
                _ptrace(_PTRACE_SYSCALL, self.pid, 0, 0 if stop == signal.SIGTRAP else stop)
            self._inside = not self._inside
            return bool(stop)
        while self._waits():
            pass
        return False

    def _waits(self) -> int:
        """The signal that it stopped by; 0: it is over."""
        _, status = os.waitpid(self.pid, _WALL)
        self.over = not os.WIFSTOPPED(status)
        return 0 if self.over else os.WSTOPSIG(status)


@contextlib.contextmanager
def traced(pid: int) -> Iterator[Traced]:
    """It is let go of where the test has not ended it."""
    one = Traced(pid)
    try:
        yield one
    finally:
        one.let_go()
