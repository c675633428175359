"""Waiting for what comes to pass, and what a refusal was called."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.errors import ImmuredError

__all__ = ["code", "runs", "until"]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)


def runs(words: bytes) -> bool:
    """Whether a process with this command line, as /proc has it, lives on the host."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == words:
                return True
    return False


def code(error: pytest.ExceptionInfo[ImmuredError]) -> str:
    return error.value.code
