"""A FUSE file system that never answers: what a hostile or broken server looks like to whoever opens a path in it."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.patience import PATIENCE_S

MNT_FORCE, MNT_DETACH = 1, 2
IN_HEADER, OUT_HEADER = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
INIT = struct.Struct("=IIIIHHIIHHI28x")  # struct fuse_init_out, as of 7.36 and before
LARGEST = 1 << 17


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

    def was_asked(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether somebody waits for its answer: comes back as soon as somebody does. Once only."""
        self._begin()
        return bool(select.select([self._device], [], [], patience_s)[0])

    def _begin(self) -> None:
        """The one answer that it gives: until then the kernel keeps whatever is asked to itself."""
        asked = os.read(self._device, LARGEST)
        _, _, unique, *_ = IN_HEADER.unpack_from(asked)
        answer = INIT.pack(7, 31, 0, 0, 0, 0, 4096, 0, 0, 0, 0)
        os.write(self._device, OUT_HEADER.pack(OUT_HEADER.size + len(answer), 0, unique) + answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._device)
        self._libc.umount2(os.fsencode(self.at), MNT_FORCE | MNT_DETACH)
