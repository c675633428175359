"""A FUSE file system of one file, `f`, whose server answers all but the requests that it is told to leave alone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["FLUSH", "GETATTR", "BalkingMount"]

# Opcodes of linux/fuse.h.
LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
OPEN: Final = 14
STATFS: Final = 17
RELEASE: Final = 18
FLUSH: Final = 25
INIT: Final = 26

_HEADER: Final = struct.Struct("<IIQQIIII")
_ROOT, _FILE = 1, 2
_INIT_EXT, _ALLOW_IDMAP = 1 << 30, 1 << (40 - 32)


class BalkingMount:
    """Mounted at a directory that the test made; closing the device ends every request that waits in it.

    `uid` owns all of it, `mode` is the file's. `mapped`: its ids may be mapped by who mounts it elsewhere (Linux 6.12).
    """

    def __init__(self, at: Path, *, uid: int = 0, mode: int = 0o100644, mapped: bool = False) -> None:
        self.file = at / "f"
        self._uid, self._mode, self._mapped = uid, mode, mapped
        self.ignored: set[int] = set()
        self._at = at
        self._device = -1
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40755,user_id=0,group_id=0,allow_other"
        options += ",default_permissions" if self._mapped else ""
        if self._libc.mount(b"balking", os.fsencode(self._at), b"fuse", 6, options.encode()) != 0:
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, os.strerror(number), str(self._at))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Aborts the connection first: the serving thread sleeps in a read of the device.
        self._libc.umount2(os.fsencode(self._at), 3)
        os.close(self._device)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                request = os.read(self._device, 1 << 17)
                _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
                if opcode in self.ignored or opcode == FORGET:
                    continue
                failed, body = self._answer(opcode, node, request[_HEADER.size :])
                os.write(self._device, struct.pack("<IiQ", 16 + len(body), -failed, unique) + body)

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == INIT:
            flags = (_INIT_EXT, _ALLOW_IDMAP) if self._mapped else (0, 0)
            return 0, struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, flags[0], 1, 1, 1 << 16, 1, 0, 0, flags[1])
        if opcode == LOOKUP and body.rstrip(b"\0") == b"f":
            return 0, struct.pack("<QQQQII", _FILE, 1, 0, 0, 0, 0) + self._attributes(_FILE)
        if opcode == GETATTR:
            return 0, struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if opcode == OPEN:
            return 0, struct.pack("<QII", 1, 0, 0)
        if opcode == STATFS:
            return 0, bytes(80)
        if opcode in (FLUSH, RELEASE):
            return 0, b""
        return (errno.ENOENT if opcode == LOOKUP else errno.ENOSYS), b""

    def _attributes(self, node: int) -> bytes:
        mode = 0o40755 if node == _ROOT else self._mode
        return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, self._uid, self._uid, 0, 4096, 0)
