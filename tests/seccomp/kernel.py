"""The kernel's own word on a filter: asked call by call, or by running programs under it."""

from __future__ import annotations

import errno
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from immured._abi import lib

ROW = struct.Struct("=q6QQ")
COUNT = struct.Struct("=Q")
INSTRUCTION = struct.Struct("=HBBI")
RETURN = 0x06
ALLOWED = 4000
SAID_DONE = 5000  # ask.c's word for an answer of 0
"""Stands for an allowed call: an errno that the kernel never gives."""


def harmless(program: bytes) -> bytes:
    """The same filter, where what it allows fails with errno ALLOWED instead."""
    rows = (
        (code, jt, jf, lib.SECCOMP_RET_ERRNO | ALLOWED if code == RETURN and k == lib.SECCOMP_RET_ALLOW else k)
        for code, jt, jf, k in INSTRUCTION.iter_unpack(program)
    )
    return b"".join(INSTRUCTION.pack(*row) for row in rows)


def build_asker(directory: Path) -> Path:
    """Compile ask.c."""
    target = directory / "ask"
    source = Path(__file__).with_name("ask.c")
    subprocess.run(["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", source, "-o", target], check=True)
    return target


def ask(asker: Path, program: bytes, calls: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
    """The errno that each call gets under the harmless form of `program`: ALLOWED where it allows, SAID_DONE for 0."""
    table = COUNT.pack(len(calls)) + b"".join(
        ROW.pack(number, *(*arguments, *(0,) * 6)[:6], 0) for number, arguments in calls
    )
    memory, code = _memory(table), _memory(harmless(program))
    try:
        status = _spawn(asker, memory, code)
        assert os.WIFSIGNALED(status), f"the asker exited with {os.waitstatus_to_exitcode(status)}"
        assert os.WTERMSIG(status) in (signal.SIGILL, signal.SIGTRAP), "the filter killed the asker"
        answers = os.pread(memory, len(table), 0)
    finally:
        os.close(memory)
        os.close(code)
    given = [row[-1] for row in ROW.iter_unpack(answers[COUNT.size :])]
    assert all(given), f"call {given.index(0)} of the list was never answered"
    return given


def death_of(asker: Path, program: bytes, number: int) -> int:
    """The signal that ends a process which makes this one call under `program` as it is."""
    memory, code = _memory(COUNT.pack(1) + ROW.pack(number, *(0,) * 7)), _memory(program)
    try:
        status = _spawn(asker, memory, code)
    finally:
        os.close(memory)
        os.close(code)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def run_under(program: bytes, command: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a command under `program` in an empty directory."""
    code = directory / "filter"
    code.write_bytes(program)
    runner = [sys.executable, str(Path(__file__).with_name("under.py")), str(code), *command]
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"}
    return subprocess.run(
        runner, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def taken(programs: Sequence[bytes]) -> list[bool]:
    """Whether the kernel would take each of these programs."""
    given = b"".join(struct.pack("=I", len(program)) + program for program in programs)
    runner = [sys.executable, str(Path(__file__).with_name("takes.py"))]
    done = subprocess.run(runner, input=given, capture_output=True, timeout=120, check=True)
    answers = list(map(int, done.stdout.split()))
    assert set(answers) <= {errno.EBUSY, errno.EINVAL}, "the kernel looked at something else first"
    return [answer == errno.EBUSY for answer in answers]


def host_numbers_are(architecture: str) -> bool:
    """Whether this machine's calls are of this architecture."""
    return platform.machine() == architecture


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("ask", 0)
    os.write(descriptor, content)
    return descriptor


def _spawn(asker: Path, memory: int, code: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, memory, 3), (os.POSIX_SPAWN_DUP2, code, 4)]
    if {memory, code} & {3, 4}:
        raise AssertionError("descriptors 3 and 4 are pytest's")
    pid = os.posix_spawn(asker, [str(asker)], {}, file_actions=actions)
    return os.waitpid(pid, 0)[1]
