"""Sealed memory files: bytes that nobody can change any more, the writer included."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

__all__ = ["sealed_memfd"]

_MFD_EXEC: Final = 0x10  # Linux 6.3; asked for because the host's vm.memfd_noexec may make the other the default
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_memfd(name: str, data: bytes, *, executable: bool = False) -> int:
    """A close-on-exec descriptor of a sealed memory file that holds `data`, its offset at 0. The caller closes it.

    Raises OSError (ENOMEM, EMFILE, ...), with nothing left open.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | (_MFD_EXEC if executable else 0))
    except OSError as error:
        if not executable or error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
