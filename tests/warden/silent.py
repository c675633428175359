"""A FUSE file system that starts like any other, takes the first request, and says nothing more.

A process whose request was taken waits for the answer in a way that no signal ends: SIGKILL included.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from pathlib import Path
from types import TracebackType

__all__ = ["SilentMount"]

INIT = 26
LARGEST = 1 << 18
HEADER = struct.Struct("=IIQQIIII")  # struct fuse_in_header
MNT_FORCE, MNT_DETACH = 1, 2


class SilentMount:
    """Mounted at a directory of the test's own. `taken` is set once a request was taken and will not be answered."""

    def __init__(self, at: Path, *, uid: int) -> None:
        self.at = at
        self.taken = threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40755,user_id={uid},group_id={uid},allow_other"
        if self._libc.mount(b"silent", os.fsencode(at), b"fuse", 6, options.encode()) != 0:
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, os.strerror(number), str(at))
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def __enter__(self) -> SilentMount:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Whoever waits for an answer gets an error. Twice is once."""
        if self._device < 0:
            return
        self._libc.umount2(os.fsencode(self.at), MNT_FORCE | MNT_DETACH)
        self._server.join()
        os.close(self._device)
        self._device = -1

    def _serve(self) -> None:
        try:
            while True:
                request = os.read(self._device, LARGEST)
                _, opcode, unique, *_ = HEADER.unpack_from(request)
                if opcode == INIT:
                    # struct fuse_init_out: version 7.31, then what a server that offers nothing says.
                    body = struct.pack("=IIIIHHIII", 7, 31, 65536, 0, 16, 12, 65536, 1, 0).ljust(64, b"\0")
                    os.write(self._device, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)
                else:
                    self.taken.set()
        except OSError:
            return
