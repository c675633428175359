"""A FUSE file system that never answers: what a hostile or broken server looks like to whoever opens a path in it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Self

MNT_FORCE, MNT_DETACH = 1, 2


class UnansweringMount:
    """Mounted at a directory that the test made; closing the device ends every request that waits in it."""

    def __init__(self, at: Path, *, uid: int) -> None:
        self.at = at
        self._uid = uid
        self._device = -1
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40755,user_id={self._uid},group_id={self._uid},allow_other"
        if self._libc.mount(b"unanswering", os.fsencode(self.at), b"fuse", 6, options.encode()) != 0:
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, os.strerror(number), str(self.at))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._device)
        self._libc.umount2(os.fsencode(self.at), MNT_FORCE | MNT_DETACH)
