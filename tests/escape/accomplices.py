"""Those outside who help an idea, and the naive deputies of the controls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

TRIES: Final = 20_000

EXCHANGE = """
import ctypes, os, sys, time
one, other = map(os.fsencode, sys.argv[1:3])
libc = ctypes.CDLL(None, use_errno=True)
def exchange():
    if libc.renameat2(-100, one, -100, other, 2):
        sys.exit(os.strerror(ctypes.get_errno()))
exchange()
os.write(1, b"x")
while os.getppid() != 1:
    for _ in range(64):
        exchange()
        time.sleep(0.00005)
"""


class Exchanging:
    """A process of `uid` that exchanges two names, again and again, from the block's first moment until it is left."""

    def __init__(self, one: Path, other: Path, *, uid: int) -> None:
        self._names = (str(one), str(other))
        self._uid = uid

    def __enter__(self) -> Self:
        argv = ["/usr/bin/python3", "-BEsS", "-c", EXCHANGE, *self._names]
        uid = self._uid
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(
            argv, user=uid, group=uid, extra_groups=[], stdin=null, stdout=subprocess.PIPE, cwd="/"
        )
        assert self._process.stdout is not None
        with self._process.stdout as said:
            began = said.read(1) == b"x"
        assert began, f"it never began: {self._process.wait()}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        assert self._process.wait() == -signal.SIGKILL, "it stopped before its time"


def reads_by_a_look_and_an_open(path: Path) -> bytes:
    """What whoever looks first, and opens then, is given; tried until the link was in between."""
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode) and (content := path.read_bytes()) != b"a note\n":
                return content
    return b""


def writes_by_a_look_and_an_open(directory: Path, name: str, *, until: Path) -> None:
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(directory.lstat().st_mode):
                (directory / name).write_bytes(b"x")
        if until.exists():
            return


def connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
        return True
    return False


@contextmanager
def open_terminal() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    try:
        yield slave, os.ttyname(slave)
    finally:
        os.close(slave)
        os.close(master)


@contextmanager
def mounted(at: Path, kind: str = "tmpfs", *, flags: int = 6) -> Iterator[None]:
    """A small tmpfs (or /proc) at a directory of the test's own, nosuid and nodev unless `flags` say otherwise, shared
    with whoever copies it."""
    libc = ctypes.CDLL(None, use_errno=True)
    shared, detach = 1 << 20, 2
    options = b"size=64k,mode=755" if kind == "tmpfs" else None
    if libc.mount(b"immured-escape", os.fsencode(at), kind.encode(), flags, options) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(at))
    try:
        libc.mount(b"none", os.fsencode(at), None, shared, None)
        yield
    finally:
        libc.umount2(os.fsencode(at), detach)


LIBRARY = """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void)
{
  char name[64];
  snprintf(name, sizeof name, "/tmp/loaded-%d-%d", (int)getpid(), (int)getuid());
  close(open(name, O_CREAT | O_WRONLY, 0644));
}
"""


def compile_library(place: Path) -> bytes:
    """A library that leaves a mark wherever it is loaded."""
    source, library = place / "loaded.c", place / "loaded.so"
    source.write_text(LIBRARY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    return library.read_bytes()
