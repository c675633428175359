"""The programs in C, compiled when they are needed, and how to ask one that answers line by line."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["Answering", "compiled"]

STATIC: Final = frozenset({"calls", "compute", "writer"})


@functools.cache
def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="immured-bench-"))
    directory.chmod(0o755)  # what is started as another user starts here
    atexit.register(shutil.rmtree, directory)
    return directory


@functools.cache
def compiled(name: str, *libraries: str) -> Path:
    """bench/programs/<name>.c as an executable, made once per run of the suite."""
    target = _directory() / name
    source = Path(__file__).with_name(f"{name}.c")
    flags = ["-O2", "-Wall", "-Wextra", *(["-static"] if name in STATIC else [])]
    subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", str(target), str(source), *libraries], check=True)
    return target


class Answering:
    """A program that answers each line on its stdin with one line of two numbers."""

    def __init__(self, name: str, command: Sequence[str], *, descriptors: Sequence[int] = ()) -> None:
        self._name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, pass_fds=descriptors
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")

    def answer(self) -> tuple[int, int]:
        """Waits for it. RuntimeError: the program ended instead."""
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if len(words) != 2:
            raise RuntimeError(f"{self._name} failed; it said why above")
        return int(words[0]), int(words[1])

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)
